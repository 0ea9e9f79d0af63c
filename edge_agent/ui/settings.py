"""The config: shown, changed with the difference shown before, taken up by the agent, and one click back."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from edge_agent import config
from edge_agent.config.load import MOST_BYTES
from edge_agent.errors import EdgeAgentError
from edge_agent.files import folder, read_regular, write_private
from edge_agent.ui.calls import Ask, Call, Refused
from edge_agent.ui.config_text import Edit, difference, edited, hidden, with_secrets

if TYPE_CHECKING:
    from edge_agent.ui.server import Page

FORMER = 20
"""configs that can be gone back to"""
TAKEN_S = 60.0
"""seconds that the agent has to take a config up"""


class ConfigText(msgspec.Struct, frozen=True):
    """The config as it is written."""

    text: Annotated[str, msgspec.Meta(description="users and passwords of addresses are shown as ***, and stay")]
    base: Annotated[str, msgspec.Meta(description="what a change is based on: SHA-256 of the file")]
    locked: Annotated[str, msgspec.Meta(description="why it cannot be changed here; empty: it can")]
    former: Annotated[list[float], msgspec.Meta(description="when the former ones were replaced, the newest first")]


class Change(msgspec.Struct, frozen=True):
    """A change, as edits or as a whole text."""

    base: str
    edits: list[Edit] = []
    text: str | None = None


class Preview(msgspec.Struct, frozen=True):
    """What a change would do."""

    text: str
    diff: str
    wrong: Annotated[str, msgspec.Meta(description="why the agent would refuse it; empty: it would not")]


class Written(msgspec.Struct, frozen=True):
    """What became of it."""

    base: str
    done: str


class Active(msgspec.Struct, frozen=True):
    """The profile that is active, those that there are, and which rules are on."""

    profile: str
    profiles: list[str]
    rules: dict[str, bool]


class Named(msgspec.Struct, frozen=True):
    """A profile."""

    profile: str


class Settings:
    """What the calls of the config do; one change at a time."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._changing = threading.Lock()
        self._folder = page.place / "configs"

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────

    def _file(self) -> Path:
        if self._page.config_file is None:
            raise Refused(404, "this agent runs without a config file")
        return self._page.config_file.resolve()

    def _read(self) -> str:
        try:
            return read_regular(self._file(), MOST_BYTES).decode()
        except OSError as error:
            raise Refused(409, f"{self._file()}: {error.strerror}") from None

    def _locked(self) -> str:
        """Why it cannot be changed here."""
        if not self._page.settings.edit:
            return "page.edit = false: this config is changed elsewhere, as by a fleet's server"
        file = self._file()
        if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
            return f"the agent's user may not write {file} and its folder; change it there and reload the agent"
        return ""

    def _former(self) -> list[Path]:
        return sorted(self._folder.glob("*.toml"), reverse=True) if self._folder.is_dir() else []

    def show(self, ask: Ask) -> ConfigText:
        """The config."""
        text = self._read()
        former = [int(path.stem) / 1000 for path in self._former()]
        return ConfigText(hidden(text), _digest(text), self._locked(), former)

    def former(self, ask: Ask) -> Preview:
        """One of the former ones, as a change of what is there now."""
        before, text = self._read(), self._one(ask.number("at_ms", 0, 0, 10**15))
        return Preview(hidden(text), difference(hidden(before), hidden(text)), self._wrong(text))

    def _one(self, at_ms: int) -> str:
        """The former config that was replaced then; 0: the newest."""
        found = [path for path in self._former() if not at_ms or path.stem == str(at_ms)]
        if not found:
            raise Refused(404, "there is no former config")
        return read_regular(found[0], MOST_BYTES).decode()

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────

    def _changed(self, change: Change) -> tuple[str, str]:
        """The text as it is and as it will be. Refused where somebody else has changed it meanwhile."""
        before = self._read()
        if change.base != _digest(before):
            raise Refused(409, "somebody else has changed the config meanwhile: look at it again, then change it")
        after = before if change.text is None else with_secrets(change.text, before)
        return before, edited(after, change.edits) if change.edits else after

    def _wrong(self, text: str) -> str:
        """Why a text is no config; empty where it is one."""
        try:
            config.parse(text, base=self._file().parent)
        except EdgeAgentError as error:
            return str(error)
        return ""

    def preview(self, ask: Ask) -> Preview:
        """What a change would do."""
        before, after = self._changed(ask.body)
        wrong = self._wrong(after)
        return Preview(hidden(after), difference(hidden(before), hidden(after)), wrong)

    def write(self, ask: Ask) -> Written:
        """Change it, and have the agent take it up; where that refuses it, the one before stands again."""
        with self._changing:
            before, after = self._changed(ask.body)
            return self._write(before, after)

    def back(self, ask: Ask) -> Written:
        """To the newest of the former ones."""
        with self._changing:
            before, _ = self._changed(ask.body)
            # what is gone back from is kept as the newest; going back once more brings it again
            return self._write(before, self._one(0))

    def _write(self, before: str, after: str) -> Written:
        if locked := self._locked():
            raise Refused(403, locked)
        if wrong := self._wrong(after):
            raise Refused(400, wrong)
        if before == after:
            return Written(_digest(after), "nothing changes")
        self._keep(before)
        file = self._file()
        _replace(file, after)
        if refused := self._taken_up():
            _replace(file, before)
            self._page.now.reload()
            raise Refused(400, f"the agent refused it, so the one before stands again: {refused}")
        return Written(_digest(after), "written, and the agent has taken it up")

    def _taken_up(self) -> str:
        """Have the agent take up what is written now; why it refuses it, empty where it does not."""
        agent = self._page.now
        wanted = config.load(self._file())
        agent.state.refused = ""
        agent.reload()
        by = time.monotonic() + TAKEN_S
        while time.monotonic() < by and not self._page.stopping.is_set():
            if agent.state.refused or self._page.now.config == wanted:
                return agent.state.refused
            time.sleep(0.05)
        return "" if self._page.stopping.is_set() else f"it has not taken it up within {TAKEN_S:.0f} s"

    def _keep(self, text: str) -> None:
        """Keep a former config, for the agent's user alone."""
        folder(self._folder, 0o700)
        write_private(self._folder / f"{int(time.time() * 1000)}.toml", text.encode(), confirm=True)
        for path in self._former()[FORMER:]:
            path.unlink(missing_ok=True)

    # ── profiles ─────────────────────────────────────────────────────────────────────────────────────────

    def profile(self, ask: Ask) -> Active:
        """The active one."""
        rules = self._page.now.rules
        return Active(rules.profile, list(rules.profiles), dict(rules.on))

    def set_profile(self, ask: Ask) -> Active:
        """Make another one active."""
        self._page.now.rules.set_profile(ask.body.profile, "page")
        return self.profile(ask)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(file: Path, text: str) -> None:
    """Write a file whole or not at all, with the mode and owner that it has. OSError."""
    was, part = file.stat(), file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write_private(part, text.encode(), confirm=True)
        if os.geteuid() == 0:
            os.chown(part, was.st_uid, was.st_gid)
        part.chmod(was.st_mode & 0o7777)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def calls(page: Page) -> list[Call]:
    """Those of the config."""
    settings, at = Settings(page), "/api/v1/config"
    return [
        Call("GET", at, "admin", "The config as it is written.", settings.show, ConfigText),
        Call("PUT", at, "admin", "Change the config; the agent takes it up.", settings.write, Written, Change),
        Call("POST", f"{at}/preview", "admin", "What a change would do.", settings.preview, Preview, Change),
        Call("GET", f"{at}/former", "admin", "A former config, and what it would change.", settings.former, Preview,
             query={"at_ms": "when it was replaced, milliseconds since 1970; none: the newest"}),
        Call("POST", f"{at}/back", "admin", "Go back to the newest former config.", settings.back, Written, Change),
        Call("GET", "/api/v1/profile", "viewer", "Profiles and rules.", settings.profile, Active),
        Call("PUT", "/api/v1/profile", "operator", "Make a profile active.", settings.set_profile, Active, Named),
    ]  # fmt: skip
