"""The best picture of each object so far, and of each alert that is of no object. Of one pipeline, on its thread.

How good one is: the square of the score, times the root of the size (up to a point) and of the share that no other box
covers, times sharpness (up to a point), less where the edge cuts the thing off. Figures: docs/snapshots.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError
from edge_agent.events import AnomalyEvent, DetectionsEvent, Event, rfc3339
from edge_agent.events.objects import Tracked
from edge_agent.pictures.draw import draw, jpeg
from edge_agent.pictures.read import cv2
from edge_agent.recorder.pictures import Pictures
from edge_agent.types import Detections, Finding, Frame, Pixels, Sample
from edge_agent.walk.event import SampleOrFinding
from edge_agent.walk.pipeline import Show

MOST_BYTES = 64_000
"""of a snapshot"""
SIDE, WHOLE_SIDE = 640, 1280
"""pixels of the longer side of a part of a frame, and of a whole one, at most"""
QUALITIES = (85, 70, 50, 30)
"""of its JPEG: the first that is small enough"""
MARGIN, LEAST = 0.15, 16
"""what is seen around a thing: so much of its sides, or pixels"""
ENOUGH = 0.25
"""square root of the share of the frame from which on a thing is large enough"""
CUT_OFF = 0.6
"""how good a picture is that the frame's edge cuts off, against one that it does not"""
SOFT = 300.0
"""variance of the Laplacian at which sharpness counts half"""
BLUNT, CRISP = 0.2, 0.7
"""how sharp a picture counts as that is not sharp at all, and how sharp is enough"""
LOOK = 96
"""pixels of the longer side at which sharpness is compared: so that size is no part of it"""
MOST_A_FRAME = 8
"""pictures that are taken of one frame, those that gain most: what a crowd may cost"""
PENDING_BYTES = 16_000_000
"""of pictures that no event has named yet"""
APART_S = 1.0
"""seconds at least between two pictures of alerts that are of no object"""


@dataclass(slots=True)
class _Best:
    """Of one object."""

    worth: float = 0.0
    sharp: float = 0.5
    data: bytes = b""
    """better than what is on disk, and not there yet"""
    name: str = ""
    """of what is"""


class Album:
    """`watch` sees each frame before its events are made, `of` and `of_frame` name the pictures in these."""

    def __init__(self, pictures: Pictures, show: Show, whole: bool) -> None:
        """`show`: a frame as it may be shown; `whole`: all of it, the box drawn in, not the part that the box is of."""
        self._pictures, self._show, self._whole = pictures, show, whole
        self._best: dict[int, _Best] = {}
        self._pending = 0
        """bytes"""
        self._alive: set[int] = set()
        self._last: tuple[Frame, Sequence[SampleOrFinding]] | None = None
        self._taken_at = -APART_S

    def watch(self, sample: Sample, found: Sequence[SampleOrFinding]) -> None:
        """A frame, and what was found in it."""
        if not isinstance(sample, Frame):
            return
        things = [item.what for item in found if isinstance(item, Finding) and isinstance(item.what, Tracked)]
        if any(what.skipped for what in things):
            return
        self._last = sample, found
        for what in things:
            self._see(sample, what, found)

    # ── objects ──────────────────────────────────────────────────────────────────────────────────────────

    def of(self, number: int) -> str:
        """The name of an object's best picture so far, which is on disk then; "" where there is none."""
        best = self._best.get(number)
        if best is None:
            return ""
        if best.data:
            data, best.data = best.data, b""
            self._pending -= len(data)
            best.name = self._kept(data, best.name) or best.name
        return best.name if best.name and self._pictures.path(best.name) else ""

    def _see(self, frame: Frame, what: Tracked, found: Sequence[SampleOrFinding]) -> None:
        """Take those that are better than what there is; forget objects that are gone, whose ends were told."""
        alive = set(what.alive.tolist())
        for number in self._best.keys() - alive - self._alive:
            self._pending -= len(self._best.pop(number).data)
        self._alive = alive
        bests = [self._best.setdefault(number, _Best()) for number in what.object.tolist()]
        # as sharp as before and a third more, at most: most need not be looked at
        hoped = _worths(what.xyxy, what.score, frame) * [min(1.0, 1.3 * best.sharp) for best in bests]
        gain = hoped - [best.worth for best in bests]
        image = None
        for at in np.argsort(-gain)[:MOST_A_FRAME].tolist():
            if gain[at] <= 0:
                return
            image = self._show(frame, found) if image is None else image
            if image is None:
                return
            self._look(bests[at], frame, what, at, image)

    def _look(self, best: _Best, frame: Frame, what: Tracked, at: int, image: Pixels) -> None:
        """Take a picture of one object, if it is better."""
        part = _part(image, what, at)
        sharp = _sharpness(part)
        alone = float(_worths(what.xyxy[at : at + 1], what.score[at : at + 1], frame)[0])
        worth = alone * sharp * (1 - _covered(what, at)) ** 0.5
        if worth <= best.worth:
            best.sharp = sharp
            return
        data = small_jpeg(_boxed(image, what, at), WHOLE_SIDE) if self._whole else small_jpeg(part, SIDE)
        if self._pending + len(data) - len(best.data) <= PENDING_BYTES:
            self._pending += len(data) - len(best.data)
            best.worth, best.sharp, best.data = worth, sharp, data

    # ── alerts of no object ──────────────────────────────────────────────────────────────────────────────

    def of_frame(self, event: Event) -> str:
        """The name of a picture of its frame, where an event is one of things in view or of something unusual in the
        frame that was watched last; "" for any other.
        """
        if not _wants_frame(event) or time.monotonic() - self._taken_at < APART_S:
            return ""
        image = self._frame_of(event)
        if image is None:
            return ""
        self._taken_at = time.monotonic()
        return self._kept(small_jpeg(image, WHOLE_SIDE))

    def _frame_of(self, event: Event) -> Pixels | None:
        """The frame that an event is of, what was found in it drawn in; None where that is another one."""
        if self._last is None or event.at != rfc3339(self._last[0].at):
            return None
        frame, found = self._last
        image = self._show(frame, found)
        for item in found:
            if image is not None and isinstance(item, Finding) and isinstance(item.what, Detections):
                image = draw(image, item.what) if item.of is frame else image
        return image

    def _kept(self, data: bytes, name: str = "") -> str:
        """The name under which it is on disk; "" where the disk refuses."""
        name = name or self._pictures.name()
        return name if self._pictures.keep(name, data) else ""


