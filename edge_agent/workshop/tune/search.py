"""What `tune` tries and how it chooses: every variant at every size that its graph can take, then the threshold."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx_ir as ir

from edge_agent.errors import ModelError
from edge_agent.figures.coco_map import FoundBoxes, f1_by_picture
from edge_agent.gate.opened import input_of
from edge_agent.manifest import File, Input, Served
from edge_agent.registry import store
from edge_agent.registry.files import Located, file_path, parts_of
from edge_agent.tasks.detect.compare import boxes
from edge_agent.types import Frame
from edge_agent.workshop.data.calibration import Samples, Say
from edge_agent.workshop.data.feed import served_by
from edge_agent.workshop.data.pictures import match_classes
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, shape
from edge_agent.workshop.quantize.search import Memory

SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25)
"""of the input's sides that are tried, rounded to STEP"""
STEP = 32
"""what the strides of a detector divide"""
Open = Callable[[File, Input | None, Path], Served]
THRESHOLDS = tuple(i / 100 for i in range(10, 65, 5))


@dataclass(slots=True)
class Candidate:
    """One file at one size."""

    name: str
    row: File
    path: Path
    input: Input | None
    served: Served
    accuracy: float = math.nan
    median_ms: float = math.nan
    threshold: float | None = None
    """the score that does best, of the chosen one; None where it stays as it is"""


# ── what is tried ────────────────────────────────────────────────────────────────────────────────────────


def opened(located: Located, threads: int, row: File, input: Input | None, path: Path) -> Served:
    """The variant `row` in the file `path`, for pictures as `input` says."""
    shaped = msgspec.structs.replace(located.manifest, input=input)
    return score.open_file(shaped, path, row.format, parts_of(located), threads)


def candidates(
    located: Located,
    rows: list[File],
    open: Open,
    sizes: tuple[int, ...] | None,
    work: Path,
    notes: list[str],
    say: Say,
) -> list[Candidate]:
    """Each of `rows`, variants that may serve, at every size that it can take; what cannot be is noted."""
    manifest, found = located.manifest, list[Candidate]()
    given = {_label(row, input_of(manifest, row)) for row in rows}
    for number, row in enumerate(rows):
        say("opening", number, len(rows))
        own, path = input_of(manifest, row), file_path(located, row)
        served = msgspec.structs.replace(open(row, own, path), input=own)
        found.append(Candidate(_label(row, own), row, path, own, served))
        if own is not None and row.format == "onnx" and manifest.task == "detect":
            others = [msgspec.structs.replace(own, width=w, height=h) for w, h in tried_sizes(sizes, own)]
            new = [one for one in others if _label(row, one) not in given]
            found += _resized(row, path, open, new, work, notes)
    say("opening", len(rows), len(rows))
    return found


def _resized(row: File, source: Path, open: Open, inputs: list[Input], work: Path, notes: list[str]) -> list[Candidate]:
    """The ONNX variant in the file `source` at other sizes, up to the first that it cannot take."""
    found: list[Candidate] = []
    for input in inputs:
        size = f"{input.width}x{input.height}"
        path = work / f"{Path(row.name).stem}.{size}.onnx"
        try:
            path.write_bytes(resized(source, input.width, input.height))
            served = open(row, input, path)
            # ModelError where the head does not fit the size: its cells are written into the graph
            list(served_by(served)(Frame(np.zeros((64, 64, 3), np.uint8), 0.0, 0.0)))
        except ModelError as error:
            notes.append(f"{row.name} at {size}: {error}")
            break
        found.append(Candidate(_label(row, input), row, path, input, served))
    return found


def tried_sizes(sizes: tuple[int, ...] | None, own: Input) -> list[tuple[int, int]]:
    """(width, height) of the sizes other than its own; the longer side is what --sizes means."""
    longest = max(own.width, own.height)
    wanted = [size / longest for size in sizes] if sizes else list(SHARES)
    found = []
    for part in wanted:
        width, height = (max(STEP, round(side * part / STEP) * STEP) for side in (own.width, own.height))
        if (width, height) != (own.width, own.height) and (width, height) not in found:
            found.append((width, height))
    return found


def _label(row: File, input: Input | None) -> str:
    return f"{row.name} {input.width}x{input.height}" if input is not None else row.name


# ── measuring and choosing ───────────────────────────────────────────────────────────────────────────────


def measure(
    found: list[Candidate],
    parent: Served,
    searched: Samples,
    work: Path,
    say: Say,
    others: Callable[[Any], Future[Any]] | None = None,
) -> None:
    """Accuracy of each; what an earlier run measured on the same files and samples is taken from `work`. `others` are
    workers, asked for the accuracy of (row, input, path).
    """
    abouts = [[store.digest(one.path), one.name, parent.manifest] for one in found]
    value, memory = score.against(parent, searched), Memory(work, [searched.sha256], others)
    points = [(one.row, one.input, one.path) for one in found]
    memory.ahead("accuracy", list(zip(abouts, points, strict=True)))
    for number, (about, one) in enumerate(zip(abouts, found, strict=True)):
        say("measuring", number, len(found))
        one.accuracy = memory("accuracy", about, partial(value, one.served))
    say("measuring", len(found), len(found))


