"""The rules and profiles of one agent: events go to the rules, and what these say is kept as any other event.

A listener puts what a rule may want to hear into a queue, and a thread asks the rules: about that, and about what
changes with time. Which rules are on and which profile is active lies in the store's folder, so that a restart repeats
no alert. `Agent.rules` is there without a `[[rule]]`, too; what it offers may be called from any thread.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent.agent import rules_file
from edge_agent.agent.keep import Keep
from edge_agent.agent.line import Line
from edge_agent.agent.lines import Lines
from edge_agent.agent.rule_pipes import check_rules, pipes_of
from edge_agent.agent.rules_said import event_of, profile_said, rules_said
from edge_agent.config import Config, Profile
from edge_agent.errors import StoreError, UsageError, nearest, tenfold
from edge_agent.events import UNREADABLE, Event
from edge_agent.link import topics
from edge_agent.rules.engine import Engine
from edge_agent.rules.facts import Change, Clock, Now
from edge_agent.rules.profiles import planned

if TYPE_CHECKING:
    from edge_agent.link.link import Link

log = logging.getLogger("edge_agent")

WAITING, PATIENCE_S = 2000, 1.0
"""events that wait for the rules; where there are more, the pipeline that brings one waits for so many seconds"""
LOOK_S = 1.0
"""seconds at most between two looks at the sources' conditions"""
STOP_S = 2.0
"""seconds that the last events have at a stop"""
Job = Callable[[Now], list[Change]]


class _Wanted(msgspec.Struct, frozen=True):
    """What a command says."""

    profile: str


