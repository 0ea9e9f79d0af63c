"""What is read on a thread of its own and may hang for ever; opened again, with growing pauses, whenever it dies.

watch.py does this for pictures and hear.py for sound; what becomes of what was read is theirs.
"""

from __future__ import annotations

import atexit
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, Protocol, TypeVar

from edge_agent.errors import SourceError
from edge_agent.types import StreamCondition, StreamState

TICK = 0.1
"""seconds between looks at `stop`"""
OPENING = 10.0
"""seconds that opening a stream may take: its codec is found out from what it sends, and a camera wakes up slowly"""
FIRST_PAUSE, SHARE = 0.5, 1 / 30
"""seconds at least before a stream is opened again, and the share of the time that it has been away, which is waited
where that is longer: up to `pause`, a quarter more or less by chance"""
STEADY = 10.0
"""seconds of samples after which a stream that dies was back"""
MOST_HUNG = 4
"""threads that may hang in reads that never return before no more are started"""
FAREWELL = 2.0
"""seconds that the process waits at its end for threads that read"""
READER = "reader"
"""name of the threads that read"""


class _Reader(Protocol):
    """An open stream."""

    @property
    def close(self) -> Callable[[], None]:
        """called once, by the thread that reads"""

    @property
    def abort(self) -> Callable[[], None]:
        """called by another thread: makes a read that blocks return soon, where that can be done"""


R = TypeVar("R", bound=_Reader)


class Feed(Generic[R]):
    """Between the thread that reads and the one that takes."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.reader: R | None = None
        """once it is open; also when it is closed again"""
        self._open = False
        self.over: str | None = None
        """why nothing more comes"""
        self.left = False
        """nothing more is wanted"""
        self.alive = 0.0
        """monotonic time at which something came last, wanted or not; 0 before the first"""

    def read(self, reader: R) -> None:
        """Read once, and keep what came. SourceError: the stream is over."""
        raise NotImplementedError

    def pump(self, open_: Callable[[], R]) -> None:
        """The reading thread: open, read until nobody wants more or it ends, close."""
        why = "the reader failed; its error is in the log"
        try:
            reader = open_()
            try:
                with self.changed:
                    self.reader, self._open = reader, True
                while not self.left:
                    self.read(reader)
            finally:
                with self.changed:
                    self._open = False
                reader.close()
        except SourceError as error:
            why = str(error)
        finally:
            with self.changed:
                self.over = why
                self.changed.notify_all()

    def ended(self, since: float, stall: float) -> bool:
        """Whether nothing came for `stall` seconds, and OPENING more before the first; `since`: monotonic, when the
        taker was last ready.
        """
        return time.monotonic() - max(since, self.alive) > self.patience(stall)

    def patience(self, stall: float) -> float:
        """Seconds without anything after which it is given up."""
        return stall if self.alive else stall + OPENING

    def leave(self) -> None:
        """Nothing more is wanted."""
        with self.changed:
            self.left = True
            self.changed.notify_all()
            if self._open and self.reader is not None:
                self.reader.abort()


F = TypeVar("F", bound="Feed[Any]")
S = TypeVar("S")


def keep_open(
    open_: Callable[[], Any],
    make: Callable[[], F],
    take: Callable[[F], Generator[S | StreamState, None, str]],
    say: Callable[[StreamCondition, str], list[StreamState]],
    hung: str,
    pause: float,
    stop: threading.Event,
) -> Iterator[S | StreamState]:
    """What `take` gives of one stream after the other, for ever; it returns why a stream is over.

    `open_` runs on the reading thread of the Feed that `make` gives; it and reads may hang for ever: a thread that
    hangs is left behind, and of MOST_HUNG of them `hung` says what to do. `say` gives a state where it is news.
    `pause`: seconds at most between two streams. `stop` is obeyed within about 0.2 s whatever hangs.
    """
    lost = time.monotonic()
    threads: list[threading.Thread] = []
    while not stop.is_set():
        threads = [thread for thread in threads if thread.is_alive()]
        if len(threads) >= MOST_HUNG:
            yield from say("hung", f"{len(threads)} reads never returned; {hung}")
            stop.wait(TICK)
            continue
        feed = make()
        thread = threading.Thread(target=feed.pump, args=(open_,), daemon=True, name=READER)
        thread.start()
        threads.append(thread)
        began = time.monotonic()
        try:
            why = yield from take(feed)
        finally:
            feed.leave()
            # most readers return within the time of a sample, and a device that is closed can be opened again at once
            thread.join(TICK)
        if stop.is_set():
            return
        yield from say("reconnecting", why)
        if feed.alive - began > STEADY:
            lost = time.monotonic()
        wait = max(FIRST_PAUSE, SHARE * (time.monotonic() - lost))
        stop.wait(min(wait, pause) * random.uniform(0.75, 1.25))


@atexit.register
def wait_for_readers() -> None:
    """A thread that comes back from C++ while the interpreter is taken down aborts the process (until Python 3.14)."""
    end = time.monotonic() + FAREWELL
    for thread in threading.enumerate():
        if thread.name == READER:
            thread.join(max(0.0, end - time.monotonic()))
