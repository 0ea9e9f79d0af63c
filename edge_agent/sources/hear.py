"""The supervisor of a live stream of sound: read on a thread of its own, opened again when it dies, its losses counted.

As watch.py does for pictures, but nothing may be left out: what is read waits in order, and when it can wait no longer
that is counted and said.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np

from edge_agent.errors import SourceError
from edge_agent.sources.resample import RATE, Funnel
from edge_agent.sources.watch import FIRST_PAUSE, MOST_HUNG, OPENING, READER, SHARE, STEADY, TICK
from edge_agent.types import Audio, Floats, StreamState

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


class _Feed:
    """Between the thread that reads and the generator."""

    def __init__(self, waits: bool) -> None:
        self._changed, self._waits = threading.Condition(), waits
        self._blocks: deque[_Block] = deque()
        self._held = self.dropped = 0.0
        self._due, self._least, self._base, self._look = 0.0, math.inf, math.inf, 0.0
        """when what was read should have come, monotonic; the least delay of these seconds, and of those before"""
        self.reader: SoundReader | None = None
        self.over: str | None = None
        self.left = False
        self.alive = 0.0
        """monotonic time of the last block; 0 before the first"""

    def pump(self, open_: Callable[[], SoundReader]) -> None:
        """The reading thread: open, read until nobody wants more or it ends, close."""
        why = "the reader failed; its error is in the log"
        try:
            reader = open_()
            try:
                with self._changed:
                    self.reader = reader
                while not self.left:
                    self._put(*reader.read(), reader.rate)
            finally:
                reader.close()
        except SourceError as error:
            why = str(error)
        finally:
            with self._changed:
                self.over = why
                self._changed.notify_all()

    def _put(self, samples: Floats, lost: bool, rate: int) -> None:
        at, now, took = time.time(), time.monotonic(), len(samples) / rate
        with self._changed:
            gap = 0.0 if self._waits else self._missing(now, took, lost)
            while self._waits and self._held + took > HELD_S and not self.left:
                self._changed.wait(TICK)
                self.alive = time.monotonic()
            self.alive = time.monotonic()
            if self._held + took > HELD_S:
                self.dropped += took + gap
                return
            self._held += took
            self._blocks.append(_Block(samples, (at, now), gap + self.dropped))
            self.dropped = 0.0
            self._changed.notify_all()

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
        with self._changed:
            if not self._blocks and self.over is None:
                self._changed.wait(TICK)
            if not self._blocks:
                return None
            block = self._blocks.popleft()
            if self.reader is not None:
                self._held -= len(block.samples) / self.reader.rate
            self._changed.notify_all()
            return block

    def rest(self) -> list[_Block]:
        """What waits; no more is wanted."""
        self.leave()
        with self._changed:
            blocks, self._blocks = [*self._blocks], deque()
        return blocks

    def leave(self) -> None:
        """No more sound is wanted."""
        with self._changed:
            self.left = True
            self._changed.notify_all()
            if self.reader is not None and self.over is None:
                self.reader.abort()


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


def hear(
    open_: Callable[[], SoundReader], stop: threading.Event, *, stall: float, pause: float, waits: bool = False
) -> Iterator[Audio | StreamState]:
    """The sound of a live stream, in order, for ever: opened again with growing pauses whenever it dies.

    `open_` runs on the reading thread; it and `read` raise SourceError and may hang: `stall` seconds without sound end
    the stream. `waits`: it can be made to wait while the tasks are busy, as a program can and a microphone cannot.
    Before each break, and when `stop` is set, an Audio that may be empty is marked as the last.
    """
    lost_at, losses = time.monotonic(), _Losses()
    threads: list[threading.Thread] = []
    said = ""
    while not stop.is_set():
        threads = [thread for thread in threads if thread.is_alive()]
        if len(threads) >= MOST_HUNG:
            if said != "hung":
                yield StreamState("hung", f"{len(threads)} reads never returned; unplug it, or restart the agent")
            said = "hung"
            stop.wait(TICK)
            continue
        feed = _Feed(waits)
        thread = threading.Thread(target=feed.pump, args=(open_,), daemon=True, name=READER)
        thread.start()
        threads.append(thread)
        began = time.monotonic()
        try:
            why = yield from _sound(feed, losses, stall, stop)
        finally:
            feed.leave()
            thread.join(TICK)
        if stop.is_set():
            return
        if why != said or feed.alive:
            yield StreamState("reconnecting", why)
        said = why
        if feed.alive - began > STEADY:
            lost_at = time.monotonic()
        wait = max(FIRST_PAUSE, SHARE * (time.monotonic() - lost_at))
        stop.wait(min(wait, pause) * random.uniform(0.75, 1.25))


def _sound(
    feed: _Feed, losses: _Losses, stall: float, stop: threading.Event
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
            yield StreamState("ok", losses.told(feed.reader.name))
        if block.lost:
            yield from _hole(block, losses, feed.reader.name)
        yield _audio(funnel(block.samples), block.ended)
        # the consumer may have taken long; that is no fault of the stream
        since = time.monotonic()
    if funnel is not None:
        yield from _rest(feed, losses, funnel)
    return why or "stopped"


def _hole(block: _Block, losses: _Losses, name: str) -> Iterator[Audio | StreamState]:
    """What is to be said of the sound that is missing before a block."""
    losses.count(block.lost)
    if block.lost >= HOLE_S:
        yield _audio(np.zeros(0, np.float32), block.ended, last=True)
    if losses.due():
        log.warning("%s", losses.told(name))
        yield StreamState("ok", losses.told(name))


def _rest(feed: _Feed, losses: _Losses, funnel: Funnel) -> Iterator[Audio]:
    """The sound that still waits when the stream is over; its last Audio says so."""
    assert feed.reader is not None
    if feed.dropped:
        losses.count(feed.dropped)
    for block in feed.rest():
        yield _audio(funnel(block.samples), block.ended)
    tail = funnel(np.zeros((0, feed.reader.channels), np.float32), last=True)
    yield _audio(tail, (time.time(), time.monotonic()), last=True)


def _ended(feed: _Feed, since: float, stall: float) -> str:
    """Why nothing more comes; empty while something may."""
    if feed.over is not None:
        return feed.over
    patience = stall if feed.alive else stall + OPENING
    return f"no sound for {stall:g} s" if time.monotonic() - max(since, feed.alive) > patience else ""


def _audio(sound: Floats, ended: tuple[float, float], last: bool = False) -> Audio:
    took = len(sound) / RATE
    return Audio(sound, ended[0] - took, ended[1] - took, last=last)
