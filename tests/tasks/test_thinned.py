"""A detector that looks at a share of the frames, and a tracker that says where things are in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from edge_agent.events.objects import Tracked
from edge_agent.recorder.shown import Shown
from edge_agent.tasks.detect.thinned import Thinned
from edge_agent.tasks.track.track import Track
from edge_agent.tasks.track.tracker import Rules
from edge_agent.types import Detections, Finding, Frame, ModelRef

NAMES = {0: "person"}


class Walker(msgspec.Struct):
    """A detector of one person who walks 40 pixels a second to the right."""

    size: float = 1.0
    score: float = 0.3
    looks: list[float] = []
    takes: tuple[type, ...] = (Frame,)

    def __call__(self, item: Frame) -> Iterator[Finding]:
        self.looks.append(item.mono)
        box = np.array([[50 + 40 * item.mono, 100, 90 + 40 * item.mono, 200]], np.float32)
        what = Detections(box, np.array([0.9], np.float32), np.zeros(1, np.int32), NAMES, self.score)
        yield Finding(item, what, ModelRef("walker", f"{self.size}", ""), {"infer": 1.0})


def frames(count: int, fps: float = 10) -> Iterator[Frame]:
    for number in range(count):
        yield Frame(np.zeros((240, 640, 3), np.uint8), number / fps, number / fps)


def walk(thin: Thinned, count: int = 40) -> list[Any]:
    track = Track(Rules(hits=3))
    return [out.what for frame in frames(count) for found in thin(frame) for out in track(found)]


def test_boxes_are_moved_on_between_two_looks() -> None:
    whole = walk(Thinned(Walker(looks=[]), lambda things: (1.0, 1.0)))
    for often in (1 / 2, 1 / 3):
        detector = Walker(looks=[])
        thinned = walk(Thinned(detector, lambda things, often=often: (1.0, often)))  # type: ignore[misc]
        assert len(detector.looks) == round(40 * often) + (often < 1 / 2), "a share of the frames, evenly"
        for number in range(15, 40):
            one, other = whole[number], thinned[number]
            assert isinstance(one, Tracked) and isinstance(other, Tracked)
            assert other.object.tolist() == other.alive.tolist() == [1] and one.object.tolist() == [1]
            assert abs(float(one.xyxy[0, 0] - other.xyxy[0, 0])) < 2.5, "held, it would be 4 and 8 pixels behind"
            assert other.skipped == (number / 10 not in detector.looks)


def test_how_it_looks_depends_on_what_is_in_view() -> None:
    asked, large, small = list[float](), Walker(looks=[]), Walker(0.5, looks=[])

    def plan(things: float) -> tuple[float, float]:
        asked.append(things)
        return 0.5, 1.0

    thin = Thinned(large, plan, {0.5: small})
    walk(thin, 4)
    assert asked[0] > 1 and asked[1:] == [1, 1, 1], "at first it may be anything"
    assert not large.looks and len(small.looks) == 4
    thin.others = {}
    walk(thin, 4)
    assert len(large.looks) == 4, "the whole one stands in"
    thin.others = {0.5: small}
    thin.score = 0.4
    assert large.score == small.score == thin.score == 0.4


def test_what_was_not_looked_at_is_neither_shown_nor_kept() -> None:
    thin, track, shown = Thinned(Walker(looks=[]), lambda things: (1.0, 0.5)), Track(Rules(hits=1)), Shown(["person"])
    for frame in frames(8):
        found = [out for one in thin(frame) for out in track(one)]
        shown.watch(frame, found)
        (one,) = found
        assert isinstance(one.what, Tracked)
        picture = shown(frame, found)
        assert (picture is None) == one.what.skipped, "nobody looked for what is to be hidden"


def test_nothing_is_learned_between() -> None:
    track = Track(Rules(hits=1))
    thin = Thinned(Walker(looks=[]), lambda things: (1.0, 0.25))
    for frame in frames(9):
        for found in thin(frame):
            list(track(found))
    assert track.tracker is not None
    before = track.tracker._rows.copy()
    assert len(track.tracker.between(1.5).id) == 1 and np.array_equal(before, track.tracker._rows)
