"""Raw frames from real programs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.sources import open_source
from edge_agent.sources import program as programs
from edge_agent.types import Pixels
from edge_agent.uri import Uri, parse_uri
from tests.broker import until
from tests.sources.servers import running

WRITER = """
import os, sys, time
out = os.fdopen(1, "wb", buffering=0)
raw = open({raw!r}, "rb").read()
size = len(raw) // {frames}
for round in range({rounds}):
    for at in range(0, len(raw), size):
        out.write(raw[at:at + size])
        time.sleep(0.01)
{end}
"""


def program(tmp_path: Path, raw: bytes, frames: int, end: str = "", rounds: int = 1000) -> str:
    (tmp_path / "raw").write_bytes(raw)
    (tmp_path / "my writer.py").write_text(
        WRITER.format(raw=str(tmp_path / "raw"), frames=frames, end=end, rounds=rounds)
    )
    return f"{sys.executable} '{tmp_path / 'my writer.py'}'"


def smooth(width: int, height: int, seed: int) -> Pixels:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize(
    ("layout", "code", "off"),
    [
        ("bgr24", None, 0),
        ("rgb24", cv2.COLOR_BGR2RGB, 0),
        ("gray", cv2.COLOR_BGR2GRAY, None),
        ("yuv420p", cv2.COLOR_BGR2YUV_I420, 12),
        ("yuyv422", cv2.COLOR_BGR2YUV_YUY2, 12),
    ],
)
def test_each_format_gives_the_colours_that_went_in(
    tmp_path: Path, layout: str, code: int | None, off: int | None
) -> None:
    pictures = [smooth(64, 48, seed) for seed in range(5)]
    raw = b"".join((p if code is None else cv2.cvtColor(p, code)).tobytes() for p in pictures)
    uri = Uri("pipe", program(tmp_path, raw, 5), {"width": "64", "height": "48", "format": layout})
    with running(open_source(uri)) as seen:
        seen.until_frames(6)
    for frame in seen.frames:
        if off is None:
            wanted = [np.repeat(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2) for p in pictures]
        else:
            wanted = list(pictures)
        gaps = [np.abs(frame.image.astype(int) - p).mean() for p in wanted]
        assert min(gaps) <= (off or 0)


def start(command: str, options: str = "width=8&height=8&stall=0.6&frozen=0.3") -> Uri:
    return parse_uri(f"pipe:{command}?{options}")


NOISE = np.random.default_rng(3).integers(0, 255, 5 * 8 * 8 * 3, dtype=np.uint8).tobytes()


def test_a_program_that_ends_is_started_again_and_its_last_words_are_said(tmp_path: Path) -> None:
    command = program(tmp_path, NOISE, 5, "sys.exit('lens\\nno cameras available')", rounds=1)
    with running(open_source(start(command))) as seen:
        seen.until_frames(8)
        assert seen.states[:3] == ["ok", "reconnecting", "ok"]
        why = next(why for why in seen.whys if why)
        assert why.endswith("ended with exit status 1: no cameras available")


def test_a_program_that_goes_silent_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    end = f"open({str(note)!r}, 'a').write(str(os.getpid()) + '\\n'); time.sleep(1000)"
    with running(open_source(start(program(tmp_path, NOISE, 5, end, rounds=1)))) as seen:
        seen.until_state("stalled")
        seen.until(lambda: seen.states.count("ok") > 1, "a second start")
        seen.until(lambda: len(note.read_text().splitlines()) > 1)
    pids = [int(line) for line in note.read_text().splitlines()]
    seen.until(lambda: not any(alive(pid) for pid in pids), "the end of each program")


def test_what_a_program_left_behind_costs_no_thread_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "LISTEN", 0.05)
    note = tmp_path / "pid"
    script = f"setsid sleep 1000 > /dev/null & echo $! >> {note}; exec {program(tmp_path, NOISE, 5, rounds=1)}"
    (tmp_path / "start.sh").write_text(script)
    with running(open_source(start(f"sh {tmp_path}/start.sh"))) as seen:
        seen.until(lambda: seen.states.count("ok") > 2, "a third start")
    try:
        seen.until(lambda: not [t for t in threading.enumerate() if t.name == "stderr"], "the end of each listener")
    finally:
        for pid in note.read_text().split():
            os.kill(int(pid), signal.SIGKILL)


@pytest.mark.skipif(not programs._tied(), reason="needs setpriv of util-linux")
def test_a_program_does_not_outlive_a_killed_agent(tmp_path: Path) -> None:
    code = (
        "import sys, threading; from edge_agent.uri import parse_uri; from edge_agent.sources import open_source\n"
        "for item in open_source(parse_uri(sys.argv[1])).run(threading.Event()): pass"
    )
    note = tmp_path / "pid"
    (tmp_path / "silent.py").write_text(
        f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()) + '\\n')\ntime.sleep(1000)\n"
    )
    uri = f"pipe:{sys.executable} {tmp_path}/silent.py?width=8&height=8&stall=300"
    reader = subprocess.Popen([sys.executable, "-c", code, uri])
    until(lambda: note.exists() and note.read_text().endswith("\n"), "the program runs")
    pid = int(note.read_text())
    reader.kill()
    reader.wait()
    until(lambda: not alive(pid) or ended(pid), "the program is killed too")


def ended(pid: int) -> bool:
    """Whether it is a zombie that nobody has waited for."""
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_program_that_chatters_on_stderr_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "chatter.py").write_text(
        "import os, sys\n"
        "while True:\n"
        "    sys.stderr.write('frame stats ' * 1000 + '\\r')\n"
        "    os.write(1, os.urandom(192))\n"
    )
    with running(open_source(start(f"{sys.executable} {tmp_path}/chatter.py", "width=8&height=8&stall=60"))) as seen:
        seen.until_frames(200)
        assert seen.states == ["ok"]


def test_ffmpeg_plays_a_real_video(data: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed; apt-get install ffmpeg")
    video = data / "video" / "vtest.avi"
    uri = start(
        f"ffmpeg -v error -i {video} -f rawvideo -pix_fmt yuv420p -", "width=768&height=576&format=yuv420p&fps=20"
    )
    with running(open_source(uri)) as seen:
        seen.until_frames(5)
    good, first = cv2.VideoCapture(str(video)).read()
    assert good
    assert np.abs(seen.frames[0].image.astype(int) - first).mean() < 12
