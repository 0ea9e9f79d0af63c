"""``mqtt:TOPIC``: text that other devices publish; the topic may be a filter (``house/+/said``, ``house/#``).

A payload is the text itself, or JSON with a string member "text".
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator

import msgspec

from edge_agent.errors import ConfigError, tenfold
from edge_agent.events import UNREADABLE
from edge_agent.sources import Here, Opened
from edge_agent.sources.text import cleaner
from edge_agent.types import StreamState, Text
from edge_agent.uri import Uri

MOST_WAITING = 10_000
"""messages that may wait in memory; more are dropped, counted and logged"""
MOST_BYTES = 8_000_000
"""bytes of them together"""
TICK = 0.1
"""seconds between looks at `stop`"""

log = logging.getLogger("edge_agent")


class _Said(msgspec.Struct):
    text: str


def mqtt(uri: Uri, here: Here) -> Opened:
    """Bind a topic filter; yields Texts. ConfigError when it is no filter, or no broker is configured."""
    if uri.options:
        raise ConfigError(f'"{uri}": a topic has no options; write mqtt:{uri.rest}')
    levels = uri.rest.split("/")
    if (
        not uri.rest
        or len(uri.rest.encode()) > 65535
        or "\0" in uri.rest
        or "#" in levels[:-1]
        or any(level not in ("+", "#") and set(level) & {"+", "#"} for level in levels)
    ):
        raise ConfigError(f'"{uri}": is no topic filter; "+" stands for one whole level, "#" for all last ones')
    if here.subscribe is None:
        raise ConfigError(f'"{uri}": no broker is configured; set mqtt.url')
    inbox = _Inbox(f"mqtt:{uri.rest}")
    here.subscribe(uri.rest, inbox.take)  # now: what the broker kept comes as soon as the link is up
    return Opened(run=inbox.run, yields=Text, live=False, left=inbox.left)


class _Inbox:
    """What was heard and is not yet given: the link's thread puts in, the pipeline's takes out."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: deque[tuple[bytes, float, float]] = deque()
        self._bytes = self._dropped = 0
        self._state = threading.Condition()
        self._stop = threading.Event()

    def take(self, _topic: str, payload: bytes) -> bool:
        """Keep a message. False when the agent stops: unacknowledged, it comes again when the agent is back."""
        with self._state:
            if self._stop.is_set():
                return False
            if len(self._waiting) >= MOST_WAITING or (self._waiting and self._bytes + len(payload) > MOST_BYTES):
                self._dropped += 1
                if tenfold(self._dropped):
                    most = f"{MOST_WAITING} texts or {MOST_BYTES // 1_000_000} MB"
                    log.warning("%s: more than %s wait; %d dropped so far", self._name, most, self._dropped)
                return True
            self._waiting.append((payload, time.time(), time.monotonic()))
            self._bytes += len(payload)
            self._state.notify()
            return True

    def left(self) -> int:
        """How many were acknowledged to the broker and not given on."""
        return self._dropped + len(self._waiting)

    def run(self, stop: threading.Event) -> Iterator[Text | StreamState]:
        """Give what comes, in order; once `stop` is set, what has come: the broker has forgotten it."""
        clean = cleaner(self._name)
        self._stop = stop
        yield StreamState("ok")
        while (oldest := self._oldest()) is not None:
            payload, at, mono = oldest
            text = clean(_text_of(payload), 0)
            if text:
                yield Text(text, at, mono)

    def _oldest(self) -> tuple[bytes, float, float] | None:
        """The next message; None when none waits and none will be taken any more."""
        with self._state:
            while not self._waiting:
                if self._stop.is_set():
                    return None
                self._state.wait(TICK)
            oldest = self._waiting.popleft()
            self._bytes -= len(oldest[0])
            return oldest


def _text_of(payload: bytes) -> bytes:
    """The member "text" of a JSON object that has one, else the payload; its lines joined by spaces."""
    if payload.lstrip()[:1] == b"{":
        with contextlib.suppress(*UNREADABLE):
            payload = msgspec.json.decode(payload, type=_Said).text.encode()
    return payload.replace(b"\r\n", b" ").replace(b"\n", b" ").replace(b"\r", b" ")
