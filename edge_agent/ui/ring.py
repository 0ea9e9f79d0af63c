"""The last events, in memory: numbered as they were kept, bounded, and searched as the archive is."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

import msgspec

from edge_agent.archive.said import said
from edge_agent.archive.wanted import Wanted
from edge_agent.events import EVENTS, JSON, Event

MOST_EVENTS, MOST_BYTES = 5000, 4_000_000
"""that the ring holds"""
LOUD = {"rule", "gap", "opinion"}
"""kinds that are alerts, but for a rule that goes off"""


class Told(msgspec.Struct, frozen=True):
    """An event as the page shows it."""

    number: Annotated[int, msgspec.Meta(description="grows with each event; of the archive, else of the ring")]
    event: Annotated[msgspec.Raw, msgspec.Meta(description="as it was sent: deploy/event.schema.json")]
    words: Annotated[str, msgspec.Meta(description="what it says, in one line")]
    labels: list[str]
    zones: list[str]
    alert: Annotated[bool, msgspec.Meta(description="a rule, a gap, something unusual or that loiters")]
    reviewed: bool


def told(number: int, raw: bytes, reviewed: bool) -> Told:
    """An event for the page."""
    body: dict[str, Any] = msgspec.json.decode(raw)
    kind, spoken = EVENTS.get(str(body.get("kind"))), said(body)
    line = spoken.text
    if kind is not None:
        with suppress(KeyError, TypeError, ValueError):
            line = kind.words(body) or line
    loud = body.get("kind") in LOUD and body.get("phase") != "off"
    alert = loud or bool(body.get("unusual") or body.get("loiters"))
    return Told(number, msgspec.Raw(raw), line, list(spoken.labels), list(spoken.zones), alert, reviewed)


class Ring:
    """The last events. Its listener is called on any thread; the rest is for any, too."""

    def __init__(self) -> None:
        self.boot = secrets.token_hex(4)
        """of this ring: numbers of another one mean nothing here"""
        self._lock = threading.Lock()
        self._events: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self.last = 0
        self.wake: Callable[[], None] = lambda: None
        """called when one has come"""
        self.reviewed: deque[str] = deque(maxlen=MOST_EVENTS)
        """ids, where no archive remembers them"""

    def add(self, event: Event) -> None:
        """The listener."""
        raw = JSON.encode(event)
        with self._lock:
            self.last += 1
            self._events.append((self.last, raw))
            self._bytes += len(raw)
            while len(self._events) > MOST_EVENTS or (self._bytes > MOST_BYTES and len(self._events) > 1):
                self._bytes -= len(self._events.popleft()[1])
        self.wake()

    def after(self, number: int, most: int) -> tuple[int, list[tuple[int, bytes]]]:
        """How many are gone of those behind this number, and the next ones."""
        with self._lock:
            first = self._events[0][0] if self._events else self.last + 1
            start = max(0, number + 1 - first)
            some = [self._events[at] for at in range(start, min(len(self._events), start + most))]
        return max(0, first - number - 1), some

    def mark(self, cursor: str) -> int:
        """The number of a cursor; of none the last, of another ring's that before the first."""
        if not cursor:
            return self.last
        boot, _, number = cursor.partition("-")
        if boot == self.boot and number.isdecimal() and len(number) < 16:
            return min(int(number), self.last)
        with self._lock:
            return self._events[0][0] - 1 if self._events else self.last

    def review(self, ids: Sequence[str], reviewed: bool) -> None:
        """Note that somebody has looked at these, or has not."""
        for one in ids:
            with suppress(ValueError):
                self.reviewed.remove(one)
            if reviewed:
                self.reviewed.append(one)

    def search(self, wanted: Wanted, before: int | None, limit: int) -> list[Told]:
        """As of the archive, the newest first."""
        with self._lock:
            some = [(number, raw) for number, raw in self._events if before is None or number < before]
        reviewed, found = set(self.reviewed), list[Told]()
        for number, raw in reversed(some):
            body: dict[str, Any] = msgspec.json.decode(raw)
            if _fits(body, wanted, body["id"] in reviewed):
                found.append(told(number, raw, body["id"] in reviewed))
                if len(found) == limit:
                    break
        return found


def _fits(body: dict[str, Any], wanted: Wanted, reviewed: bool) -> bool:
    """Whether an event is one of those that are wanted."""
    spoken = said(body)
    at = _seconds(str(body["at"]))
    sides = [
        wanted.since is None or at >= wanted.since,
        wanted.until is None or at < wanted.until,
        wanted.reviewed is None or wanted.reviewed == reviewed,
    ]
    named: list[tuple[Sequence[str], Sequence[str]]] = [(wanted.pipelines, [body["pipeline"]])]
    named += [(wanted.kinds, [body["kind"]]), (wanted.labels, spoken.labels), (wanted.zones, spoken.zones)]
    return all(sides) and all(not some or set(some) & set(own) for some, own in named)


def _seconds(at: str) -> float:
    """RFC 3339 as seconds since 1970; 0 for what is none, as the archive has it."""
    try:
        return datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
