"""Events: as they come (SSE), and looked back at.

What comes is kept in a ring in memory, whose numbers are those of the stream; who connects again says the last one and
misses nothing, or is told how many it missed. What is looked back at is the archive where there is one, else the ring.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from starlette.responses import Response

from edge_agent.archive.said import said
from edge_agent.archive.wanted import Wanted
from edge_agent.events import EVENTS, JSON, Event
from edge_agent.ui.calls import Ask, Call, Refused, Stream
from edge_agent.ui.session import Done

if TYPE_CHECKING:
    from edge_agent.archive.archive import Archive
    from edge_agent.ui.device import Agent
    from edge_agent.ui.server import Page

MOST_EVENTS, MOST_BYTES = 5000, 4_000_000
"""that the ring holds"""
MOST_STREAMS, EACH_S = 200, 1.0
"""at once, and seconds between two states in them"""
AT_ONCE = 200
"""events that are sent between two looks at whether the page stops"""
LOUD = {"rule", "gap", "opinion"}
"""kinds that are alerts, whatever they say"""


class Told(msgspec.Struct, frozen=True):
    """An event as the page shows it."""

    number: Annotated[int, msgspec.Meta(description="grows with each event; of the archive, else of the ring")]
    event: Annotated[msgspec.Raw, msgspec.Meta(description="as it was sent: deploy/event.schema.json")]
    words: Annotated[str, msgspec.Meta(description="what it says, in one line")]
    labels: list[str]
    zones: list[str]
    alert: Annotated[bool, msgspec.Meta(description="a rule, a gap, something unusual or that loiters")]
    reviewed: bool


class Found(msgspec.Struct, frozen=True):
    """Events, the newest first."""

    events: list[Told]
    stream: Annotated[str, msgspec.Meta(description="what the stream goes on behind")]
    archived: Annotated[bool, msgspec.Meta(description="false: only the last ones are here, in memory")]


class Review(msgspec.Struct, frozen=True):
    """Events that somebody has looked at."""

    ids: Annotated[list[str], msgspec.Meta(max_length=1000)]
    reviewed: bool = True


def told(number: int, raw: bytes, reviewed: bool) -> Told:
    """An event for the page."""
    body: dict[str, Any] = msgspec.json.decode(raw)
    kind, spoken = EVENTS.get(str(body.get("kind"))), said(body)
    line = spoken.text
    if kind is not None:
        with suppress(KeyError, TypeError, ValueError):
            line = kind.words(body) or line
    alert = body.get("kind") in LOUD or bool(body.get("unusual") or body.get("loiters"))
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
    at = seconds(str(body["at"])) or 0.0
    sides = [
        wanted.since is None or at >= wanted.since,
        wanted.until is None or at < wanted.until,
        wanted.reviewed is None or wanted.reviewed == reviewed,
    ]
    named: list[tuple[Sequence[str], Sequence[str]]] = [(wanted.pipelines, [body["pipeline"]])]
    named += [(wanted.kinds, [body["kind"]]), (wanted.labels, spoken.labels), (wanted.zones, spoken.zones)]
    return all(sides) and all(not some or set(some) & set(own) for some, own in named)


def seconds(text: str) -> float | None:
    """RFC 3339, or seconds since 1970, as seconds; None for none. Refused."""
    if not text:
        return None
    try:
        return float(text) if text.replace(".", "", 1).isdecimal() else (
            datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
        )  # fmt: skip
    except (ValueError, OverflowError):
        raise Refused(400, f"{text[:40]!r} is no time; write 2026-01-31T12:00:00Z") from None


def wanted_of(ask: Ask) -> Wanted:
    """What the options of a request want. Refused."""
    some = {
        f"{key}s": [one for one in ask.query(key).split(",") if one] for key in ("pipeline", "kind", "label", "zone")
    }
    reviewed = {"": None, "0": False, "false": False}.get(ask.query("reviewed"), True)
    return Wanted(seconds(ask.query("since")), seconds(ask.query("until")), reviewed=reviewed, **some)


class Streams:
    """Who hears events as they come: all on the loop."""

    def __init__(self, page: Page, ring: Ring) -> None:
        self._page, self._ring = page, ring
        self._news: asyncio.Future[None] | None = None
        self.count = 0
        self._state: tuple[float, bytes] = (0.0, b"")

    def wake(self) -> None:
        """From any thread: an event has come."""
        loop = self._page.loop
        if self.count and loop is not None:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def hear(self, cursor: str) -> AsyncGenerator[bytes, None]:
        """Server-sent events: `event` with an id, `state` each second, `missed` where the ring was too small."""
        ring, number = self._ring, self._ring.mark(cursor)
        self.count += 1
        try:
            yield b"retry: 1000\n\n"
            due = 0.0
            while not self._page.stopping.is_set():
                if self._news is None or self._news.done():
                    self._news = asyncio.get_running_loop().create_future()
                news = self._news
                missed, some = ring.after(number, AT_ONCE)
                if missed:
                    yield b"event: missed\ndata: %d\n\n" % missed
                for message in self._messages(some):
                    yield message
                if some:
                    number = some[-1][0]
                if (now := time.monotonic()) >= due:
                    due = now + EACH_S
                    yield self._now(now)
                if number == ring.last:
                    await asyncio.wait([news], timeout=max(0.01, due - time.monotonic()))
        finally:
            self.count -= 1

    def _messages(self, some: list[tuple[int, bytes]]) -> Iterator[bytes]:
        for number, raw in some:
            data = msgspec.json.encode(told(number, raw, False))
            yield b"id: %s-%d\nevent: event\ndata: %s\n\n" % (self._ring.boot.encode(), number, data)

    def _now(self, now: float) -> bytes:
        """The state, made once for all who hear."""
        if now >= self._state[0] + EACH_S / 2:
            try:
                data = msgspec.json.encode(self._page.state())
            except Refused as error:
                data = msgspec.json.encode({"error": str(error)})
            self._state = now, b"event: state\ndata: %s\n\n" % data
        return self._state[1]


def calls(page: Page) -> list[Call]:
    """Those of events."""
    ring = Ring()
    streams = Streams(page, ring)
    ring.wake = streams.wake

    def turn(agent: Agent) -> None:
        agent.keep.listeners.append(ring.add)

    page.shown.append(turn)

    def archive() -> Archive | None:
        archiver = page.now.archiver
        return archiver.archive if archiver is not None else None

    def found(ask: Ask) -> Found:
        wanted, limit = wanted_of(ask), ask.number("limit", 100, 1, 1000)
        before = ask.number("before", 0, 0, 2**60) or None
        cursor, kept = f"{ring.boot}-{ring.last}", archive()
        if kept is None:
            return Found(ring.search(wanted, before, limit), cursor, False)
        rows = kept.events(wanted, before=before, limit=limit)
        return Found([told(row.number, bytes(row.event), row.reviewed) for row in rows], cursor, True)

    def review(ask: Ask) -> Done:
        ids, kept = ask.body.ids, archive()
        if kept is not None:
            marks = ",".join("?" * len(ids))
            kept.review(
                [int(n) for (n,) in kept.rows(f"SELECT n FROM events WHERE id IN ({marks})", ids)], ask.body.reviewed
            )
        for one in ids:
            with suppress(ValueError):
                ring.reviewed.remove(one)
            if ask.body.reviewed:
                ring.reviewed.append(one)
        return Done(f"{len(ids)} marked")

    async def stream(ask: Ask) -> Response:
        if streams.count >= MOST_STREAMS:
            raise Refused(503, "too many hear already; close some of the pages", {"Retry-After": "5"})
        cursor = ask.request.headers.get("last-event-id") or ask.query("after")
        return Stream(lambda: streams.hear(cursor), "text/event-stream")

    query = {
        "pipeline": "names, parted by commas", "kind": "kinds", "label": "labels, and rules by name",
        "zone": "zones and lines", "since": "time of the capture, RFC 3339 or seconds since 1970",
        "until": "the same", "reviewed": "1 or 0", "before": "only those before this number",
        "limit": "how many, up to 1000",
    }  # fmt: skip
    after = {"after": "the id of the last event that was heard, as Last-Event-ID"}
    return [
        Call("GET", "/api/v1/events", "viewer", "Events, the newest first.", found, Found, query=query),
        Call("GET", "/api/v1/events/stream", "viewer", "Events and states as they come.", stream, query=after,
             media="text/event-stream"),
        Call("POST", "/api/v1/events/review", "operator", "Mark events as looked at, or not.", review, Done, Review),
    ]  # fmt: skip
