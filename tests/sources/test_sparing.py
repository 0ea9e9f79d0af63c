"""Keyframes alone while nothing moves: GStreamer's RTSP server and the program ffmpeg, and readers of our own."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import ffmpeg, open_source, sparing
from edge_agent.sources.watch import StreamReader
from edge_agent.types import Frame, Pixels
from edge_agent.uri import parse_uri
from tests.conftest import ROOT
from tests.sources.servers import running

FPS, EVERY, STILL_S, MOVES_S = 10, 1.0, 4, 4
"""frames a second and seconds between keyframes of the film; how long it is still, and how long something moves"""
SYSTEM = "/usr/bin/python3"


def picture(x: int | None, rng: np.random.Generator, size: tuple[int, int] = (180, 320)) -> Pixels:
    """A room with the noise of a sensor, and at x what moves."""
    ramp = np.linspace(40, 180, size[1], dtype=np.float32)[None, :, None]
    image = ramp + rng.normal(0, 2, (*size, 3))
    if x is not None:
        image[60:140, x : x + 60] = 230
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Still, then something crosses it, then still for long."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    path, rng = tmp_path_factory.mktemp("film") / "film.mkv", np.random.default_rng(1)
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "bgr24",
        "-s",
        "320x180",
        "-r",
        str(FPS),
        "-i",
        "-",
    ]
    command += ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-x264-params", "scenecut=0"]
    encoder = subprocess.Popen(
        [*command, "-g", str(int(FPS * EVERY)), "-pix_fmt", "yuv420p", "-y", str(path)], stdin=subprocess.PIPE
    )
    assert encoder.stdin is not None
    for n in range(FPS * (STILL_S + MOVES_S + 40)):
        at = n / FPS - STILL_S
        encoder.stdin.write(picture(int(65 * at) if 0 <= at < MOVES_S else None, rng).tobytes())
    encoder.stdin.close()
    if encoder.wait():
        pytest.skip("this ffmpeg has no H.264")
    return path


@contextmanager
def served(film: Path) -> Iterator[tuple[str, list[str]]]:
    """Its address, and a line for each client."""
    command = [SYSTEM, str(ROOT / "tests" / "sources" / "gst_rtsp.py"), str(film)]
    try:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        pytest.skip(f"{SYSTEM} is not here")
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    lines: list[str] = []
    try:
        if not port:
            pytest.skip("GStreamer's RTSP server is not here: apt install gir1.2-gst-rtsp-server-1.0 python3-gi …")
        out = server.stdout
        threading.Thread(target=lambda: lines.extend(iter(out.readline, "")), daemon=True).start()
        yield f"rtsp://127.0.0.1:{port}/film", lines
    finally:
        server.kill()
        server.wait()


def test_ffmpeg_decodes_keyframes_alone_until_something_moves(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client gets the film from its beginning: what reads keyframes sees it move after STILL_S again."""
    keys: list[bool] = []
    real = ffmpeg.command

    def noted(asked: ffmpeg.Asked, decoder: tuple[str, ...]) -> list[str]:
        made = real(asked, decoder)
        keys.append("-skip_frame" in made)
        return made

    def turns() -> list[bool]:
        return [key for key, _ in groupby(keys)]

    monkeypatch.setattr(ffmpeg, "command", noted)
    with served(film) as (address, clients):
        with running(open_source(parse_uri(f"ffmpeg:{address}#keyframes=1&decoder=software"))) as seen:
            # the first picture is always looked at
            seen.until(lambda: len(turns()) >= 4, "it goes to all frames, to keyframes, and to all frames")
            seen.until_frames(5)
        assert len(clients) >= 4
    assert turns()[:4] == [True, False, True, False] and seen.frames[0].image.shape == (180, 320, 3)
    assert seen.states[0] == "ok" and "reconnecting" not in seen.states


class Program:
    """A program that gives pictures when it is told to."""

    def __init__(self, keys: bool) -> None:
        self.keys, self.closed = keys, False
        self.frames: list[Pixels | SourceError] = []

    def reader(self) -> StreamReader:
        return StreamReader(self.read, self.close, self.close, lambda seconds: bool(self.frames))

    def read(self) -> Frame:
        what = self.frames.pop(0)
        if isinstance(what, SourceError):
            raise what
        return Frame(what, 0.0, CLOCK[0])

    def close(self) -> None:
        self.closed = True


CLOCK = [0.0]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StreamReader, list[Program]]]:
    monkeypatch.setattr(sparing, "TICK", 0.01)
    CLOCK[0] = 0.0
    made: list[Program] = []

    def open_(keys: bool) -> StreamReader:
        made.append(Program(keys))
        return made[-1].reader()

    yield sparing.sparing(open_, 10, "porch"), made


def step(reader: StreamReader, program: Program, image: Pixels, seconds: float = 1.0) -> None:
    CLOCK[0] += seconds
    program.frames.append(image)
    assert reader.read() is not None


def test_the_one_that_gives_frames_goes_on_until_the_other_has_its_first(
    programs: tuple[StreamReader, list[Program]],
) -> None:
    reader, made = programs
    rng = np.random.default_rng(2)
    step(reader, made[0], picture(None, rng))
    assert [one.keys for one in made] == [True, False]
    step(reader, made[0], picture(None, rng))
    assert not made[0].closed
    step(reader, made[1], picture(None, rng))
    assert made[0].closed and len(made) == 2
    for _ in range(13):
        step(reader, made[1], picture(None, rng))
    assert [one.keys for one in made] == [True, False, True], "still for 10 s"
    step(reader, made[1], picture(None, rng))
    step(reader, made[2], picture(None, rng))
    assert made[1].closed and not made[2].closed
    for _ in range(5):
        step(reader, made[2], picture(None, rng))
    assert len(made) == 3, "noise is no motion"
    step(reader, made[2], picture(100, rng))
    assert [one.keys for one in made] == [True, False, True, False], "seen in one picture"
    reader.close()
    assert all(one.closed for one in made)


def test_a_camera_that_gives_one_stream_alone_keeps_what_it_has(
    programs: tuple[StreamReader, list[Program]], caplog: pytest.LogCaptureFixture
) -> None:
    reader, made = programs
    rng = np.random.default_rng(3)
    step(reader, made[0], picture(None, rng))
    made[1].frames.append(SourceError("503 Service Unavailable"))
    step(reader, made[0], picture(None, rng))
    assert made[1].closed and "only one stream can be had" in caplog.text and len(made) == 2
    for n in range(12):
        step(reader, made[0], picture(10 * n, rng))
    assert len(made) == 3, "tried again after a while, as it still moves"
    # the first one ends, as the camera prefers the newer: that is taken
    made[0].frames.append(SourceError("it has ended"))
    made[2].frames.append(picture(None, rng))
    assert reader.read() is not None and not made[2].closed
    made[2].frames.append(SourceError("it has ended"))
    with pytest.raises(SourceError):
        reader.read()


def test_files_have_all_their_frames_decoded() -> None:
    with pytest.raises(ConfigError, match="keyframes is for streams of the network"):
        open_source(parse_uri("ffmpeg:film.mp4#keyframes=5"))
