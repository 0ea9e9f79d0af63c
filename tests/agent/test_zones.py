"""Objects and zones as a user has them: a config, a film, a broker."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent import config
from edge_agent.config import Mqtt
from edge_agent.errors import ConfigError
from edge_agent.pictures.mask import masker
from edge_agent.types import Frame
from tests.agent.test_agent import finish, pipeline, start, write
from tests.broker import Consumer, Mosquitto, broker, until
from tests.cli.test_cli import run
from tests.tiny import tiny_detector


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as server:
        yield server


def film(path: Path, frames: int = 40) -> Path:
    """A bright film, ten frames a second, in whose middle the tiny detector sees a person."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(frames):
        video.write(np.full((64, 64, 3), 200, np.uint8))
    video.release()
    return path


def zone(name: str, points: str, more: str = "") -> str:
    return f'[[zone]]\nname = "{name}"\npoints = {points}\n{more}\n'


LOWER = "[[0, 0.5], [1, 0.5], [1, 1], [0, 1]]"


def test_a_thing_s_life_goes_to_the_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi")
    zones = zone("lawn", LOWER, 'stays = "2s"') + zone("sky", "[[0, 0], [64, 0], [64, 9]]", "size = [64, 64]")
    config = write(
        tmp_path, mosquitto.url, pipeline("yard", "files:film.avi", f'"detect:{model}", "track:?hits=2"') + zones
    )
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        finish(start(config))
        until(lambda: consumer.last("porch/status") == b"offline", "it says offline")
        events = consumer.events()
        counts = [json.loads(payload) for topic, payload, _ in consumer.heard if topic.endswith("yard/counts")]
    assert [e["kind"] for e in events] == ["object"] * 3
    new, loiters, end = sorted(events, key=lambda e: e["seq"])
    assert [e["phase"] for e in (new, loiters, end)] == ["new", "update", "end"]
    assert new["zones"] == new["entered"] == ["lawn"] and new["label"] == "person" and loiters["loiters"] == ["lawn"]
    assert len({e["object"] for e in events}) == 1 and end["dwell"] == {"lawn": 3.8} and end["seconds"] == 3.8
    assert counts[-1]["all"] == {} and counts[-1]["zones"] == {"lawn": {}, "sky": {}}
    with Consumer(Mqtt(url=mosquitto.url)) as late:
        until(lambda: late.last("yard/counts"), "the counts are retained")


