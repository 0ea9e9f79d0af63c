"""The best picture of each object."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.config import Pipeline
from edge_agent.events import Event, ObjectEvent, rfc3339
from edge_agent.events.objects import Tracked
from edge_agent.pictures.read import decode
from edge_agent.recorder import album as module
from edge_agent.recorder.album import MOST_BYTES, Album, small_jpeg
from edge_agent.recorder.pictures import Pictures
from edge_agent.recorder.shown import Shown
from edge_agent.types import Detections, Finding, Frame, ModelRef, Pixels
from edge_agent.walk.event import to_event
from edge_agent.walk.follow import Follow
from edge_agent.walk.report import Report

MODEL = ModelRef("m", "1", "0" * 64)
WIDE, HIGH = 640, 480
NOISE = np.random.default_rng(5).integers(0, 255, (HIGH, WIDE, 3), np.uint8)


def tracked(*boxes: tuple[float, float, float, float], score: float = 0.8, alive: tuple[int, ...] = ()) -> Tracked:
    """Objects 1, 2, … that are there."""
    n = len(boxes)
    return Tracked(
        xyxy=np.array(boxes, np.float32).reshape(n, 4),
        score=np.full(n, score, np.float32),
        label=np.zeros(n, np.int32),
        names={0: "../../person\n"},
        object=np.arange(1, n + 1, dtype=np.int32),
        still=np.zeros(n, bool),
        alive=np.array([*range(1, n + 1), *alive], np.int32),
    )


def seen(clock: float, what: Detections, image: Pixels = NOISE) -> Finding:
    return Finding(Frame(image, 1.8e9 + clock, time.monotonic(), played=clock), what, MODEL)


def picture(pictures: Pictures, name: str) -> Pixels:
    path = pictures.path(name)
    assert path is not None
    data = path.read_bytes()
    assert len(data) <= MOST_BYTES
    return decode(data)


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    return Pictures(tmp_path / "pictures", 10**8, 1)


def test_a_life_names_its_best_picture_which_is_on_disk_before_its_event(pictures: Pictures) -> None:
    album, follow = Album(pictures, Shown([]), whole=False), Follow("yard", [], None)
    follow.picture = album.of
    events: list[Event] = []

    def put(event: Event, *_: object) -> None:
        assert isinstance(event, ObjectEvent) and pictures.path(event.snapshot), "on disk before it is put"
        events.append(event)

    report = Report(Pipeline("yard", "camera:0"), True, put, print, bool, follow=follow)
    sizes = []
    for at, side in enumerate((40, 100, 100, 30)):
        found = [seen(at, tracked((200, 200, 200 + side, 200 + side)))]
        album.watch(found[0].of, found)
        for item in report.worth(found):
            report.keep(item)
        sizes.append(picture(pictures, album.of(1)).shape[:2])
    for last in ([seen(5.0, tracked())], None):
        album.watch(last[0].of, last) if last else None
        for item in report.worth(last):
            report.keep(item)
    assert sizes == [(72, 72), (132, 132), (132, 132), (132, 132)], "with a margin, and only better ones are taken"
    assert {e.snapshot for e in events if isinstance(e, ObjectEvent)} == {events[0].snapshot}  # type: ignore[attr-defined]
    assert [e.phase for e in events if isinstance(e, ObjectEvent)] == ["new", "end"] and len(
        list(pictures.folder.iterdir())
    ) == 1


def test_score_size_sharpness_and_the_edge_count(pictures: Pictures) -> None:
    blurred = cv2.GaussianBlur(NOISE, (0, 0), 3)

    def taken(*frames: Finding) -> Pixels:
        album = Album(pictures, Shown([]), whole=False)
        for frame in frames:
            album.watch(frame.of, [frame])
        return picture(pictures, album.of(1))

    box, corner = (200.0, 200.0, 260.0, 290.0), (0.0, 200.0, 60.0, 290.0)
    plain = taken(seen(0, tracked(box)))
    assert np.array_equal(taken(seen(0, tracked(box), np.asarray(blurred, np.uint8)), seen(1, tracked(box))), plain)
    assert np.array_equal(taken(seen(0, tracked(box, score=0.4)), seen(1, tracked(box))), plain)
    assert np.array_equal(taken(seen(0, tracked(corner)), seen(1, tracked(box))), plain)
    assert np.array_equal(taken(seen(0, tracked(box)), seen(1, tracked(corner))), plain)


def test_a_crowd_costs_bounded_time_and_memory(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_BYTES", 300_000)
    album = Album(pictures, Shown([]), whole=False)
    rng, made = np.random.default_rng(3), list[int]()

    def counted(image: Pixels, side: int) -> bytes:
        made.append(side)
        return small_jpeg(image, side)

    monkeypatch.setattr(module, "small_jpeg", counted)
    for clock in range(100):
        corners = rng.uniform(0, 400, (500, 2))
        boxes = [(x, y, x + 20 + clock, y + 40 + clock) for x, y in corners]
        found = [seen(clock, tracked(*boxes))]
        album.watch(found[0].of, found)
        assert album._pending <= 300_000
    assert 100 < len(made) <= 100 * module.MOST_A_FRAME
    named = [album.of(number) for number in range(1, 501)]
    assert album._pending == 0 and len(set(filter(None, named))) == len(list(filter(None, named))) > 20
    for clock in (200, 201):
        found = [seen(clock, tracked())]
        album.watch(found[0].of, found)
    assert not album._best, "and who is gone is forgotten"


def test_a_snapshot_is_small_whatever_the_frame(pictures: Pictures) -> None:
    large = np.random.default_rng(2).integers(0, 255, (2160, 3840, 3), np.uint8)
    for side in (640, 1280):
        data = small_jpeg(large, side)
        assert len(data) <= MOST_BYTES and max(decode(data).shape) <= side
    album = Album(pictures, Shown([]), whole=True)
    for clock, image in enumerate((large, NOISE, NOISE[:100])):  # a camera that changes its size
        found = [seen(clock, tracked((10, 10, 90, 90), score=0.3 + 0.3 * clock), image)]
        album.watch(found[0].of, found)
        whole = picture(pictures, album.of(1))
        assert whole.shape[1] <= 1280 and abs(whole.shape[1] / whole.shape[0] - image.shape[1] / image.shape[0]) < 0.05


def test_a_disk_that_refuses_leaves_events_without(pictures: Pictures) -> None:
    pictures.folder.parent.mkdir(exist_ok=True)
    pictures.folder.write_text("in the way")
    album = Album(pictures, Shown([]), whole=False)
    found = [seen(0, tracked((200, 200, 300, 300)))]
    album.watch(found[0].of, found)
    assert album.of(1) == "" and album.of(2) == ""
    pictures.folder.unlink()
    found = [seen(1, tracked((100, 100, 300, 300)))]
    album.watch(found[0].of, found)
    assert pictures.path(album.of(1))


def test_an_alert_of_no_object_has_a_picture_of_its_frame(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    album = Album(pictures, Shown([]), whole=False)
    monkeypatch.setattr(module, "APART_S", 0.0)
    boxes = Detections(
        np.array([[100, 100, 200, 200]], np.float32), np.array([0.9], np.float32), np.zeros(1, np.int32), {0: "person"}
    )
    item = seen(0, boxes, np.full((HIGH, WIDE, 3), 90, np.uint8))
    event = to_event(item, "yard")
    assert album.of_frame(event) == "", "nothing was watched"
    album.watch(item.of, [item])
    whole = picture(pictures, album.of_frame(event))
    assert whole.shape[:2] == (HIGH, WIDE) and whole[100, 150].max() > 150, "its box is drawn in"
    later = to_event(seen(1, boxes), "yard")
    assert later.at != rfc3339(item.of.at) and album.of_frame(later) == "", "an event of another frame goes without"
    album.watch(item.of, [followed := seen(0, tracked((1, 1, 9, 9)))])
    assert album.of_frame(to_event(followed, "yard")) == "", "objects have pictures of their own"
