"""``journal:UNIT``: messages of a unit from the system's journal, through journalctl.

Options: ``from=start`` begins with what is there (else with what comes), ``user=true`` means a unit of this user's own
service manager, ``directory=PATH`` the journal of another system. The unit's name is read as journalctl does: one
without a dot is a service, ``*`` stands for any.

A mark is the time of a message in microseconds, above 11 bits of a checksum of its cursor: the journal is read again
from that time on, and of the messages of that very microsecond those up to the one with the checksum are left out.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import msgspec

from edge_agent.errors import ConfigError, SourceError, tenfold
from edge_agent.events import KNOWN_TIME, UNREADABLE
from edge_agent.programs import environment, which
from edge_agent.sources import Here, Opened
from edge_agent.sources.program import Program
from edge_agent.sources.text import cleaner
from edge_agent.types import StreamState, Text
from edge_agent.uri import Uri, choice, option, switch

KNOWN = {"from": "end", "user": "false", "directory": ""}
CHECKED = 11
"""bits of the checksum"""
CHUNK, LONGEST = 1 << 16, 1 << 20
"""bytes of a read, and of a message as JSON"""
PAUSE, QUIET_S = 1.0, 2.0
"""seconds until journalctl is started again, and of silence after which what it complains about is said"""

log = logging.getLogger("edge_agent")


class _Entry(msgspec.Struct):
    """What journalctl says of a message (systemd's Journal JSON Format)."""

    cursor: str = msgspec.field(name="__CURSOR")
    at: str = msgspec.field(name="__REALTIME_TIMESTAMP")
    """microseconds since 1970"""
    message: str | list[int] | None = msgspec.field(name="MESSAGE", default=None)
    """bytes where it is no UTF-8"""

    @property
    def mark(self) -> int:
        """Where to go on behind it."""
        return int(self.at) << CHECKED | zlib.crc32(self.cursor.encode()) & ((1 << CHECKED) - 1)


def journal(uri: Uri, here: Here) -> Opened:
    """Bind a unit; yields Texts with marks. ConfigError for the address; SourceError where there is no journalctl."""
    if not uri.rest or uri.rest.startswith("-"):
        raise ConfigError(f'"{uri}": name a unit, e.g. journal:ssh.service')
    unit = "--user-unit" if switch(uri, KNOWN, "user") else "--unit"
    place = option(uri, KNOWN, "directory")
    from_start = choice(uri, KNOWN, "from", ("start", "end")) == "start"
    program = which("journalctl")
    if program is None:
        raise SourceError("journal: journalctl is not installed, or not on the PATH; it comes with systemd")
    command = [program, "--follow", "--no-tail", "--output=json", "--all", "--output-fields=MESSAGE"]
    command += [f"{unit}={uri.rest}", *([f"--directory={place}"] if place else [])]
    one = _Unit(f"journal:{uri.rest}", command, 0 if from_start else None, here.resume_at)
    return Opened(run=one.run, yields=Text, live=False)


@dataclass(slots=True)
class _Unit:
    """A unit, and how its messages are asked for."""

    name: str
    command: list[str]
    begin: int | None
    """mark of where to begin where nothing was dealt with before: 0 the first message; None: now"""
    mark: int | None
    """of the last message that was dealt with"""
    _bad: int = 0

    def run(self, stop: threading.Event) -> Iterator[Text | StreamState]:
        """Messages until `stop` is set; journalctl is started again when it ends."""
        mark, why = self._first_mark(), ""
        while not stop.is_set():
            try:
                program = Program([*self.command, _since(mark)], environment())
            except SourceError as error:
                why = yield from _said(why, str(error))
            else:
                try:
                    for item in self._messages(program, mark, stop):
                        mark = (isinstance(item, Text) and item.mark) or mark
                        why = ""
                        yield item
                    if not stop.is_set():
                        why = yield from _said(why, f"{self.name}: journalctl {program.obituary()}")
                finally:
                    program.close()
            stop.wait(PAUSE)

    def _first_mark(self) -> int:
        """Where to begin."""
        now = int(time.time() * 1e6)
        if self.mark is None:
            return now << CHECKED if self.begin is None else self.begin
        if KNOWN_TIME * 1e6 < self.mark >> CHECKED < now + 86_400e6:
            return self.mark
        log.warning("%s: what was read last is no message of a journal; it goes on from now", self.name)
        return now << CHECKED

    def _messages(self, program: Program, mark: int, stop: threading.Event) -> Iterator[Text | StreamState]:
        """Those behind a mark, until the program ends or `stop` is set."""
        clean, held = cleaner(self.name), list[Text]()
        for found in self._lines(program, stop):
            if isinstance(found, StreamState):
                yield found
                continue
            for text in filter(None, (self._text(line, clean) for line in found)):
                if text.mark == mark:
                    held.clear()
                    continue
                held.append(text)
                # of the same time: behind the mark only if that is no longer there, or stood before it
                if (text.mark or 0) >> CHECKED != mark >> CHECKED:
                    yield from held
                    held.clear()
        yield from held

    def _lines(self, program: Program, stop: threading.Event) -> Iterator[list[bytes] | StreamState]:
        """What journalctl says, and that it lives, or what it complains about while it says nothing."""
        rest, said, begun, quiet_since = b"", "", False, time.monotonic()
        while not stop.is_set() and (chunk := program.read(CHUNK)) != b"":
            if not begun:
                yield StreamState("ok")
            begun = True
            if chunk:
                *lines, rest = (rest + chunk).split(b"\n")
                # of a longer one what comes is no whole line, and counted as such
                rest = rest if len(rest) <= LONGEST else rest[:1]
                quiet_since = time.monotonic()
                yield lines
            elif not said and time.monotonic() - quiet_since > QUIET_S and (said := program.complaint()):
                mend = "; give this user the group systemd-journal" if "not seeing" in said else ""
                yield StreamState("stalled", f"{self.name}: {said}{mend}")

    def _text(self, line: bytes, clean: Callable[[bytes, int], str]) -> Text | None:
        """The message of one line; None where there is nothing to read in it."""
        try:
            entry = msgspec.json.decode(line, type=_Entry)
            raw = entry.message.encode() if isinstance(entry.message, str) else bytes(entry.message or b"")
            mark = entry.mark
            if entry.message is None or not 0 <= mark < 1 << 63:
                raise ValueError("no message")
        except UNREADABLE:
            self._bad += 1
            if tenfold(self._bad):
                log.warning("%s: no message can be read in what journalctl says (%d so far)", self.name, self._bad)
            return None
        words, at = clean(b" ".join(raw.splitlines()), 0), (mark >> CHECKED) / 1e6
        return Text(words, at, time.monotonic() - max(0.0, time.time() - at), mark) if words else None


def _said(before: str, why: str) -> Generator[StreamState, None, str]:
    """Say why there is nothing, once."""
    if why != before:
        yield StreamState("reconnecting", why)
    return why


def _since(mark: int) -> str:
    """From when on, as journalctl is told it."""
    seconds, rest = divmod(mark >> CHECKED, 10**6)
    return f"--since=@{seconds}.{rest:06d}"
