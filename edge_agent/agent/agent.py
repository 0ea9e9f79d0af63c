"""The agent: a Config becomes sources, tasks and threads; they are watched, and stopped in order.

Threads: for each pipeline one that captures and one that works; two that look after the models; one that waits for
another config; the outbox's committer; the link's; and this one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.agent.archiving import archiver_of
from edge_agent.agent.begun import declare_begun
from edge_agent.agent.beside import Part, parts_beside, rollouts_of, show_of, taping_of, updating_of
from edge_agent.agent.governing import Governor
from edge_agent.agent.keep import Keep
from edge_agent.agent.lines import Lines
from edge_agent.agent.record import Recorder
from edge_agent.agent.reload import Reload
from edge_agent.agent.requests import Requests
from edge_agent.agent.rules import Rules
from edge_agent.agent.state import State
from edge_agent.agent.store import checked_store
from edge_agent.agent.swap import LOOK_S, Swap
from edge_agent.agent.told import told_by
from edge_agent.agent.turns import Turns, try_anew
from edge_agent.agent.watchdog import Watchdog
from edge_agent.config import Config
from edge_agent.device.health import give_back
from edge_agent.errors import EdgeAgentError
from edge_agent.events import rfc3339
from edge_agent.link import topics
from edge_agent.outbox.outbox import Outbox
from edge_agent.rules.facts import Clock

if TYPE_CHECKING:
    from edge_agent.link.commands import Commands
    from edge_agent.link.link import Link
    from edge_agent.recorder.tape import Tape
    from edge_agent.serving.models import Models

log = logging.getLogger("edge_agent")

ALL_S, LAST_S = 4.5, 2.5
"""seconds that a stop may take, where no texts are waited for, and those of them for the broker and the disk"""


class Agent:
    """One device's agent; make it, `run` it, and it is done."""

    def __init__(
        self,
        config: Config,
        *,
        pull: bool = False,
        race: bool = False,
        say: Callable[[int, int], None] | None = None,
        look: threading.Event | None = None,
        reread: Callable[..., Config] | None = None,
        models: Models | None = None,
        clock: Clock | None = None,
        tape: Tape | None = None,
    ) -> None:
        """Check everything that can be checked before a thread starts: sources, models, tasks, store, broker.

        `race`: serve as soon as may be; once it runs, find out how each model runs fastest here, where nobody knows.
        `look`: set it to have switched models noticed at once; they are looked for every LOOK_S anyway.
        `reread`: the config that is there now, for `reload` (`shared`: with that folder's in place of the shared one
        that serves); raises an EdgeAgentError.
        `models`, `clock`: those of a replay. `tape`: where to record, in another place than `[samples] record` has.

        Raises an EdgeAgentError, one line that names the pipeline.
        """
        from edge_agent.serving.models import Models

        self.config, self.device = config, config.device.id
        self.on_config: Callable[[Config], None] = lambda config: None
        """told of each other config that it has turned to"""
        self.again: Config | None = None
        """once `run` has returned: the config that another agent is to be made of, as it changes more than pipelines"""
        self._models = models or Models(threads=config.device.threads, pull=pull, say=say, soon=race)
        self._models.policy = config.policy
        self._clock, self._tape = clock, tape
        self._changed, self._over = threading.Event(), threading.Event()
        self._failed: EdgeAgentError | None = None
        self._reread = reread or (lambda shared=None: self.config)
        store, kept = checked_store(config), config.store
        self.outbox = Outbox(store, self.device, kept.max_bytes, kept.expire_hours, kept.max_events)
        self.keep = Keep(self.outbox)
        """the way of each event; add to its `listeners` before `run` to be told of each that is kept"""
        try:
            declare_begun(store, self.outbox)
            self._make(config, store, look or threading.Event())
        except BaseException:
            self.outbox.close()
            raise
        self._looks = [self.swap.switched, self.turning.reload, self.requests.work]
        self._looks += [self.swap.improve] if race else []

    def _make(self, config: Config, store: Path, look: threading.Event) -> None:
        """All that works on what is kept. Raises an EdgeAgentError."""
        self.archiver, archiving = archiver_of(config.archive, store, self.keep)
        self.link = self._make_link(store) if config.mqtt.url else None
        self.record = Recorder(config, self.keep, self.link)
        self.pictures = self.record.pictures  # None where neither snapshots nor clips are asked for
        if config.accuracy is not None:
            from edge_agent.accuracy.known import keep_to_parents

            keep_to_parents(self._models.keep_to, store)
        self.work = Lines(config, self._models, self.keep, self.link, self.record)
        self.work.changed = self._changed.set
        self.lines = self.work.all
        self.notices = told_by(self.keep, config, store, self.record, self.work)
        show = show_of(config, self.link, self.keep, self.lines, self._changed.set)  # before anything is said
        self.rules = Rules(config, self.work, self.keep, self.link, self._clock)
        beside = {"archive": archiving, "notify": self.notices.about}
        self.state = State(self.lines, self.outbox, self.link, beside)
        self.governor = self.state.governor = Governor(config.limits, self.work, self._models, self._changed.set)
        self.state.show = show
        self.swap = Swap(self._models, self.work, look, self._changed.set)
        self.requests = Requests(config.understand, self._models, lambda: [line.config for line in self.lines])
        self.turns = Turns(self.work, self.state, self.requests, self.outbox, self.link)
        self.commands = self._make_commands(self.link, store) if self.link else None
        others = parts_beside(config, self.link, self.keep, store, self.state, self._models, self.swap)
        others += taping_of(config, self._tape, self._models, self.keep, self.work, self.rules, store)
        self.turning = Reload(self._reread, self._turn_to, self.state, self._told)
        updating = updating_of(config, self.lines, self._models, self.state, self.swap, self.turning, self.record)
        self.update = updating.update if updating is not None else None
        self.rollouts = rollouts_of(config, self.link, lambda: self.update, self.work, self.rules, store, self.state)
        others += [part for part in (updating, self.rollouts) if part is not None]
        self.beside: list[Part] = [self.governor, self.record, self.notices, *others]

    def _make_link(self, store: Path) -> Link:
        from edge_agent.link.budget import Budget
        from edge_agent.link.link import Link

        budget = Budget(self.config.store.bytes_per_day, store / "budget.json")
        return Link(self.config.mqtt, self.device, self.outbox, budget)

    def _make_commands(self, link: Link, store: Path) -> Commands:
        from edge_agent.link.commands import Commands

        def swap() -> str:
            self.swap.look.set()
            return "looking for switched models; state tells what serves"

        verbs: dict[str, Callable[[], object]] = {
            "ping": lambda: rfc3339(time.time()),
            "health": self.state.health,
            "state": self.state.states,
            "gaps": lambda: {"lost": self.outbox.counts.dropped, "gaps": msgspec.to_builtins(list(self.outbox.gaps))},
            "swap": swap,
        }
        later = {"understand": self.requests.ask, "profile": self.rules.command, **self.work.controls.verbs}
        return Commands(link, store, verbs, self._changed.set, later)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, or until every source has ended and what it brought is acknowledged, or until
        another config makes another agent necessary (`again`).

        Raises what a source or a task failed on, when the failure was for good.
        """
        give_back()
        if self.archiver is not None:
            self.archiver.start()
        if self.link is not None:
            self.link.start()
        for part in self.beside:
            part.start()
        self.rules.start()
        self.work.start(self.lines)
        self._looking = [
            threading.Thread(target=self._beside, args=(look,), name=look.__name__, daemon=True) for look in self._looks
        ]
        for thread in self._looking:
            thread.start()
        try:
            self._watch(stop)
        finally:
            self._stop_in_order(stop)
        if (failed := self._failed or self.work.failed) is not None:
            raise failed

    def _beside(self, look: Callable[[threading.Event], None]) -> None:
        """A thread's outermost frame for what goes on beside the pipelines: a bug in it ends neither."""
        while not self._over.is_set():
            try:
                look(self._over)
            except Exception:
                log.exception("what goes on beside the pipelines (%s) failed; it goes on", look.__name__)
                self._over.wait(LOOK_S)

    # ── watching and stopping ────────────────────────────────────────────────────────────────────────────

    def _watch(self, stop: threading.Event) -> None:
        """Until `stop` is set, something has died or hangs, or the sources have ended and all is acknowledged."""
        self.state.say_due(changed=True)
        self._clear_others()
        watchdog = Watchdog()
        while not stop.is_set() and self.again is None and self.work.failed is None:
            self._tend()
            if wrong := self._dead() or watchdog.look(self.lines):
                self._failed = EdgeAgentError(f"{wrong}; the agent is to be started anew, see the log")
                return
            draining = self.work.ended
            if draining and self._all_sent:
                return
            self._changed.wait(0.05 if draining else 0.5)

    @property
    def _all_sent(self) -> bool:
        """Whether the broker has acknowledged all there is, and people were told what can be told now."""
        return self.rules.idle and (self.link is None or self.outbox.empty) and not self.notices.busy

    def _tend(self) -> None:
        """Run the commands that wait, and say what changed or is due."""
        if self.commands is not None:
            self.commands.run_waiting()
        if changed := self._changed.is_set():
            self._changed.clear()
        self.state.say_due(changed)
        self.record.say_due()

    def _clear_others(self) -> None:
        """Have the broker forget what it retains under the names that topics had with dots."""
        if self.link is not None:
            old = topics.retained_with_dots(self.config.mqtt.prefix, self.device, self.work.names())
            self.link.clear_others(old, [*self.record.tails(), *self.state.show_tails()])

    def _dead(self) -> str:
        """Which thread has died, of a bug; empty while both live."""
        if not self.outbox.alive:
            return "the thread outbox has died"
        return "the thread mqtt has died" if self.link is not None and not self.link.alive else ""

    def _stop_in_order(self, stop: threading.Event) -> None:
        """Sources, then what they brought, then the link, then the outbox."""
        if self.again is None:
            stop.set()
        by = time.monotonic() + ALL_S
        for event in (self._over, self.swap.look):
            event.set()
        self.turning.end()
        self.rules.freeze()
        self.work.close()
        self.rules.close()
        self.state.say_states()
        left = max(0.5, by - LAST_S - time.monotonic())
        for part in self.beside:
            part.stop(left)
        if self.link is not None:
            self.link.stop(left)
        for part in self.beside:
            part.close()
        self.outbox.close()
        if self.archiver is not None:
            self.archiver.close(max(1.0, by - time.monotonic()))
        # a thread inside of ONNX Runtime at the interpreter's end aborts the process
        for thread in self._looking:
            thread.join(max(0.1, by - time.monotonic()))

    @property
    def unanswered(self) -> int:
        """Texts that were heard, cannot be read again and have no event: lost, once the agent has stopped."""
        return self.work.unanswered

    # ── another config ───────────────────────────────────────────────────────────────────────────────────

    def reload(self) -> None:
        """Look for switched models now, turn to the config that is there now, and connect anew with the secrets and
        certificates that are there now.
        """
        self.turning.ask()

    def _told(self) -> None:
        self.swap.look.set()
        self._changed.set()

    def _turn_to(self, new: Config) -> None:
        """Go on with this config. Raises an EdgeAgentError, and nothing has changed, where it is wrong."""
        old = self.config
        if self.turns.anew(old) != self.turns.anew(new):
            try_anew(new, self._models)
            log.info("config: more changed than a running agent can turn to: all is opened anew")
            self.again = new
            return
        told = self.turns(old, new)
        self.config = new
        log.info("config: %s", "; ".join(told) or "nothing changed")
        if self.link is not None:
            self._changed.set()
            self.link.reload()
        self.notices.again()
        self.on_config(new)
