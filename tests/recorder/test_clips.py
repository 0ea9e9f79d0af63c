"""The seconds around an alert as a film."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.config.samples import Samples
from edge_agent.errors import EdgeAgentError
from edge_agent.pictures.draw import jpeg
from edge_agent.programs import which
from edge_agent.recorder import clips as module
from edge_agent.recorder import film as films
from edge_agent.recorder.clips import Clips
from edge_agent.recorder.pictures import Pictures
from edge_agent.types import Frame, Pixels
from tests.broker import until


def grey(level: int, width: int = 64, height: int = 48) -> Pixels:
    return np.full((height, width, 3), level, np.uint8)


def levels(path: Path) -> tuple[list[int], float]:
    """The brightness of each frame of a film, and its frames a second."""
    capture, found = cv2.VideoCapture(str(path)), list[int]()
    while True:
        there, image = capture.read()
        if not there:
            return found, capture.get(cv2.CAP_PROP_FPS)
        found.append(round(float(image.mean())))


@pytest.fixture
def clips(tmp_path: Path) -> Iterator[Clips]:
    """Two seconds before an alert, and one behind it."""
    made = Clips(Pictures(tmp_path / "pictures", 10**8, 1), 2.0, 1.0)
    made.add("yard", lambda frame, found: None if frame.name == "not to be shown" else frame.image)
    made.start()
    yield made
    made.stop()
    made.close()


def feed(clips: Clips, *clocks: float, width: int = 64, name: str = "") -> None:
    """Frames whose brightness is their time, a tenth of a second a level; each is packed before the next one."""
    for clock in clocks:
        frame = Frame(grey(round(clock * 10), width), 1.8e9 + clock, time.monotonic(), name, played=clock)
        clips.watch("yard", frame, [])
        until(lambda: not clips._packing.unfinished_tasks, "it is packed")


def written(clips: Clips, name: str) -> tuple[list[int], float]:
    until(lambda: clips._pictures.path(name), "the film is on disk")
    path = clips._pictures.path(name)
    assert path is not None and path.stat().st_mode & 0o777 == 0o600
    return levels(path)


def steps(first: float, last: float) -> list[float]:
    return [n / 10 for n in range(round(first * 10), round(last * 10) + 1)]


def test_a_film_shows_each_frame_at_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # four frames a second for two seconds, then none for one
    frames = [(10 + n / 4, jpeg(grey(10 * n), 90)) for n in range(8)] + [(13.0, jpeg(grey(200), 90))]
    for encoder in ([films._encoder()] if which("ffmpeg") else []) + [None]:
        monkeypatch.setattr(films, "_encoder", lambda encoder=encoder: encoder)
        (tmp_path / "film.mp4").write_bytes(films.film(frames))
        found, rate = levels(tmp_path / "film.mp4")
        assert len(found) / rate == pytest.approx(3.0, abs=0.7) and rate == 3
        assert found == sorted(found) and found[0] < 12 and found[-1] > 190 and len(set(found)) > 5
        (tmp_path / "film.mp4").write_bytes(films.film(frames[:1]))
        assert len(levels(tmp_path / "film.mp4")[0]) == 1
    assert "apt install ffmpeg" in films.said()


def test_what_ffmpeg_cannot_do_is_one_line(tmp_path: Path) -> None:
    if which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (apt-get install ffmpeg)")
    with pytest.raises(EdgeAgentError, match=r"^ffmpeg: [^\n]+$"):
        films._by_ffmpeg([(0.0, b"no picture")], which("ffmpeg") or "", "libx264")
    with pytest.raises(EdgeAgentError, match=r"^ffmpeg: [^\n]+$"):
        films._by_ffmpeg([(0.0, jpeg(grey(1), 90))], str(tmp_path / "ffmpeg"), "libx264")


def test_a_clip_begins_before_its_alert_and_ends_behind_it(clips: Clips) -> None:
    assert clips.begin("yard") == clips.begin("other") == "", "nothing was seen yet"
    feed(clips, *steps(1, 5))
    name = clips.begin("yard")
    assert clips._pictures.path(name) is None and clips.begin("yard") == name
    feed(clips, *steps(5.1, 7))
    found, rate = written(clips, name)
    assert rate == 10 and found == pytest.approx(range(30, 61), abs=4), "from 3 s to 6 s"
    assert clips.begin("yard") != name


def test_an_alert_during_a_clip_makes_it_longer_up_to_a_bound(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_S", 1.5)
    feed(clips, 1.0)
    name = clips.begin("yard")
    feed(clips, 1.5, 1.9)
    assert clips.begin("yard") == name
    feed(clips, 2.0, 2.2, 2.4)
    assert clips.begin("yard") == name
    feed(clips, 2.5, 2.6, 2.7)
    assert max(written(clips, name)[0]) == pytest.approx(25, abs=4)


def test_another_size_a_film_that_begins_anew_and_a_source_that_stops_end_a_clip(
    clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(clips, 5.0, 5.1)
    first = clips.begin("yard")
    feed(clips, 5.2, 5.3, width=96)
    second = clips.begin("yard")
    feed(clips, 0.1, 0.2, width=96)
    monkeypatch.setattr(module, "LATE_S", -0.9)
    third = clips.begin("yard")
    assert len({first, second, third}) == 3
    for name, most in ((first, 51), (second, 53), (third, 2)):
        assert max(written(clips, name)[0]) == pytest.approx(most, abs=4)


def test_what_is_not_to_be_shown_is_in_no_clip(clips: Clips) -> None:
    feed(clips, 1.0)
    feed(clips, 2.0, 2.5, name="not to be shown")
    name = clips.begin("yard")
    feed(clips, 2.6, 4.0)
    found, _ = written(clips, name)
    assert all(abs(level - 10) < 5 or abs(level - 26) < 5 for level in found)


def test_memory_is_bounded(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 3000)
    feed(clips, *steps(1, 2))
    ring = clips._rings["yard"]
    assert ring.size == sum(len(data) for _, data in ring.frames) <= 3000 and len(ring.frames) < 10
    name = clips.begin("yard")
    feed(clips, 2.1, 2.2, 2.3)
    assert ring.clip is None and written(clips, name), "it has ended early"


def test_a_machine_that_is_too_slow_leaves_frames_out_and_a_full_disk_the_clip(
    clips: Clips, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = module._packed
    monkeypatch.setattr(module, "_packed", lambda image: time.sleep(0.01) or held(image))  # type: ignore[func-returns-value]
    for clock in steps(1, 20):
        clips.watch("yard", Frame(grey(9), 1.8e9, time.monotonic(), played=clock), [])
    until(lambda: not clips._packing.unfinished_tasks, "what was taken is packed")
    clips._pictures.folder.parent.mkdir(exist_ok=True)
    clips._pictures.folder.write_text("in the way")
    feed(clips, 20.1)
    clips.begin("yard")
    clips.stop()
    clips.close()
    assert "events go without pictures" in caplog.text


def test_a_stop_right_after_an_alert_packs_what_waits_and_writes_the_clip(
    clips: Clips, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held, go = module._packed, threading.Event()
    monkeypatch.setattr(module, "_packed", lambda image: held(image) if go.wait(20) else None)
    for clock in (1.0, 1.1, 1.2):
        clips.watch("yard", Frame(grey(int(clock * 10)), 1.8e9, time.monotonic(), played=clock), [])
    name = clips.begin("yard")
    clips.stop()
    go.set()
    clips.close()
    assert max(written(clips, name)[0]) == pytest.approx(12, abs=4) and not caplog.text


def test_a_clip_without_a_frame_that_may_be_shown_is_told(clips: Clips, caplog: pytest.LogCaptureFixture) -> None:
    feed(clips, 1.0, 1.1, name="not to be shown")
    name = clips.begin("yard")
    clips.stop()
    clips.close()
    assert f"clips: {name} is not made: it has no frame that may be shown" in caplog.text


def test_which_alerts_have_clips() -> None:
    every = {"new", "zone", "loiters", "crossing", "detections", "anomaly", "rule"}
    assert Samples(clips=True).clips_of(zones=False) == every
    assert Samples(clips=True).clips_of(zones=True) == every - {"new"}
    assert Samples(clips=["new"]).clips_of(zones=True) == {"new"} and Samples(clips=["new"]).pictures
    assert not Samples().clips_of(zones=False) and not Samples(clips=[]).pictures
