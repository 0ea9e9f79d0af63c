"""The supervisor of a live stream: reads that hang, streams that die, frames that waited too long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial

from edge_agent.sources.feed import OPENING, TICK, Feed, keep_open
from edge_agent.sources.judge import Judge, Rules
from edge_agent.types import Frame, StreamState
from edge_agent.walk.mailbox import TOO_OLD

log = logging.getLogger("edge_agent")


def thinner(fps: float) -> Callable[[float], bool]:
    """-> due(mono): whether a frame captured then is wanted, so that about `fps` a second are; 0: all of them."""
    due = 0.0

    def wanted(mono: float) -> bool:
        nonlocal due
        if not fps:
            return True
        if mono < due:
            return False
        due = max(due + 1 / fps, mono)
        return True

    return wanted


def queued() -> Callable[[float, float], bool]:
    """-> stale(mono, pts): whether a frame had waited in a queue before it was read, so that it shows the past.

    `mono` is when it was read and `pts` the stream's own time, seconds. What was queued comes faster than the stream
    runs. At first all such frames are stale (a decoder keeps what it was opened with); later those that are also more
    than TOO_OLD behind the quickest ones. A stream without a clock of its own has no stale frames, one with a slow
    clock next to none.
    """
    last: tuple[float, float] | None = None
    began, least, opening, calm = 0.0, 0.0, True, 0

    def stale(mono: float, pts: float) -> bool:
        nonlocal last, began, least, opening, calm
        before, last = last, (mono, pts)
        if before is None:
            began = mono
            return False
        passed, played = mono - before[0], pts - before[1]
        if played <= 0 or played > OPENING:
            least = mono - pts
            return False
        hurried = passed < played / 2
        if opening and (not hurried or mono - began > OPENING):
            opening, least = False, mono - pts
        if opening:
            return True
        least = min(least, mono - pts)
        calm = 0 if hurried or mono - pts - least <= TOO_OLD else calm + 1
        if calm > 1:
            # late, but nothing is being caught up: the way has become longer, or the clock is slow
            least = mono - pts
        return mono - pts - least > TOO_OLD

    return stale


# ── the supervisor ───────────────────────────────────────────────────────────────────────────────────────


def _nothing_to_abort() -> None:
    pass


@dataclass(frozen=True, slots=True)
class StreamReader:
    """An open stream."""

    read: Callable[[], Frame | None]
    """blocks for the next frame; None: one came and was not wanted; SourceError: the stream is over"""
    close: Callable[[], None]
    """called once, by the thread that reads"""
    abort: Callable[[], None] = _nothing_to_abort
    """called by another thread: makes a read that blocks return soon, where that can be done"""
    ready: Callable[[float], bool] = lambda seconds: True
    """whether the next frame, or the end, has begun to come within so many seconds"""


class _Newest(Feed[StreamReader]):
    """The newest frame."""

    def __init__(self) -> None:
        super().__init__()
        self._frame: Frame | None = None

    def read(self, reader: StreamReader) -> None:
        """The next frame in place of the one before it."""
        frame = reader.read()
        with self.changed:
            self.alive = time.monotonic()
            self._frame = frame or self._frame
            self.changed.notify()

    def take(self) -> Frame | None:
        """The newest frame, waited for TICK seconds at most."""
        with self.changed:
            if self._frame is None and self.over is None:
                self.changed.wait(TICK)
            frame, self._frame = self._frame, None
            return frame


def watch(open_: Callable[[], StreamReader], believed: Rules, stop: threading.Event) -> Iterator[Frame | StreamState]:
    """Honest frames of a live stream, newest first, for ever: opened again with growing pauses whenever it dies.

    `open_` and the reader's `read` raise SourceError, and may hang; see `keep_open`.
    """
    judge = Judge(believed)
    take = partial(_believed, judge=judge, believed=believed, stop=stop)
    hung = "unplug the camera or restart it"
    return keep_open(open_, _Newest, take, judge.say, hung, believed.pause, stop)


def _believed(
    feed: _Newest, judge: Judge, believed: Rules, stop: threading.Event
) -> Generator[Frame | StreamState, None, str]:
    """Frames until the stream ends, stalls or is to stop; returns why it ended."""
    since = time.monotonic()
    dropped = 0
    while not stop.is_set():
        frame = feed.take()
        now = time.monotonic()
        if frame is not None:
            if now - frame.mono > TOO_OLD:
                dropped += 1
                log.debug("a frame waited %.1f s and was dropped (%d so far)", now - frame.mono, dropped)
            else:
                yield from judge.see(frame)
            # the consumer may have taken long; that is no fault of the stream
            since = time.monotonic()
        elif feed.over is not None:
            return feed.over
        elif feed.ended(since, believed.stall):
            why = f"no frame for {feed.patience(believed.stall):g} s"
            if judge.said is None or judge.said[0] != "reconnecting":
                yield from judge.say("stalled", why)
            return why
    return "stopped"
