"""Signed bundles on a running agent: found, proved, held beside what serves, switched to, watched, taken back."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from edge_agent import paths
from edge_agent.agent.canary import Canary, Disagreed
from edge_agent.agent.line import Line
from edge_agent.agent.reload import Reload
from edge_agent.agent.turns import try_anew
from edge_agent.config import Config, Policy
from edge_agent.config import Update as Section
from edge_agent.config.times import seconds, window
from edge_agent.errors import EdgeAgentError, NotNowError
from edge_agent.fleet import asked as asked_for
from edge_agent.fleet import fetch, policy, program, verify
from edge_agent.fleet.bundle import Bundle, Wanted
from edge_agent.fleet.outcome import Outcome
from edge_agent.fleet.program import ProgramWay
from edge_agent.fleet.served import Served
from edge_agent.fleet.steps import Figures, Way
from edge_agent.fleet.update import Update
from edge_agent.fleet.ways import Asked, ModelWay, SlotWay
from edge_agent.registry import catalogue
from edge_agent.serving.models import Models, try_all

log = logging.getLogger("edge_agent")

SOON_S = 300.0
"""seconds at most until what has to wait is tried again"""
SWAPPED_S = 60.0
"""seconds in which a new model has to be in its pipelines"""
WRONG = 0.1
"""share of samples that may fail while something new is watched"""


def made(config: Config, asked: dict[str, Asked], stops: Callable[[float], bool] | None = None) -> Update:
    """What takes bundles as [update] says; `asked`: kind -> how it is tried; `stops`: as of ProgramWay, None where no
    agent runs. RefusedError for a damaged state.
    """
    section, home = config.update, paths.home()
    assert section is not None
    served = Served(home / "fleet")
    allowance = fetch.Allowance(home / "fleet" / "spent.json", section.bytes_per_day, lambda: _closed(section))
    ways: dict[str, Way] = {"model": ModelWay(home, asked["model"])}
    ways |= {kind: SlotWay(home, asked[kind]) for kind in ("config", "files")}
    ways |= {"agent": ProgramWay(home, stops)} if stops is not None else {}

    def look(wanted: Wanted) -> tuple[Bundle, bytes]:
        return verify.found(wanted, section.address, Path(section.root), section.group, served, section.ca)

    def bring(bundle: Bundle) -> int:
        count = fetch.fetch(home, section.address, bundle, allowance, section.ca)
        if bundle.kind == "model":
            policy.note_signed(home, [part.sha256 for part in bundle.files], str(bundle.wanted), bundle.at)
        return count

    return Update(served, ways, look, bring, lambda bundle: _allowed(config, bundle))


def _closed(section: Section) -> str:
    """Why no files may come now; "" where they may."""
    if section.between is None:
        return ""
    now = time.localtime()
    if window(section.between, None).holds(now.tm_wday, now.tm_hour * 60 + now.tm_min):
        return ""
    return f"files come between {section.between} only"


def _allowed(config: Config, bundle: Bundle) -> None:
    """RefusedError for what [policy] does not let serve, and for a program that nothing here would lay."""
    rules = config.policy
    if bundle.kind == "agent":
        program.check(bundle, paths.home(), config.update.agent if config.update is not None else None)
    policy.check_terms(rules if bundle.kind == "model" else Policy(refuse=rules.refuse), str(bundle.wanted),
                       bundle.origin.licence, [part.sha256 for part in bundle.files])  # fmt: skip
    policy.check_age(rules, str(bundle.wanted), bundle.at)


def proved(bundle: Bundle, folder: Path, models: Models) -> Figures:
    """A model that may serve on this device: each network that is here is tried, held against its parent, and raced.
    RefusedError.
    """
    located = catalogue.locate(str(folder))
    policy.check(models.policy, located, paths.home())
    tried = try_all(located, models.threads)
    models.improve(str(folder))
    return {"networks": float(sum(not one.refused for one in tried))}


def alone(config: Config, reread: Callable[..., Config]) -> Update:
    """What takes bundles where no agent runs: they are proved, and there is nothing live to hold them against."""
    models = Models(threads=config.device.threads)
    models.policy = config.policy

    def opened(bundle: Bundle, folder: Path) -> Figures:
        try_anew(reread(shared=folder), models)
        return {}

    asked = {
        "model": Asked(prove=lambda bundle, folder: proved(bundle, folder, models)),
        "config": Asked(prove=opened),
        "files": Asked(),
    }
    return made(config, asked)


def first(config: Config, reread: Callable[..., Config]) -> list[Outcome]:
    """Before an agent runs: what its config follows and nothing serves of yet, where it may look for it."""
    section = config.update
    if section is None:
        return []
    update = alone(config, reread)
    every = [target for target in section.follows if not target.startswith("agent/")]  # which runs already
    missing = [target for target in every if update.served.known(target).serves is None]
    if section.look:
        return [update.take(target) for target in missing]
    why = "none of it is here, and [update] look = false: a job brings it, or: edge-agent update"
    return [Outcome("IN_PROGRESS", target, "look", why, later=True) for target in missing]


class Updating:
    """A part beside the pipelines of one agent. `update.take` is for any thread."""

    def __init__(
        self,
        config: Config,
        lines: Sequence[Line],
        models: Models,
        look_for_models: Callable[[], None],
        turning: Reload,
        disagreed: Disagreed | None = None,
    ) -> None:
        """`look_for_models`: has switched models noticed now; `turning` tries and turns to configs; `disagreed` as of
        Canary. RefusedError where the state of updates is damaged.
        """
        assert config.update is not None
        self._section, self._lines, self._models = config.update, lines, models
        self._over = threading.Event()
        canary = Canary(config.update, lines, models, self._over, disagreed)

        def tried(bundle: Bundle, folder: Path) -> Figures:
            turning.try_shared(folder, models)
            return {}

        self._turning = turning
        asked = {
            "model": Asked(
                lambda bundle, folder: proved(bundle, folder, models),
                canary,
                self._model_window,
                look_for_models,
            ),
            "config": Asked(prove=tried, window=self._config_window, switched=turning.ask),
            "files": Asked(window=self._config_window),
        }
        self.update = made(config, asked, self._over.wait)
        self._running: int | None = None
        self._thread = threading.Thread(target=self._work, name="update", daemon=True)

    def about(self) -> str:
        """How it fares, one line, for health."""
        if (now := self.update.now) is not None:
            return f"{now.target}: {now.step}" + (f" ({now.reason})" if now.reason else "")
        lasts = [known.last for known in self.update.served.kept.bundles.values() if known.last is not None]
        wrong = [f"{one.target}: {one.state}: {one.reason}" for one in lasts if one.state != "SUCCEEDED"]
        return "; ".join(wrong) or "ok"

    def refused(self) -> str:
        """How many bundles were refused, or given up, and for what; for health."""
        counts = sorted(self.update.served.kept.refused.items())
        return ", ".join(f"{count} {why}" for why, count in counts) or "none"

    # ── a part ───────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """As of a part."""
        self._running = asked_for.running(self.update.served.folder)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """As of a part."""
        self._over.set()

    def close(self) -> None:
        """As of a part."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(10.0)
        if self._running is not None:
            with suppress(OSError):
                os.close(self._running)
            self._running = None

    def _work(self) -> None:
        """Its thread: what was interrupted, then look after look."""
        due = time.monotonic()
        outcomes = self._guarded(self.update.resume)
        while not self._over.wait(asked_for.LOOK_S):
            if (question := asked_for.question(self.update.served.folder)) is not None:
                outcomes = self._guarded(lambda question=question: self._asked(question))  # type: ignore[misc]
            elif self._section.look and time.monotonic() >= due:
                outcomes = self._guarded(lambda: self._take(self._section.follows))
                pause = seconds(self._section.every) * random.uniform(0.9, 1.1)  # a fleet does not come all at once
                due = time.monotonic() + (min(pause, SOON_S) if any(one.later for one in outcomes) else pause)

    def _guarded(self, act: Callable[[], list[Outcome]]) -> list[Outcome]:
        try:
            return act()
        except Exception:
            log.exception("an update failed in a way that nobody thought of; what serves goes on")
            return []

    def _take(self, wanted: Sequence[str]) -> list[Outcome]:
        return [self.update.take(target) for target in wanted if not self._over.is_set()]

    def _asked(self, question: asked_for.Question) -> list[Outcome]:
        """What a verb asks for."""
        wanted = question.targets or self._section.follows
        if question.again:
            for target in wanted:
                with suppress(EdgeAgentError):
                    self.update.again(target)
        outcomes = self._take(wanted)
        asked_for.answer(self.update.served.folder, asked_for.Told(question.token, outcomes))
        return outcomes

    # ── health windows ───────────────────────────────────────────────────────────────────────────────────

    def _model_window(self, bundle: Bundle) -> None:
        """A new model is in each pipeline that names it, and answers. Raises EdgeAgentError, NotNowError."""
        lines = [line for line in self._lines if any(bundle.name in uses for uses in line.uses)]
        self._wait(SWAPPED_S, lambda: all(self._swapped(line, bundle) for line in lines))
        for line in lines:
            if not self._swapped(line, bundle):
                raise EdgeAgentError(line.refused or f"{line.config.name}: it was not swapped in")
        self._watch(lines)

    def _swapped(self, line: Line, bundle: Bundle) -> bool:
        """Whether it serves there. EdgeAgentError where it was refused."""
        if line.refused and bundle.name in line.newest:
            raise EdgeAgentError(line.refused)
        serves = line.versions.get(bundle.name, {}).get("serves")
        return bundle.name not in self._models.changed() and serves == bundle.version

    def _config_window(self, bundle: Bundle) -> None:
        """The agent turns to the config that is there now, and its pipelines get on. Raises EdgeAgentError."""
        if refused := self._turning.now():
            raise EdgeAgentError(refused)
        self._watch(list(self._lines))
        for line in self._lines:
            if not line.taken and line.stream.condition in ("hung", "stalled", "reconnecting"):
                raise EdgeAgentError(f"{line.config.name}: no sample came: {line.stream.condition} {line.stream.why}")

    def _watch(self, lines: Sequence[Line]) -> None:
        before = {id(line): (line.stats.bad, line.stats.samples) for line in lines}

        def wrong() -> str:
            for line in lines:
                bad, samples = (
                    now - then for now, then in zip((line.stats.bad, line.stats.samples), before[id(line)], strict=True)
                )
                if bad > max(2, WRONG * samples):
                    return f"{line.config.name}: {bad} of {samples} samples failed since: {line.stats.trouble}"
            return ""

        self._wait(seconds(self._section.health), lambda: bool(wrong()))
        if why := wrong():
            raise EdgeAgentError(why)

    def _wait(self, limit: float, done: Callable[[], bool]) -> None:
        """Until it is done, or for so long. NotNowError where the agent stops."""
        until = time.monotonic() + limit
        while not done() and time.monotonic() < until:
            if self._over.wait(min(0.2, limit)):
                raise NotNowError("the agent stops; it goes on with the next start")
