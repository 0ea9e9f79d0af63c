"""Counters that go on where they were when the process, the agent or a pipeline in it is another one."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from edge_agent.events import UNREADABLE
from edge_agent.files import read_regular, write_private

log = logging.getLogger("edge_agent")

MOST, MOST_BYTES = 10_000, 4_000_000
"""counters that are kept, and bytes of their file"""


class _Count(msgspec.Struct):
    before: float
    """what was counted by those that are no more"""
    now: float
    """by the one that counts now"""
    of: object = None
    """its name"""


class Lasting:
    """Of one thread at a time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._counts: dict[str, _Count] = {}
        self._written: bytes = b""
        try:
            kept = msgspec.json.decode(read_regular(file, MOST_BYTES), type=dict[str, float])
        except FileNotFoundError:
            return
        except (OSError, *UNREADABLE) as error:
            log.warning("%s: cannot be read (%s): counters begin anew", file, error)
            return
        self._counts = {name: _Count(value, 0.0) for name, value in kept.items()}

    def value(self, name: str, now: float, of: object) -> float:
        """What was counted in all; `now`: by `of`, which counts from 0 on. Not the latter before it is the former's."""
        count = self._counts.get(name)
        if count is None:
            if len(self._counts) >= MOST:
                return now
            count = self._counts[name] = _Count(0.0, 0.0)
        if count.of is not of:
            count.before, count.of = count.before + count.now, of
        count.now = now
        return count.before + now

    def names(self, prefix: str) -> list[str]:
        """Those that begin so, without it, of earlier runs as well."""
        return [name.removeprefix(prefix) for name in self._counts if name.startswith(prefix)]

    def keep(self) -> None:
        """Have the disk know; one that refuses is no reason to stop."""
        told = msgspec.json.encode({name: count.before + count.now for name, count in self._counts.items()})
        if told == self._written:
            return
        fresh = self._file.with_suffix(".new")
        try:
            write_private(fresh, told)
            fresh.replace(self._file)
            self._written = told
        except OSError as error:
            log.warning("%s: %s; counters begin at what it holds after a restart", self._file, error.strerror)
