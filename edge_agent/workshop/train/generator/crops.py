"""Small pictures to learn from: a folder of crops as they are, or what a detector finds in pictures and films."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, UsageError
from edge_agent.manifest import Input
from edge_agent.paths import home
from edge_agent.pictures.boxes import letterbox
from edge_agent.serving.models import Models
from edge_agent.sources import open_source
from edge_agent.tasks import make_task
from edge_agent.types import Detections, Finding, Floats, Frame, Pixels, Task
from edge_agent.uri import Uri, parse_uri

LEAST, MOST = 64, 20_000
"""crops: with fewer nothing is learnt but themselves; all are kept in memory"""
SMALLEST = 24
"""pixels of a box's longer side: what is smaller shows nothing at 64"""
GROWN = 1.2
"""times its longer side is the square that is cut around a box"""

Squares = npt.NDArray[np.uint8]
"""(n, side, side, 3), red first"""


def read_crops(data: Path, detector: str | None, side: int, every: int, say: Callable[[str], None]) -> Squares:
    """At most MOST squares of `side` pixels, each frame of a film counted, of which every `every`th is looked at.

    `detector`: a model's name; its boxes are cut out as squares. None: each picture is a crop, stretched where it is no
    square. UsageError for a model that is no detector, InputError for too few crops.
    """
    task = None if detector is None else _task(detector)
    found: list[Pixels] = []
    for number, frame in enumerate(_frames(data)):
        if number % every:
            continue
        found += [small(part, side) for part in (_cut(task, frame) if task else [frame.image])]
        if len(found) >= MOST:
            say(f"{MOST} crops are enough; the rest of {data} is left out")
            break
    if len(found) < LEAST:
        more = "" if task else ", or --detector NAME, which cuts them out of pictures"
        raise InputError(f"{data}: {len(found)} crops; give {LEAST} or more{more}")
    return np.stack(found[:MOST])


def _task(detector: str) -> Task:
    return make_task(parse_uri(f"detect:{detector}"), Models(pull=True).serve, home())


def _frames(data: Path) -> Iterator[Frame]:
    if not data.exists():
        raise UsageError(f"--data {data}: no such folder or film")
    yield from (item for item in open_source(Uri("files", str(data))).run(threading.Event()) if isinstance(item, Frame))


def _cut(task: Task, frame: Frame) -> Iterator[Pixels]:
    """Around each box a square that lies in the picture."""
    for finding in task(frame):
        if isinstance(finding, Finding) and isinstance(finding.what, Detections):
            for box in finding.what.xyxy:
                if max(box[2] - box[0], box[3] - box[1]) >= SMALLEST:
                    yield square(frame.image, box)


def square(image: Pixels, box: Floats) -> Pixels:
    """The square around a box (left, top, right, bottom), moved into the picture; smaller where that has no room."""
    height, width = image.shape[:2]
    side = int(min(GROWN * max(box[2] - box[0], box[3] - box[1]), width, height))
    left = int(np.clip((box[0] + box[2] - side) / 2, 0, width - side))
    top = int(np.clip((box[1] + box[3] - side) / 2, 0, height - side))
    return image[top : top + side, left : left + side]


def small(image: Pixels, side: int) -> Pixels:
    """A picture as (side, side, 3), red first."""
    out = np.empty((side, side, 3), np.uint8)
    letterbox(np.ascontiguousarray(image), Input(side, side, letterbox="stretch", resize="area"), out)
    return np.ascontiguousarray(out[:, :, ::-1])
