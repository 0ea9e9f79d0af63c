"""What the device hears: subscriptions, which the broker keeps over connections and restarts, and their receivers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import tenfold
from edge_agent.link.flight import Flight
from edge_agent.link.remembered import Remembered
from edge_agent.link.wire import LARGEST, Client, MQTTMessage, ReasonCode, comes_for, subscribe

log = logging.getLogger("edge_agent")

REMEMBERED = 10_000
"""topics whose last texts are remembered, to tell retained ones that come again"""

Receive = Callable[[str, bytes], object]
"""(topic, payload) -> False when it is not taken: the broker is to give it again after the next connect"""


class Receiver(NamedTuple):
    """Who takes the messages under a topic filter."""

    topics: str
    receive: Receive
    retained: bool
    """also what the broker kept from before"""
    own: bool
    """also what stands under this device's own topics"""


class Session:
    """The subscriptions. `add` and what it returns from any thread; the rest is the link's."""

    def __init__(self, base: str, file: Path, flight: Flight) -> None:
        """`file` remembers what this device may be subscribed to at the broker."""
        self.base, self.flight = base, flight
        self.remembered = Remembered(file)
        self.subscribed: dict[str, int] = {}
        """topic filter -> packet id of its subscription"""
        self.passed_over = 0
        """messages that were too large to be taken in"""
        self._lock = threading.Lock()
        self._receivers: list[Receiver] = []
        self._leaving: dict[int, str] = {}
        """packet id of an unsubscription -> its topic filter"""
        self._given: dict[tuple[Receive, str], tuple[int | None, int | None]] = {}
        """receiver and topic -> hashes of the last texts, one that was retained and one that was not"""

    def add(self, receiver: Receiver) -> Callable[[], None]:
        """Returns what ends it."""
        with self._lock:
            self._receivers.append(receiver)

        def end() -> None:
            with self._lock:
                self._receivers.remove(receiver)

        return end

    def forget(self) -> None:
        """The connection is gone."""
        self.subscribed.clear()
        self._leaving.clear()

    def send(self, client: Client, most: int) -> None:
        """Subscribe up to `most` of what is wanted; once that is done give up what is not wanted any more."""
        with self._lock:
            wanted = {receiver.topics for receiver in self._receivers}
        self.remembered.note(self.remembered.names | wanted)
        fresh = [at for at in sorted(wanted - self.subscribed.keys()) if self.flight.free(f"SUBSCRIBE {at}")]
        for at in fresh[:most]:
            self.subscribed[at] = mid = subscribe(client, at, self.flight.limits.numbered)
            self.flight.went(mid, f"SUBSCRIBE {at}")
        if fresh[most - 1 :]:
            return
        gone = sorted(self.remembered.names - wanted - set(self._leaving.values()))
        for at in [at for at in gone if self.flight.free(f"UNSUBSCRIBE {at}")][:most]:
            mid = client.unsubscribe(at)[1] or 0
            self._leaving[mid] = at
            self.flight.went(mid, f"UNSUBSCRIBE {at}")
            self.subscribed.pop(at, None)

    def answered(self, mid: int, reasons: list[ReasonCode]) -> list[str]:
        """The broker has answered a subscription; the topic filters in it."""
        asked = [at for at, sent in self.subscribed.items() if sent == mid]
        if any(reason.is_failure for reason in reasons):
            for at in asked:
                log.error("mqtt: the broker denies the subscription of %s: %s", at, reasons[0].getName())
        return asked

    def left(self, mid: int) -> None:
        """The broker has answered an unsubscription."""
        at = self._leaving.pop(mid, None)
        if at is not None and at not in self.subscribed:  # nobody wanted it once more meanwhile
            self.remembered.note(self.remembered.names - {at})

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────

    def take(self, client: Client, message: MQTTMessage) -> None:
        """Hand a message to all that it is meant for, and acknowledge it, unless one of them does not take it."""
        if client.passed_over:
            self._pass_over(client, message)
        else:
            taken = [_give(receive, message) for receive in self._meant(message)]
            if not all(taken):
                return
        client.ack(message.mid, message.qos)

    def _pass_over(self, client: Client, message: MQTTMessage) -> None:
        """It was too large, and came without its payload."""
        size, client.passed_over = client.passed_over, 0
        self.passed_over += 1
        if tenfold(self.passed_over):
            what = f"a message of {size} bytes was passed over ({self.passed_over} so far)"
            log.warning("mqtt: %.200r: %s; at most %d are taken in", message.topic, what, LARGEST)

    def _meant(self, message: MQTTMessage) -> Iterator[Receive]:
        with self._lock:
            receivers = list(self._receivers)
        ours = message.topic.startswith(f"{self.base}/")
        for at, receive, retained, own in receivers:
            if not comes_for(at, message) or (ours and not own and at != message.topic):
                continue
            if retained:
                if not self._again(receive, message):
                    yield receive
            elif not message.retain:
                yield receive

    def _again(self, receive: Receive, message: MQTTMessage) -> bool:
        """Whether this is a retained text that was given before; 3.1.1 has them come with each subscription."""
        key, text = (receive, message.topic), hash(message.payload)
        retained, passing = self._given.pop(key, (None, None))
        self._given[key] = (text, passing) if message.retain else (retained, text)
        if len(self._given) > REMEMBERED:
            del self._given[next(iter(self._given))]
        return message.retain and text in (retained, passing)


def _give(receive: Receive, message: MQTTMessage) -> bool:
    """Whether it was taken."""
    try:
        return receive(message.topic, bytes(message.payload)) is not False
    except Exception:  # a bug: it must not end the thread that all messages go through
        log.exception("mqtt: %s: %d bytes passed over", message.topic, len(message.payload))
        return True
