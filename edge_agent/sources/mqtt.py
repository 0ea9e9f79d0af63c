"""``mqtt:TOPIC``: text that other devices publish; the topic may be a filter (``house/+/said``, ``house/#``).

A payload is the text itself, or JSON with a string member "text". ``mqtt:TOPIC#json=path.to.text`` takes what stands at
that place of a JSON payload, a text or a number: each step is a member's name, the number of an item from 0, or ``*``
for all items, each of which is a text.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import msgspec

from edge_agent.errors import ConfigError, tenfold
from edge_agent.events import UNREADABLE
from edge_agent.sources import Here, Opened
from edge_agent.sources.text import cleaner
from edge_agent.types import StreamState, Text
from edge_agent.uri import Uri, option

KNOWN = {"json": ""}
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
    place = option(uri, KNOWN, "json")
    if uri.options and not all(place.split(".")):
        raise ConfigError(f'"mqtt:{uri.rest}#json={place}": write the steps to the text, e.g. #json=state.items.0.name')
    if re.search(r"\?\w+=", uri.rest):
        what, _, options = uri.rest.partition("?")
        raise ConfigError(f'"{uri}": options of a topic stand behind #; write mqtt:{what}#{options}')
    if not _is_filter(uri.rest):
        raise ConfigError(f'"{uri}": is no topic filter; "+" stands for one whole level, "#" for all last ones')
    if here.subscribe is None:
        raise ConfigError(f'"{uri}": no broker is configured; set mqtt.url')
    inbox = _Inbox(f"mqtt:{uri.rest}", _at_place(f"mqtt:{uri.rest}", place.split(".")) if place else _alone)
    here.subscribe(uri.rest, inbox.take)  # now: what the broker kept comes as soon as the link is up
    return Opened(run=inbox.run, yields=Text, live=False, left=inbox.left)


def _is_filter(topic: str) -> bool:
    levels = topic.split("/")
    wild = any(level not in ("+", "#") and set(level) & {"+", "#"} for level in levels)
    return bool(topic) and len(topic.encode()) <= 65535 and "\0" not in topic and "#" not in levels[:-1] and not wild


class _Inbox:
    """What was heard and is not yet given: the link's thread puts in, the pipeline's takes out."""

    def __init__(self, name: str, texts_of: Callable[[bytes], Iterable[bytes]]) -> None:
        self._name, self._texts_of = name, texts_of
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
            for raw in self._texts_of(payload):
                if text := clean(b" ".join(raw.splitlines()), 0):
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


def _alone(payload: bytes) -> Iterable[bytes]:
    """The member "text" of a JSON object that has one, else the payload."""
    if payload.lstrip()[:1] == b"{":
        with contextlib.suppress(*UNREADABLE):
            payload = msgspec.json.decode(payload, type=_Said).text.encode()
    return (payload,)


def _at_place(name: str, steps: list[str]) -> Callable[[bytes], Iterable[bytes]]:
    """-> what finds the texts and numbers at a place of a JSON payload; payloads without one are counted, and said."""
    without = 0

    def texts_of(payload: bytes) -> Iterable[bytes]:
        nonlocal without
        try:
            found, why = [_written(value) for value in _below(msgspec.json.decode(payload), steps)], ""
        except UNREADABLE:
            found, why = [], "is no JSON"
        texts = [text for text in found if text is not None]
        if len(texts) < max(1, len(found)):
            without += 1
            if tenfold(without):
                why = why or f"has no text or number at {'.'.join(steps)}"
                log.warning("%s: a payload %s (%d so far)", name, why, without)
        return texts

    return texts_of


def _below(value: object, steps: list[str]) -> Iterator[object]:
    """What stands there: one thing, none, or more where a step is ``*``."""
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        some = [value[step]] if step in value else list(value.values()) if step == "*" else []
    elif isinstance(value, list) and step == "*":
        some = value
    else:
        some = value[int(step) : int(step) + 1] if isinstance(value, list) and step.isdecimal() else []
    for one in some:
        yield from _below(one, rest)


def _written(value: object) -> bytes | None:
    """A text or number; None for anything else."""
    if isinstance(value, str):
        return value.encode()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return msgspec.json.encode(value) if is_number else None
