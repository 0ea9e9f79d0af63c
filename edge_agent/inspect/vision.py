"""What a network is into which one picture goes: a detector, a classifier, an autoencoder, or none that is served."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.families.guess import Guess, shape
from edge_agent.families.heads import heads
from edge_agent.families.table import RUNS
from edge_agent.graphs.graph import FileGraph
from edge_agent.inspect import kinds, names, picture
from edge_agent.inspect.classifier import read_classifier, with_input
from edge_agent.inspect.detector import read_detector
from edge_agent.inspect.model_file import ModelFile
from edge_agent.inspect.refusals import not_served, unknown
from edge_agent.manifest import MOST_SIDE, Seen
from edge_agent.types import Net, Tensors, TensorSpec


def read_picture(file: ModelFile) -> Seen:
    """Layout and size of the input, then the head by what comes out. RefusedError for no known family."""
    spec = file.net.inputs[0]
    order, why = picture.layout(spec, file.graph, file.tflite)
    if order is None:
        return _colourless(file, why)
    reasons = [f"layout {order}: {why}"]
    width, height, why = picture.size(spec, order, file.net.outputs, file.graph.meta)
    if max(width, height) > MOST_SIDE:
        most = f"sides up to {MOST_SIDE} pixels are served"
        raise RefusedError(f"{file.path}: a picture of {width}x{height} goes in; {most}")
    reasons.append(f"size {width}x{height}: {why}")
    outputs, why = _outputs(file.net, (1, 3, height, width) if order == "NCHW" else (1, height, width, 3))
    reasons += [why] if why else []
    base = {"width": width, "height": height, "layout": order}
    return _by_outputs(replace(file, net=msgspec.structs.replace(file.net, outputs=outputs)), base, reasons)


def _by_outputs(file: ModelFile, base: dict[str, Any], reasons: list[str]) -> Seen:
    """A detector where a head fits the outputs, with or without the names that the file states; else what it is."""
    outputs, width, height = file.net.outputs, base["width"], base["height"]
    stated, where = names.stated(file.graph, file.path)
    guesses = _worded(file.graph, heads(outputs, width, height, len(stated), file.graph.meta.get("task", "")))
    if not guesses and stated:
        nameless = heads(outputs, width, height)
        if misnamed := _misnamed(file, nameless, where):
            return misnamed
        guesses = [replace(guess, why=f"{guess.why}, though {where}") for guess in nameless]
    kind = kinds.picture(file.net, base["layout"])
    if not guesses or (kind is not None and kind.family == "ocr-recogniser"):
        return _no_detector(file, kind, base, reasons)
    return _some_detector(file, guesses, base, reasons)


def _colourless(file: ModelFile, why: str) -> Seen:
    """A picture without three colours, or what has the shape of one."""
    kind = kinds.picture(file.net, "NCHW" if file.net.inputs[0].shape[1] == 1 else "NHWC")
    if kind is None:
        raise unknown(file, why)
    if kind.task == "recognise":
        grey = "one number a point goes in, as of a sound's spectrum (keyword spotting) or of a grey picture"
        kind = kinds.Kind(kind.task, "one-channel", f"{kind.why}, and {grey}", kind.classes)
    return not_served(file, kind, why)


def _misnamed(file: ModelFile, guesses: list[Guess], where: str) -> Seen | None:
    """The refusal of a detector beside which the user put names of another number of classes."""
    for guess in guesses:
        if guess.family in RUNS and guess.classes and (puzzle := names.unfit(where, guess.classes)):
            why = f"family {guess.family}: {guess.why}"
            return Seen("detect", guess.family, [why], refusal=f"{file.path}: {puzzle}")
    return None


def _no_detector(file: ModelFile, kind: kinds.Kind | None, base: dict[str, Any], reasons: list[str]) -> Seen:
    if kind is None:
        size = f"{base['width']}x{base['height']}"
        raise unknown(file, f"the outputs are of no head that is known at {size}")
    if kind.family == "image-classifier":
        return read_classifier(file, kind, base, reasons)
    if kind.task == "anomaly":
        made = Seen("anomaly", kind.family, [f"family {kind.family}: {kind.why}", *reasons])
        return with_input(file, made, picture.ways(file.net.inputs[0], file.graph, kind.family, base))
    return _shown(file, kind, base, reasons)


def _some_detector(file: ModelFile, guesses: list[Guess], base: dict[str, Any], reasons: list[str]) -> Seen:
    spec = file.net.inputs[0]
    served = [guess for guess in guesses if guess.family in RUNS]
    if not served:
        return _shown(file, kinds.of_guess(guesses[0]), base, reasons)
    if spec.shape[0] not in (None, 1):
        refusal = f"{file.path}: takes {spec.shape[0]} pictures at once; export it with a batch of 1 or a dynamic one"
        return Seen("detect", served[0].family, [f"family {served[0].family}: {served[0].why}"], refusal=refusal)
    return read_detector(file, guesses, base, reasons)


def _outputs(net: Net, size: tuple[int, ...]) -> tuple[tuple[TensorSpec, ...], str]:
    """The outputs; where the file leaves an axis of them open, with what two runs on a picture of `size` gave (None
    for what differs between them), and why. What cannot be run stays as it is.
    """
    axes = [axis for spec in net.outputs for axis in spec.shape[1:]]
    if None not in axes and all(spec.shape for spec in net.outputs):
        return net.outputs, ""
    runs = _two_runs(net, size)
    found = [filled for output in net.outputs if (filled := _as_given(output, runs))]
    if len(found) < len(net.outputs):
        return net.outputs, ""
    return tuple(found), f"outputs: the file leaves axes open, a run gives {', '.join(shape(s) for s in found)}"


def _two_runs(net: Net, size: tuple[int, ...]) -> list[Tensors]:
    """What a black picture and noise of `size` give; [] where they cannot be run."""
    (spec,) = net.inputs
    noise = np.random.default_rng(0).integers(0, 127, size)
    try:
        return [net.run({spec.name: tensor.astype(spec.dtype)}) for tensor in (np.zeros(size), noise)]
    except (EdgeAgentError, TypeError, ValueError):
        return []


def _as_given(output: TensorSpec, runs: Sequence[Tensors]) -> TensorSpec | None:
    """The output with the shape that two runs gave; None where they gave none, or of another number of axes."""
    given = [run[output.name].shape for run in runs if output.name in run]
    if len(given) != 2 or len(given[0]) != len(given[1]):
        return None
    one, other = given
    dims = tuple(a if a == b else None for a, b in zip(one, other, strict=True))
    # one picture went in, of whatever number it takes
    first = output.shape[:1] if len(output.shape) == len(dims) else ()
    return msgspec.structs.replace(output, shape=(*(first or dims[:1]), *dims[1:]))


def _worded(graph: FileGraph, guesses: list[Guess]) -> list[Guess]:
    """Those of the guesses that the exporter's own words allow."""
    meta = graph.meta
    queries = "rtdetr" in meta.get("description", "").lower().replace("-", "")
    corners = meta.get("end2end") == "True" or re.search(r"['\"]nms['\"]: True", meta.get("args", ""))
    some = [g for g in guesses if not (queries and g.family == "end2end") and not (corners and g.family != "end2end")]
    return some or guesses


def _shown(file: ModelFile, kind: kinds.Kind, base: dict[str, Any], reasons: list[str]) -> Seen:
    """A family that is not served, with what the file says of its input, where it says it."""
    seen = not_served(file, kind, *reasons)
    ways = picture.ways(file.net.inputs[0], file.graph, seen.family, base)
    stated = [reason for reason in ways.reasons if not reason.startswith("letterbox")]
    stated += ["scale: nothing in the file says"] if ways.ranges else []
    stated += ["channels: nothing in the file says"] if ways.orders else []
    return replace(seen, reasons=[*seen.reasons, *stated], input=None if ways.is_open else ways.first)
