"""Events: as they come (SSE), and looked back at.

What comes is kept in a ring in memory, whose numbers are those of the stream; a client that connects again says the
last one and misses nothing, or is told how many it missed. What is looked back at is the archive where there is one,
else the ring.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
from starlette.responses import Response

from edge_agent.archive.wanted import Wanted
from edge_agent.ui.calls import Ask, Call, Refused, Stream
from edge_agent.ui.ring import Ring, Told, told
from edge_agent.ui.session import Done

if TYPE_CHECKING:
    from edge_agent.archive.archive import Archive
    from edge_agent.ui.server import Page

MOST_STREAMS, EACH_S, BEGINS_S = 200, 1.0, 0.1
"""at once, and seconds between two states in them, and while no agent is there yet"""
AT_ONCE = 200
"""events that are sent between two looks at whether the page stops"""


class Found(msgspec.Struct, frozen=True):
    """Events, the newest first."""

    events: list[Told]
    stream: Annotated[str, msgspec.Meta(description="what the stream goes on behind")]
    archived: Annotated[bool, msgspec.Meta(description="false: only the last ones are here, in memory")]


class Review(msgspec.Struct, frozen=True):
    """Events that somebody has looked at."""

    ids: Annotated[list[str], msgspec.Meta(max_length=1000)]
    reviewed: bool = True


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
        self._each = EACH_S

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
        """Server-sent events: `event` with an id, `state` each second (each BEGINS_S while no agent is there yet),
        `missed` where the ring was too small.
        """
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
                    yield self._now(now)
                    due = now + self._each
                if number == ring.last:
                    await asyncio.wait([news], timeout=max(0.01, due - time.monotonic()))
        finally:
            self.count -= 1

    def _messages(self, some: list[tuple[int, bytes]]) -> Iterator[bytes]:
        for number, raw in some:
            data = msgspec.json.encode(told(number, raw, False))
            yield b"id: %s-%d\nevent: event\ndata: %s\n\n" % (self._ring.boot.encode(), number, data)

    def _now(self, now: float) -> bytes:
        """The state, made once for all listeners."""
        if now >= self._state[0] + self._each / 2:
            try:
                data, self._each = msgspec.json.encode(self._page.state()), EACH_S
            except Refused as error:
                data, self._each = msgspec.json.encode({"error": str(error)}), BEGINS_S
            self._state = now, b"event: state\ndata: %s\n\n" % data
        return self._state[1]


class Events:
    """What the calls of events do."""

    def __init__(self, page: Page) -> None:
        self._page, self._ring = page, Ring()
        self._streams = Streams(page, self._ring)
        self._ring.wake = self._streams.wake
        page.shown.append(lambda agent: agent.keep.listeners.append(self._ring.add))

    def _archive(self) -> Archive | None:
        archiver = self._page.now.archiver
        return archiver.archive if archiver is not None else None

    def found(self, ask: Ask) -> Found:
        """Those that are asked for."""
        wanted, limit = wanted_of(ask), ask.number("limit", 100, 1, 1000)
        before = ask.number("before", 0, 0, 2**60) or None
        cursor, kept = f"{self._ring.boot}-{self._ring.last}", self._archive()
        if kept is None:
            return Found(self._ring.search(wanted, before, limit), cursor, False)
        rows = kept.events(wanted, before=before, limit=limit)
        return Found([told(row.number, bytes(row.event), row.reviewed) for row in rows], cursor, True)

    def review(self, ask: Ask) -> Done:
        """Mark some."""
        ids, kept = ask.body.ids, self._archive()
        if kept is not None:
            marks = ",".join("?" * len(ids))
            rows = kept.rows(f"SELECT n FROM events WHERE id IN ({marks})", ids)
            kept.review([int(n) for (n,) in rows], ask.body.reviewed)
        self._ring.review(ids, ask.body.reviewed)
        return Done(f"{len(ids)} marked")

    async def stream(self, ask: Ask) -> Response:
        """As they come."""
        if self._streams.count >= MOST_STREAMS:
            raise Refused(503, "too many hear already; close some of the pages", {"Retry-After": "5"})
        cursor = ask.request.headers.get("last-event-id") or ask.query("after")
        return Stream(lambda: self._streams.hear(cursor), "text/event-stream")


QUERY = {
    "pipeline": "names, parted by commas",
    "kind": "kinds",
    "label": "labels, and rules by name",
    "zone": "zones and lines",
    "since": "time of the capture, RFC 3339 or seconds since 1970",
    "until": "the same",
    "reviewed": "1 or 0",
    "before": "only those before this number",
    "limit": "how many, up to 1000",
}


def calls(page: Page) -> list[Call]:
    """Those of events."""
    events, at = Events(page), "/api/v1/" + "events"
    after = {"after": "the id of the last event that was heard, as Last-Event-ID"}
    return [
        Call("GET", at, "viewer", "Events, the newest first.", events.found, Found, query=QUERY),
        Call("GET", f"{at}/stream", "viewer", "Events and states as they come.", events.stream, query=after,
             media="text/event-stream"),
        Call("POST", f"{at}/review", "operator", "Mark events as looked at, or not.", events.review, Done, Review),
    ]  # fmt: skip
