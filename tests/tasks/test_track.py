"""Objects that stay the same: made scenes whose truth is known, and a film of people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.errors import ConfigError, ModelError
from edge_agent.events.objects import Tracked
from edge_agent.tasks import TASKS, make_task
from edge_agent.tasks.chain import wanting
from edge_agent.tasks.track.tracker import MOST_OBJECTS, STILL_S, Rules, Seen, Tracker
from edge_agent.types import Detections, Finding, Frame, ModelRef, Scores
from edge_agent.uri import parse_uri
from tests.cli.test_cli import run
from tests.tiny import tiny_detector

NAMES = {0: "person", 2: "car", 7: "truck", 16: "dog"}
Box = tuple[float, float, float, int]
"""left, top, score, label; 40 wide and 80 high"""


def tracker(**rules: float) -> Tracker:
    return Tracker(Rules(**{"hits": 3, **rules}), NAMES)  # type: ignore[arg-type]


def see(one: Tracker, clock: float, boxes: Iterable[Box], sure: float = 0.3) -> Seen:
    rows = sorted(boxes, key=lambda box: -box[2])
    xyxy = np.array([[x, y, x + 40, y + 80] for x, y, _, _ in rows], np.float32).reshape(-1, 4)
    score, label = np.array([row[2] for row in rows], np.float32), np.array([row[3] for row in rows], np.int32)
    return one(clock, xyxy, score, label, sure)


@pytest.mark.parametrize("fps", [30, 10, 4])
def test_two_that_cross_stay_who_they_are(fps: int) -> None:
    """One walks right and one left, 60 pixels a second; where they meet, one of them is hidden for 0.7 s."""
    one = tracker()
    ids: dict[int, list[float]] = {}
    rng = np.random.default_rng(fps)
    for n in range(10 * fps):
        t = n / fps
        right, left = 100 + 60 * t, 700 - 60 * t
        boxes = [(right + rng.normal(), 200 + rng.normal(), 0.8, 0), (left + rng.normal(), 215 + rng.normal(), 0.7, 0)]
        seen = see(one, t, boxes[:1] if abs(right - left) < 42 else boxes)
        if len(seen.id) == 2:
            for box, thing in zip(seen.box.tolist(), seen.id.tolist(), strict=True):
                ids.setdefault(thing, []).append((right, left)[box])
    assert len(ids) == 2
    for path in ids.values():
        steps = np.diff(path)
        assert (steps > 0).all() or (steps < 0).all(), "they have changed places"


def test_dropped_frames_are_longer_steps() -> None:
    one, rng = tracker(), np.random.default_rng(1)
    ids = set()
    for n in range(300):
        if n > 5 and rng.random() < 0.6:
            continue
        ids |= set(see(one, n / 15, [(50 + 5 * n, 100, 0.8, 0)]).id.tolist())
    assert len(ids) == 1


def test_an_object_needs_several_boxes_and_a_good_score() -> None:
    one = tracker()
    assert [len(see(one, n / 10, [(50, 50, 0.7, 0)]).id) for n in range(4)] == [0, 0, 1, 1]
    one = tracker()
    assert not any(len(see(one, n / 10, [(50, 50, 0.5, 0)]).id) for n in range(50)), "never as sure as 0.6"
    one = tracker()
    # once in a while a box, which is gone in the next frame
    assert not any(len(see(one, n / 10, [(50, 50, 0.9, 0)] if n % 5 == 0 else []).id) for n in range(50))


def test_faint_boxes_keep_an_object_and_begin_none() -> None:
    one = tracker()
    for n in range(5):
        first = see(one, n / 10, [(50, 50, 0.8, 0)])
    for n in range(5, 60):
        seen = see(one, n / 10, [(50, 50, 0.15, 0), (300, 50, 0.15, 0)])
        assert seen.id.tolist() == first.id.tolist() and seen.alive.tolist() == first.id.tolist()


@pytest.mark.parametrize("fps", [25, 5])
@pytest.mark.parametrize(("away", "same"), [(1.5, True), (2.6, False)])
def test_an_object_is_remembered_for_seconds_not_for_frames(fps: int, away: float, same: bool) -> None:
    one = tracker(remember=2.0)
    for n in range(2 * fps):
        first = see(one, n / fps, [(50, 50, 0.8, 0)])
    for n in range(round(away * fps)):
        gone = see(one, 2 + n / fps, [])
    assert (len(gone.alive) == 1) == same
    for n in range(3):
        seen = see(one, 2 + away + n / fps, [(52, 50, 0.8, 0)])
    assert (seen.id.tolist() == first.id.tolist()) == same


def test_what_stood_is_remembered_longer() -> None:
    one = tracker(remember=2.0)
    for n in range(300):
        first = see(one, n / 10, [(50, 50, 0.8, 2)])
        assert first.still.tolist() == ([n / 10 >= STILL_S] if n > 1 else [])
    # a shadow passes
    for n in range(300, 500):
        assert see(one, n / 10, []).alive.tolist() == first.id.tolist()
    assert see(one, 50, [(50, 50, 0.8, 2)]).id.tolist() == first.id.tolist()
    for n in range(20):
        moving = see(one, 50.1 + n / 10, [(50 + 5 * n, 50, 0.8, 2)])
    assert moving.id.tolist() == first.id.tolist() and not moving.still.any(), "it has driven off"


def test_a_detector_that_flickers_between_like_labels_sees_one_thing() -> None:
    one, rng = tracker(), np.random.default_rng(2)
    labels, ids = [], set()
    for n in range(100):
        seen = see(one, n / 10, [(50 + 3 * n, 50, 0.8, 7 if rng.random() < 0.3 else 2)])
        labels += seen.label.tolist()
        ids |= set(seen.id.tolist())
    assert len(ids) == 1 and set(labels[20:]) == {2}
    one = tracker()
    for n in range(20):
        seen = see(one, n / 10, [(50, 50, 0.8, 2), (52, 50, 0.7, 7)])
    assert seen.label.tolist() == [2], "a car that is also called a truck is one thing"


def test_labels_do_not_mix() -> None:
    """A dog runs through where a person stood a moment ago."""
    one = tracker()
    ids: dict[int, set[int]] = {}
    for n in range(40):
        boxes = [(100.0, 50.0, 0.8, 0)] if n < 20 else []
        boxes += [(100 + 4.0 * (n - 20), 50.0, 0.8, 16)] if n > 10 else []
        seen = see(one, n / 10, boxes)
        for thing, label in zip(seen.id.tolist(), seen.label.tolist(), strict=True):
            ids.setdefault(label, set()).add(thing)
    assert len(ids[0]) == len(ids[16]) == 1 and ids[0] != ids[16]


def test_a_film_that_begins_again_has_other_objects() -> None:
    one = tracker()
    for n in range(5):
        first = see(one, n / 10, [(50, 50, 0.8, 0)])
    assert not len(see(one, 0.0, [(50, 50, 0.8, 0)]).alive)
    for n in range(1, 5):
        again = see(one, n / 10, [(50, 50, 0.8, 0)])
    assert again.id[0] > first.id[0]


def test_a_flood_is_bounded() -> None:
    one, rng = tracker(), np.random.default_rng(3)
    for n in range(8):
        boxes = [(float(x), float(y), 0.9, 0) for x, y in rng.uniform(0, 300, (1500, 2))]
        seen = see(one, n / 10, boxes)
        assert len(seen.alive) <= MOST_OBJECTS and len(one._rows) <= MOST_OBJECTS


# ── the task ─────────────────────────────────────────────────────────────────────────────────────────────


def finding(n: int, *scores: float) -> Finding:
    xyxy = np.array([[10, 10, 40, 60], [100, 10, 140, 60]], np.float32)[: len(scores)]
    boxes = Detections(xyxy, np.array(scores, np.float32), np.zeros(len(scores), np.int32), NAMES, 0.3)
    frame = Frame(np.zeros((90, 160, 3), np.uint8), 0.0, n / 10)
    return Finding(frame, boxes, ModelRef("m", "1", "0" * 64))


def test_the_task_passes_on_what_is_an_object_s(tmp_path: Path) -> None:
    task = make_task(parse_uri("track:?hits=2"), lambda name: pytest.fail(name), tmp_path)
    for n in range(4):
        (found,) = task(finding(n, 0.9, 0.2))
        assert isinstance(found, Finding) and isinstance(found.what, Tracked)
        assert found.what.object.tolist() == found.what.alive.tolist() == ([1] if n else [])
        assert found.what.score.tolist() == pytest.approx([0.9] if n else [])


def test_the_detector_before_it_is_asked_for_faint_boxes() -> None:
    assert wanting([parse_uri("detect:m"), parse_uri("track:")])[0].options == {"low": "0.1"}
    assert wanting([parse_uri("detect:m?low=0.2"), parse_uri("track:")])[0].options == {"low": "0.2"}
    assert wanting([parse_uri("detect:m"), parse_uri("crop:"), parse_uri("track:")])[0].options == {}
    assert not TASKS["track"].alone


def test_bad_options_and_findings_are_said(tmp_path: Path) -> None:
    for text, said in (
        ("track:yolox", "track runs no model"),
        ("track:?remember=0", "remember=0"),
        ("track:?hits=1.5", "whole number"),
        ("track:?new=2", "new=2"),
        ("track:?hit=3", 'did you mean "hits"'),
    ):
        with pytest.raises(ConfigError, match=said):
            make_task(parse_uri(text), lambda name: pytest.fail(name), tmp_path)
    task = make_task(parse_uri("track:"), lambda name: pytest.fail(name), tmp_path)
    frame = Frame(np.zeros((9, 16, 3), np.uint8), 0.0, 0.0)
    with pytest.raises(ModelError, match="takes boxes in pictures, not Scores"):
        list(task(Finding(frame, Scores("a", 1.0, {}), ModelRef("m", "1", ""))))


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────────────


def test_detect_says_which_object_each_box_is_of(tmp_path: Path, demo_pictures: Path) -> None:
    model = str(tiny_detector(tmp_path / "model"))
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(6):
        film.write(np.full((64, 64, 3), 200, np.uint8))
    film.release()
    out = run(
        tmp_path, "detect", model, str(tmp_path / "film.avi"), "--track", "--json", "--save", str(tmp_path / "to")
    )
    rows = [json.loads(line) for line in out.stdout.splitlines()]
    assert [[box["object"] for box in row["detections"]] for row in rows] == [[], [], [1], [1], [1], [1]], out.stderr
    assert len(list((tmp_path / "to").iterdir())) == 6
    out = run(tmp_path, "detect", model, str(tmp_path / "film.avi"), "--track")
    assert out.stdout.splitlines()[-1].endswith("(object 1)")
    out = run(tmp_path, "detect", model, str(demo_pictures / "coffee.png"), "--track")
    assert out.returncode == 1 and "single pictures have no clock" in out.stderr


@pytest.mark.slow
def test_people_of_a_real_street_stay_who_they_are(data: Path, tmp_path: Path) -> None:
    """A third of a well-known film: nearly all of its people are followed, and few change their number."""
    truth: dict[int, dict[int, Corners]] = {}
    for line in (data / "video" / "vtest.gt.txt").read_text().splitlines():
        frame, who, left, top, wide, high = (float(x) for x in line.split(",")[:6])
        truth.setdefault(int(frame) - 1, {})[int(who)] = (left, top, left + wide, top + high)
    model, film = str(data / "models" / "yolox_nano.onnx"), str(data / "video" / "vtest.avi")
    out = run(tmp_path, "detect", model, film, "--track", "--classes", "person", "--frames", "265", "--json")
    last: dict[int, int] = {}
    switches = met = boxes = 0
    for frame, line in enumerate(out.stdout.splitlines()):
        found = {box["object"]: box["box"] for box in json.loads(line)["detections"]}
        there = truth.get(frame, {})
        near = {(w, t): share(box, found[t]) for w, box in there.items() for t in found}
        # who is still where it was seen last comes first, then the best overlap
        order = sorted((pair for pair in near if near[pair] >= 0.5), key=lambda p: (last.get(p[0]) != p[1], -near[p]))
        pairs: dict[int, int] = {}
        for who, thing in order:
            if who not in pairs and thing not in pairs.values():
                pairs[who] = thing
        boxes, met = boxes + len(there), met + len(pairs)
        switches += sum(last.get(who, thing) != thing for who, thing in pairs.items())
        last |= pairs
    assert boxes > 1000 and met / boxes > 0.85 and switches <= 20, (met, boxes, switches)


Corners = tuple[float, float, float, float]


def share(one: Corners, other: Corners) -> float:
    """Intersection over union."""
    both = max(0.0, min(one[2], other[2]) - max(one[0], other[0])) * max(
        0.0, min(one[3], other[3]) - max(one[1], other[1])
    )
    whole = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - both
    return both / whole
