"""Snapshots as a user has them: a config, a film, a broker, the folder on disk."""

from __future__ import annotations

import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent import config
from edge_agent.config import Mqtt
from edge_agent.errors import ConfigError
from edge_agent.link import topics
from edge_agent.pictures.read import decode
from tests.agent.test_agent import finish, pipeline, start, write
from tests.agent.test_zones import film
from tests.broker import Consumer, Mosquitto, broker, until
from tests.cli.test_cli import run
from tests.tiny import tiny_detector

SNAPSHOTS = "[samples]\nsnapshots = true\n"


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as server:
        yield server


def tracking(tmp_path: Path, more: str = "", source: str = "files:film.avi?pace=own&frozen=off&dark=off") -> str:
    return pipeline("yard", source, f'"detect:{tmp_path / "model"}", "track:?hits=2"', more)


def test_objects_name_a_picture_that_the_broker_keeps(mosquitto: Mosquitto, tmp_path: Path) -> None:
    tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi")
    file = write(tmp_path, mosquitto.url, SNAPSHOTS + tracking(tmp_path))
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        finish(start(file))
        until(lambda: consumer.last("porch/status") == b"offline", "it says offline")
        events = consumer.events()
        sent = consumer.last("porch/yard/snapshot") or b""
    assert [event["phase"] for event in events] == ["new", "end"]
    (name,) = {event["snapshot"] for event in events}
    path = tmp_path / "store" / "pictures" / name
    assert path.read_bytes() == sent and len(sent) <= 64_000 and decode(sent).shape == (64, 64, 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with Consumer(Mqtt(url=mosquitto.url)) as late:
        until(lambda: late.last("yard/snapshot") == sent, "it is retained")
    # at the next start it stands there until there is another one; without snapshots it is cleared
    agent = start(file)
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        until(lambda: [e for e in consumer.events() if e["kind"] == "object"], "the next run tells")
        assert b"" not in [payload for topic, payload, _ in consumer.heard if topic.endswith("/snapshot")]
        agent.send_signal(signal.SIGTERM)
        finish(agent)
    write(tmp_path, mosquitto.url, tracking(tmp_path))
    finish(start(file))
    with Consumer(Mqtt(url=mosquitto.url)) as late:
        until(lambda: late.last("yard/state"), "what is retained comes")
        assert late.last("yard/snapshot") is None


def test_snapshots_may_pass_without_being_retained_and_are_off_unless_asked_for(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi")
    for section, sent in (("[samples]\nsnapshots = true\nretain = false\n", True), ("", False)):
        file = write(tmp_path, mosquitto.url, section + tracking(tmp_path))
        with Consumer(Mqtt(url=mosquitto.url)) as consumer:
            finish(start(file))
            until(lambda: consumer.last("porch/status") == b"offline", "it says offline")
            assert bool(consumer.last("yard/snapshot")) is sent
            assert all(bool(event["snapshot"]) is sent for event in consumer.events())
        with Consumer(Mqtt(url=mosquitto.url)) as late:
            until(lambda: late.last("yard/state"), "what is retained comes")
            assert late.last("yard/snapshot") is None


def test_what_is_hidden_is_hidden_in_what_is_kept_and_sent(mosquitto: Mosquitto, tmp_path: Path) -> None:
    tiny_detector(tmp_path / "model")
    noise = np.random.default_rng(1).integers(150, 255, (64, 64, 3), np.uint8)
    video = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(20):
        video.write(noise)
    video.release()
    shot = {}
    for blur in ("", '[privacy]\nblur = ["person"]\n'):
        file = write(tmp_path, mosquitto.url, SNAPSHOTS + blur + tracking(tmp_path))
        with Consumer(Mqtt(url=mosquitto.url)) as consumer:
            finish(start(file))
            until(lambda: consumer.last("yard/snapshot"), "a picture comes")
            shot[bool(blur)] = decode(consumer.last("yard/snapshot") or b"")[16:48, 16:48].astype(int)
    # the person's box is 32 pixels wide: blocks of 8 are left of what differed from pixel to pixel
    steps = {key: np.abs(np.diff(picture, axis=1)).mean() for key, picture in shot.items()}
    assert steps[True] < steps[False] / 3


def test_labels_that_are_hidden_have_to_be_found(tmp_path: Path) -> None:
    tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi", 3)
    for text, said in (
        ('[privacy]\nblur = ["persn"]\n' + tracking(tmp_path), 'yard: blur: "persn" is not found here; did you mean'),
        (tracking(tmp_path, 'blur = ["car"]'), 'yard: blur: "car" is not found here'),
    ):
        done = run(tmp_path, "check", "-c", str(write(tmp_path, None, text)))
        assert done.returncode == 2 and said in done.stderr, done.stderr
    file = write(tmp_path, None, '[privacy]\nblur = ["car"]\n' + tracking(tmp_path, "blur = []"))
    assert run(tmp_path, "check", "-c", str(file)).returncode == 0
    parsed = config.load(file)
    assert parsed.pipeline[0].blur == []


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("whole = true", "samples.whole: does nothing without snapshots; write snapshots = true"),
        ('before = "3s"', "samples.before: does nothing without clips; write clips = true"),
        ('clips = true\nbefore = "2h"', "samples.before: a clip is for an alert; write 120s or less"),
        ('collect_every = "1s"', 'samples.collect_every: does nothing without collect; write collect = ["uncertain"]'),
        ("snapshot = true", 'unknown key "samples.snapshot"; did you mean "snapshots"?'),
        ("snapshots = true\ndays = 0", "samples.days"),
    ],
)
def test_a_section_that_makes_no_sense_is_one_line(section: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(f"[samples]\n{section}\n" + tracking(tmp_path), base=tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_topic_for_each_pipeline_that_sees_things(tmp_path: Path) -> None:
    words = pipeline("words", "lines:words.txt")
    for section, there in ((SNAPSHOTS, True), ("", False)):
        parsed = config.parse(f'[device]\nid = "porch"\n{section}{tracking(tmp_path)}{words}', base=tmp_path)
        named = topics.published(parsed)
        assert ("edge/v1/porch/yard/snapshot" in named) is there and "edge/v1/porch/words/snapshot" not in named


def test_an_alert_names_a_clip_that_is_there_once_it_is_over(mosquitto: Mosquitto, tmp_path: Path) -> None:
    tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi")
    section = '[samples]\nclips = true\nbefore = "1s"\nafter = "1s"\n'
    zones = '[[zone]]\nname = "lawn"\npoints = [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]\n'
    file = write(tmp_path, mosquitto.url, section + tracking(tmp_path) + zones)
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        finish(start(file))
        until(lambda: consumer.last("porch/status") == b"offline", "it says offline")
        events = consumer.events()
    assert [event["phase"] for event in events] == ["new", "end"] and not any(event["snapshot"] for event in events)
    (name,) = {event["clip"] for event in events}
    path = tmp_path / "store" / "pictures" / name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    capture = cv2.VideoCapture(str(path))
    frames, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    assert 0.3 < frames / rate < 2.5
    assert consumer.last("yard/snapshot") is None


def test_check_says_what_is_kept_of_pictures(tmp_path: Path) -> None:
    tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi", 3)
    section = '[samples]\nsnapshots = true\nclips = ["crossing"]\ncollect = ["rare"]\nconsent = "a test"\n'
    section += '[privacy]\nblur = ["person"]\n'
    done = run(tmp_path, "check", "-c", str(write(tmp_path, None, section + tracking(tmp_path))))
    assert done.returncode == 0, done.stderr
    assert "pictures: snapshots, clips as " in done.stdout and "at most 200 MB, 14 days" in done.stdout
    assert "samples: rare frames are kept" in done.stdout and "yard: person hidden in pictures" in done.stdout
    done = run(tmp_path, "check", "-c", str(write(tmp_path, None, tracking(tmp_path))))
    assert "pictures:" not in done.stdout and "hidden" not in done.stdout


def test_a_detection_of_a_pipeline_that_does_not_track_names_its_frame(tmp_path: Path) -> None:
    tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi", 3)
    plain = pipeline("yard", "files:film.avi", f'"detect:{tmp_path / "model"}"')
    for cls, there in (("alert", 1), ("telemetry", 0)):
        store = tmp_path / cls
        text = SNAPSHOTS + plain.rstrip() + f'\nclass = "{cls}"\n'
        file = write(tmp_path, None, text)
        file.write_text(file.read_text().replace('path = "store"', f'path = "{store}"'))
        assert "3 events kept" in finish(start(file))
        names = [path.name for path in (store / "pictures").glob("*.jpg")]
        assert len(names) == there, "one a second, of alerts"
        stored = b"".join(path.read_bytes() for path in store.glob("*.log"))
        assert all(f'"snapshot":"{name}"'.encode() in stored for name in names)


def test_a_snapshot_takes_nothing_of_the_day_s_bytes_that_alerts_have(mosquitto: Mosquitto, tmp_path: Path) -> None:
    tiny_detector(tmp_path / "model")
    noise = np.random.default_rng(1).integers(150, 255, (240, 320, 3), np.uint8)
    video = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for _ in range(20):
        video.write(noise)
    video.release()
    for per_day, sent in ((20_000, False), (2_000_000, True)):
        file = write(tmp_path, mosquitto.url, SNAPSHOTS + tracking(tmp_path))
        text = file.read_text().replace('path = "store"', f'path = "store-{per_day}"\nbytes_per_day = {per_day}')
        file.write_text(text)
        with Consumer(Mqtt(url=mosquitto.url)) as consumer:
            finish(start(file))
            until(lambda: consumer.last("porch/status") == b"offline", "it says offline")
            assert bool(consumer.last("yard/snapshot")) is sent
            (name,) = {event["snapshot"] for event in consumer.events()}
        assert (tmp_path / f"store-{per_day}" / "pictures" / name).stat().st_size > 16_000, (
            "more than the day has for it"
        )
