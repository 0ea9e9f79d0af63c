"""Commands from the cloud: PREFIX/DEVICE/cmd/VERB in, PREFIX/DEVICE/reply/VERB out.

A command is JSON {"id": "...", ...}. Retained ones are ignored (they would run again at each reconnect), larger ones
than MOST are refused before they are parsed, and each id is run at most once, across restarts too: the id is on disk
before the command runs.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import EdgeAgentError
from edge_agent.link import Link
from edge_agent.segments import sync, write_private
from edge_agent.types import UNREADABLE

log = logging.getLogger("edge_agent")

MOST = 16_000
"""bytes of a command"""
LONGEST = 64
"""characters of a verb; to a longer one, which no topic of a reply may have room for, nothing is answered"""
REMEMBERED = 512
"""ids that are not run again"""
WAITING = 32
"""commands that wait to be run; more are refused"""


class _Command(msgspec.Struct):
    id: str


Act = Callable[[], object]
"""What a verb does: returns what the reply holds."""


class Commands:
    """Receives on the link's thread, runs on the agent's: `run_waiting` is to be called now and then."""

    def __init__(self, link: Link, store: Path, verbs: dict[str, Act], wake: Callable[[], None]) -> None:
        self.link, self.verbs, self._wake = link, verbs, wake
        self._file = store / "commands.json"
        self._waiting: queue.Queue[tuple[str, bytes]] = queue.Queue(WAITING)
        self._ids: list[str] = []
        try:
            self._ids = msgspec.json.decode(self._file.read_bytes(), type=list[str])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("commands: %s: %s; a command that is sent once more is run once more", self._file, error)
        link.subscribe(f"{link.base}/cmd/+", self._receive, retained=False)

    def _receive(self, topic: str, payload: bytes) -> None:
        verb = topic.rpartition("/")[2]
        if len(verb) > LONGEST:
            log.warning("commands: no verb has %d characters", len(verb))
            return
        if len(payload) > MOST:
            self._reply(verb, "", {"ok": False, "error": f"a command has at most {MOST} bytes"})
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
        if verb not in self.verbs:
            known = ", ".join(sorted(self.verbs))
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
        try:
            self._reply(verb, command.id, {"ok": True, "result": self.verbs[verb]()})
        except EdgeAgentError as error:
            self._reply(verb, command.id, {"ok": False, "error": str(error)})

    def _remember(self, name: str) -> None:
        """The id is on disk before the command runs."""
        ids = [*self._ids, name][-REMEMBERED:]
        fresh = self._file.with_suffix(".new")
        write_private(fresh, msgspec.json.encode(ids), confirm=True)
        fresh.replace(self._file)
        # one that could not be noted may be asked for again
        self._ids = ids
        sync(self._file.parent)

    def _reply(self, verb: str, name: str, body: dict[str, Any]) -> None:
        self.link.tell(f"reply/{verb}", msgspec.json.encode({"id": name, **body}))
