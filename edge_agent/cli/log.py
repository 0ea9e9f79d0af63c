"""The log: lines on stderr, which the service manager keeps with their priority; what repeats is counted."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time

from edge_agent.redact import redact

PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""levels -> syslog's (sd-daemon(3)); what is below has 7"""
BURST, EACH_S, KINDS = 10, 60.0, 1000
"""so many lines of a kind in so many seconds are written; and of how many kinds that is known"""


def to_stderr(level: int) -> None:
    """Write the log there from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ForJournal() if is_journal() else ForPeople("%(asctime)s %(levelname)-7s %(message)s"))
    handler.addFilter(Seldom())
    logging.basicConfig(level=level, handlers=[handler])


def is_journal() -> bool:
    """Whether stderr leads to systemd's journal (JOURNAL_STREAM in systemd.exec(5): device and inode)."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        at = os.fstat(sys.stderr.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{at.st_dev}:{at.st_ino}"
    return False


class ForPeople(logging.Formatter):
    """Lines of the log, tracebacks too, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class ForJournal(logging.Formatter):
    """As above, each line with its priority; the journal has the time."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in redact(super().format(record)).splitlines())


class Seldom(logging.Filter):
    """Lets BURST lines of a kind through in EACH_S seconds; the next one says how many were left out.

    Of one kind are those that differ in numbers alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[int, str], list[float]] = {}
        """kind -> when its time began, how many came since, how many of them were left out"""

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = (record.levelno, re.sub(r"\d+", "0", record.getMessage())[:200]), time.monotonic()
        seen = self._seen.pop(kind, None) or [now, 0, 0]
        left_out = 0
        if now - seen[0] > EACH_S:
            left_out, seen = int(seen[2]), [now, 0, 0]
        seen[1] += 1
        self._seen[kind] = seen
        if len(self._seen) > KINDS:
            del self._seen[next(iter(self._seen))]
        if seen[1] > BURST:
            seen[2] += 1
            return False
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like it were left out)", ()
        return True
