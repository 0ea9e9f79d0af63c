"""The supervisor of a live stream: reads that hang, streams that die, frames that waited too long."""

from __future__ import annotations

import atexit
import logging
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from edge_agent.errors import SourceError
from edge_agent.sources.judge import Judge, Rules
from edge_agent.types import Frame, StreamState
from edge_agent.walk.mailbox import TOO_OLD

TICK = 0.1
"""seconds between looks at `stop`"""
OPENING = 10.0
"""seconds that opening a stream may take: its codec is found out from what it sends, and a camera wakes up slowly"""
FIRST_PAUSE, SHARE = 0.5, 1 / 30
"""seconds at least before a stream is opened again, and the share of the time that it has been away, which is waited
where that is longer: up to `pause`, a quarter more or less by chance"""
STEADY = 10.0
"""seconds of frames after which a stream that dies was back"""
MOST_HUNG = 4
"""threads that may hang in reads that never return before no more are started"""
FAREWELL = 2.0
"""seconds that the process waits at its end for threads that read"""

READER = "reader"
"""name of the threads that read"""

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


class _Feed:
    """Between the thread that reads and the generator: the newest frame, and why there will be no more."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._reader: StreamReader | None = None
        self.over: str | None = None
        self.left = False
        self.alive = 0.0
        """monotonic time of the last frame, wanted or not; 0 before the first"""

    def pump(self, open_: Callable[[], StreamReader]) -> None:
        """The reading thread: open, read until nobody wants more or it ends, close."""
        why = "the reader failed; its error is in the log"
        try:
            reader = open_()
            try:
                with self._changed:
                    self._reader = reader
                while not self.left:
                    frame = reader.read()
                    with self._changed:
                        self.alive = time.monotonic()
                        self._frame = frame or self._frame
                        self._changed.notify()
            finally:
                with self._changed:
                    self._reader = None
                reader.close()
        except SourceError as error:
            why = str(error)
        finally:
            with self._changed:
                self.over = why
                self._changed.notify()

    def take(self) -> Frame | None:
        """The newest frame, waited for TICK seconds at most."""
        with self._changed:
            if self._frame is None and self.over is None:
                self._changed.wait(TICK)
            frame, self._frame = self._frame, None
            return frame

    def leave(self) -> None:
        """No more frames are wanted."""
        with self._changed:
            self.left = True
            if self._reader is not None:
                self._reader.abort()


def watch(open_: Callable[[], StreamReader], believed: Rules, stop: threading.Event) -> Iterator[Frame | StreamState]:
    """Honest frames of a live stream, newest first, for ever: opened again with growing pauses whenever it dies.

    `open_` runs on the reading thread; it and `read` raise SourceError and may hang for ever: a thread that hangs is
    left behind. `stop` is obeyed within about 0.2 s whatever hangs.
    """
    judge = Judge(believed)
    lost = time.monotonic()
    threads: list[threading.Thread] = []
    while not stop.is_set():
        threads = [thread for thread in threads if thread.is_alive()]
        if len(threads) >= MOST_HUNG:
            why = f"{len(threads)} reads never returned; unplug the camera or restart it"
            yield from judge.say("hung", why)
            stop.wait(TICK)
            continue
        feed = _Feed()
        thread = threading.Thread(target=feed.pump, args=(open_,), daemon=True, name=READER)
        thread.start()
        threads.append(thread)
        began = time.monotonic()
        try:
            why = yield from _believed(feed, judge, believed, stop)
        finally:
            feed.leave()
            # most readers return within a frame's time, and a closed camera can be opened again at once
            thread.join(TICK)
        if stop.is_set():
            return
        yield from judge.say("reconnecting", why)
        if feed.alive - began > STEADY:
            lost = time.monotonic()
        pause = max(FIRST_PAUSE, SHARE * (time.monotonic() - lost))
        stop.wait(min(pause, believed.pause) * random.uniform(0.75, 1.25))


@atexit.register
def wait_for_readers() -> None:
    """A thread that comes back from C++ while the interpreter is taken down aborts the process (until Python 3.14)."""
    end = time.monotonic() + FAREWELL
    for thread in threading.enumerate():
        if thread.name == READER:
            thread.join(max(0.0, end - time.monotonic()))


def _believed(
    feed: _Feed, judge: Judge, believed: Rules, stop: threading.Event
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
        else:
            patience = believed.stall if feed.alive else believed.stall + OPENING
            if now - max(since, feed.alive) > patience:
                why = f"no frame for {patience:g} s"
                if judge.said is None or judge.said[0] != "reconnecting":
                    yield from judge.say("stalled", why)
                return why
    return "stopped"
