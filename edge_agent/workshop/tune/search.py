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
from edge_agent.workshop.quantize.search import Memory
from edge_agent.workshop.tune.size import resized

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
