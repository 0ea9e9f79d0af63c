"""A child process that looks for patterns of the config in texts: a pattern may be one that takes for ever on some
text, and Python's ``re`` holds the interpreter meanwhile.

A line of JSON {name: pattern} comes in first; then a text a line, and for each a line goes out: a list of [name, start,
end], or null where it took longer than LIMIT_S of processor time.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys

LIMIT_S = 0.1
"""seconds of processor time for one text: however busy the machine is, the same text is found good or bad"""
MOST_BYTES = 1 << 29
"""of memory"""


class _TooLongError(Exception):
    """The time is over."""


def _over(number: int, frame: object) -> None:
    raise _TooLongError


def main() -> None:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the agent ends by itself, and then this
    signal.signal(signal.SIGVTALRM, _over)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    patterns = {name: re.compile(pattern) for name, pattern in json.loads(sys.stdin.readline()).items()}
    for line in sys.stdin:
        text = json.loads(line)
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
            found = [[name, *match.span()] for name, pattern in patterns.items() for match in pattern.finditer(text)]
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except (_TooLongError, MemoryError, RecursionError):
            found = None
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
