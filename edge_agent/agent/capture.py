"""From the source of a pipeline into its mailbox."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator

from edge_agent.agent.line import Line
from edge_agent.errors import SourceError
from edge_agent.redact import redact
from edge_agent.types import Audio, Frame, Sample, StreamState, Text

log = logging.getLogger("edge_agent")

REOPEN_S, REOPEN_SHARE = (1.0, 30.0), 1 / 30
"""seconds, first and longest wait before a source that failed is opened again, and the share of the time that it has
been away, which is waited in between"""


def capture(line: Line, changed: Callable[[], object]) -> None:
    """Read the source until it ends or the line is to stop; a live source that fails is opened again, and one that
    was paused, too; any other waits while it is paused.

    `changed` is called when what the source says of itself changes. Raises SourceError.
    """
    stop = line.stop
    line.taken_at = time.monotonic()
    try:
        while not stop.over:
            stop.until_free()
            try:
                if not _into_the_box(line, changed):
                    return
            except SourceError as error:
                if not line.opened.live:
                    raise
                _note(line, StreamState("reconnecting", str(error)), changed)
                wait = max(REOPEN_S[0], REOPEN_SHARE * (time.monotonic() - line.taken_at))
                stop.wait(min(REOPEN_S[1], wait) * random.uniform(0.5, 1.0))
                continue
            if not stop.is_set():
                break
        _note_end(line, stop.over, changed)
    finally:
        line.box.close()
        if line.tampering is not None:
            line.tampering.save()


def _into_the_box(line: Line, changed: Callable[[], object]) -> bool:
    """What the source gives until it ends, or is to; False where nobody takes it any more. Raises SourceError."""
    ended = True
    try:
        for item in _samples(line, changed):
            line.taken += 1
            line.once = isinstance(item, Text) and item.mark is None
            line.taken_at = time.monotonic()
            if not line.opened.live:
                line.stop.until_free()
            with line.stop.elsewhere():
                if not line.box.put(item):
                    return False
            ended = isinstance(item, Audio) and item.last
        return True
    finally:
        if not ended and line.gathers:
            line.box.put(_end_of_sound())


def _samples(line: Line, changed: Callable[[], object]) -> Iterator[Sample]:
    """What the source gives, masked; what it says of itself is noted. Raises SourceError."""
    due = 1.0
    for item in line.opened.run(line.stop):
        if isinstance(item, StreamState):
            if item.condition != "ended" or not line.stop.is_set():
                _note(line, item, changed)
                line.seen(item)
            continue
        if isinstance(item, Frame):
            due = min(1.0, due - (due >= 1) + line.rate)
            if due < 1:
                continue
            item = _framed(line, item, changed)
        yield item


def _framed(line: Line, frame: Frame, changed: Callable[[], object]) -> Frame:
    """A frame, masked; that its camera is no longer tampered with is noted."""
    frame = line.mask(frame) if line.mask is not None else frame
    if line.tampering is not None and line.tampering.see(frame):
        _note(line, StreamState("ok"), changed)
    return frame


def _end_of_sound() -> Audio:
    """For a source that ended without saying so: what was being said has ended, too."""
    import numpy as np

    return Audio(np.zeros(0, np.float32), time.time(), time.monotonic(), last=True)


def _note_end(line: Line, stopped: bool, changed: Callable[[], object]) -> None:
    """Why nothing more comes."""
    if not stopped:
        _note(line, StreamState("ended", "the source has ended"), changed)
    elif line.stream.condition != "ended":
        _note(line, StreamState("stopped", "the agent was stopped"), changed)


def _note(line: Line, state: StreamState, changed: Callable[[], object]) -> None:
    """What the source says of itself now."""
    if line.tampering is not None:
        state = line.tampering.over(state)
    # somebody else's source may have said it
    state = StreamState(state.condition, redact(" ".join(state.why.split())))
    if state.condition != line.stream.condition:
        calm = state.condition in ("ok", "ended", "stopped")
        why = state.why and f": {state.why}"
        log.log(logging.INFO if calm else logging.WARNING, "%s: stream is %s%s", line.config.name, state.condition, why)
        line.since = time.time()
    line.stream = state
    changed()
