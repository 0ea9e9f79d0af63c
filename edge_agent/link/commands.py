"""Commands from the cloud: PREFIX/DEVICE/cmd/VERB in, PREFIX/DEVICE/reply/VERB out.

A command is JSON {"id": "...", ...}. Retained ones are ignored (they would run again at each reconnect), larger ones
than MOST are refused before they are parsed, and each id is run at most once, across restarts too: the id is on disk
before the command runs.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from edge_agent.errors import EdgeAgentError, tenfold
from edge_agent.events import UNREADABLE
from edge_agent.files import sync, write_private
from edge_agent.link import topics
from edge_agent.link.link import Link
from edge_agent.link.signing import Unsigned

log = logging.getLogger("edge_agent")

MOST = 16_000
"""bytes of a command"""
LONGEST = 64
"""characters of a verb; to a longer one, which no topic of a reply may have room for, nothing is answered"""
REMEMBERED = 1024
"""ids that are not run again: more than can be run in the time that a signed one is taken"""
OLD_S = 300.0
"""seconds after which a signed command is not taken any more"""
BURST, A_SECOND = 40, 1.0
"""commands that are run at once, and a second from then on: each is noted on disk"""
WAITING = 32
"""commands that wait to be run; more are refused"""


class _Command(msgspec.Struct):
    id: str


Act = Callable[[], object]
"""What a verb does: returns what the reply holds."""
Later = Callable[[bytes, Callable[[dict[str, Any]], None]], None]
"""What a verb does that takes its time: it is given the command, and calls with the reply once that is ready."""


class Commands:
    """Receives on the link's thread, runs on the agent's: `run_waiting` is to be called now and then."""

    def __init__(
        self,
        link: Link,
        store: Path,
        verbs: dict[str, Act],
        wake: Callable[[], None],
        later: Mapping[str, Later] = MappingProxyType({}),
    ) -> None:
        self.link, self.verbs, self.later, self._wake = link, verbs, later, wake
        self._file = store / "commands.log"
        self._lines = 0
        """in that file"""
        self._left, self._left_at = float(BURST), time.monotonic()
        self._refused = 0
        self._waiting: queue.Queue[tuple[str, bytes]] = queue.Queue(WAITING)
        self._ids: list[str] = []
        try:
            self._ids = self._noted(store)
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("commands: %s: %s; a command that is sent once more is run once more", self._file, error)
        link.subscribe(f"{link.base}/{topics.COMMANDS}", self._receive, retained=False)

    def _noted(self, store: Path) -> list[str]:
        """The ids on disk, the oldest first; those of earlier versions stand in another file."""
        ids: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            ids = msgspec.json.decode((store / "commands.json").read_bytes(), type=list[str])
        with contextlib.suppress(FileNotFoundError):
            for line in self._file.read_bytes().splitlines():
                self._lines += 1
                with contextlib.suppress(*UNREADABLE):  # cut short by a power cut
                    ids.append(msgspec.json.decode(line, type=str))
        return ids[-REMEMBERED:]

    def _may(self) -> bool:
        """Whether one more may be run now; what floods is said seldom, and not answered."""
        now = time.monotonic()
        self._left = min(BURST, self._left + A_SECOND * (now - self._left_at))
        self._left_at = now
        if self._left >= 1:
            self._left -= 1
            return True
        self._refused += 1
        if tenfold(self._refused):
            log.warning("commands: more than %g a second; %d passed over so far", A_SECOND, self._refused)
        return False

    def _receive(self, topic: str, payload: bytes) -> None:
        if not self._may():
            return
        verb = topics.verb_of(topic)
        if len(verb) > LONGEST:
            log.warning("commands: no verb has %d characters", len(verb))
            return
        if len(payload) > MOST:
            self._reply(verb, "", {"ok": False, "error": f"a command has at most {MOST} bytes"})
            return
        try:
            payload = self.link.signed(topic, payload, OLD_S)
        except Unsigned as error:
            self._reply(verb, "", {"ok": False, "error": f"not run: it {error}"})
            return
        try:
            self._waiting.put_nowait((verb, payload))
        except queue.Full:
            self._reply(verb, "", {"ok": False, "error": f"{WAITING} commands wait already; try again later"})
        self._wake()

    def run_waiting(self) -> None:
        """Run what has come in."""
        while True:
            try:
                verb, payload = self._waiting.get_nowait()
            except queue.Empty:
                return
            self._run(verb, payload)

    def _run(self, verb: str, payload: bytes) -> None:
        try:
            command = msgspec.json.decode(payload, type=_Command)
        except UNREADABLE as error:
            self._reply(verb, "", {"ok": False, "error": f'not a command, {{"id": "..."}} is needed: {error}'})
            return
        if verb not in self.verbs and verb not in self.later:
            known = ", ".join(sorted({*self.verbs, *self.later}))
            self._reply(verb, command.id, {"ok": False, "error": f"unknown command; known are {known}"})
            return
        if not command.id.isprintable() or not 1 <= len(command.id) <= 128:  # it goes into the log
            self._reply(verb, command.id[:128], {"ok": False, "error": "an id has 1 to 128 printable characters"})
            return
        if command.id in self._ids:
            self._reply(verb, command.id, {"ok": False, "error": "this id was run before"})
            return
        try:
            self._remember(command.id)
        except OSError as error:
            self._reply(verb, command.id, {"ok": False, "error": f"not run: it cannot be noted ({error.strerror})"})
            return
        log.info("command %s (%s)", verb, command.id)
        if verb in self.later:
            self.later[verb](payload, partial(self._reply, verb, command.id))
            return
        try:
            self._reply(verb, command.id, {"ok": True, "result": self.verbs[verb]()})
        except EdgeAgentError as error:
            self._reply(verb, command.id, {"ok": False, "error": str(error)})

    def _remember(self, name: str) -> None:
        """The id is on disk before the command runs."""
        ids = [*self._ids, name][-REMEMBERED:]
        if self._lines == 0 or self._lines > 2 * REMEMBERED:
            fresh = self._file.with_suffix(".new")
            write_private(fresh, b"".join(map(_line, ids)), confirm=True)
            fresh.replace(self._file)
            sync(self._file.parent)
            self._lines = len(ids)
        else:
            write_private(self._file, _line(name), append=True, confirm=True)
            self._lines += 1
        # one that could not be noted may be asked for again
        self._ids = ids

    def _reply(self, verb: str, name: str, body: dict[str, Any]) -> None:
        self.link.tell(topics.reply(verb), msgspec.json.encode({"id": name, **body}))


def _line(name: str) -> bytes:
    """One id in the file; it begins with a line's end too, so that one that was cut short spoils none behind it."""
    return b"\n" + msgspec.json.encode(name) + b"\n"
