"""The supervisor of a live stream of sound: read on a thread of its own, opened again when it dies, its losses counted.

As watch.py does for pictures, but nothing may be left out: what is read waits in order, and when it can wait no longer
that is counted and said.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from edge_agent.sources.feed import TICK, Feed, keep_open
from edge_agent.sources.resample import RATE, Funnel
from edge_agent.types import Audio, Floats, StreamCondition, StreamState

BLOCK_S = 0.1
"""seconds of sound that are read in one go"""
HELD_S = 30.0
"""seconds of sound that may wait for the tasks"""
HOLE_S = 0.1
"""seconds that are missing from which on what was being said is taken as ended: its words would run together"""
LOOK_S = 2.0
"""seconds of which the least delay is compared with that of those before: what grew is missing"""
SAY_S = 10.0
"""seconds between two words about losses"""

log = logging.getLogger("edge_agent")


@dataclass(frozen=True, slots=True)
class SoundReader:
    """An open stream of sound."""

    name: str
    """device or program, for people"""
    rate: int
    channels: int
    read: Callable[[], tuple[Floats, bool]]
    """blocks for the next (n, channels); whether some before it was lost. SourceError: the stream is over"""
    close: Callable[[], None]
    """called once, by the thread that reads"""
    abort: Callable[[], None] = lambda: None
    """called by another thread: makes a read that blocks return soon, where that can be done"""


@dataclass(frozen=True, slots=True)
class _Block:
    """What was read in one go."""

    samples: Floats
    ended: tuple[float, float]
    """wall time and monotonic, of its last sample"""
    lost: float
    """seconds that are missing before it"""


class _InOrder(Feed[SoundReader]):
    """All blocks, one after the other."""

    def __init__(self, waits: bool) -> None:
        super().__init__()
        self._waits = waits
        self._blocks: deque[_Block] = deque()
        self._held = self.dropped = 0.0
        self._due, self._least, self._base, self._look = 0.0, math.inf, math.inf, 0.0
        """when what was read should have come, monotonic; the least delay of these seconds, and of those before"""

    def read(self, reader: SoundReader) -> None:
        """The next block behind those that wait."""
        self._put(*reader.read(), reader.rate)

    def _put(self, samples: Floats, lost: bool, rate: int) -> None:
        at, now, took = time.time(), time.monotonic(), len(samples) / rate
        with self.changed:
            gap = 0.0 if self._waits else self._missing(now, took, lost)
            while self._waits and self._held + took > HELD_S and not self.left:
                self.changed.wait(TICK)
                self.alive = time.monotonic()
            self.alive = time.monotonic()
            if self._held + took > HELD_S:
                self.dropped += took + gap
                return
            self._held += took
            self._blocks.append(_Block(samples, (at, now), gap + self.dropped))
            self.dropped = 0.0
            self.changed.notify_all()

    def _missing(self, now: float, took: float, lost: bool) -> float:
        """Seconds that did not come: how many no device says, and some not even that there are any; the clock does."""
        self._due = (self._due or now - took) + took
        gap = max(0.0, now - self.alive - took) if lost and self.alive else 0.0
        self._base += gap
        self._least = min(self._least, now - self._due)
        if now >= self._look:
            grown = self._least - self._base
            gap += grown if grown >= HOLE_S else 0.0
            self._base, self._least, self._look = self._least, math.inf, now + LOOK_S
        return gap

    def take(self) -> _Block | None:
        """The next block, waited for TICK seconds at most."""
        with self.changed:
            if not self._blocks and self.over is None:
                self.changed.wait(TICK)
            if not self._blocks:
                return None
            block = self._blocks.popleft()
            if self.reader is not None:
                self._held -= len(block.samples) / self.reader.rate
            self.changed.notify_all()
            return block

    def rest(self) -> list[_Block]:
        """What waits; no more is wanted."""
        self.leave()
        with self.changed:
            blocks, self._blocks = [*self._blocks], deque()
        return blocks


class _Losses:
    """What was lost so far, and when that is to be said."""

    def __init__(self) -> None:
        self.seconds, self.times, self._due = 0.0, 0, 0.0

    def count(self, seconds: float) -> None:
        self.seconds, self.times = self.seconds + seconds, self.times + 1

    def told(self, name: str) -> str:
        """About the device, and what was lost."""
        lost = f"; {self.seconds:.1f} s of sound lost in {self.times} overruns so far"
        return name + (lost if self.times else "")

    def due(self) -> bool:
        """Whether it is time to say so again."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + SAY_S
        return True


