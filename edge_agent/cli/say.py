"""How the command line speaks: data to stdout, everything said about it to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from edge_agent.redact import redact

QUIET = 10.0
"""seconds between lines of progress where nobody sees a bar"""


def one_line(error: Exception) -> str:
    """An error's message without line ends and without secrets."""
    return redact(" ".join(str(error).split()))


def note(line: str) -> None:
    """Something about the work, for people; without secrets."""
    print(redact(line), file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """One JSON value on a line of its own."""
    import msgspec

    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # a file's name in other bytes than UTF-8
        import json

        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False).encode("utf-8", "replace").decode()
    print(text, flush=True)


def progress(what: str) -> Callable[[int, int], None]:
    """Bytes done and in all, as a bar on a terminal and as nothing elsewhere."""
    shown = -1

    def say(done: int, total: int) -> None:
        nonlocal shown
        part = done * 40 // total if total else 0
        if part == shown or not sys.stderr.isatty():
            return
        shown = part
        end = "\n" if done >= total else ""
        bar = "#" * part + "." * (40 - part)
        print(f"\r{what} [{bar}] {done / 1e6:.1f}/{total / 1e6:.1f} MB", end=end, file=sys.stderr, flush=True)

    return say


def steps() -> Callable[[str, int, int], None]:
    """What is done, steps done and in all: a bar with the time left on a terminal, elsewhere a line each 10 s."""
    doing, began, shown, said = "", 0.0, 0.0, time.monotonic()

    def say(what: str, done: int, total: int) -> None:
        nonlocal doing, began, shown, said
        now = time.monotonic()
        if what != doing:
            doing, began, shown = what, now, 0.0
        if not sys.stderr.isatty():
            if now - said >= QUIET:
                said = now
                note(f"{what}: {done} of {total}")
            return
        if done < total and now - shown < 0.2:
            return
        shown = now
        part = done * 30 // total if total else 30
        left = f"{(now - began) * (total - done) / done:.0f} s left" if done else ""
        line = f"{what} [{'#' * part}{'.' * (30 - part)}] {done}/{total} {left}"
        # wiped at the end, so that results stand alone
        print(f"\r\x1b[K{line if done < total else ''}", end="", file=sys.stderr, flush=True)

    return say
