"""The pipelines at work: made, started, stopped, and brought to another config while the others go on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.agent.begun import noting
from edge_agent.agent.capture import capture
from edge_agent.agent.controls import Controls
from edge_agent.agent.keep import Keep
from edge_agent.agent.line import Line, make_line, opened_source, whole
from edge_agent.agent.record import Recorder
from edge_agent.agent.zones import follow_of, tampering_of
from edge_agent.config import Config, Pipeline, Privacy, Zone
from edge_agent.errors import EdgeAgentError
from edge_agent.events import Event
from edge_agent.sources import Subscribe
from edge_agent.tasks.text import captured
from edge_agent.types import Sample
from edge_agent.uri import parse_task
from edge_agent.walk.pipeline import Terms, run, run_abreast
from edge_agent.walk.privacy import hider
from edge_agent.walk.report import Report

if TYPE_CHECKING:
    from edge_agent.link.link import Link
    from edge_agent.serving.models import Models

log = logging.getLogger("edge_agent")

Stamp = tuple[str, int, int]
"""a file, with its time (nanoseconds since 1970) and size (bytes)"""

STOP_S, FINISH_S = 2.5, 30.0
"""seconds at most that a stop waits for a pipeline, and for one with texts or speech that cannot be had again"""


class Lines:
    """The pipelines of one agent. `stop` and `turn_to` are for one thread at a time."""

    def __init__(self, config: Config, models: Models, keep: Keep, link: Link | None, record: Recorder) -> None:
        """Make them ready; nothing is read and no thread starts. Raises an EdgeAgentError that names the pipeline."""
        self.models, self.keep, self.outbox, self.link = models, keep, keep.outbox, link
        self._hide = hider(config.privacy)
        self.changed: Callable[[], object] = lambda: None
        """called when one of them has something new to say"""
        self.failed: EdgeAgentError | None = None
        """what one of them failed on, for good"""
        self.urged: Callable[[], bool] = lambda: False
        """whether neighbours are to be asked to do what this device saves"""
        self.turning: list[Callable[[Config, Sequence[Line]], Callable[[], object]]] = []
        """shown another config and the pipelines that are about to work by it: each raises an EdgeAgentError where they
        may not, else gives what is called before any of them begins, and raises nothing"""
        self.beginning: Callable[[Sequence[Line]], object] = lambda lines: None
        """shown those that are about to work; `all` and `zones` are as they will be"""
        self._turning = threading.Lock()
        self._closed = False
        self.zones: Sequence[Zone] = config.zone
        self._record = record
        self._labels = {pipe.name: _labels(pipe) for pipe in config.pipeline}
        self.all: list[Line] = []
        """this very list, always"""
        self.controls = Controls(self.outbox.path / "by_command.json", self.all, lambda: self.changed())
        for pipe in config.pipeline:
            subscribe, leave = self._ear()
            line = make_line(pipe, models, subscribe, self.outbox.marks.get(pipe.name), self.zones)
            line.leave = leave
            self._equip(line)
            self.controls.begin(line)
            record.attach(line)
            self.all.append(line)
        self.controls.forget_others()

    def _equip(self, line: Line) -> None:
        """Give it what it remembers of its objects and of its camera, and the neighbours that it may ask."""
        line.follow = follow_of(line.config, line.zones, self.outbox.path)
        line.tampering = tampering_of(line.config, self.outbox.path)
        if any("also=" in task for task in line.config.tasks):
            from edge_agent.agent.offload import attach

            attach(line, self.link.budget if self.link else None, lambda: self.urged())

    def _ear(self) -> tuple[Subscribe | None, Callable[[], None]]:
        """What a source hears the broker by, and what ends that."""
        link, ends = self.link, list[Callable[[], None]]()

        def leave() -> None:
            while ends:
                ends.pop()()

        if link is None:
            return None, leave
        return lambda topics, receive: ends.append(link.subscribe(topics, receive, own=False)), leave

    # ── work ─────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, lines: Sequence[Line]) -> None:
        """Let them work, each on two threads."""
        self.beginning(lines)
        for line in lines:
            line.guard.hide = self._hide
            for work in (self._capture, self._work):
                thread = threading.Thread(target=self._guarded, args=(work, line), daemon=True)
                thread.name = f"{line.config.name}-{work.__name__.strip('_')}"
                line.threads.append(thread)
            for thread in line.threads:
                thread.start()

    def _capture(self, line: Line) -> None:
        """From the source into the mailbox."""
        capture(line, lambda: self.changed())

    def _work(self, line: Line) -> None:
        """From the mailbox through the tasks to the outbox."""

        def put(event: Event, kind: str, mark: int | None) -> None:
            self.keep.put(event, kind, mark)
            if text := getattr(event, "text", ""):
                captured.note(text, event.pipeline)

        link, name = self.link, line.config.name
        saving = (lambda: link.budget.saving) if link else (lambda: False)
        terms = Terms(line.client, line.guard, line.watchers)
        passed = partial(self.outbox.passed, name)
        report = Report(line.config, line.opened.live, put, passed, saving, terms.guard, line.follow)
        noted = noting(line, self.outbox.path, report.done)

        def done(sample: Sample) -> None:
            noted(sample)
            line.seen(sample)

        try:
            told = report.worth, report.keep, line.stats
            if len(line.teams) == 1:
                run(line.box, line.teams[0], *told, done, terms)
            else:
                run_abreast(line.box, line.teams, *told, line.box.close, done, terms)
            report.end()
            line.seen(None)
        finally:
            line.box.close()
            line.ended = True
            self.changed()

    def _guarded(self, work: Callable[[Line], None], line: Line) -> None:
        """A thread's outermost frame: an error ends the agent with its reason instead of a silent pipeline."""
        try:
            work(line)
        except EdgeAgentError as error:
            self._fail(type(error)(f"pipeline {line.config.name}: {error}"))
        except Exception as error:  # a bug: told with its traceback, and the service is started anew
            log.exception("pipeline %s failed", line.config.name)
            self._fail(EdgeAgentError(f"pipeline {line.config.name}: {type(error).__name__}: {error}"))

    def _fail(self, error: EdgeAgentError) -> None:
        self.failed = error
        for line in list(self.all):
            line.stop.set()
        self.changed()

    # ── another config ───────────────────────────────────────────────────────────────────────────────────

    def hide(self, asked: Privacy) -> None:
        """Take out of texts what is asked for from now on."""
        self._hide = hider(asked)
        for line in self.all:
            line.guard.hide = self._hide

    def turn_to(self, new: Config, before: Callable[[], object]) -> list[str]:
        """Bring them to the pipelines and zones of a config: what did not change goes on. Returns what was done, a line
        each.

        `before` is called once all that is new is ready, and before any of it begins. Raises an EdgeAgentError, and
        nothing has changed, where one of them cannot be opened.
        """
        pipes, zones = list(map(whole, new.pipeline)), new.zone
        labels = {pipe.name: _labels(pipe) for pipe in pipes}
        same = {line.config.name: line for line in self.all if self._stays(line, pipes, zones, labels)}
        # tried before anything ends; what the broker keeps for it comes once the old one has left
        deaf = (lambda topics, receive: None) if self.link else None
        fresh = {pipe.name: make_line(pipe, self.models, deaf, zones=zones) for pipe in pipes if pipe.name not in same}
        both = {**same, **fresh}
        lines = [both[pipe.name] for pipe in pipes]
        acts = self._ready(new, lines)
        with self._turning:
            if self._closed:
                return []
            for act in (before, *acts):
                act()
            self._labels, self.zones = labels, zones
            return self._exchange(lines, same, fresh)

    def _ready(self, new: Config, lines: Sequence[Line]) -> list[Callable[[], object]]:
        return [turn(new, lines) for turn in self.turning]

    def _stays(
        self, line: Line, pipes: Sequence[Pipeline], zones: Sequence[Zone], labels: dict[str, list[Stamp]]
    ) -> bool:
        """Whether nothing of one changes by these."""
        pipe = line.config
        return (
            pipe in pipes
            and labels[pipe.name] == self._labels[pipe.name]
            and _zones_of(pipe, zones) == _zones_of(pipe, self.zones)
            and not line.ended
        )

    def close(self) -> None:
        """End all of them, for good."""
        with self._turning:
            self._closed = True
            self.stop(self.all)
            if self._hide is not None:
                self._hide.close()

    def _exchange(self, lines: Sequence[Line], same: dict[str, Line], fresh: dict[str, Line]) -> list[str]:
        """End those that are not the same, and begin the fresh ones where they were."""
        old = [line for line in self.all if line.config.name not in same]
        self.stop(old)
        for name, line in fresh.items():
            subscribe, line.leave = self._ear()
            line.opened = opened_source(line.config, subscribe, self.outbox.marks.get(name))
            self._equip(line)
            self.controls.begin(line)
            self._record.attach(line)
        for line in old:
            line.leave()
            self._record.forget(line.config.name, line.config.name not in fresh)
        self.all[:] = lines
        self.controls.forget_others()
        self.start(list(fresh.values()))
        if self.link is not None and any(line.config.source.startswith("mqtt:") for line in old):
            self.link.reload()  # what came in between was not taken, and comes again with the next connect
        return _said(old, fresh)

    def stop(self, lines: Sequence[Line]) -> None:
        """End sources, then what they brought: nothing that was accepted is lost, but texts that cannot be read again
        and take longer than FINISH_S.
        """
        for line in lines:
            line.stop.set()
        began = time.monotonic()
        for line in lines:
            for thread in line.threads:
                limit = FINISH_S if line.unanswered or line.under_way else STOP_S
                thread.join(max(0.0, began + limit - time.monotonic()))
                if thread.is_alive():
                    log.warning("%s did not stop within %g s", thread.name, limit)
                    line.box.clear()
                    thread.join(0.5)
            if line.unanswered:
                why = "dropped, or not answered before the stop"
                log.error("%s: %d texts are lost: %s", line.config.name, line.unanswered, why)

    def names(self) -> list[str]:
        """Those of the pipelines."""
        return [line.config.name for line in self.all]

    @property
    def ended(self) -> bool:
        """Whether all sources have ended, and what they brought is kept."""
        return not self._turning.locked() and all(line.ended for line in self.all)

    @property
    def unanswered(self) -> int:
        """Texts that were heard, cannot be read again and have no event: lost, once the lines have stopped."""
        return sum(line.unanswered for line in self.all)


def _said(old: list[Line], fresh: dict[str, Line]) -> list[str]:
    """What an exchange does, a line each."""
    said = [f"{line.config.name}: {'opened anew' if line.config.name in fresh else 'ended'}" for line in old]
    return said + [f"{name}: begins" for name in fresh.keys() - {line.config.name for line in old}]


def _zones_of(pipe: Pipeline, zones: Sequence[Zone]) -> list[Zone]:
    """Those that lie in its picture."""
    return [zone for zone in zones if zone.pipeline == pipe.name]


def _labels(pipe: Pipeline) -> list[Stamp]:
    """The files of labels that its tasks name, with time and size: one that was edited is read anew."""
    found = []
    for task in pipe.tasks:
        if path := parse_task(task).options.get("labels"):
            with suppress(OSError):
                at = Path(path).stat()
                found.append((path, at.st_mtime_ns, at.st_size))
    return found
