"""Opens every door: a Config becomes sources, tasks and threads; watches over them; stops in order.

Threads: for each pipeline one that captures and one that works; the outbox's committer; the link's; and this one.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from edge_agent import __version__
from edge_agent.agent.line import Line, make_line, make_teams
from edge_agent.config import Config, store_path
from edge_agent.device.health import rss_bytes
from edge_agent.errors import ConfigError, EdgeAgentError, SourceError
from edge_agent.events import Event, rfc3339
from edge_agent.link import topics
from edge_agent.link.budget import Budget
from edge_agent.link.commands import Commands
from edge_agent.link.link import Link
from edge_agent.manifest import Served
from edge_agent.outbox.outbox import Outbox
from edge_agent.redact import redact
from edge_agent.registry import catalogue
from edge_agent.serving.models import Models, Pace
from edge_agent.types import Finding, Sample, StreamState, Text
from edge_agent.walk.event import to_event
from edge_agent.walk.pipeline import run, run_abreast
from edge_agent.walk.report import Folder, SampleOrFinding, reporter

log = logging.getLogger("edge_agent")

STATE_S = 10.0
"""seconds between two states of a pipeline while nothing changes"""
HEALTH_S = 30.0
"""seconds between two reports on the device itself"""
METERED_S = 3600.0
"""seconds between two of each of these on a metered link while nothing changes but counts"""
COUNTING = {"samples", "dropped", "answered", "bad", "events", "waiting", "acknowledged", "store_bytes", "rss_bytes"}
COUNTING |= {"at", "uptime_s", "passed_over"}
"""the fields of state and health that change by themselves"""
SETTLED_S = 10.0
"""seconds of work before it is found out how the models run fastest, which takes processor time of its own"""
LOOK_S = 2.0
"""seconds between two looks for models that were switched"""
REOPEN_S, REOPEN_SHARE = (1.0, 30.0), 1 / 30
"""seconds, first and longest wait before a source that failed is opened again, and the share of the time that it has
been away, which is waited in between"""
LOADED_S = 3.0
"""seconds at most that a stop waits for a model that is being loaded"""
STOP_S, FINISH_S = 10.0, 30.0
"""seconds at most that a stop waits for a pipeline, and for one with texts that cannot be read again"""


class Agent:
    """One device's agent; make it, `run` it, and it is done."""

    def __init__(
        self, config: Config, *, pull: bool = False, race: bool = False, say: Callable[[int, int], None] | None = None
    ) -> None:
        """Check everything that can be checked before a thread starts: sources, models, tasks, store, broker.

        `race`: serve as soon as may be; once it runs, find out how each model runs fastest here, where nobody knows.

        Raises an EdgeAgentError, one line that names the pipeline.
        """
        self.config, self.device = config, config.device.id
        self.started = time.monotonic()
        self.on_event: Callable[[Event], None] = lambda event: None
        """told of each event once it is kept"""
        self.models, self.race = Models(threads=config.device.threads, pull=pull, say=say, soon=race), race
        self.look = threading.Event()
        """set it to have switched models noticed now; they are looked for every LOOK_S anyway"""
        self._changed = threading.Event()
        self._swapping = threading.Lock()
        self._looks: list[threading.Thread] = []
        self._failed: EdgeAgentError | None = None
        self._said: dict[str, tuple[dict[str, object], float]] = {}
        """what was said last under each topic, without what counts, and when (monotonic)"""
        store = checked_store(config)
        kept = config.store
        self.outbox = Outbox(store, self.device, kept.max_bytes, kept.expire_hours, kept.max_events)
        try:
            budget = Budget(config.store.bytes_per_day, store / "budget.json")
            self.link = Link(config.mqtt, self.device, self.outbox, budget) if config.mqtt.url else None
            marks = self.outbox.marks
            subscribe = partial(self.link.subscribe, own=False) if self.link else None
            self.lines = [make_line(pipe, self.models, subscribe, marks.get(pipe.name)) for pipe in config.pipeline]
            self.commands = Commands(self.link, store, self._verbs(), self._changed.set) if self.link else None
        except BaseException:
            self.outbox.close()
            raise

    def _verbs(self) -> dict[str, Callable[[], object]]:
        """What cmd/VERB does: what its reply holds."""

        def swap() -> str:
            self.look.set()
            return "looking for switched models; state tells what serves"

        return {
            "ping": lambda: rfc3339(time.time()),
            "health": self.health,
            "state": lambda: {line.config.name: self.state(line) for line in self.lines},
            "gaps": lambda: {"lost": self.outbox.counts.dropped, "gaps": msgspec.to_builtins(list(self.outbox.gaps))},
            "swap": swap,
        }

    # ── the walk ─────────────────────────────────────────────────────────────────────────────────────────

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, or until every source has ended and what it brought is acknowledged.

        Raises what a source or a task failed on, when the failure was for good.
        """
        if self.link is not None:
            self.link.start()
        for line in self.lines:
            for work in (self._capture, self._work):
                thread = threading.Thread(target=self._guarded, args=(work, line, stop), daemon=True)
                thread.name = f"{line.config.name}-{work.__name__.strip('_')}"
                line.threads.append(thread)
                thread.start()
        for look in (self._look_for_switches, *([self._improve] if self.race else [])):
            thread = threading.Thread(
                target=self._beside, args=(look, stop), name=look.__name__.strip("_"), daemon=True
            )
            self._looks.append(thread)
            thread.start()
        try:
            self._watch(stop)
        finally:
            self._stop_in_order(stop)
        if self._failed is not None:
            raise self._failed

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
                log.exception("%s failed; it goes on", look.__name__.strip("_"))
                stop.wait(LOOK_S)

    def _capture(self, line: Line, stop: threading.Event) -> None:
        """From the source into the mailbox; a live source that fails is opened again."""
        lost = time.monotonic()
        try:
            while not stop.is_set():
                try:
                    for item in line.opened.run(stop):
                        if isinstance(item, StreamState):
                            if item.condition == "ended" and stop.is_set():
                                continue
                            self._stream(line, item)
                            continue
                        line.taken += 1
                        line.once = isinstance(item, Text) and item.mark is None
                        lost = time.monotonic()
                        if not line.box.put(item):
                            return
                    break
                except SourceError as error:
                    if not line.opened.live:
                        raise
                    self._stream(line, StreamState("reconnecting", str(error)))
                    wait = max(REOPEN_S[0], REOPEN_SHARE * (time.monotonic() - lost))
                    stop.wait(min(REOPEN_S[1], wait) * random.uniform(0.5, 1.0))
            if not stop.is_set():
                self._stream(line, StreamState("ended", "the source has ended"))
            elif line.stream.condition != "ended":
                self._stream(line, StreamState("stopped", "the agent was stopped"))
        finally:
            line.box.close()

    def _stream(self, line: Line, state: StreamState) -> None:
        state = StreamState(
            state.condition, redact(" ".join(state.why.split()))
        )  # somebody else's source may have said it
        if state.condition != line.stream.condition:
            calm = state.condition in ("ok", "ended", "stopped")
            log.log(
                logging.INFO if calm else logging.WARNING,
                "%s: stream is %s%s",
                line.config.name,
                state.condition,
                state.why and f": {state.why}",
            )
            line.since = time.time()
        line.stream = state
        self._changed.set()

    def _work(self, line: Line, stop: threading.Event) -> None:
        """From the mailbox through the tasks to the outbox."""
        how = line.config.report or ("changes" if line.opened.live else "every")

        name = line.config.name
        fold = Folder()
        kept: int | None = None
        last: int | None = None
        """marks of the last event, and of the last sample that was dealt with"""

        def put(event: Event, mark: int | None) -> None:
            nonlocal kept
            kept = mark
            self.on_event(self.outbox.put(event, line.config.class_of(kind_of(event)), mark))

        def keep(found: SampleOrFinding) -> None:
            sample = found.of if isinstance(found, Finding) else found
            mark = sample.mark if isinstance(sample, Text) else None
            fresh = to_event(found, name)
            telemetry = line.config.class_of(kind_of(fresh)) == "telemetry"
            for event, at in fold(fresh, telemetry and self.link is not None and self.link.budget.saving, mark):
                put(event, at)

        def done(sample: Sample) -> None:
            nonlocal last
            last = sample.mark if isinstance(sample, Text) else None
            # what is held back would not come again
            if last is not None and last != kept and not fold.holds and not how.startswith("summary"):
                self.outbox.passed(name, last)

        try:
            if len(line.teams) == 1:
                run(line.box, line.teams[0], reporter(how), keep, line.stats, done)
            else:
                run_abreast(line.box, line.teams, reporter(how), keep, line.stats, line.box.close, done)
            for event, at in fold(None, False):
                put(event, at)
            if last is not None and last != kept:
                self.outbox.passed(name, last)
        finally:
            line.box.close()
            line.ended = True
            self._changed.set()

    def _look_for_switches(self, stop: threading.Event) -> None:
        """Swap the models that were switched in the registry, while the old ones go on serving."""
        while not stop.is_set():
            self.look.wait(LOOK_S)
            self.look.clear()
            for name in self.models.changed():
                if not stop.is_set():
                    self._swap(name)

    def _improve(self, stop: threading.Event) -> None:
        """Find out in the background how each model runs fastest here, and go on that way."""
        stop.wait(SETTLED_S)
        done: set[str] = set()
        while not stop.is_set():
            for name in {name for line in self.lines for uses in line.uses for name in uses}:
                known = f"{name} {catalogue.fingerprint(name)}"
                if known not in done and not stop.is_set():
                    done.add(known)
                    try:
                        if self.models.improve(name):
                            self._swap(name)
                    except (EdgeAgentError, OSError) as error:
                        log.warning("%s: how it runs fastest could not be found out: %s", name, error)
            stop.wait(LOOK_S)

    def _swap(self, name: str) -> None:
        """Put tasks on the new model in the place of those on the old one, between two samples.

        Should it be refused, nothing changes but `refused`, and it is not tried again until it changes once more.
        """
        lines = [line for line in self.lines if any(name in uses for uses in line.uses)]
        with self._swapping:
            self._swap_in(name, lines)

    def _swap_in(self, name: str, lines: list[Line]) -> None:
        try:
            served = {pace: self.models.open(name, pace) for pace in {line.pace for line in lines}}

            def serve(other: str, pace: Pace) -> Served:
                return served[pace] if other == name else self.models.serve(other, pace)

            made = [
                make_teams(line.config, line.opened.yields, partial(serve, pace=line.pace), line, name)
                for line in lines
            ]
        except EdgeAgentError as error:
            log.error("%s: the new version does not serve, the old one goes on: %s", name, error)
            for line in lines:
                line.refused = str(error)
            self._changed.set()
            return
        for pace, one in served.items():
            self.models.adopt(name, one, pace)
        for line, (teams, uses) in zip(lines, made, strict=True):
            for tasks, new in zip(line.teams, teams, strict=True):
                # one assignment: `run` takes all tasks of a sample at once
                tasks[:] = new
            line.uses, line.refused = uses, ""
        new_one = next(iter(served.values()))
        log.info("%s: swapped to version %s: %s", name, new_one.ref.version, new_one.why)
        self._changed.set()

    # ── watching and stopping ────────────────────────────────────────────────────────────────────────────

    def reload(self) -> None:
        """Look for switched models now, and connect anew with the secrets and certificates that are there now."""
        self.look.set()
        if self.link is not None:
            self.link.reload()

    def _watch(self, stop: threading.Event) -> None:
        state_at = health_at = 0.0
        cleared = self.link is None
        while not stop.is_set():
            now = time.monotonic()
            if self.commands is not None:
                self.commands.run_waiting()
            if self._changed.is_set() or now >= state_at:
                self._changed.clear()
                state_at = now + STATE_S
                self._say_states()
            if now >= health_at:
                health_at = now + HEALTH_S
                self._say(topics.HEALTH, self.health())
            if not cleared and self.link is not None:
                cleared = True
                names = [line.config.name for line in self.lines]
                self.link.clear_others(topics.retained_with_dots(self.config.mqtt.prefix, self.device, names))
            if not self.outbox.alive or (self.link is not None and not self.link.alive):
                which = "outbox" if not self.outbox.alive else "mqtt"
                self._failed = EdgeAgentError(f"the thread {which} has died, see the log; start the agent anew")
                return
            draining = all(line.ended for line in self.lines)
            if draining and (self.link is None or self.outbox.empty):
                return
            self._changed.wait(0.05 if draining else 0.5)

    def _stop_in_order(self, stop: threading.Event) -> None:
        """Sources, then what they brought, then the outbox, then the link: nothing that was accepted is lost, but
        texts that cannot be read again and take longer than FINISH_S.
        """
        stop.set()
        began = time.monotonic()
        for line in self.lines:
            for thread in line.threads:
                limit = FINISH_S if line.unanswered else STOP_S
                thread.join(max(0.0, began + limit - time.monotonic()))
                if thread.is_alive():
                    log.warning("%s did not stop within %.0f s", thread.name, limit)
                    line.box.clear()
                    thread.join(1)
            if line.unanswered:
                why = "dropped, or not answered before the stop"
                log.error("%s: %d texts are lost: %s", line.config.name, line.unanswered, why)
        self._say_states()
        if self.link is not None:
            self.link.stop()
        self.outbox.close()
        # a thread inside of ONNX Runtime at the interpreter's end aborts the process
        self.look.set()
        for thread in self._looks:
            thread.join(LOADED_S)

    @property
    def unanswered(self) -> int:
        """Texts that were heard, cannot be read again and have no event: lost, once the agent has stopped."""
        return sum(line.unanswered for line in self.lines)

    def _say(self, tail: str, body: dict[str, object]) -> None:
        """Retain it; on a metered link once an hour, or when more than time and counts have changed in it."""
        if self.link is None:
            return
        budget, now = self.link.budget, time.monotonic()
        telling = {key: value for key, value in body.items() if key not in COUNTING}
        before, said_at = self._said.get(tail, ({}, -METERED_S))
        if budget.per_day is not None and now < said_at + METERED_S and (budget.saving or telling == before):
            return
        self._said[tail] = telling, now
        self.link.say(tail, msgspec.json.encode(body))

    def _say_states(self) -> None:
        for line in self.lines:
            self._say(topics.state(line.config.name), self.state(line))

    def state(self, line: Line) -> dict[str, object]:
        """What is retained under PIPELINE/state."""
        return {
            "v": 1,
            "stream": line.stream.condition,
            "why": line.stream.why,
            "since": rfc3339(line.since),
            "samples": line.taken,
            "dropped": line.box.dropped,
            "answered": line.stats.samples,
            "bad": line.stats.bad,
            "trouble": line.stats.trouble,
            "events": line.stats.findings,
            "models": line.models,
            "refused": line.refused,
        }

    def health(self) -> dict[str, object]:
        """What is retained under health."""
        return {
            "v": 1,
            "at": rfc3339(time.time()),
            "version": __version__,
            "uptime_s": round(time.monotonic() - self.started, 1),
            "rss_bytes": rss_bytes(),
            "store_bytes": self.outbox.size,
            "waiting": self.outbox.waiting,
            "events": self.outbox.counts.put,
            "acknowledged": self.outbox.counts.done,
            "lost": self.outbox.counts.dropped,
            "disk": self.outbox.trouble or "ok",
            "mqtt": self.link.speaks if self.link else "",
            "passed_over": self.link.passed_over if self.link else 0,
        }


def kind_of(event: Event) -> str:
    """detections, text, scores, ...: what its JSON says."""
    return str(type(event).__struct_config__.tag)


def checked_store(config: Config) -> Path:
    """`store_path`, where a folder stands or can be made. ConfigError where none can: a file is in the way."""
    store = store_path(config)
    existing = next(place for place in (store, *store.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"store.path: {store}: {existing} is no folder, so no store can stand there; name another")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"store.path: {store}: this user may not write to {existing}; name another, or change it")
    return store
