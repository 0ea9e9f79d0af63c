"""The agent, or the peer, on a video beside a broker: what arrived when, and what the process had cost by then."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from tests.bench.measure import cpu_of, memory_of
from tests.bench.peers.turns import HERE, environment
from tests.bench.setup import Place
from tests.broker import MOSQUITTO, broker
from tests.conftest import ROOT

CONFIG = """
[device]
id = "bench"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
[store]
path = "{store}"
[[pipeline]]
name = "camera"
source = "files:{source}"
tasks = ["detect:{model}?score=0.25&iou=0.45"]
report = "every"
workers = {workers}
"""
PATIENCE = 240.0
"""seconds that the first answer may take"""


@dataclass(frozen=True, slots=True)
class Arrived:
    """One event at the subscriber, and the process that sent it."""

    at: float
    """wall clock, seconds"""
    captured: float
    """wall clock, seconds; 0: not said"""
    boxes: int
    cpu: float
    """seconds the process had used"""
    memory: int
    """bytes resident"""


def possible() -> bool:
    """Whether there is a broker to do it with."""
    return MOSQUITTO is not None


def agent(
    place: Place, model: str, source: str, *, until: int = 0, seconds: float = 0.0, workers: int = 0
) -> tuple[list[Arrived], int]:
    """`edge-agent run` on ``files:SOURCE``; what arrived, and the peak of its memory in bytes.

    `workers` as in its config. Ends by itself with its source, or is stopped after `until` events or `seconds` from
    the first one on.
    """

    def command(folder: Path, port: int) -> list[str]:
        config = folder / "agent.toml"
        config.write_text(CONFIG.format(port=port, store=folder / "store", source=source, model=model, workers=workers))
        return [sys.executable, "-m", "edge_agent", "run", "-c", str(config)]

    return _run(command, "edge/v1/bench/camera/events", until, seconds, None)


def peer(place: Place, model: Path, arguments: list[str], *, seconds: float = 0.0) -> tuple[list[Arrived], int]:
    """The same by Ultralytics; `arguments`: "file" VIDEO, or "camera" VIDEO FPS."""
    python = place.peers
    assert python is not None
    mode, video, *rest = arguments

    def command(folder: Path, port: int) -> list[str]:
        return [str(python), str(HERE / "detect.py"), mode, str(model), video, str(port), *rest]

    return _run(command, "bench/peer", 0, seconds, python.parent.parent)


def _run(command: Any, topic: str, until: int, seconds: float, peers: Path | None) -> tuple[list[Arrived], int]:
    with tempfile.TemporaryDirectory() as name, broker(Path(name)) as server:
        folder = Path(name)
        with (folder / "log").open("wb") as log, _heard(server.port, topic) as heard:
            child = subprocess.Popen(
                command(folder, server.port),
                cwd=folder if peers else ROOT,
                env=environment(peers) if peers else None,
                stdout=log,
                stderr=log,
            )
            arrived: list[Arrived] = []
            peak = 0
            began = time.monotonic()
            try:
                while child.poll() is None:
                    time.sleep(0.005)
                    if heard:
                        # a message and what it had cost are read a few milliseconds apart
                        arrived += _noted(child.pid, heard)
                        with contextlib.suppress(OSError):
                            peak = max(peak, memory_of(child.pid, peak=True))
                    if not arrived and time.monotonic() - began > PATIENCE:
                        break
                    if arrived and (
                        (until and len(arrived) >= until) or (seconds and arrived[-1].at - arrived[0].at >= seconds)
                    ):
                        break
            finally:
                child.send_signal(signal.SIGTERM if peers is None else signal.SIGKILL)
                child.wait(60)
            time.sleep(0.2)
            arrived += _noted(0, heard)
        if len(arrived) < 2:
            said = (folder / "log").read_text(errors="replace").strip().splitlines()
            raise RuntimeError(f"{topic}: {len(arrived)} answers; {said[-1] if said else 'it said nothing'}")
        return arrived, peak


def _noted(pid: int, heard: list[tuple[float, bytes]]) -> list[Arrived]:
    """What was heard since, with the costs as they are now (0 when the process has ended)."""
    memory = 0
    used = 0.0
    with contextlib.suppress(OSError, ValueError):
        if pid:
            used, memory = cpu_of(pid), memory_of(pid)
    found = []
    while heard:
        at, payload = heard.pop(0)
        told = msgspec.json.decode(payload)
        if "detections" in told:
            found.append(Arrived(at, _captured(told["at"]), len(told["detections"]), used, memory))
    return found


def _captured(at: str | float) -> float:
    if isinstance(at, str):
        # cut off at milliseconds: half of one is missing on average
        return datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp() + 0.0005
    return at


@contextlib.contextmanager
def _heard(port: int, topic: str) -> Iterator[list[tuple[float, bytes]]]:
    """What comes to the topic from now on, with the time."""
    heard: list[tuple[float, bytes]] = []
    ready = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)

    def on_message(_: Any, __: Any, message: MQTTMessage) -> None:
        heard.append((time.time(), bytes(message.payload)))

    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe(topic, qos=1) and None
    client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    ready.wait(10)
    try:
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()
