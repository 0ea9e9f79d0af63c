"""Aim 2: frames a second of the running agent over those of a default `session.run` loop, in one process, in turns.

Three surroundings: alone, beside one busy process, and pinned to one CPU together with nothing. Pinned is as in a
container that was given one CPU: the process is started so, and once both sides are open every thread of it is put
there, as a default session lets its own threads loose on other processors otherwise. The loop gets its tensor ready
made and does nothing with what comes out; the agent gets frames from a camera that is faster than it is.
``python -m tests.bench.rates FOLDER DATA NAME SECONDS ROUNDS`` is the process that is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_agent import config
from edge_agent.agent.agent import Agent
from tests.bench import memory
from tests.bench.cost import default_run
from tests.bench.measure import Row
from tests.bench.setup import DETECTORS, OWN, OWN_FLOAT, Place, prepare
from tests.conftest import ROOT

AIMS = {"alone": 1.10, "beside one busy process": 1.5, "pinned to one CPU": 1.8}
LEAST = 5
"""frames a turn"""
REST = 0.15
"""seconds between two turns: a default session spins some 30 ms after its last run"""
CONFIG = """
[store]
path = "{store}"
[[pipeline]]
name = "camera"
source = "tests.bench.memory:memory:?fps={fps}"
tasks = ["detect:{model}"]
report = "every"
class = "telemetry"
"""


def rows(place: Place, quick: bool) -> Iterator[Row]:
    names = place.here(("yolov8n", "yolox-nano", OWN) if quick else DETECTORS)
    for name in names:
        place.registered(name)
        for where, aim in AIMS.items():
            told = _child(place, name, where, 1.5 if quick else 3.0, 3 if quick else 7)
            pairs = list(zip(told["ours"], told["default"], strict=True))
            yield Row(
                2,
                f"{name}: frames a second / default loop, {where}",
                statistics.median(a / b for a, b in pairs),
                target=None if name == OWN_FLOAT else aim,
                better=">=",
                ours=f"{statistics.median(told['ours']):.1f}/s",
                theirs=f"{statistics.median(told['default']):.1f}/s",
                note=f"CPU a frame {statistics.median(told['ours cpu']) / statistics.median(told['default cpu']):.2f}",
            )


def _child(place: Place, name: str, where: str, seconds: float, rounds: int) -> dict[str, list[float]]:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    allowed = cpus[:1] if where.startswith("pinned") else cpus
    if set(allowed) != os.sched_getaffinity(0):
        place.race(name, cpus=allowed)
    command = [sys.executable, "-m", "tests.bench.rates", str(place.folder), str(place.data or "")]
    with _busy(where.startswith("beside"), cpus):
        done = subprocess.run(
            ["taskset", "-c", ",".join(map(str, allowed)), *command, name, str(seconds), str(rounds)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
    told: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return told


@contextmanager
def _busy(wanted: bool, cpus: list[int]) -> Iterator[None]:
    """One process that computes all the time, on the same processors."""
    if not wanted:
        yield
        return
    child = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, cpus)), sys.executable, "-c", "while True: pass"],
    )
    try:
        yield
    finally:
        child.kill()
        child.wait()


def measure(place: Place, name: str, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Rate and processor time a frame of each turn."""
    memory.frames[:] = place.frames()
    session, feed = default_run(place, name)
    for _ in range(3):
        began = time.perf_counter()
        session.run(None, feed)
    fps = 4 / (time.perf_counter() - began)
    found: dict[str, list[float]] = {"ours": [], "default": [], "ours cpu": [], "default cpu": []}
    with tempfile.TemporaryDirectory() as store:
        agent = Agent(config.parse(CONFIG.format(store=store, fps=fps, model=place.registered(name))))
        ends: list[float] = []
        agent.keep.listeners.append(lambda event: ends.append(time.perf_counter()))
        stop = threading.Event()
        thread = threading.Thread(target=agent.run, args=(stop,))
        thread.start()
        _keep_to(os.sched_getaffinity(0))

        def ours() -> None:
            ends.clear()
            used = time.process_time()
            memory.gate.set()
            _until(seconds, lambda: len(ends) >= LEAST)
            memory.gate.clear()
            time.sleep(REST)
            found["ours"].append((len(ends) - 1) / (ends[-1] - ends[0]))
            found["ours cpu"].append((time.process_time() - used) / len(ends))

        def default() -> None:
            used, began, count = time.process_time(), time.perf_counter(), 0
            while time.perf_counter() - began < seconds or count < LEAST:
                session.run(None, feed)
                count += 1
            found["default"].append(count / (time.perf_counter() - began))
            time.sleep(REST)
            found["default cpu"].append((time.process_time() - used) / count)

        for number in range(rounds + 1):
            for turn in (ours, default) if number % 2 else (default, ours):
                turn()
        stop.set()
        thread.join()
    return {key: values[1:] for key, values in found.items()}  # the first round warms up


def _keep_to(cpus: set[int]) -> None:
    """Put each thread of this process on these processors, whatever it had chosen itself."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


def _until(seconds: float, enough: Callable[[], bool]) -> None:
    """Wait so long, and longer on a box where not even a few frames were answered by then."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or not enough():
        time.sleep(0.02)


if __name__ == "__main__":
    folder, data, model, turn, number = sys.argv[1:]
    here = prepare(Path(folder), Path(data) if data else None, keep=True)
    print(json.dumps(measure(here, model, float(turn), int(number))))
