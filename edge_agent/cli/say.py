"""How the command line speaks: data to stdout, everything said about it to stderr."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from edge_agent.redact import redact


def one_line(error: Exception) -> str:
    """An error's message without line ends and without secrets."""
    return redact(" ".join(str(error).split()))


_CODES = (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
CONTROLS = {code: f"\\u{code:04x}" for code in _CODES}
"""what moves a cursor, colours, or turns the direction of text -> as it is written in JSON"""


class Clean:
    """A text stream without control characters but tab and newline: what files and brokers say reaches no terminal as
    an order. `raw` is the stream itself, for our own bars.
    """

    def __init__(self, stream: TextIO) -> None:
        self.raw = stream

    def write(self, text: str) -> int:
        """As of a stream; the length of what was given."""
        self.raw.write(text.translate(CONTROLS))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def bar(text: str, end: str = "") -> None:
    """Part of a bar, which may move the cursor."""
    print(text, end=end, file=getattr(sys.stderr, "raw", sys.stderr), flush=True)


EVERY_S = 10.0
"""seconds of work after which a line says what is being done, where no bar does"""


class _Doing:
    """What is being done, and when something about it was last said."""

    what = ""
    said = 0.0
    """monotonic; infinite while a bar says it"""


def note(line: str) -> None:
    """Something about the work, for people; without secrets."""
    _Doing.said = time.monotonic()
    print(redact(line), file=sys.stderr, flush=True)


@contextlib.contextmanager
def at_work(what: str) -> Iterator[None]:
    """While it lasts, silence of EVERY_S ends with a line on what is being done, also in a file or a pipe."""
    began, over = time.monotonic(), threading.Event()
    _Doing.what, _Doing.said = "", began

    def watch() -> None:
        while not over.wait(max(0.05, min(EVERY_S, _Doing.said + EVERY_S - time.monotonic()))):
            if time.monotonic() >= _Doing.said + EVERY_S:
                with contextlib.suppress(OSError, ValueError):  # nobody reads any more
                    note(f"{what}: {_Doing.what or 'at work'} ({time.monotonic() - began:.0f} s so far)")

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


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
    """Bytes done and in all, as a bar on a terminal and as a line now and then elsewhere (see `at_work`)."""
    shown = -1

    def say(done: int, total: int) -> None:
        nonlocal shown
        part = done * 40 // total if total else 0
        told = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB"
        _Doing.what = f"{what} {told}"
        if part == shown or not sys.stderr.isatty():
            return
        shown = part
        end = "\n" if done >= total else ""
        drawn = "#" * part + "." * (40 - part)
        _Doing.said = time.monotonic() if end else math.inf
        bar(f"\r{what.translate(CONTROLS)} [{drawn}] {told}", end)

    return say


def steps() -> Callable[[str, int, int], None]:
    """What is done, steps done and in all: a bar with the time that is left on a terminal, elsewhere a line now and
    then (see `at_work`).
    """
    of, last, began, shown = 0, 0, 0.0, 0.0

    def say(what: str, done: int, total: int) -> None:
        nonlocal of, last, began, shown
        now = time.monotonic()
        if total != of or done < last:
            of, began, shown = total, now, 0.0
        last = done
        left = f"{(now - began) * (total - done) / done:.0f} s left" if done else ""
        _Doing.what = f"{what} {done}/{total}" + (f", {left}" if left else "") if done < total else f"{what}: done"
        if not sys.stderr.isatty() or (done < total and now - shown < 0.2):
            return
        shown = now
        part = done * 30 // total if total else 30
        line = f"{what} [{'#' * part}{'.' * (30 - part)}] {done}/{total} {left}"
        _Doing.said = math.inf if done < total else now
        # wiped at the end, so that results stand alone
        bar(f"\r\x1b[K{line.translate(CONTROLS) if done < total else ''}")

    return say


def width(text: str) -> int:
    """Columns that a text takes on a terminal: wide characters take two, marks that sit on others none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Rows as lines whose columns stand below each other, two spaces apart; those of `right` end together."""
    wide = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))]

    def cell(column: int, text: str) -> str:
        room = " " * (wide[column] - width(text))
        return room + text if column in right else text + room

    return ["  ".join(cell(column, text) for column, text in enumerate(row)).rstrip() for row in rows]
