"""Aim 4: how soon the first detection is there, and what memory the running agent takes.

Start: `edge-agent detect MODEL PICTURE` up to its first line of output, over `python -c "import numpy, cv2,
onnxruntime, msgspec"`, which is what it cannot do without; in turns, processes of their own. Memory: the highest
resident set of `edge-agent run` on a video with a broker, of that process alone; its growth once it has settled.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import stream
from tests.bench.measure import Row
from tests.bench.peers.turns import HERE, environment
from tests.bench.setup import Place
from tests.conftest import ROOT

PICTURE = str(ROOT / "deploy" / "demo" / "coffee.png")
BARE = "import numpy, cv2, onnxruntime, msgspec; print(1, flush=True)"
RSS = {"edge-yolo": 150, "yolox-nano": 150, "yolov8n": 150, "yolov8n-int8": 110}
"""MB"""
SETTLED = 20_000
"""frames after which memory is as large as it gets: some 20 s, and 10 s after its start the agent looks once, in the
background, whether any model can be run faster"""


def rows(place: Place, quick: bool) -> Iterator[Row]:
    yield from _start(place, 7 if quick else 21)
    if place.peers is not None:
        yield from _peers(place, place.peers, 3 if quick else 7)
    if stream.possible():
        yield from _memory(place, quick)


def _start(place: Place, rounds: int) -> Iterator[Row]:
    for name in place.here(("edge-yolo", "yolov8n")):
        ours = [*program(), "detect", place.registered(name), PICTURE]
        what = f"{name}: process start to first detection / bare imports"
        yield _in_turns(what, ours, [sys.executable, "-c", BARE], rounds, aim=1.5)


def _peers(place: Place, python: Path, rounds: int) -> Iterator[Row]:
    ours = [*program(), "detect", place.registered("yolov8n"), PICTURE]
    once = [str(python), str(HERE / "detect.py"), "once", str(place.model("yolov8n")), PICTURE, "0"]
    imported = [str(python), "-c", "import supervision; print('{}')"]
    environ = environment(python.parent.parent)
    for peer, command in (("Ultralytics", once), ("import supervision", imported)):
        yield _in_turns(f"yolov8n: process start to first detection / {peer}", ours, command, rounds, None, environ)


def _in_turns(
    what: str,
    ours: list[str],
    theirs: list[str],
    rounds: int,
    aim: float | None = None,
    environ: dict[str, str] | None = None,
) -> Row:
    """Two programs, each a process of its own, up to their first line of output; the first round warms the disk."""
    wall: list[list[float]] = [[], []]
    cpu: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for side in (0, 1) if number % 2 else (1, 0):
            seconds, used = _first_line((ours, theirs)[side], environ if side else None)
            if number:
                wall[side].append(seconds)
                cpu[side].append(used)
    return Row(
        4,
        what,
        statistics.median(wall[0]) / statistics.median(wall[1]),
        target=aim,
        ours=f"{statistics.median(wall[0]):.2f} s (least {min(wall[0]):.2f})",
        theirs=f"{statistics.median(wall[1]):.2f} s (least {min(wall[1]):.2f})",
        note=f"CPU {statistics.median(cpu[0]) / statistics.median(cpu[1]):.2f}",
    )


def program() -> list[str]:
    """`edge-agent` as it was installed beside this Python, else the package itself."""
    script = Path(sys.executable).with_name("edge-agent")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "edge_agent"]


def _first_line(command: list[str], environ: dict[str, str] | None) -> tuple[float, float]:
    """Seconds until the first line of output (with `environ`: the first of JSON), and all its processor time."""
    began = time.perf_counter()
    # as for a user, whose modules are compiled once and not at each start
    kept = {name: value for name, value in (environ or os.environ).items() if name != "PYTHONDONTWRITEBYTECODE"}
    child = subprocess.Popen(command, cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    # Ultralytics says this and that before its answer, which is JSON
    line = next((line for line in child.stdout if environ is None or line.startswith(b"{")), b"")
    seconds = time.perf_counter() - began
    child.stdout.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if not line:
        raise RuntimeError(f"{' '.join(command)} printed nothing")
    return seconds, usage.ru_utime + usage.ru_stime


def _memory(place: Place, quick: bool) -> Iterator[Row]:
    clip = place.clip(40 if quick else 150)
    for name in place.here(tuple(RSS)):
        # of a slow camera one frame at a time is answered, of a file as many as do the most
        for how, source in (("a camera of 5 frames a second", f"{clip}?fps=5"), ("a file", f"{clip}")):
            _, peak = stream.agent(place, place.registered(name), source)
            yield Row(
                4,
                f"{name}: peak RSS of the running agent, {how}",
                round(peak / 1e6, 1),
                unit="MB",
                target=RSS[name],
                note="of this process alone; broker and subscriber are others",
            )
    name, (settled, end) = "edge-yolo", (SETTLED, SETTLED + (4_000 if quick else 10_000))
    arrived, _ = stream.agent(place, place.registered(name), f"{place.clip(40)}?loop=true", until=end)
    held = [one.memory for one in arrived if one.memory]
    first, last = (statistics.median(part) for part in (held[settled : settled + 500], held[-500:]))
    yield Row(
        4,
        f"{name}: growth of RSS per 10,000 frames",
        round((last - first) / 1e6 * 10_000 / (end - settled - 500), 2),
        unit="MB",
        target=2.0,
        note=f"from frame {settled:,} to {len(held):,}, {first / 1e6:.0f} to {last / 1e6:.0f} MB",
    )