def best(found: list[Candidate], now: Candidate, max_ms: float | None, name: str) -> Candidate:
    """The most accurate in time, of equals the faster. ModelError where none is in time."""
    # without a limit: what serves now is in time by definition, whatever the clock's noise says
    limit = now.median_ms if max_ms is None else max_ms
    within = [c for c in found if c.median_ms <= limit]
    if not within:
        fast = min(found, key=lambda c: c.median_ms)
        raise ModelError(
            f"{name}: nothing runs in {limit:g} ms here; the fastest is {fast.name} with {fast.median_ms:.1f} ms"
        )
    return max(within, key=lambda c: (round(c.accuracy, 4), -c.median_ms))


def threshold(served: Served, parent: Served, searched: Samples) -> float | None:
    """The score with the highest mean F1 of a picture at IoU 0.5; of equals the nearest to what it has. None: it is no
    detector.
    """
    if served.manifest.task != "detect":
        return None
    manifest, frames = served.manifest, [item for item in searched.items if isinstance(item, Frame)]
    ids = match_classes(searched.names or parent.manifest.names(), manifest.names())
    truth = searched.truth
    if truth is None:
        truth = boxes(parent, frames, parent.manifest.score, ids).as_truth()
    found = boxes(served, frames, min(THRESHOLDS), ids)
    f1 = {}
    for threshold in sorted({*THRESHOLDS, manifest.score}):
        keep = found.score >= threshold
        some = FoundBoxes(found.image[keep], found.label[keep], found.xywh[keep], found.score[keep])
        f1[threshold] = round(float(f1_by_picture(truth, some, sorted(set(ids.values())), len(frames)).mean()), 4)
    return max(f1, key=lambda t: (f1[t], -abs(t - manifest.score)))


# ── another input size ───────────────────────────────────────────────────────────────────────────────────


def resized(path: Path, width: int, height: int) -> bytes:
    """The file for pictures of another size: sizes that are written into the graph are made to follow its input.

    A graph of convolutions works at any size that its strides divide. What stands in the way are numbers that an export
    wrote down: the input's shape, and the Reshapes before the head's output. ModelError, one line, where the grid of
    cells itself is a constant (boxes decoded in the graph for one size).
    """
    model = net.read(path)
    for node in model.graph:
        if node.op_type == "Reshape":
            _follow(model, node)
        elif node.op_type in ("Resize", "Upsample") and net.constant(node, 3) is not None:
            _by_factor(model, node)
    _set_input(path, model, width, height)
    for value in model.graph.outputs:
        if value.shape is not None:  # only the batch of the outputs stays
            value.shape = ir.Shape([value.shape[0], *(f"{value.name}_{axis}" for axis in range(1, len(value.shape)))])
    made = net.proto(model)
    try:
        onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(made)
    except net.FAULTS as error:
        why = " ".join(str(error).split())[-120:]
        raise ModelError(f"{path}: made for one size of picture, {width}x{height} does not fit ({why})") from None
    return bytes(made.SerializeToString())


def _set_input(path: Path, model: ir.Model, width: int, height: int) -> None:
    """Give the one input, a picture, another size. ModelError where there is no such input."""
    inputs = list(model.graph.inputs)
    before = shape(inputs[0]) if len(inputs) == 1 else None
    if before is None or len(before) != 4:
        raise ModelError(f"{path}: does not take one picture, so it has no size to change")
    channels_last = before[3] == 3 and before[1] != 3
    new = list(inputs[0].shape)
    for axis, size in zip((1, 2) if channels_last else (2, 3), (height, width), strict=True):
        new[axis] = size
    inputs[0].shape = ir.Shape(new)


def _follow(model: ir.Model, node: ir.Node) -> None:
    """In a Reshape of maps, replace the number of cells (or the length of a side) by "what is left"."""
    sizes, came = net.constant(node, 1), shape(node.inputs[0]) or ()
    if sizes is None or len(came) < 3 or None in came or (sizes == -1).any():
        return
    axis = _cells_axis(sizes, came)
    if axis is not None:
        sizes = sizes.copy()
        sizes[axis] = -1
        node.replace_input_with(1, net.hold(model.graph, f"{node.outputs[0].name}.shape.free", sizes))


def _cells_axis(sizes: Array, came: tuple[int | None, ...]) -> int | None:
    """Which of a Reshape's sizes is the number of cells of what came in; None where none or several may be."""
    cells = int(np.prod([length or 0 for length in came[2:]]))
    if cells <= 1 or (len(came) == 4 and cells == came[1]):
        return None
    axes = np.flatnonzero(sizes == cells)
    return int(axes[0]) if len(axes) == 1 else None


def _by_factor(model: ir.Model, node: ir.Node) -> None:
    """In a Resize, replace the size by its ratio to what came in."""
    sizes, came = net.constant(node, 3), shape(node.inputs[0]) or ()
    if sizes is not None and len(came) == len(sizes) and None not in came:
        factors = np.array(sizes, np.float32) / np.array(came, np.float32)
        node.replace_input_with(2, net.hold(model.graph, f"{node.outputs[0].name}.factor", factors))
        node.resize_inputs(3)
