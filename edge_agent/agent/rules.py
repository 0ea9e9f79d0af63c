"""The rules and profiles of one agent: which profile is active, which rules are on, and what a restart must know.

`Agent.rules` is there without a `[[rule]]`, too. What it offers may be called from any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent.config import Config
from edge_agent.errors import ConfigError, UsageError, nearest
from edge_agent.events import UNREADABLE, rfc3339
from edge_agent.files import read_regular, write_private
from edge_agent.link import topics

if TYPE_CHECKING:
    from edge_agent.link.link import Link

log = logging.getLogger("edge_agent")

FILE, MOST_BYTES = "rules.json", 1_000_000
"""in the store's folder"""


class Kept(msgspec.Struct, frozen=True):
    """What the file holds."""

    v: int = 1
    profile: str = ""
    since: float = 0.0
    """when it became active, seconds since 1970 UTC"""
    by: str = "start"


class _Wanted(msgspec.Struct, frozen=True):
    """What a command says."""

    profile: str


class Rules:
    """The rules and profiles of one agent."""

    def __init__(self, config: Config, store: Path, link: Link | None) -> None:
        self._file, self._link, self._lock = store / FILE, link, threading.Lock()
        self.on: dict[str, bool] = {rule.name: False for rule in config.rule}
        """each rule: whether it is on"""
        self.profiles = [profile.name for profile in config.profile]
        """their names; empty where the config has none"""
        self._pipelines = {one.name: None if one.pipelines is None else set(one.pipelines) for one in config.profile}
        self.listeners: list[Callable[[str], None]] = []
        """told of each profile that becomes active; they return at once"""
        self._kept = self._read()
        if self._kept.profile not in self.profiles:
            self._kept = Kept(profile=self.profiles[0] if self.profiles else "", since=time.time())
        self._say()

    @property
    def profile(self) -> str:
        """The active profile; empty where the config has none."""
        return self._kept.profile

    def set_profile(self, name: str, by: str = "page") -> None:
        """Make a profile the active one. UsageError for a name that is none. `by`: who asks for it."""
        if name not in self.profiles:
            raise UsageError(f'profile "{name}" is none{nearest(name, self.profiles)}')
        with self._lock:
            if name == self._kept.profile:
                return
            self._kept = Kept(profile=name, since=time.time(), by=by)
            self._write()
        log.info("profile %s (%s)", name, by)
        self._say()
        for listener in tuple(self.listeners):
            listener(name)

    def alerts(self, pipeline: str) -> bool:
        """Whether the events of a pipeline are alerts in the active profile."""
        among = self._pipelines.get(self.profile)
        return among is None or pipeline in among

    def command(self, payload: bytes, reply: Callable[[dict[str, Any]], None]) -> None:
        """``cmd/profile``: {"id": "…", "profile": "night"}."""
        try:
            self.set_profile(msgspec.json.decode(payload, type=_Wanted).profile, "command")
            reply({"ok": True, "result": {"profile": self.profile}})
        except (UsageError, ConfigError, *UNREADABLE) as error:
            reply({"ok": False, "error": str(error)})

    # ── what others see, and what a restart must know ────────────────────────────────────────────────────

    def _say(self) -> None:
        """Retain which profile is active."""
        if self._link is not None and self.profiles:
            told = {"v": 1, "profile": self.profile, "since": rfc3339(self._kept.since), "by": self._kept.by}
            self._link.say(topics.PROFILE, msgspec.json.encode({**told, "profiles": self.profiles}))

    def _read(self) -> Kept:
        try:
            return msgspec.json.decode(read_regular(self._file, MOST_BYTES), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (OSError, *UNREADABLE) as error:
            log.warning("%s: cannot be read (%s): rules and profiles begin anew", self._file, error)
            return Kept()

    def _write(self) -> None:
        """Keep it, whole or not at all. A disk that refuses is no reason to stop."""
        part = self._file.with_name(f".{FILE}")
        try:
            write_private(part, msgspec.json.encode(self._kept), confirm=True)
            part.replace(self._file)
        except OSError as error:
            log.warning("%s: cannot be written (%s): a restart may repeat an alert", self._file, error.strerror)