class _News:
    """Gives a state of the stream where it is not the one that was given last."""

    def __init__(self) -> None:
        self._last: StreamState | None = None

    def __call__(self, condition: StreamCondition, why: str) -> list[StreamState]:
        state, last = StreamState(condition, why), self._last
        self._last = state
        return [] if state == last else [state]


def hear(
    open_: Callable[[], SoundReader], stop: threading.Event, *, stall: float, pause: float, waits: bool = False
) -> Iterator[Audio | StreamState]:
    """The sound of a live stream, in order, for ever: opened again with growing pauses whenever it dies.

    `open_` and the reader's `read` raise SourceError, and may hang (see `keep_open`): `stall` seconds without sound end
    the stream. `waits`: it can be made to wait while the tasks are busy, as a program can and a microphone cannot.
    Before each break, and when `stop` is set, an Audio that may be empty is marked as the last.
    """
    say, losses = _News(), _Losses()
    take = partial(_sound, say=say, losses=losses, stall=stall, stop=stop)
    return keep_open(open_, lambda: _InOrder(waits), take, say, "unplug it, or restart the agent", pause, stop)


def _sound(
    feed: _InOrder, say: _News, losses: _Losses, stall: float, stop: threading.Event
) -> Generator[Audio | StreamState, None, str]:
    """Sound until the stream ends, stalls or is to stop; returns why it ended."""
    since, funnel, why = time.monotonic(), None, ""
    while not stop.is_set() and not why:
        block = feed.take()
        if block is None:
            why = _ended(feed, since, stall)
            continue
        assert feed.reader is not None
        if funnel is None:
            funnel = Funnel(feed.reader.rate, feed.reader.channels)
            yield from say("ok", losses.told(feed.reader.name))
        if block.lost:
            yield from _hole(block, say, losses, feed.reader.name)
        yield _audio(funnel(block.samples), block.ended)
        # the consumer may have taken long; that is no fault of the stream
        since = time.monotonic()
    if funnel is not None:
        yield from _rest(feed, losses, funnel)
    return why or "stopped"


def _hole(block: _Block, say: _News, losses: _Losses, name: str) -> Iterator[Audio | StreamState]:
    """What is to be said of the sound that is missing before a block."""
    losses.count(block.lost)
    if block.lost >= HOLE_S:
        yield _audio(np.zeros(0, np.float32), block.ended, last=True)
    if losses.due():
        log.warning("%s", losses.told(name))
        yield from say("ok", losses.told(name))


def _rest(feed: _InOrder, losses: _Losses, funnel: Funnel) -> Iterator[Audio]:
    """The sound that still waits when the stream is over; its last Audio says so."""
    assert feed.reader is not None
    if feed.dropped:
        losses.count(feed.dropped)
    for block in feed.rest():
        yield _audio(funnel(block.samples), block.ended)
    tail = funnel(np.zeros((0, feed.reader.channels), np.float32), last=True)
    yield _audio(tail, (time.time(), time.monotonic()), last=True)


def _ended(feed: _InOrder, since: float, stall: float) -> str:
    """Why nothing more comes; empty while something may."""
    if feed.over is not None:
        return feed.over
    return f"no sound for {feed.patience(stall):g} s" if feed.ended(since, stall) else ""


def _audio(sound: Floats, ended: tuple[float, float], last: bool = False) -> Audio:
    took = len(sound) / RATE
    return Audio(sound, ended[0] - took, ended[1] - took, last=last)
