"""A few names that are remembered in a file across restarts."""

from __future__ import annotations

import contextlib
from collections.abc import Set
from pathlib import Path

import msgspec

from edge_agent.events import UNREADABLE
from edge_agent.files import write_private


def read_names(file: Path) -> set[str]:
    """The names in a file; none where it cannot be read."""
    with contextlib.suppress(OSError, *UNREADABLE):
        return set(msgspec.json.decode(file.read_bytes(), type=list[str]))
    return set()


class Remembered:
    """A set of names. Of one thread."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.known = file.exists()
        """whether an earlier run has noted any"""
        self.names: Set[str] = read_names(file)

    def note(self, names: Set[str]) -> None:
        """These are the names from now on. A disk that refuses is no reason to stop: they are known to this run."""
        if names == self.names:
            return
        self.names = names
        with contextlib.suppress(OSError):
            write_private(self._file, msgspec.json.encode(sorted(names)))
