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

from edge_agent.errors import ConfigError
from edge_agent.sources import Here, Opened, Subscribe
from edge_agent.sources.text import cleaner, tenfold
from edge_agent.types import StreamState, Text, Uri

MOST_WAITING = 10_000
"""messages that may wait in memory; more are dropped, counted and logged"""
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
    subscribe = here.subscribe
    return Opened(run=lambda stop: _run(uri.rest, subscribe, stop), yields=Text, live=False)


def _run(topic: str, subscribe: Subscribe, stop: threading.Event) -> Iterator[Text | StreamState]:
    """Subscribe, give what comes in order, unsubscribe at the end. Only this generator takes from the queue."""
    clean = cleaner(f"mqtt:{topic}")
    waiting: deque[tuple[bytes, float, float]] = deque()
    arrived = threading.Event()
    dropped = 0

    def on_message(_topic: str, payload: bytes) -> None:
        nonlocal dropped
        if len(waiting) >= MOST_WAITING:
            dropped += 1
            if tenfold(dropped):
                log.warning("mqtt:%s: more than %d texts wait; %d dropped so far", topic, MOST_WAITING, dropped)
            return
        waiting.append((payload, time.time(), time.monotonic()))
        arrived.set()

    unsubscribe = subscribe(topic, on_message)
    try:
        yield StreamState("ok")
        while not stop.is_set():
            arrived.wait(TICK)
            arrived.clear()
            while waiting and not stop.is_set():
                payload, at, mono = waiting.popleft()
                text = clean(_text_of(payload), 0)
                if text:
                    yield Text(text, at, mono)
    finally:
        unsubscribe()


def _text_of(payload: bytes) -> bytes:
    """The member "text" of a JSON object that has one, else the payload; its lines joined by spaces."""
    if payload.lstrip()[:1] == b"{":
        with contextlib.suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
            payload = msgspec.json.decode(payload, type=_Said).text.encode()
    return payload.replace(b"\r\n", b" ").replace(b"\n", b" ").replace(b"\r", b" ")
