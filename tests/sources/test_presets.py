"""Cameras of boards: stand-ins that write, complain and end as the real programs do."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import open_source
from edge_agent.uri import parse_uri
from tests.sources.servers import Camera, running

RPICAM = "rpicam:0?width=64&height=48&stall=0.6&frozen=off"
JETSON = "jetson:1?width=64&height=48&stall=0.6&frozen=off"
HEAD = """#!{python}
import os, sys, time
def out(data, to={to}):
    while data:
        data = data[os.write(to, data):]
def say(text):
    sys.stderr.write(text); sys.stderr.flush()
open({note!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
first = len(open({note!r}).readlines()) == 1
size = 64 * 48 * 3 // 2
def frame():
    return os.urandom(size)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a program of that name, which is first on the PATH; gives the file that its arguments go to."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(name: str, body: str, to: int = 1) -> Path:
        note = tmp_path / "arguments"
        path = tmp_path / name
        path.write_text(HEAD.format(python=sys.executable, note=str(note), to=to) + body)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return note

    return make


FLOOD = "say('#1 (30.00 fps) exp 33.00 ag 8.00 dg 1.00\\n' * 2000)\n"
LIVE = f"while True:\n    out(frame()); time.sleep(0.01)\n    {FLOOD}"


def test_a_pi_camera_is_asked_and_gives_frames_while_it_floods_stderr(stand_in: Any) -> None:
    note = stand_in("rpicam-vid", LIVE)
    with running(open_source(parse_uri(RPICAM.replace("stall=0.6", "stall=60&fps=15")))) as seen:
        seen.until_frames(50)
        assert seen.states == ["ok"]
    assert seen.frames[0].image.shape == (48, 64, 3)
    asked = note.read_text()
    for words in ("--camera 0 ", "--width 64 ", "--height 48 ", "--framerate 15 ", "--codec yuv420 ", "--output -"):
        assert words in asked


def test_the_older_name_of_the_program_is_taken(stand_in: Any) -> None:
    stand_in("libcamera-vid", LIVE)
    with running(open_source(parse_uri(RPICAM))) as seen:
        seen.until_frames(1)


def test_jpegs_of_a_pi_camera_are_cut_where_they_end(stand_in: Any, tmp_path: Path) -> None:
    camera = Camera(60, 44)
    pictures = [camera.encode(camera.picture()) for _ in range(4)]
    (tmp_path / "film").write_bytes(b"".join(pictures))
    body = f"film = open({str(tmp_path / 'film')!r}, 'rb').read()\nwhile True:\n    out(film); time.sleep(0.05)\n"
    note = stand_in("rpicam-vid", body)
    with running(open_source(parse_uri("rpicam:0?width=60&height=44&format=mjpeg&frozen=off&stall=60"))) as seen:
        seen.until_frames(8)
        assert seen.states == ["ok"]
    assert {frame.image.shape for frame in seen.frames} == {(44, 60, 3)}
    assert "--codec mjpeg" in note.read_text()


BAD = {
    "no camera": (
        "say('[0:1] INFO Camera camera_manager.cpp:327 libcamera v0.5\\nERROR: *** no cameras available ***\\n')\n"
        "sys.exit(255)\n",
        "ended with exit status 255: ERROR: *** no cameras available ***",
    ),
    "half frames": (
        "out(frame()); out(frame()[:1000]); say('ERROR: device timeout detected\\n'); sys.exit(1)\n",
        "its last frame has 1000 of 4608 bytes (another size or format?)",
    ),
    "killed": ("out(frame()); os.kill(os.getpid(), 11)\n", "was ended by signal 11"),
    "silence": ("out(frame()); time.sleep(1000)\n", "no frame for 0.6 s"),
    "silence that does not obey": (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nout(frame()); time.sleep(1000)\n",
        "no frame for 0.6 s",
    ),
}


@pytest.mark.parametrize("how", BAD)
def test_what_goes_wrong_is_said_and_the_camera_is_started_again(stand_in: Any, how: str) -> None:
    body, said = BAD[how]
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    note = stand_in("rpicam-vid", f"if first:\n{indented}{LIVE}")
    with running(open_source(parse_uri(RPICAM))) as seen:
        seen.until(lambda: any(said in why for why in seen.whys), said)
        seen.until_frames(20)
    assert len(note.read_text().splitlines()) >= 2


Y4M = "out(b'YUV4MPEG2 W64 H48 F30:1 C420jpeg\\n')\nwhile True:\n    out(b'FRAME\\n' + frame()); time.sleep(0.01)\n"


def test_a_jetson_may_print_to_stdout_beside_its_frames(stand_in: Any) -> None:
    chatter = (
        "os.write(1, b'GST_ARGUS: Creating output stream\\nCONSUMER: Waiting until producer is connected...\\n')\n"
    )
    note = stand_in("gst-launch-1.0", chatter + Y4M, to=3)
    with running(open_source(parse_uri(JETSON.replace("stall=0.6", "stall=60")))) as seen:
        seen.until_frames(20)
        assert seen.states == ["ok"]
    assert seen.frames[0].image.shape == (48, 64, 3)
    asked = note.read_text()
    assert "sensor-id=1 " in asked and "(memory:NVMM),width=64,height=48,framerate=30/1,format=NV12" in asked


@pytest.mark.parametrize(
    ("wrote", "said"),
    [
        ("W64 H48 C422\\n", "gives pictures that are not taken"),
        ("W63 H48 C420\\n", "with even sides"),
        ("W999999 H999999\\n", "gives pictures that are not taken"),
        ("W-4 Hx\\n", "gives pictures that are not taken"),
        ("W64 H48 C420 " + "X" * 600, "does not write YUV4MPEG2"),
    ],
)
def test_another_size_or_layout_than_is_taken_is_refused(stand_in: Any, wrote: str, said: str) -> None:
    stand_in("gst-launch-1.0", f"out(b'YUV4MPEG2 {wrote}'); time.sleep(1000)\n", to=3)
    with running(open_source(parse_uri(JETSON))) as seen:
        seen.until(lambda: any(said in why for why in seen.whys), said)
    assert not seen.frames


def test_a_size_that_was_not_asked_for_is_taken_where_it_is_stated(stand_in: Any) -> None:
    stand_in("gst-launch-1.0", Y4M, to=3)
    with running(open_source(parse_uri("jetson:0?frozen=off"))) as seen:
        seen.until_frames(2)
    assert seen.frames[0].image.shape == (48, 64, 3)


def test_noise_between_frames_ends_the_stream(stand_in: Any) -> None:
    stand_in("gst-launch-1.0", Y4M.replace("'FRAME", "'FLAME"), to=3)
    with running(open_source(parse_uri(JETSON))) as seen:
        seen.until(lambda: any("between its frames" in why for why in seen.whys))


@pytest.mark.parametrize(("scheme", "install"), [("rpicam", "rpicam-apps"), ("jetson", "gstreamer1.0-tools")])
def test_a_program_that_is_missing_is_named_with_how_to_install_it(
    scheme: str, install: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=f"is not installed; .*{install}"):
        open_source(parse_uri(f"{scheme}:0"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("rpicam:front", "give the number of a camera, as in rpicam:0"),
        ("rpicam:0?width=1000", "width=960 or 1024, or format=mjpeg"),
        ("rpicam:0?height=481", "give an even width and height"),
        ("rpicam:0?format=h264", "give yuv420p or mjpeg"),
        ("rpicam:0?frames=3", "unknown option"),
        ("jetson:0?fps=0", "from 1 to 1000"),
        ("csi:0", "rpicam"),
        ("pipe:cat?format=y4m&width=4", "y4m states its size"),
        ("pipe:cat?format=I420&width=5&height=4", "needs an even width and height"),
    ],
)
def test_a_wrong_address_is_one_line(address: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_source(parse_uri(address))


def test_names_that_people_use_of_formats(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(np.full(64 * 48 * 3 // 2, 128, np.uint8)) * 3)
    for name in ("I420", "NV12", "YUYV", "BGR"):
        open_source(parse_uri(f"pipe:cat {tmp_path}/raw?format={name}&width=64&height=48"))
