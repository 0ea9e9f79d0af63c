"""What somebody has begun to say, and is not stored as text yet, is noted beside the store, so that a kill is told.

A note is an empty file of a pipeline, in the folder `begun` of the store: there while speech is under way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from edge_agent.agent.line import Line
from edge_agent.events import rfc3339
from edge_agent.files import folder, sync, write_private
from edge_agent.outbox.outbox import Outbox
from edge_agent.types import Sample

log = logging.getLogger("edge_agent")

FOLDER = "begun"


def noting(line: Line, store: Path, done: Callable[[Sample], None]) -> Callable[[Sample], None]:
    """`done` for each sample of a pipeline, which also keeps its note, where it hears what comes but once."""
    if not (line.gathers and line.opened.live):
        return done
    note, noted = store / FOLDER / line.config.name, False

    def noticed(sample: Sample) -> None:
        nonlocal noted
        done(sample)
        if line.under_way == noted:
            return
        try:
            if noted:
                note.unlink(missing_ok=True)
            else:
                folder(note.parent, 0o700)
                write_private(note, b"")
                sync(note.parent)
        except OSError as error:
            log.debug("%s: no note of what is being said (%s)", line.config.name, error)
        noted = not noted

    return noticed


def declare_begun(store: Path, outbox: Outbox) -> None:
    """Declare what was being said when the agent was killed."""
    try:
        notes = sorted((store / FOLDER).iterdir())
        for note in notes:
            since = rfc3339(note.stat().st_mtime)
            outbox.miss(f"sound of {note.name}, from {since} on, was under way when the agent stopped")
            note.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s: notes of what was being said cannot be read (%s)", store / FOLDER, error.strerror)
