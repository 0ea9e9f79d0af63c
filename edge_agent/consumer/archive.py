"""From a feed into a store, until it is told to stop: written, committed, then acknowledged."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from edge_agent.consumer.rows import Message, Odd, Row, sorted_rows

PAUSES = (0.2, 10.0)
"""seconds before the first further try, which double, and the longest"""
TOLD_S = 10.0
"""between two words on how it goes"""
TAKE_S = 1.0
"""seconds that a batch is waited for"""


class Feed(Protocol):
    """Where events come from; see nats.py."""

    where: str

    def take(self, most: int, seconds: float) -> list[Message]: ...
    def done(self, messages: Sequence[Message]) -> None: ...
    def pending(self) -> int: ...
    def close(self) -> None: ...


class Sink(Protocol):
    """Where they go; see postgres.py."""

    where: str

    def put(self, rows: Sequence[Row], odd: Sequence[Odd], numbers: Sequence[int] = ()) -> int: ...
    def close(self) -> None: ...


class Kept(msgspec.Struct):
    """What a run did."""

    events: int = 0
    """that were new; of Parquet all that were written"""
    again: int = 0
    """that were there already"""
    odd: int = 0
    """messages that are no events"""
    late: int = 0
    """events that came over five minutes after their time"""
    batches: int = 0
    tries: int = 0
    """that failed, and were done again"""


LATE_S = 300.0
"""seconds after its time from which on an event is late"""


def keep(feed: Feed, sink: Sink, most: int, stop: threading.Event, say: Callable[[str], None]) -> Kept:
    """Move batches of at most `most` until `stop`. Raises LinkError where either side refuses us for good."""
    kept, told = Kept(), time.monotonic()
    while not stop.is_set():
        messages: list[Message] = _tried(functools.partial(feed.take, most, TAKE_S), stop, say, kept) or []
        if messages:
            rows, odd = sorted_rows(messages)
            numbers = [one.number for one in messages]
            fresh = _tried(functools.partial(sink.put, rows, odd, numbers), stop, say, kept)
            if fresh is None:
                break  # not acknowledged: another worker gets it
            feed.done(messages)
            _count(kept, rows, odd, len(messages), fresh)
        if time.monotonic() - told > TOLD_S and kept.batches:
            told = time.monotonic()
            say(", ".join(f"{key} {value}" for key, value in msgspec.to_builtins(kept).items() if value))
    return kept


def _count(kept: Kept, rows: Sequence[Row], odd: Sequence[Odd], messages: int, fresh: int) -> None:
    now = time.time()
    kept.events, kept.odd, kept.batches = kept.events + fresh, kept.odd + len(odd), kept.batches + 1
    kept.again += messages - len(odd) - fresh
    kept.late += sum(now - row.at.timestamp() > LATE_S for row in rows)


def _tried(do: Callable[[], Any], stop: threading.Event, say: Callable[[str], None], kept: Kept) -> Any:
    """What it gives, however often it takes; None once `stop` is set. Each reason is said once in a row."""
    pause, longest = PAUSES
    said = ""
    while True:
        try:
            return do()
        except OSError as error:
            kept.tries += 1
            if str(error) != said:
                said = str(error)
                say(f"{said}; tried again until it works")
        if stop.wait(pause):
            return None
        pause = min(longest, pause * 2)
