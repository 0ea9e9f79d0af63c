"""A stream of which only keyframes are decoded while nothing moves in them, and all frames while something does.

A keyframe is a whole picture and comes every few seconds; what is between two of them is most of the work of decoding.
A program cannot be told to go over from one to the other, so for a moment there are two: the one that goes on gives
frames until the other one has its first. No frame is missed, and the camera is asked for a second stream meanwhile.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from edge_agent.errors import SourceError
from edge_agent.pictures.motion import Gate
from edge_agent.sources.feed import TICK
from edge_agent.sources.watch import StreamReader
from edge_agent.types import Frame

LOOK_S = 0.9
"""seconds at least between two frames that are compared: a keyframe differs from the frames before it though nothing
moves, and of frames that are further apart that is noise like any other"""
AGAIN_S = 10.0
"""seconds until the other program is started again, where it ended before its first frame"""

log = logging.getLogger("edge_agent")


class _Sparing:
    """Of one thread, as programs end with the thread that has started them; `abort` of any."""

    def __init__(self, open_: Callable[[bool], StreamReader], seconds: float, what: str) -> None:
        self._open, self._seconds, self._what = open_, seconds, what
        self._gate = Gate(math.inf)
        self._keys, self._moved_at, self._looked_at, self._again_at = True, -math.inf, -math.inf, -math.inf
        self._now = open_(True)
        self._other: StreamReader | None = None
        """which is to go on once it has its first frame"""

    def read(self) -> Frame | None:
        """The next frame, of whichever program is to be believed. SourceError: the stream is over."""
        frame = self._next()
        if frame is None:
            return None
        if frame.mono - self._looked_at >= LOOK_S:
            self._looked_at = frame.mono
            if self._gate(frame.image, frame.mono, seldom=True):
                self._moved_at = frame.mono
        still = frame.mono - self._moved_at >= self._seconds
        if still == self._keys:
            self._leave_other()
        elif self._other is None and frame.mono >= self._again_at:
            self._other = self._open(still)
        return frame

    def _next(self) -> Frame | None:
        while self._other is not None:
            if self._other.ready(0 if self._now.ready(TICK) else TICK):
                try:
                    frame = self._other.read()
                except SourceError as error:
                    log.warning("%s: only one stream can be had at once (%s)", self._what, error)
                    self._leave_other()
                    self._again_at = self._moved_at + AGAIN_S
                    continue
                self._now.close()
                self._now, self._other, self._keys = self._other, None, not self._keys
                return frame
            if self._now.ready(0):
                break
        return self._now.read()

    def _leave_other(self) -> None:
        if self._other is not None:
            self._other.close()
            self._other = None

    def close(self) -> None:
        """End both."""
        self._leave_other()
        self._now.close()

    def abort(self) -> None:
        """Have a read return soon."""
        self._now.abort()


def sparing(open_: Callable[[bool], StreamReader], seconds: float, what: str) -> StreamReader:
    """`open_(True)` reads keyframes alone, `open_(False)` all frames, which are read until nothing has moved for
    `seconds`. `what`: whose stream, for people.
    """
    both = _Sparing(open_, seconds, what)
    return StreamReader(both.read, both.close, both.abort)
