"""Whether a pipeline's camera still sees what it usually sees, kept over restarts, as a state of its stream."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from edge_agent import files
from edge_agent.pictures.tamper import Tamper
from edge_agent.types import Frame, StreamState

log = logging.getLogger("edge_agent")

SAVE_S = 600.0
"""seconds between two times that what was learned is written"""
MOST_BYTES = 4_000_000


class Tampering:
    """Of one pipeline, on the thread that captures."""

    def __init__(self, hours: float, path: Path) -> None:
        """`path`: where what was learned is kept; what cannot be read there is learned anew, and that is logged."""
        self._path, self._saved = path, time.monotonic()
        self.tamper = Tamper(hours * 3600)
        try:
            self.tamper = Tamper(hours * 3600, files.read_regular(path, MOST_BYTES))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("%s: what the camera usually shows is learned anew: %s", path, error)

    def see(self, frame: Frame) -> bool:
        """Take a frame; whether the state is another one now."""
        before = self.tamper.about
        news = self.tamper(frame.image, frame.mono)
        if frame.mono - self._saved > SAVE_S:
            self.save()
        return news or self.tamper.about != before

    def over(self, state: StreamState) -> StreamState:
        """What the stream is, where its source says `state`."""
        if state.condition != "ok":
            return state
        if self.tamper.doubt:
            return StreamState(self.tamper.doubt, self.tamper.why)
        return StreamState("ok", state.why or self.tamper.about)

    def save(self) -> None:
        """Write what was learned; a disk that takes nothing costs what was learned since."""
        self._saved = time.monotonic()
        part = self._path.with_suffix(".part")
        try:
            files.folder(self._path.parent, files.PRIVATE)
            files.write_private(part, self.tamper.packed(), confirm=True)
            part.replace(self._path)
        except OSError as error:
            log.warning("%s: what the camera usually shows cannot be kept: %s", self._path, error)
