"""Aim 4: how soon the first detection is there, and what memory the running agent takes.

Start: `edge-agent detect MODEL PICTURE` up to its first line of output, over `python -c "import numpy, cv2,
onnxruntime, msgspec"`, which is what it cannot do without; in turns, processes of their own. Memory: the highest
resident set of `edge-agent run` on a video with a broker, of that process alone.
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
from tests.bench.setup import Place
from tests.conftest import ROOT

BARE = "import numpy, cv2, onnxruntime, msgspec; print(1, flush=True)"
RSS = {"edge-yolo": 150, "yolox-nano": 150, "yolov8n": 150, "yolov8n-int8": 110}
"""MB"""


def rows(place: Place, quick: bool) -> Iterator[Row]:
    yield from _start(place, 7 if quick else 21)
    if stream.possible():
        yield from _memory(place, quick)


def _start(place: Place, rounds: int) -> Iterator[Row]:
    picture = str(ROOT / "deploy" / "demo" / "coffee.png")
    for name in place.here(("edge-yolo", "yolov8n")):
        sides = {
            "ours": [*program(), "detect", place.registered(name), picture],
            "bare": [sys.executable, "-c", BARE],
        }
        wall: dict[str, list[float]] = {side: [] for side in sides}
        cpu: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(rounds + 1):
            for side in list(sides) if number % 2 else list(sides)[::-1]:
                seconds, used = _first_line(sides[side])
                if number:
                    wall[side].append(seconds)
                    cpu[side].append(used)
        yield Row(
            4,
            f"{name}: process start to first detection / bare imports",
            statistics.median(wall["ours"]) / statistics.median(wall["bare"]),
            target=1.5,
            ours=f"{statistics.median(wall['ours']):.2f} s (least {min(wall['ours']):.2f})",
            theirs=f"{statistics.median(wall['bare']):.2f} s (least {min(wall['bare']):.2f})",
            note=f"CPU {statistics.median(cpu['ours']) / statistics.median(cpu['bare']):.2f}",
        )


def program() -> list[str]:
    """`edge-agent` as it was installed beside this Python, else the package itself."""
    script = Path(sys.executable).with_name("edge-agent")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "edge_agent"]


def _first_line(command: list[str]) -> tuple[float, float]:
    """Seconds until a program's first line of output, and the processor time of the whole of it."""
    began = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    line = child.stdout.readline()
    seconds = time.perf_counter() - began
    child.stdout.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if not line:
        raise RuntimeError(f"{' '.join(command)} printed nothing")
    return seconds, usage.ru_utime + usage.ru_stime


def _memory(place: Place, quick: bool) -> Iterator[Row]:
    for name in place.here(tuple(RSS)):
        _, peak = stream.agent(place, place.registered(name), str(place.clip(40 if quick else 150)))
        yield Row(
            4,
            f"{name}: peak RSS of the running agent",
            round(peak / 1e6, 1),
            unit="MB",
            target=RSS[name],
            note="of this process alone; broker and subscriber are others",
        )
    name = "edge-yolo"
    frames = 1500 if quick else 11000
    arrived, _ = stream.agent(place, place.registered(name), f"{place.clip(40)}?loop=true", until=frames)
    settled, last = arrived[1000 if not quick else 300], [one for one in arrived if one.memory][-1]
    count = arrived.index(last) - arrived.index(settled)
    yield Row(
        4,
        f"{name}: growth of RSS per 10,000 frames",
        round((last.memory - settled.memory) / 1e6 * 10_000 / count, 2),
        unit="MB",
        target=2.0,
        note=f"from {count:,} frames, {settled.memory / 1e6:.0f} to {last.memory / 1e6:.0f} MB",
    )
