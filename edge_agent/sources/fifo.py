"""Lines of a FIFO, a terminal or standard input: what is read once from it nobody can read again."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edge_agent.errors import SourceError
from edge_agent.sources.followed import CHUNK
from edge_agent.sources.rotation import CHECKED, is_replaced
from edge_agent.sources.splitter import Splitter, width
from edge_agent.types import Text

TICK = 0.1
"""seconds between looks at what does not grow, and at `stop`"""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream by its path ("-": standard input), how its lines are cleaned, and the seconds between two of them."""

    path: str
    clean: Callable[[bytes, int], str]
    pause: float
    once: deque[tuple[bytes, int, int]] = field(default_factory=deque)
    """lines that were read and not yet given; nobody can read them again"""

    def lines(self, fd: int, stop: threading.Event, *, forever: bool) -> Iterator[Text]:
        """Lines of a FIFO, a terminal or standard input until its end; `forever`: of one writer after the other, until
        something else has the name.

        A writer that closes ends its last line, newline or not. The FIFO stays open, so that no writer is ever cut off.
        Once `stop` is set, what was written before is read (a pipe holds CHUNK bytes) and given, the last line too.
        """
        split: Splitter | None = None
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        stopping = False
        while not stopping:
            stopping = stop.is_set()
            chunk = self._read(fd, poller.poll(0 if stopping else 1000 * TICK))
            if chunk is None:
                if forever and is_replaced(fd, self.path):
                    return
                continue
            if chunk:
                split = split or Splitter(0, width(chunk[:CHECKED]))
                yield from self.given(split.feed(chunk), stop)
                continue
            yield from self.given(split.rest() if split else [], stop)
            if not forever or is_replaced(fd, self.path):
                return
            stop.wait(TICK)
        yield from self.given(split.rest() if split else [], stop)

    def _read(self, fd: int, events: list[tuple[int, int]]) -> bytes | None:
        """What has come by these events; None for nothing yet, b"" at the end. SourceError."""
        if not events:
            return None
        if events[0][1] & select.POLLNVAL:
            raise SourceError("lines:- but standard input is closed; pipe something into it")
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            raise SourceError(f"lines:{self.path}: cannot be read on ({error.strerror})") from None

    def given(self, found: list[tuple[bytes, int, int]], stop: threading.Event) -> Iterator[Text]:
        """Lines as Texts without a mark, and all of them, whatever `stop` says."""
        self.once.extend(found)
        while self.once:
            raw, lost, _ = self.once.popleft()
            text = self.clean(raw, lost)
            if text:
                yield Text(text, time.time(), time.monotonic())
                if self.pause:
                    stop.wait(self.pause)
