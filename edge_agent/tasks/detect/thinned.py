"""A detector before `track` that looks at a share of the frames, larger or smaller, by how much is in view; in between,
the tracker says where things are.

It takes a detector's place while processor time is to be saved (agent/governing.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from edge_agent.types import Detections, Finding, Frame, Task

RECENT = 8
"""looks of which the one with the most in it counts"""


class Thinned(msgspec.Struct):
    """The task. One camera, one thread; `plan` and what is in `others` may be set by another one at any time."""

    detector: Any
    """`Detector` or `Watched`, whole"""
    plan: Callable[[float], tuple[float, float]]
    """things in view -> side of the pictures that it sees, of the input's own; share of the frames, above 0"""
    others: dict[float, Task] = {}
    """side -> a detector of that size; one that is not there is stood in for by the whole one"""
    tried: set[float] = msgspec.field(default_factory=set)
    """sides that were asked for, whether or not they could be had"""
    last: Finding | None = None
    due: float = 1.0
    """a frame is looked at when this reaches 1"""
    recent: deque[int] = msgspec.field(default_factory=lambda: deque(maxlen=RECENT))
    takes: tuple[type, ...] = (Frame,)

    @property
    def score(self) -> float:
        """The detector's."""
        return float(self.detector.score)

    @score.setter
    def score(self, value: float) -> None:
        for one in (self.detector, *self.others.values()):
            one.score = value

    @property
    def gives_names(self) -> list[str]:
        """The labels that its boxes may have."""
        names: list[str] = self.detector.gives_names
        return names

    def __call__(self, item: Frame) -> Iterable[Finding]:
        """As of the detector; of a frame that is not looked at, a Finding of no boxes that says so."""
        side, often = self.plan(max(self.recent, default=RECENT))
        look, self.due = self.due >= 1, min(1.0, self.due - (self.due >= 1) + often)
        if not look and self.last is not None:
            return [msgspec.structs.replace(self.last, of=item, spent_ms={"decode": item.decode_ms})]
        return self._look(self.others.get(side, self.detector), item)

    def _look(self, detector: Task, item: Frame) -> Iterator[Finding]:
        for found in detector(item):
            assert isinstance(found, Finding)
            what = found.what
            assert isinstance(what, Detections)
            self.recent.append(int(np.count_nonzero(what.score >= what.sure)))
            none = slice(0, 0)
            empty = msgspec.structs.replace(
                what, xyxy=what.xyxy[none], score=what.score[none], label=what.label[none], skipped=True
            )
            self.last = msgspec.structs.replace(found, what=empty)
            yield found
