"""Aim 1: processor time of the whole path of a frame over that of the stock model's bare run, both on one thread.

Ours: frame → letterbox → network → boxes → event → outbox (telemetry), in the pipeline's own loop. Theirs:
`session.run` of the stock file on a tensor that lies ready, nothing before it and nothing behind it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edge_agent.figures.coco_map import Doubles, iou
from edge_agent.outbox.outbox import Outbox
from edge_agent.paths import home
from edge_agent.tasks import make_task
from edge_agent.types import Detections, Finding, Floats, Frame, Task
from edge_agent.uri import Uri
from edge_agent.walk.event import SampleOrFinding, to_event
from edge_agent.walk.pipeline import Stats, run
from edge_agent.walk.report import reporter
from tests.bench.measure import Row, Took, in_turns, ms, ratio
from tests.bench.setup import DETECTORS, SHAPED, Place, again, plain, served

SAME = 0.05
"""pixels between two boxes that are the same one"""


def rows(place: Place, quick: bool) -> Iterator[Row]:
    frames = place.frames()
    for name in place.here((*DETECTORS, *(f"{shaped}-int8" for shaped in SHAPED))):
        serves, took, answers = _measure(place, name, frames, 5 if quick else 20)
        shaped = name.removesuffix("-int8") in SHAPED
        yield Row(
            1,
            f"{name}: whole path / bare run, CPU, one thread",
            ratio(took["ours"].cpu, took["bare"].cpu),
            target=0.96 if shaped else 1.05,
            ours=ms(took["ours"].cpu),
            theirs=ms(took["bare"].cpu),
            note=f"{serves}; {_told(*answers)}",
        )


def _told(same: int, boxes: int, apart: float, alike: int) -> str:
    """How many boxes are those of the stock file: the same numbers, or another network's for the same things."""
    if alike > same:
        return f"{alike} of {boxes} boxes overlap one of the stock file's by half and more, {same} are the same"
    return f"{same} of {boxes} boxes are the stock file's (at most {apart:.2g} pixels apart)"


def _measure(
    place: Place, name: str, frames: list[Frame], rounds: int
) -> tuple[str, dict[str, Took], tuple[int, int, float, int]]:
    model = served(place, name, threads=1)
    task = make_task(Uri("detect", name), lambda _: model, home())
    stock = make_task(Uri("detect", name), lambda _: plain(place, name), home())
    answers = _compare(task, stock, frames)
    bare, feed = default_run(place, name, threads=1)
    shown = again(frames)
    with tempfile.TemporaryDirectory() as folder:
        box = Outbox(Path(folder), "bench")

        def keep(found: SampleOrFinding) -> None:
            box.put(to_event(found, "bench"), "telemetry")

        def ours() -> int:
            run([next(shown) for _ in range(units)], [task], reporter("every"), keep, Stats())
            return units

        def theirs() -> int:
            for _ in range(units):
                bare.run(None, feed)
            return units

        units = 1
        one = in_turns({"bare": theirs}, 2)["bare"].cpu
        # long enough for the clock of the processor time, short enough to meet the same neighbours
        units = max(2, round(0.25 / min(one)))
        try:
            file = next(row for row in model.why.split("; ") if " on " in row).partition(" (")[0]
            return file, in_turns({"ours": ours, "bare": theirs}, rounds), answers
        finally:
            box.close()


def default_run(place: Place, name: str, threads: int = 0) -> tuple[ort.InferenceSession, dict[str, Floats]]:
    """A session of the stock file with nothing set but, perhaps, its threads; and an input of noise for it."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    path = place.model(name)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    noise = np.random.default_rng(0).random(given.shape, np.float32)
    return session, {given.name: noise}


def _compare(task: Task, stock: Task, frames: list[Frame]) -> tuple[int, int, float, int]:
    """How many of the stock file's boxes are among ours, of how many, and by how many pixels they differ at most; how
    many of them one of ours overlaps by half (IoU). Boxes are of one class.
    """
    same = boxes = alike = 0
    apart = 0.0
    for frame in frames[:: max(1, len(frames) // 10)]:
        ours, theirs = _boxes(task, frame), _boxes(stock, frame)
        boxes += max(len(ours), len(theirs))
        if not len(ours) or not len(theirs):
            continue
        other = theirs.label[:, None] != ours.label[None]
        far = np.abs(theirs.xyxy[:, None] - ours.xyxy[None]).max(axis=2)
        far[other] = np.inf
        nearest = far.min(axis=1)
        hits = nearest < SAME
        same += int(hits.sum())
        apart = max(apart, float(nearest[hits].max(initial=0)))
        overlap = iou(_xywh(theirs), _xywh(ours), np.zeros(len(ours), bool))
        overlap[other] = 0
        alike += int((overlap.max(axis=1) >= 0.5).sum())
    return same, boxes, apart, alike


def _xywh(found: Detections) -> Doubles:
    return np.concatenate([found.xyxy[:, :2], found.xyxy[:, 2:] - found.xyxy[:, :2]], axis=1).astype(np.float64)


def _boxes(task: Task, frame: Frame) -> Detections:
    (found,) = task(frame)
    assert isinstance(found, Finding) and isinstance(found.what, Detections)
    return found.what
