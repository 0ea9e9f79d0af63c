"""What a bare .onnx or .tflite file is, with a reason for each conclusion.

Shapes tell the family, the file's own words and graph tell how its input is meant. What they leave open is tried on
proof pictures or sentences by `look` (edge_agent.gate.worth), and the candidate that makes sense is kept; where none
does the file is refused with what was seen. Families that this program cannot run are named and not added.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from edge_agent.families.guess import shape
from edge_agent.graphs import onnx_file, tflite_file
from edge_agent.graphs.graph import FileGraph, clean, one_line
from edge_agent.inspect import kinds
from edge_agent.inspect.model_file import ModelFile
from edge_agent.inspect.refusals import not_served, unknown
from edge_agent.inspect.text import HEADS, encoder, head
from edge_agent.inspect.vision import read_picture
from edge_agent.inspect.worth import TryReading
from edge_agent.manifest import Seen
from edge_agent.types import Net, TensorSpec


def read_graph(path: Path) -> tuple[FileGraph, str]:
    """The file's graph and metadata, and why there is none ("" when there is)."""
    try:
        return (onnx_file.read(path) if path.suffix.lower() == ".onnx" else tflite_file.read(path)), ""
    except (OSError, ValueError, struct.error) as error:
        return FileGraph(), f"graph and metadata cannot be read ({error})"


def inspect(path: Path, net: Net, look: TryReading | None = None, told: Mapping[str, str] = {}) -> Seen:
    """Say what the network in this file is. `told`: what the user says of its input: scale, mean, std, channels.

    Without `look`, what is open is taken as the family is trained, and a reason says so. Raises RefusedError, one
    line with the shapes, for no known family.
    """
    graph, trouble = read_graph(path)
    seen = _read(ModelFile(path, net, replace(graph, told=told), look))
    licence = clean(graph.meta.get("license") or graph.meta.get("licence") or "")
    notes = [
        trouble,
        f"licence {licence}: the file's metadata states it" if licence else "",
        *(note for spec in (*net.inputs, *net.outputs) for note in _notes(spec)),
    ]
    reasons = [one_line(reason) for reason in (*seen.reasons, *filter(None, notes))]
    return replace(seen, licence=licence or "unknown", reasons=reasons, refusal=one_line(seen.refusal, 1000))


def _notes(spec: TensorSpec) -> Iterator[str]:
    """What an integer tensor stands for, and whether its size is open."""
    if spec.scale and spec.dtype in ("int8", "uint8"):
        low, high = [(v - spec.zero_point) * spec.scale for v in ((0, 255) if spec.dtype == "uint8" else (-128, 127))]
        yield f"{spec.name} is {spec.dtype}: {low:.4g}..{high:.4g} in steps of {spec.scale:.4g}"
    if any(axis is None for axis in spec.shape):
        yield f"{spec.name} {shape(spec)} has dynamic axes"


def _read(file: ModelFile) -> Seen:
    """Ask what goes in: a picture, token ids, or anything else."""
    inputs = file.net.inputs
    if len(inputs) == 1 and len(inputs[0].shape) == 4:
        return read_picture(file)
    if kinds.is_text(file.net, file.graph):
        return _text(file)
    kind = kinds.two_inputs(file.net) or kinds.hidden(file.net) or kinds.sound(file.net) or kinds.vector(file.net)
    if kind is None:
        raise unknown(file, "neither one picture nor token ids go in")
    if kind.task == "anomaly":
        return Seen("anomaly", kind.family, [f"family {kind.family}: {kind.why}"])
    return not_served(file, kind)


def _text(file: ModelFile) -> Seen:
    kind = kinds.text(file.net, file.graph)
    if kind is None:
        raise unknown(file, "token ids go in, but no output is a vector a token or a text")
    if kind.family == "bert":
        return encoder(file, kind)
    return head(file, kind) if kind.family in HEADS else not_served(file, kind)