def test_after_a_kill_the_open_objects_are_ended(mosquitto: Mosquitto, tmp_path: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi", 600)
    source = "files:film.avi?pace=own&frozen=off&dark=off"
    config = write(tmp_path, mosquitto.url, pipeline("yard", source, f'"detect:{model}", "track"'))
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:

        def counts() -> dict[str, int]:
            return json.loads(consumer.last("yard/counts") or b'{"all": {}}')["all"]  # type: ignore[no-any-return]

        def told() -> list[tuple[str, str]]:
            # one may come twice, as it was not acknowledged yet at the kill
            events = {e["seq"]: e for e in consumer.events()}
            return [(e["phase"], e["object"]) for _, e in sorted(events.items())]

        agent = start(config)
        until(lambda: counts() == {"person": 1} and told(), "somebody is in view")
        agent.kill()
        agent.communicate()
        agent = start(config)
        until(lambda: len(told()) >= 3, "the next start tells")
        agent.send_signal(signal.SIGTERM)
        finish(agent)
        until(lambda: len(told()) >= 4, "and the stop tells")
        (new, first), (end, gone), (again, second), (last, same) = told()
    assert (new, end, again, last) == ("new", "end", "new", "end")
    assert first == gone != second == same


def test_a_mask_is_black_before_anything_sees_it(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(1, 255, (60, 80, 3), np.uint8)
    image.setflags(write=False)
    masked = masker([[(0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.5)]])(Frame(image, 1.0, 2.0, "a"))
    assert not masked.image[:30, :40].any() and (masked.image[31:, 41:] == image[31:, 41:]).all()
    assert (masked.at, masked.mono, masked.name) == (1.0, 2.0, "a") and image.all()
    # the tiny detector's score is the brightness of what it is shown
    model = tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi", 5)
    for points, seen in (("[[0, 0], [1, 0], [1, 1], [0, 1]]", 0), ("[[0, 0], [0.1, 0], [0, 0.1]]", 5)):
        mask = zone("window", points, "mask = true")
        file = write(tmp_path, None, pipeline("yard", "files:film.avi", f'"detect:{model}"', 'report = "every"') + mask)
        said = finish(start(file))
        assert "5 events kept" in said
        out = run(tmp_path, "check", "-c", str(file))
        assert out.returncode == 0, out.stderr
        stored = b"".join(path.read_bytes() for path in (tmp_path / "store").glob("*.log"))
        assert stored.count(b'"label":"person"') == seen


PIPES = pipeline("a", "camera:0", '"detect:detector", "track"') + pipeline("b", "camera:1", '"detect:detector"')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (zone("z", "[[0, 0], [1, 1]]", 'pipeline = "a"'), "zone[0] (z): points: 2 make no area"),
        (zone("z", "[[0, 0], [1, 1], [2, 0]]", 'pipeline = "a"'), "the 3. (2, 0) lies outside of the picture; points"),
        (
            zone("z", "[[0, 0], [100, 100], [300, 0]]", 'pipeline = "a"\nsize = [200, 100]'),
            "the 3. (300, 0) lies outside of the picture; size is 200x100",
        ),
        (
            zone("bow", "[[0, 0], [1, 1], [1, 0], [0, 1]]", 'pipeline = "a"'),
            "zone[0] (bow): points: the edges behind the 1. and the 3. cross",
        ),
        (zone("z", "[[0, 0], [0.5, 0.5], [1, 1]]", 'pipeline = "a"'), "they lie on one line"),
        (
            zone("z", "[[0, 0], [1, 1], [0, 1]]", 'line = true\npipeline = "a"'),
            "a line has 2 points that differ, not 3",
        ),
        (zone("z", "[[0, 0], [1, 1], [0, 1]]"), 'whose picture? write pipeline = "a" or "b"'),
        (zone("z", "[[0, 0], [1, 1], [0, 1]]", 'pipeline = "c"'), 'pipeline: "c" is none; known are a, b'),
        (zone("z", "[[0, 0], [1, 1], [0, 1]]", 'pipeline = "b"'), "b follows no objects; write tasks ="),
        (2 * zone("z", "[[0, 0], [1, 1], [0, 1]]", 'pipeline = "a"'), "zone[1] (z): stands twice"),
        (zone("z", LOWER, 'pipeline = "a"\nstays = "long"'), 'must be a time such as "60s" or "5min"'),
        (zone("z", LOWER, 'pipeline = "b"\nmask = true\nstays = "5s"'), "stays does nothing for a mask"),
        (zone("z", LOWER, 'pipeline = "a"\nmask = true\nline = true'), "line and mask: it is one of the two"),
        (zone("z", LOWER, 'pipeline = "a"\nby = "feet"'), 'must be "foot" or "overlap"'),
        (zone("z", "[[0, 0, 1]]", 'pipeline = "a"'), "must be a list of 2 values"),
    ],
)
def test_a_zone_that_makes_no_sense_is_said_by_name(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(PIPES + text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_mask_needs_no_tracker_and_units_are_the_same() -> None:
    loaded = config.parse(
        PIPES
        + zone("m", LOWER, 'mask = true\npipeline = "b"')
        + zone("p", "[[0, 50], [200, 50], [200, 100]]", 'size = [200, 100]\npipeline = "a"\nstays = "1.5min"')
    )
    assert loaded.zone[1].points == [(0, 0.5), (1, 0.5), (1, 1)] and loaded.zone[1].limit == 90
    assert loaded.zone[0].limit == float("inf")


def test_a_label_that_no_model_has_is_said_at_check(tmp_path: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi", 2)
    text = pipeline("yard", "files:film.avi", f'"detect:{model}", "track"') + zone("lawn", LOWER, 'labels = ["cat"]')
    out = run(tmp_path, "check", "-c", str(write(tmp_path, None, text)))
    assert out.returncode == 2 and len(out.stderr.splitlines()) == 1
    assert 'pipeline yard: zone lawn: labels: "cat" is not found here' in out.stderr
    (tmp_path / "words.txt").write_text("a\n")
    text = pipeline("words", "lines:words.txt") + zone("w", LOWER, "mask = true")
    out = run(tmp_path, "check", "-c", str(write(tmp_path, None, text)))
    assert out.returncode == 2 and "words has no pictures" in out.stderr