def _wants_frame(event: Event) -> bool:
    """Whether it is an alert that a picture of the frame says more of."""
    if isinstance(event, DetectionsEvent):
        return bool(event.detections) and event.detections[0].object is msgspec.UNSET
    return isinstance(event, AnomalyEvent) and event.unusual is True


def _worths(xyxy: npt.NDArray[np.float32], score: npt.NDArray[np.float32], frame: Frame) -> npt.NDArray[np.float64]:
    """What each box is worth by its score and size, less at the frame's edge."""
    sides = (xyxy[:, 2:] - xyxy[:, :2]).astype(np.float64)
    share = np.sqrt(np.maximum(0.0, sides.prod(axis=1)) / (frame.width * frame.height))
    cut = (xyxy[:, :2] <= 1).any(axis=1) | (xyxy[:, 2:] >= [frame.width - 1, frame.height - 1]).any(axis=1)
    return np.asarray(score**2 * np.sqrt(np.minimum(1.0, share / ENOUGH) * np.where(cut, CUT_OFF, 1.0)), np.float64)


def _covered(what: Tracked, at: int) -> float:
    """The share of a box that the one which covers most of it covers, of those that count by themselves."""
    near = what.near if what.near is not None else what
    mine, others = what.xyxy[at], near.xyxy[near.score >= near.sure]
    others = others[(others != mine).any(axis=1)]
    both = np.minimum(others[:, 2:], mine[2:]) - np.maximum(others[:, :2], mine[:2])
    return float(np.maximum(0, both).prod(axis=1).max(initial=0.0) / max(1.0, float((mine[2:] - mine[:2]).prod())))


def _sharpness(image: Pixels) -> float:
    """How sharp a picture is, 0..1, by the variance of its Laplacian at one size."""
    if not image.size:
        return 0.0
    height, width = image.shape[:2]
    scale = LOOK / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    edges = cv2.Laplacian(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), cv2.CV_32F)
    spread = float(np.var(edges))
    return min(1.0, (BLUNT + (1 - BLUNT) * spread / (spread + SOFT)) / CRISP)


def _part(image: Pixels, what: Detections, at: int) -> Pixels:
    """What is in a box, with a margin."""
    box = what.xyxy[at].astype(np.float64)
    margin = np.maximum(LEAST, MARGIN * (box[2:] - box[:2]))
    height, width = image.shape[:2]
    left, top = np.floor(np.maximum(box[:2] - margin, 0)).astype(int).tolist()
    right, bottom = np.ceil(np.minimum(box[2:] + margin, [width, height])).astype(int).tolist()
    return image[top:bottom, left:right]


def _boxed(image: Pixels, what: Detections, at: int) -> Pixels:
    """All of it, with a box drawn in."""
    one = slice(at, at + 1)
    return draw(image, Detections(what.xyxy[one], what.score[one], what.label[one], what.names))


def small_jpeg(image: Pixels, side: int) -> bytes:
    """A JPEG of at most MOST_BYTES and `side` pixels a side. InputError for a picture without pixels."""
    height, width = image.shape[:2]
    if not height or not width:
        raise InputError("a picture without pixels")
    scale = side / max(height, width)
    while True:
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            fitted = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        else:
            fitted = np.ascontiguousarray(image)
        for quality in QUALITIES:
            data = jpeg(fitted, quality)
            if len(data) <= MOST_BYTES:
                return data
        scale = min(scale, 1.0) / 2
