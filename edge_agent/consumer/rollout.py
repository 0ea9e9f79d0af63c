"""A rollout over a broker: the operator's state machine (fleet/rollout.py), its file, and the connection between."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.config import Mqtt
from edge_agent.consumer.listen import CONNECTED, listen
from edge_agent.errors import UsageError
from edge_agent.events import UNREADABLE
from edge_agent.files import folder, read_regular, write_private
from edge_agent.fleet.plan import Rollout
from edge_agent.fleet.rollout import Driver
from edge_agent.link import topics
from edge_agent.link.signing import Signer
from edge_agent.link.wire import Client

MOST = 100_000_000
"""bytes of the file"""
TICK_S, FIND_S = 0.5, 2.0
"""seconds between two looks at what is late; after a connect in which devices make themselves known"""


def read(path: Path) -> Rollout:
    """What is known of a rollout. UsageError where that cannot be read."""
    try:
        return msgspec.json.decode(read_regular(path, MOST), type=Rollout)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give the --state of a rollout that was started") from None
    except UNREADABLE as error:
        raise UsageError(f"{path}: is no rollout's state: {error}") from None


def write(path: Path, it: Rollout) -> None:
    """On disk before it counts."""
    folder(path.parent)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    write_private(fresh, msgspec.json.encode(it), confirm=True)
    fresh.replace(path)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether nobody else drives this rollout: nobody will before this is over."""
    folder(path.parent)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def halt_file(path: Path) -> Path:
    """There while somebody wants a rollout that is driven elsewhere halted."""
    return path.with_name(f"{path.name}.halt")


class Driven:
    """A rollout at work over one broker."""

    def __init__(
        self, mqtt: Mqtt, path: Path, stop: threading.Event, signer: Signer | None = None,
        say: Callable[[Rollout], object] = lambda it: None,
    ) -> None:  # fmt: skip
        """`say` is told of each change."""
        self._mqtt, self._path, self._stop, self._signer, self._say = mqtt, path, stop, signer, say
        self._outgoing: deque[tuple[str, bytes, bool]] = deque()
        self._sent: Any = None
        """what was sent last"""
        self._tick_at, self._ready_at = 0.0, math.inf
        sign = {} if signer is None else {"sign": signer.sign}
        self.driver = Driver(read(path), self._publish, self._save, time.time, **sign)

    def run(self) -> Rollout:
        """Until it is over or halted and that was sent, or `stop` is set. Raises LinkError."""
        jobs = f"{topics.base_of(self._mqtt.prefix, '+')}/{topics.JOBS}"
        tails = [topics.STATUS, topics.REPORTED]
        filters = [f"{jobs}/+/update", f"{jobs}/$next/get"]
        filters += [topics.whole(topics.base_of(self._mqtt.prefix, "+"), tail) for tail in tails]
        for message in listen(self._mqtt, filters, self._stop, beside=self._beside):
            if message == CONNECTED:
                self._ready_at = time.monotonic() + FIND_S
                self.driver.again()
            elif not isinstance(message, str):
                self._hear(*message[:2])
        return self.driver.it

    def _hear(self, topic: str, payload: bytes) -> None:
        device, _, tail = topic.removeprefix(f"{self._mqtt.prefix}/").partition("/")
        if tail == topics.STATUS:
            self.driver.online[device] = payload == b"online"
        elif tail == topics.REPORTED:
            with contextlib.suppress(*UNREADABLE):
                said = msgspec.json.decode(payload, type=_Reported)
                if said.group == self.driver.it.plan.group:
                    self.driver.add([device])
                self.driver.accuracy(device, said.accuracy)
        else:
            self.driver.heard(device, tail.removeprefix(f"{topics.JOBS}/"), payload)

    def _beside(self, client: Client) -> None:
        """Between two looks for messages: send what is to be sent, and see what is late."""
        now = time.monotonic()
        if now >= max(self._tick_at, self._ready_at):
            self._tick_at = now + TICK_S
            if halt_file(self._path).exists():
                self.driver.halt("somebody had it halted")
                halt_file(self._path).unlink(missing_ok=True)
            self.driver.tick()
        while self._outgoing:
            topic, payload, retain = self._outgoing.popleft()
            self._sent = client.publish(topic, payload, qos=1, retain=retain)
        if self.driver.it.status != "RUNNING" and (self._sent is None or self._sent.is_published()):
            self._stop.set()

    def _publish(self, device: str, tail: str, payload: bytes, retain: bool) -> None:
        topic = f"{topics.base_of(self._mqtt.prefix, device)}/{topics.JOBS}/{tail}"
        self._outgoing.append((topic, payload, retain))

    def _save(self, it: Rollout) -> None:
        write(self._path, it)
        self._say(it)


class _Reported(msgspec.Struct):
    """What a device says of itself."""

    group: str = ""
    accuracy: str = ""


def tell(mqtt: Mqtt, topic: str, body: dict[str, Any], signer: Signer | None, stop: threading.Event) -> None:
    """Retain one document. Raises LinkError."""
    payload = signer.sign(topic, body) if signer is not None else msgspec.json.encode(body)

    sent: list[Any] = []

    def once(client: Client) -> None:
        if not sent:
            sent.append(client.publish(topic, payload, qos=1, retain=True))
        elif sent[0].is_published():
            stop.set()

    for _ in listen(mqtt, [topic], stop, beside=once):
        pass