class Rules:
    """The rules and profiles of one agent."""

    def __init__(self, config: Config, work: Lines, keep: Keep, link: Link | None, clock: Clock | None) -> None:
        """`clock`: another one than this device's. ConfigError for a rule that the pipelines can never make true."""
        check_rules(config, work.all)
        self.listeners: list[Callable[[str], None]] = []
        """told of each profile that becomes active; they return at once"""
        self._config, self._work, self._keep, self._link = config, work, keep, link
        self._file, self._lock = keep.outbox.path / rules_file.NAME, threading.Lock()
        self._queue: queue.Queue[tuple[Now, Job | None]] = queue.Queue(WAITING)
        self._passed_over = 0
        self._thread = threading.Thread(target=self._run, name="rules", daemon=True)
        self._kept = rules_file.read(self._file)
        self._settle()
        self._clock = clock or Clock()
        self._engine = Engine(config.rule, pipes_of(work.all), self._clock.local)
        self._plan_at = 0.0
        self._begun = self._engine.restore(self._kept.rules, self._clock.now())
        self.on = self._are_on()
        """each rule: whether it is on"""
        keep.alerts = self.alerts
        keep.listeners.append(self.hear)
        work.turning.append(self.turning)

    # ── from any thread ──────────────────────────────────────────────────────────────────────────────────

    @property
    def profile(self) -> str:
        """The active profile; empty where the config has none."""
        return self._kept.profile

    @property
    def profiles(self) -> list[str]:
        """Their names; empty where the config has none."""
        return [profile.name for profile in self._config.profile]

    def set_profile(self, name: str, by: str = "page") -> None:
        """Make a profile the active one. UsageError for a name that is none. `by`: where that comes from."""
        if name not in self.profiles:
            known = nearest(name, self.profiles) if self.profiles else "; the config has no [[profile]]"
            raise UsageError(f'profile "{name}" is none{known}')
        with self._lock:
            if name == self._kept.profile:
                return
            self._kept = msgspec.structs.replace(self._kept, profile=name, since=time.time(), by=by)
            rules_file.write(self._file, self._kept)
        log.info("profile %s (%s)", name, by)
        self._say()
        self._put(partial(self._engine.switch, self._allowed()))
        self._tell_profile()

    def _tell_profile(self) -> None:
        for listener in tuple(self.listeners):
            listener(self.profile)

    def alerts(self, pipeline: str) -> bool:
        """Whether the events of a pipeline are alerts in the active profile."""
        return (active := self._active) is None or active.pipelines is None or pipeline in active.pipelines

    def command(self, payload: bytes, reply: Callable[[dict[str, Any]], None]) -> None:
        """``cmd/profile``: {"id": "…", "profile": "night"}."""
        try:
            self.set_profile(msgspec.json.decode(payload, type=_Wanted).profile, "command")
            reply({"ok": True, "result": {"profile": self.profile}})
        except (UsageError, *UNREADABLE) as error:
            reply({"ok": False, "error": str(error)})

    def hear(self, event: Event) -> None:
        """Take an event that was kept. Where rules cannot keep up, the caller waits, for PATIENCE_S at most."""
        seen = self._engine.see(event)
        if self._engine.wants(event):
            self._put(partial(self._engine.hear, event, *seen))

    def _put(self, job: Job | None) -> None:
        if not self._thread.is_alive():
            return
        try:
            self._queue.put((self._clock.now(), job), timeout=PATIENCE_S)
        except queue.Full:
            self._passed_over += 1
            if tenfold(self._passed_over):
                log.error("rules: the disk or the processor is too slow; %d events not looked at", self._passed_over)

    @property
    def idle(self) -> bool:
        """Whether they have dealt with all that they heard."""
        return self._queue.unfinished_tasks == 0 or not self._thread.is_alive()

    def tick(self, until: float) -> float:
        """Have them asked what time has brought, if that is before `until`; when that was or will be, monotonic."""
        if (due := self._engine.due) <= until:
            self._put(self._engine.tick)
        return due

    # ── from beginning to end ────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Ask the rules from now on, where there are any."""
        self._engine.allowed = self._allowed()
        self._say()
        self._begin()

    def _begin(self) -> None:
        timed = any(one.between or one.days for one in self._config.profile)
        if self._thread.ident is None and (self._config.rule or self._begun or timed):
            self._thread.start()

    def turning(self, new: Config, lines: Sequence[Line]) -> Callable[[], None]:
        """Another config and its pipelines are ready: what then has its rules hear them, and those go on that it does
        not touch. ConfigError for a rule that they can never make true.
        """
        check_rules(new, lines)
        pipes, done = pipes_of(lines), threading.Event()
        anew = {line.config.name for line in self._work.all if line not in lines}

        def turn(now: Now) -> list[Change]:
            try:
                changes = self._engine.turn_to(new.rule, pipes, anew)
                self.on = self._are_on()
                self._plan_at = 0.0
                return changes + self._engine.switch(self._allowed(), now)
            finally:
                done.set()

        def act() -> None:
            before, self._config = self.profile, new
            self._settle()
            self._begin()
            self._put(turn) if self._thread.is_alive() else turn(self._clock.now())
            done.wait(STOP_S)
            self._say()
            if self.profile != before:
                self._tell_profile()

        return act

    def freeze(self) -> None:
        """The agent is about to stop: what its pipelines end now has not gone away."""

        def stopping(now: Now) -> list[Change]:
            self._engine.stopping = True
            return []

        self._put(stopping)

    def close(self) -> None:
        """Deal with what was heard, and end."""
        self._put(None)
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        self._tell(self._begun, self._clock.now())
        goes_on = True
        while goes_on:
            try:
                goes_on = self._turn()
            except StoreError:  # the outbox is closed: a stop that did not wait for us
                goes_on = False
            except Exception:
                log.exception("rules failed on an event; they go on")
        self._save(self._clock.now())

    def _turn(self) -> bool:
        """Deal with one event, or with what time has brought; False: it was the last one."""
        try:
            now, job = self._queue.get(timeout=min(LOOK_S, max(0.0, self._engine.due - self._clock.now().mono)))
        except queue.Empty:
            self._ask(self._clock.now(), self._engine.tick)
            return True
        try:
            self._ask(now, job or self._engine.tick)
        finally:
            self._queue.task_done()
        return job is not None

    def _ask(self, now: Now, job: Job) -> None:
        """What the sources say of themselves, then the event, then what time it is."""
        changes = []
        for line in tuple(self._work.all):
            changes += self._engine.stream(line.config.name, line.stream.condition, now)
        changes += job(now)
        self._tell(changes, now)
        if now.mono >= self._plan_at:
            self._plan(now)

    def _plan(self, now: Now) -> None:
        """Once a minute: whether the time asks for another profile than before."""
        self._plan_at = now.mono + 60 - now.wall % 60
        time.tzset()  # somebody may have moved the device to another zone
        name = planned(self._config.profile, now.wall, self._clock.local)
        if name is None or name == self._kept.planned:
            return
        with self._lock:
            self._kept = msgspec.structs.replace(self._kept, planned=name)
            rules_file.write(self._file, self._kept)
        if name:
            self.set_profile(name, "time")

    def _tell(self, changes: Sequence[Change], now: Now) -> None:
        """Keep what the rules say; then note it, so that a kill in between has it said twice rather than never."""
        for change in changes:
            self._keep.put(event_of(change, self.profile, now.wall))
            log.info("rule %s is %s: %s", change.rule, change.phase, change.why)
            if change.rule in self.on:
                self.on[change.rule] = change.phase == "on"
        if changes:
            self._save(now)
            self._say()

    def _save(self, now: Now) -> None:
        """Note what a restart has to know."""
        with self._lock:
            self._kept = msgspec.structs.replace(self._kept, rules=self._engine.kept(now))
            rules_file.write(self._file, self._kept)

    # ── what others see, and what a restart must know ────────────────────────────────────────────────────

    def _settle(self) -> None:
        """The profile that was active stays so where the config has it; else the first one is."""
        with self._lock:
            if self._kept.profile not in self.profiles:
                first = self.profiles[0] if self.profiles else ""
                self._kept = msgspec.structs.replace(self._kept, profile=first, since=time.time(), by="start")

    @property
    def _active(self) -> Profile | None:
        return next((one for one in self._config.profile if one.name == self.profile), None)

    def _are_on(self) -> dict[str, bool]:
        return {rule.name: rule.name in self._engine.world.on for rule in self._engine.rules}

    def _allowed(self) -> frozenset[str] | None:
        """The rules that may be on in the active profile; None: all."""
        return None if (active := self._active) is None or active.rules is None else frozenset(active.rules)

    def _say(self) -> None:
        """Retain which profile is active, and which rules are on."""
        if self._link is not None and self.profiles:
            self._link.say(topics.PROFILE, profile_said(self._kept, self.profiles))
        if self._link is not None and self.on:
            self._link.say(topics.RULES, rules_said(self._engine.rules))
