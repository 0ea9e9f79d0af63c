"""A real mosquitto on a free port of 127.0.0.1, that a test can stop, kill and start again."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.config import Mqtt
from edge_agent.consumer.listen import listen
from edge_agent.link.link import Link

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def password_file(path: Path, **users: str) -> Path:
    """A file of users and their passwords as mosquitto 2.0 hashes them; its own program needs to write under /tmp."""
    lines = []
    for user, word in users.items():
        salt = os.urandom(12)
        key = hashlib.pbkdf2_hmac("sha512", word.encode(), salt, 101)
        lines.append(f"{user}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}\n")
    path.write_text("".join(lines))
    return path


_OURS: list[socket.socket] = []
"""what says to the tests of all processes that a port is taken, as long as this one lives"""


def free_port() -> int:
    """A port of 127.0.0.1 that no test of any process is given once more, and that the kernel gives nobody, be it while
    a broker is down: it lies outside of the range for connections that go out.
    """
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = [port for port in range(10_000, 65_536) if not low <= port <= high] or range(low, high + 1)
    while True:
        port, mine = random.SystemRandom().choice(ports), socket.socket(socket.AF_UNIX)
        with socket.socket() as probe, suppress(OSError):
            mine.bind(f"\0edge-agent-test-{port}")
            probe.bind(("127.0.0.1", port))
            _OURS.append(mine)
            return port
        mine.close()


class Mosquitto:
    def __init__(self, folder: Path, *, config: str = "allow_anonymous true", scheme: str = "mqtt") -> None:
        if MOSQUITTO is None:
            pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
        self.folder, self.port = folder, free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.file = folder / "mosquitto.conf"
        self.file.write_text(f"listener {self.port} 127.0.0.1\nuser root\nlog_type none\n{config}\n")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.file)], stderr=subprocess.DEVNULL)
        until(lambda: is_open(self.port), "mosquitto listens")

    def stop(self, kill: bool = False) -> None:
        if self.process is not None:
            while self.process.poll() is None:
                # a SIGTERM that comes between its listening and its main loop is forgotten: once more
                (self.process.kill if kill else self.process.terminate)()
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(2)
            self.process = None


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(true: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Wait for a condition; a generous deadline, and the test fails with what did not come true."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"did not come true within {seconds:.0f} s: {what}")
        time.sleep(0.01)


def hears(link: Link | None) -> bool:
    """Whether the broker has answered each subscription of a device: what is published from now on reaches it."""
    if link is None or not link.connected:
        return False
    wanted = {receiver.topics for receiver in link.session._receivers}
    return wanted == set(link.session.subscribed) and not link.flight.others


class Consumer(threading.Thread):
    """Subscribes and keeps what it hears."""

    def __init__(self, mqtt: Mqtt, topics: str = "#", ack: bool = False) -> None:
        super().__init__(daemon=True)
        self.ack = ack
        self.mqtt, self.topics = mqtt, topics
        self.heard: list[tuple[str, bytes, bool]] = []
        self.connections = 0
        self.stop = threading.Event()

    def run(self) -> None:
        for message in listen(self.mqtt, [self.topics], self.stop, self.ack):
            if isinstance(message, str):
                self.connections += message == "connected"
            else:
                self.heard.append(message)

    def events(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(payload) for topic, payload, _ in list(self.heard) if topic.endswith("/events")]

    def seqs(self) -> set[int]:
        return {event["seq"] for event in self.events()}

    def last(self, tail: str) -> bytes | None:
        return next((payload for topic, payload, _ in reversed(self.heard) if topic.endswith(tail)), None)

    def __enter__(self) -> Consumer:
        self.start()
        until(lambda: self.connections, "the consumer is subscribed")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.join(10)


@contextmanager
def broker(folder: Path, **options: str) -> Iterator[Mosquitto]:
    it = Mosquitto(folder, **options)
    try:
        yield it
    finally:
        it.stop(kill=True)
