"""What the device says beside its events: retained, told once, and cleared."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from edge_agent.link import topics
from edge_agent.link.budget import Budget
from edge_agent.link.flight import Flight
from edge_agent.link.remembered import Remembered
from edge_agent.link.wire import Client

log = logging.getLogger("edge_agent")


class Retained:
    """What is to stand under each topic. `say`, `tell` and `clear_others` from any thread; the rest is the link's."""

    def __init__(self, base: str, file: Path, flight: Flight, budget: Budget) -> None:
        """`file` remembers what the broker retains for this device."""
        self.base, self.flight, self.budget = base, flight, budget
        self._kept = Remembered(file)
        self._lock = threading.Lock()
        self._said: dict[str, bytes] = {}
        self._to_say: dict[str, None] = {}
        self._to_tell: deque[tuple[str, bytes]] = deque(maxlen=100)
        self._lasting: set[str] = set()
        """tails that are not said again at each connect, but where the broker has lost what it kept"""
        self._going: dict[int, tuple[str, bytes]] = {}
        """packet id -> what is on its way under such a tail"""
        self._stands: dict[str, bytes] = {}
        """what the broker has of it"""
        self._unsaid: set[str] = set()
        """what was too large to be said, and is said to be so once"""
        self._ghosts: list[str] = []
        """topics that are to be cleared"""
        self._clearing: dict[int, str] = {}
        """packet id -> which of them"""

    def say(self, tail: str, payload: bytes) -> bool:
        """Retain `payload` under a tail; False when just that was said last."""
        with self._lock:
            if self._said.get(tail) == payload:
                return False
            self._said[tail] = payload
            self._to_say[tail] = None
            return True

    def announce(self, tail: str, payload: bytes, known: bool) -> None:
        """As `say`, of what lasts. `known`: the broker has it since an earlier run, and is not told again as long as it
        keeps our session.
        """
        with self._lock:
            self._lasting.add(tail)
            if known:
                self._said[tail] = self._stands[tail] = payload
        self.say(tail, payload)

    def stands(self, tail: str) -> bool:
        """Whether the broker has acknowledged what was announced under a tail."""
        with self._lock:
            return tail in self._said and self._stands.get(tail) == self._said[tail]

    def say_again(self) -> None:
        """A listener has come that may have heard none of it: all is said again, unless the day's bytes are short."""
        self.begin(kept=False)

    def unsay(self, tail: str) -> None:
        """Nobody serves it any more: it is cleared."""
        with self._lock:
            self._to_say.pop(tail, None)
            topic = topics.whole(self.base, tail)
            if self._said.pop(tail, None) is not None or topic in self._kept.names:
                self._ghosts.append(topic)

    def tell(self, tail: str, payload: bytes) -> None:
        """Send `payload` once."""
        with self._lock:
            self._to_tell.append((tail, payload))

    def clear_others(self, more: Iterable[str], but: Iterable[str] = ()) -> None:
        """Clear what earlier runs retained and this one did not say; `more`: where none of them noted what it did;
        `but`: tails that this run will say, and whose last words hold until then.
        """
        with self._lock:
            served = {topics.whole(self.base, tail) for tail in (*self._said, *but, topics.STATUS)}
            self._ghosts = sorted((set(self._kept.names) if self._kept.known else set(more)) - served)

    def begin(self, kept: bool) -> None:
        """A new connection: all is said again, unless the day's bytes are short. `kept`: the broker has our session
        from before, and so what lasts.
        """
        with self._lock:
            lasting = {tail for tail in self._lasting if kept and self._stands.get(tail) == self._said.get(tail)}
            if not self.budget.saving:
                self._to_say = {tail: None for tail in self._said if tail not in lasting}
            elif not kept:
                self._to_say |= dict.fromkeys(self._lasting & self._said.keys())

    def forget(self) -> None:
        """The connection is gone."""
        self._clearing.clear()
        self._going.clear()

    def send(self, client: Client, most: int) -> None:
        """Say and tell up to `most` of what waits, as far as the broker and the day's bytes take it now."""
        while most > 0 and self.flight.room(1) > 0 and self.budget.left > 0:
            with self._lock:
                found = self._next()
                if found is None:
                    self._clear(client, most)
                    return
            tail, payload, retain = found
            topic = topics.whole(self.base, tail)
            if self.flight.too_large(topic, payload):
                if tail not in self._unsaid:
                    log.warning("mqtt: %s: %d bytes; %s", topic, len(payload), self.flight.limit)
                self._unsaid.add(tail)
                continue
            self.publish(client, tail, payload, retain)
            self.budget.spend(len(topic) + len(payload))
            most -= 1

    def _next(self) -> tuple[str, bytes, bool] | None:
        """What is to be sent next, and whether it is to be retained; the lock is held."""
        for tail in self._to_say:
            if self.flight.free(f"PUBLISH {topics.whole(self.base, tail)}"):
                del self._to_say[tail]
                return tail, self._said[tail], self.flight.limits.retains
        return (*self._to_tell.popleft(), False) if self._to_tell else None

    def publish(self, client: Client, tail: str, payload: bytes, retain: bool) -> None:
        """Send it; what is to be retained is noted before."""
        topic = topics.whole(self.base, tail)
        if retain:
            self._kept.note(self._kept.names | {topic})
        mid = self.flight.publish(client, topic, payload, retain)
        if tail in self._lasting:
            self._going[mid] = tail, payload

    def _clear(self, client: Client, most: int) -> None:
        """Clear up to `most` of what was retained for what nobody serves any more."""
        for topic in [topic for topic in self._ghosts if topic not in self._clearing.values()][:most]:
            if not self.flight.limits.retains or self.flight.room(1) <= 0:
                return
            self._clearing[self.flight.publish(client, topic, b"", retain=True)] = topic
            self.budget.spend(len(topic))

    def answered(self, mid: int, denied: str | None = None) -> None:
        """The broker has answered a packet; `denied`: it does not take it, and says why."""
        self.cleared(self._clearing.pop(mid, ""))
        if went := self._going.pop(mid, None):
            if denied:
                topic = topics.whole(self.base, went[0])
                log.error("mqtt: the broker denies %s (%s); give this user the right to publish it", topic, denied)
            with self._lock:
                self._stands[went[0]] = went[1]

    def cleared(self, topic: str) -> None:
        """It is, or the broker does not let us."""
        if topic in self._ghosts:
            self._ghosts.remove(topic)
            self._kept.note(self._kept.names - {topic})
