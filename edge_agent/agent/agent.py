"""The agent: a Config becomes sources, tasks and threads; they are watched, and stopped in order.

Threads: for each pipeline one that captures and one that works; two that look after the models; the outbox's
committer; the link's; and this one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.agent.begun import declare_begun, noting
from edge_agent.agent.capture import capture
from edge_agent.agent.line import Line, make_line
from edge_agent.agent.state import State
from edge_agent.agent.swap import LOOK_S, Swap
from edge_agent.agent.zones import follow_of
from edge_agent.config import Config, store_path
from edge_agent.device.health import give_back
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.events import Event, rfc3339
from edge_agent.link import topics
from edge_agent.outbox.outbox import Outbox
from edge_agent.walk.pipeline import Terms, run, run_abreast
from edge_agent.walk.privacy import Guard, hider
from edge_agent.walk.report import Report

if TYPE_CHECKING:
    from edge_agent.link.commands import Commands
    from edge_agent.link.link import Link

log = logging.getLogger("edge_agent")

LOADED_S = 3.0
"""seconds at most that a stop waits for a model that is being loaded"""
STOP_S, FINISH_S = 10.0, 30.0
"""seconds at most that a stop waits for a pipeline, and for one with texts or speech that cannot be had again"""


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
    ) -> None:
        """Check everything that can be checked before a thread starts: sources, models, tasks, store, broker.

        `race`: serve as soon as may be; once it runs, find out how each model runs fastest here, where nobody knows.
        `look`: set it to have switched models noticed at once; they are looked for every LOOK_S anyway.

        Raises an EdgeAgentError, one line that names the pipeline.
        """
        from edge_agent.serving.models import Models

        self.config, self.device = config, config.device.id
        self.on_event: Callable[[Event], None] = lambda event: None
        """told of each event once it is kept"""
        models = Models(threads=config.device.threads, pull=pull, say=say, soon=race)
        self._changed = threading.Event()
        self._failed: EdgeAgentError | None = None
        self._hide = hider(config.privacy)
        store = checked_store(config)
        kept = config.store
        self.outbox = Outbox(store, self.device, kept.max_bytes, kept.expire_hours, kept.max_events)
        try:
            declare_begun(store, self.outbox)
            self.link = self._make_link(store) if config.mqtt.url else None
            marks = self.outbox.marks
            subscribe = partial(self.link.subscribe, own=False) if self.link else None
            self.lines = [
                make_line(pipe, models, subscribe, marks.get(pipe.name), config.zone) for pipe in config.pipeline
            ]
            for line in self.lines:
                line.follow = follow_of(line.config, line.zones, store)
            self.state = State(self.lines, self.outbox, self.link)
            self.swap = Swap(models, self.lines, look or threading.Event(), self._changed.set)
            self.commands = self._make_commands(self.link, store) if self.link else None
        except BaseException:
            self.outbox.close()
            raise
        self._looks = [self.swap.switched, *([self.swap.improve] if race else [])]
        self._looking: list[threading.Thread] = []

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
        return Commands(link, store, verbs, self._changed.set)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, or until every source has ended and what it brought is acknowledged.

        Raises what a source or a task failed on, when the failure was for good.
        """
        give_back()
        if self.link is not None:
            self.link.start()
        for line in self.lines:
            for work in (self._capture, self._work):
                thread = threading.Thread(target=self._guarded, args=(work, line, stop), daemon=True)
                thread.name = f"{line.config.name}-{work.__name__.strip('_')}"
                line.threads.append(thread)
                thread.start()
        for look in self._looks:
            thread = threading.Thread(target=self._beside, args=(look, stop), name=look.__name__, daemon=True)
            self._looking.append(thread)
            thread.start()
        try:
            self._watch(stop)
        finally:
            self._stop_in_order(stop)
        if self._failed is not None:
            raise self._failed

    def _capture(self, line: Line, stop: threading.Event) -> None:
        """From the source into the mailbox."""
        capture(line, stop, self._changed.set)

    def _work(self, line: Line, stop: threading.Event) -> None:
        """From the mailbox through the tasks to the outbox."""

        def put(event: Event, kind: str, mark: int | None) -> None:
            self.on_event(self.outbox.put(event, kind, mark))

        link, name = self.link, line.config.name
        saving = (lambda: link.budget.saving) if link else (lambda: False)
        terms = Terms(line.client, Guard(self._hide, line.config.text))
        passed = partial(self.outbox.passed, name)
        report = Report(line.config, line.opened.live, put, passed, saving, terms.guard, line.follow)
        done = noting(line, self.outbox.path, report.done)
        try:
            told = report.worth, report.keep, line.stats
            if len(line.teams) == 1:
                run(line.box, line.teams[0], *told, done, terms)
            else:
                run_abreast(line.box, line.teams, *told, line.box.close, done, terms)
            report.end()
        finally:
            line.box.close()
            line.ended = True
            self._changed.set()

    def _guarded(self, work: Callable[[Line, threading.Event], None], line: Line, stop: threading.Event) -> None:
        """A thread's outermost frame: an error ends the agent with its reason instead of a silent pipeline."""
        try:
            work(line, stop)
        except EdgeAgentError as error:
            self._failed = type(error)(f"pipeline {line.config.name}: {error}")
        except Exception as error:  # a bug: told with its traceback, and the service is started anew
            log.exception("pipeline %s failed", line.config.name)
            self._failed = EdgeAgentError(f"pipeline {line.config.name}: {type(error).__name__}: {error}")
        if self._failed is not None:
            stop.set()
            self._changed.set()

    def _beside(self, look: Callable[[threading.Event], None], stop: threading.Event) -> None:
        """A thread's outermost frame for what goes on beside the pipelines: a bug in it ends neither."""
        while not stop.is_set():
            try:
                look(stop)
            except Exception:
                log.exception("looking after the models (%s) failed; it goes on", look.__name__)
                stop.wait(LOOK_S)

    # ── watching and stopping ────────────────────────────────────────────────────────────────────────────

    def reload(self) -> None:
        """Look for switched models now, and connect anew with the secrets and certificates that are there now."""
        self.swap.look.set()
        if self.link is not None:
            self.link.reload()

    def _watch(self, stop: threading.Event) -> None:
        """Until `stop` is set, a thread has died, or the sources have ended and all is acknowledged."""
        self.state.say_due(changed=True)
        self._clear_others()
        while not stop.is_set():
            if self.commands is not None:
                self.commands.run_waiting()
            if changed := self._changed.is_set():
                self._changed.clear()
            self.state.say_due(changed)
            if which := self._dead():
                self._failed = EdgeAgentError(f"the thread {which} has died, see the log; start the agent anew")
                return
            draining = all(line.ended for line in self.lines)
            if draining and (self.link is None or self.outbox.empty):
                return
            self._changed.wait(0.05 if draining else 0.5)

    def _clear_others(self) -> None:
        """Have the broker forget what it retains under the names that topics had with dots."""
        if self.link is not None:
            names = [line.config.name for line in self.lines]
            self.link.clear_others(topics.retained_with_dots(self.config.mqtt.prefix, self.device, names))

    def _dead(self) -> str:
        """The thread that has died, of a bug; empty while both live."""
        if not self.outbox.alive:
            return "outbox"
        return "mqtt" if self.link is not None and not self.link.alive else ""

    def _stop_in_order(self, stop: threading.Event) -> None:
        """Sources, then what they brought, then the link, then the outbox: nothing that was accepted is lost, but
        texts that cannot be read again and take longer than FINISH_S.
        """
        stop.set()
        began = time.monotonic()
        for line in self.lines:
            for thread in line.threads:
                limit = FINISH_S if line.unanswered or line.under_way else STOP_S
                thread.join(max(0.0, began + limit - time.monotonic()))
                if thread.is_alive():
                    log.warning("%s did not stop within %.0f s", thread.name, limit)
                    line.box.clear()
                    thread.join(1)
            if line.unanswered:
                why = "dropped, or not answered before the stop"
                log.error("%s: %d texts are lost: %s", line.config.name, line.unanswered, why)
        self.state.say_states()
        if self.link is not None:
            self.link.stop()
        self.outbox.close()
        if self._hide is not None:
            self._hide.close()
        # a thread inside of ONNX Runtime at the interpreter's end aborts the process
        self.swap.look.set()
        for thread in self._looking:
            thread.join(LOADED_S)

    @property
    def unanswered(self) -> int:
        """Texts that were heard, cannot be read again and have no event: lost, once the agent has stopped."""
        return sum(line.unanswered for line in self.lines)


def checked_store(config: Config) -> Path:
    """`store_path`, where a folder stands or can be made. ConfigError where none can: a file is in the way."""
    store = store_path(config)
    existing = next(place for place in (store, *store.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"store.path: {store}: {existing} is no folder, so no store can stand there; name another")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"store.path: {store}: this user may not write to {existing}; name another, or change it")
    return store
