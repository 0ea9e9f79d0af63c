"""The lives of things: new, changed, in zones, over lines, gone, and what a restart knows of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edge_agent.config import Pipeline
from edge_agent.config.zones import Zone
from edge_agent.events import JSON, CrossingEvent, DetectionsEvent, Event, ObjectEvent
from edge_agent.events.objects import Tracked
from edge_agent.types import Finding, Frame, ModelRef
from edge_agent.walk.follow import RETURN_S, Follow
from edge_agent.walk.path import MOST
from edge_agent.walk.report import Report
from edge_agent.walk.zones import Area

NAMES = {0: "person", 2: "car"}
WIDE, HIGH = 400, 300
MODEL = ModelRef("m", "1", "0" * 64)
IMAGE = np.zeros((HIGH, WIDE, 3), np.uint8)


def seen(
    clock: float,
    feet: Mapping[int, tuple[float, float]],
    *,
    label: int = 0,
    still: bool | set[int] = False,
    alive: Iterable[int] = (),
    image: object = IMAGE,
) -> Finding:
    """Objects 20 wide and 40 high that stand there."""
    n = len(feet)
    boxes = np.array([[x - 10, y - 40, x + 10, y] for x, y in feet.values()], np.float32).reshape(n, 4)
    what = Tracked(
        xyxy=boxes,
        score=np.full(n, 0.8, np.float32),
        label=np.full(n, label, np.int32),
        names=NAMES,
        object=np.array([*feet], np.int32),
        still=np.array([key in still if isinstance(still, set) else still for key in feet], bool),
        alive=np.array([*feet, *alive], np.int32),
    )
    return Finding(Frame(image, 1.8e9 + clock, time.monotonic(), played=clock), what, MODEL)  # type: ignore[arg-type]


def events(follow: Follow, *found: Finding | None) -> list[Event]:
    """The events of these frames, through JSON; None: the source has ended."""
    out: list[Event] = []
    report = Report(Pipeline("yard", "camera:0"), True, lambda event, *_: out.append(event), print, bool, follow=follow)
    for one in found:
        for item in report.worth(None if one is None else [one]):
            report.keep(item)
    return [JSON.decode(JSON.encode(event)) for event in out]


def lives(follow: Follow, *found: Finding | None) -> list[ObjectEvent]:
    return [event for event in events(follow, *found) if isinstance(event, ObjectEvent)]


def walk(*corners: tuple[float, float], start: float = 0.0, seconds: float = 10.0, fps: int = 10) -> Iterator[Finding]:
    """One thing that goes from corner to corner, so many seconds each."""
    n = round(seconds * fps)
    for leg, ((ax, ay), (bx, by)) in enumerate(pairwise(corners)):
        for step in range(n):
            part = step / n
            yield seen(start + (leg * n + step) / fps, {1: (ax + (bx - ax) * part, ay + (by - ay) * part)})


HALF = Zone("half", [(0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)])
LINE = Zone("gate", [(0.5, 0.2), (0.5, 0.9)], line=True)


def test_a_life_begins_and_ends_once() -> None:
    follow = Follow("yard", [], None)
    found = [seen(0, {1: (50, 100)}), seen(1, {1: (52, 100), 2: (300, 200)}), seen(2, {2: (300, 200)}, alive=[1])]
    first, second, gone = lives(follow, *found, seen(5, {2: (300, 200)}))
    assert [e.phase for e in (first, second, gone)] == ["new", "new", "end"]
    assert first.object == gone.object != second.object
    assert gone.seconds == 1 and gone.why == "" and gone.box == (42, 60, 62, 100) and gone.label == "person"
    assert first.since == gone.since == "2027-01-15T08:00:00.000Z" and first.width == WIDE
    assert follow.counts["all"] == {"person": 1}
    (last,) = lives(follow, None)
    assert last.phase == "end" and last.object == second.object and "stopped" in last.why and last.seconds == 4
    assert follow.counts["all"] == {}
    assert not lives(follow, None)


def test_ids_are_never_used_again() -> None:
    one, other = (lives(Follow("yard", [], None), seen(0, {1: (9, 99)}))[0].object for _ in range(2))
    assert one != other


def test_updates_are_told_on_real_change_and_not_often() -> None:
    rng = np.random.default_rng(1)
    standing = [seen(n / 10, {1: (50 + rng.normal(), 100 + rng.normal())}, still=n > 100) for n in range(600)]
    told = lives(Follow("yard", [], None), *standing)
    assert [(e.phase, e.stationary) for e in told] == [("new", False), ("update", True)]
    told = lives(Follow("yard", [], None), *walk((20, 100), (380, 100), seconds=60))
    assert [e.phase for e in told] == ["new"] + ["update"] * 5, "it goes on: every ten seconds"


def test_the_path_is_short_and_true() -> None:
    corners = (20.0, 60.0), (380.0, 60.0), (380.0, 280.0), (20.0, 280.0)
    *_, end = lives(Follow("yard", [], None), *walk(*corners, seconds=30), None)
    assert len(end.path) <= MOST
    for x, y in corners[:3]:
        assert min(abs(x - px) + abs(y - py) for px, py in end.path) < 25, end.path
    assert end.path[0] == corners[0] and end.path[-1] == pytest.approx((21.2, 280), abs=1)


def test_zones_are_entered_and_left_and_dwelled_in() -> None:
    told = lives(Follow("yard", [HALF], None), *walk((100, 100), (300, 100), (100, 100)), None)
    assert [(e.entered, e.left, e.zones) for e in told if e.entered or e.left] == [
        (["half"], [], ["half"]),
        ([], ["half"], []),
    ]
    # 10 s behind the edge, less and more a tenth of its height, at 20 pixels a second
    assert told[-1].dwell["half"] == pytest.approx(10, abs=0.3) and told[-1].phase == "end"


def test_at_the_edge_of_a_zone_nothing_flickers() -> None:
    rng = np.random.default_rng(2)
    found = [seen(n / 10, {1: (200 + rng.normal(), 100 + rng.normal())}) for n in range(300)]
    assert len(lives(Follow("yard", [HALF], None), *found)) == 1


def test_by_overlap_and_at_the_lower_edge() -> None:
    zone = Zone("shelf", [(0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5)], by="overlap")
    area = Area(zone)
    boxes = np.array([[0, 100, 20, 140], [0, 130, 20, 170], [0, 135, 20, 175], [0, 160, 20, 200]], np.float64)
    assert area.states(boxes, (WIDE, HIGH)) == [1, 1, 0, -1]
    bottom = Area(Zone("floor", [(0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0)]))
    assert bottom.states(np.array([[0, 240.0, 20, 300]]), (WIDE, HIGH)) == [1], "cut off by the picture's edge"


def test_a_concave_zone_and_its_depth() -> None:
    area = Area(Zone("u", [(0, 0), (0.25, 0), (0.25, 0.5), (0.75, 0.5), (0.75, 0), (1, 0), (1, 1), (0, 1)]))
    points = np.array([[50.0, 50], [200, 50], [200, 200], [350, 50], [500, 50]])
    assert np.allclose(area.depth(points, (400, 300)), [50, -100, 50, 50, -100])


def test_who_stays_too_long_loiters_once() -> None:
    zone = Zone("half", HALF.points, stays="20s")
    told = lives(Follow("yard", [zone], None), *(seen(n / 5, {1: (300, 100)}, still=n > 50) for n in range(400)), None)
    loiters = [e for e in told if e.loiters]
    assert len(loiters) == 1 and loiters[0].dwell["half"] == pytest.approx(20, abs=0.3)


def test_labels_of_a_zone() -> None:
    zone = Zone("half", HALF.points, labels=["Car"])
    follow = Follow("yard", [zone], None)
    assert lives(follow, seen(0, {1: (300, 100)}))[0].zones == []
    assert lives(follow, seen(1, {1: (300, 100), 2: (320, 100)}, label=2))[-1].zones == ["half"]


@pytest.mark.parametrize(
    ("corners", "ways"),
    [
        (((100, 100), (300, 100)), ["out"]),
        (((300, 100), (100, 100)), ["in"]),
        (((100, 100), (300, 100), (100, 100)), ["out", "in"]),
        (((100, 50), (300, 50)), []),  # above its upper end
        (((100, 100), (198, 100), (100, 100)), []),  # not so far
    ],
)
def test_lines_are_crossed_by_direction(corners: tuple[tuple[float, float], ...], ways: list[str]) -> None:
    follow = Follow("yard", [LINE], None)
    told = [event for event in events(follow, *walk(*corners)) if isinstance(event, CrossingEvent)]
    assert [event.direction for event in told] == ways
    assert follow.counts["lines"]["gate"]["in"] == ({"person": ways.count("in")} if "in" in ways else {})
    assert all(event.line == "gate" and event.label == "person" for event in told)


def test_who_stands_on_a_line_crosses_it_no_more_than_once() -> None:
    rng = np.random.default_rng(3)
    found = [seen(n / 10, {1: (200 + rng.normal(), 150)}) for n in range(300)]
    assert not [e for e in events(Follow("yard", [LINE], None), *found) if isinstance(e, CrossingEvent)]


# ── restarts ─────────────────────────────────────────────────────────────────────────────────────────────


def test_after_a_kill_what_moved_is_ended_and_what_stands_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "objects.json"
    before = Follow("yard", [HALF], file)
    car, other = lives(before, seen(0, {1: (300, 100), 7: (50, 200)}, label=2, still={1}))
    # no end was told: it was killed
    after = Follow("yard", [HALF], file)
    found = seen(0.2, {}), seen(0.4, {4: (301, 100)}, label=2, still=True), seen(0.6, {4: (301, 100)}, still=True)
    end, back = lives(after, *found)
    assert (end.phase, end.object, end.label) == ("end", other.object, "car") and "before it could tell" in end.why
    assert (back.phase, back.object, back.since, back.stationary) == ("update", car.object, car.since, True)
    assert lives(after, seen(9, {4: (301, 100)}, label=2), seen(99, {}))[-1].object == car.object


def test_after_a_stop_what_stands_is_no_news(tmp_path: Path) -> None:
    file = tmp_path / "objects.json"
    before = Follow("yard", [], file)
    parked = [seen(n, {1: (300, 100)}, label=2, still=n > 10) for n in range(20)]
    told = lives(before, *parked, None)
    assert [e.phase for e in told] == ["new", "update", "end"]
    again = lives(Follow("yard", [], file), *(seen(n, {3: (302, 100)}, label=2, still=n > 10) for n in range(20)), None)
    assert [e.phase for e in again] == ["update", "update", "end"] and {e.object for e in again} == {told[0].object}
    assert again[0].since == told[0].since
    # another label, another place, or too late: something new
    for label, foot, clock in ((0, (300, 100), 0), (2, (200, 100), 0), (2, (300, 100), RETURN_S + 2)):
        other = Follow("yard", [], file)
        new, _ = lives(other, seen(0, {}), seen(clock, {3: foot}, label=label), None)
        assert new.phase == "new" and new.object != told[0].object


def test_what_stood_at_a_kill_and_is_not_found_again_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "objects.json"
    (new,) = lives(Follow("yard", [], file), seen(0, {1: (300, 100)}, label=2, still=True))
    after = Follow("yard", [], file)
    assert not lives(after, seen(0, {}), seen(RETURN_S - 1, {}))
    (end,) = lives(after, seen(RETURN_S + 1, {}))
    assert end.phase == "end" and end.object == new.object and "before it could tell" in end.why
    assert not lives(Follow("yard", [], file), seen(0, {}))


def test_a_long_standing_thing_that_was_hidden_is_the_same() -> None:
    follow = Follow("yard", [], None)
    first = lives(follow, *(seen(n, {1: (300, 100)}, label=2, still=n > 10) for n in range(80)))
    end, back = lives(follow, seen(200, {}), seen(300, {5: (300, 100)}, label=2))
    assert (end.phase, back.phase) == ("end", "update") and back.object == first[0].object


@pytest.mark.parametrize("left", [b"", b"{", b"[1]", b'{"objects": [{"id": 3}]}', b"\xff" * 99])
def test_a_damaged_memory_is_said_and_forgotten(tmp_path: Path, left: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "objects.json"
    file.write_bytes(left)
    assert [e.phase for e in lives(Follow("yard", [], file), seen(0, {1: (9, 99)}))] == ["new"]
    assert "cannot be read" in caplog.text


def test_a_camera_that_changes_its_size_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "objects.json"
    lives(Follow("yard", [HALF], file), seen(0, {1: (9, 99)}), None)
    lives(Follow("yard", [HALF], file), seen(0, {1: (9, 99)}, image=np.zeros((600, 800, 3), np.uint8)), None)
    assert "gives 800x600, not 400x300; zones half: they are scaled with it" in caplog.text
    lives(Follow("yard", [HALF], file), seen(0, {1: (9, 99)}, image=np.zeros((480, 480, 3), np.uint8)))
    assert "its shape is another; draw them anew" in caplog.text


# ── the report ───────────────────────────────────────────────────────────────────────────────────────────


def test_boxes_are_told_beside_where_they_are_asked_for() -> None:
    for how, boxes in ((None, 0), ("changes", 0), ("every", 3)):
        out: list[Event] = []
        follow = Follow("yard", [], None)
        pipe = Pipeline("yard", "camera:0", report=how)
        report = Report(pipe, False, lambda event, *_, out=out: out.append(event), print, bool, follow=follow)
        for n in range(3):
            for item in report.worth([seen(n, {1: (50, 100)})]):
                report.keep(item)
        told = [event for event in out if isinstance(event, DetectionsEvent)]
        assert len(told) == boxes and len(out) == boxes + 1
        assert all(isinstance(out[0], ObjectEvent) and e.detections[0].object == out[0].object for e in told)


def test_a_flood_has_no_more_events_than_things() -> None:
    rng = np.random.default_rng(4)
    follow = Follow("yard", [HALF, LINE], None)
    found = [
        seen(n / 10, {key: (float(x), float(y)) for key, (x, y) in enumerate(rng.uniform(50, 250, (500, 2)), 1)})
        for n in range(5)
    ]
    told = lives(follow, *found)
    assert len([e for e in told if e.phase == "new"]) == 500 and len(told) <= 500
