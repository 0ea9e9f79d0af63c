"""A recording is answered once more: by an agent of its config, on the very model files, each sample after the other.

The agent is the usual one, with a store that is thrown away and without a broker. What it is told of time are the
recording's times, so that tracks, zones and rules find what they found then, as fast as the samples can be answered.
"""

from __future__ import annotations

import logging
import math
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.agent.agent import Agent
from edge_agent.agent.line import Line
from edge_agent.config import Config, Page, Store
from edge_agent.errors import EdgeAgentError, InputError, RefusedError
from edge_agent.events import Event
from edge_agent.rules.facts import Clock, Now
from edge_agent.serving.models import Models
from edge_agent.types import Sample, StreamState
from edge_agent.uri import Uri, parse_task
from edge_agent.walk import recording
from edge_agent.walk.recording import Head, Row

if TYPE_CHECKING:
    from edge_agent.registry.files import Say

LOOK_S, SETTLE_S = 0.05, 0.0005
"""seconds between two looks whether it is to end, and whether rules have dealt with what they heard"""
KEPT = re.compile(r"(objects-[\w-]+|rules|by_command)\.json")
"""of a store that a recording may bring"""

log = logging.getLogger("edge_agent")
Item = Sample | StreamState | None


class Replay:
    """One recording at work. `agent` is there once it is made; `run` returns when all of it is answered."""

    def __init__(
        self, folder: Path, store: Path, *, pace: bool = False, page: Page | None = None, pull: bool = False,
        say: Say | None = None,
    ) -> None:  # fmt: skip
        """`store`: an empty folder. `pace`: as fast as it was then. Raises an EdgeAgentError, one line, where a file
        is missing or another model than then would answer.
        """
        folder = folder.absolute()
        self.head = recording.read_head(folder)
        if gone := recording.missing(folder):
            raise InputError(f"{folder / gone}: is missing; the recording is not whole")
        first = next(recording.rows(folder), None)
        if first is None:
            raise InputError(f"{folder}: nothing was recorded in it")
        self._folder, self._pace = folder, pace
        self.said: list[bytes] = []
        """JSON of the events that came of it"""
        self.samples = self.lost = 0
        self.on_event: Callable[[Event], None] = lambda event: None
        self._later = round(time.monotonic() - first.mono)
        self._now = Now(first.mono + self._later, first.wall)
        self._take_state(store)
        models = Models(
            threads=self.head.config.device.threads, pull=pull, say=say,
            only={one.asked: one.sha256 for one in self.head.models},
        )  # fmt: skip
        clock = Clock(lambda: self._now, lambda wall: time.gmtime(wall + self.head.zone_s))
        self.agent = Agent(config_of(self.head, folder, store, page), models=models, clock=clock)
        try:
            self._check(models)
        except BaseException:
            self.agent.outbox.close()
            raise
        self.agent.keep.listeners.append(self._kept)
        self._queues = {line.config.name: queue.Queue[Item](1) for line in self.agent.lines}
        self._dealt = threading.Event()
        for line in self.agent.lines:
            self._attach(line)

    def run(self, stop: threading.Event) -> None:
        """Answer all of it, or until `stop` is set. Raises what a source or task failed on."""
        self._failed: EdgeAgentError | None = None
        player = threading.Thread(target=self._play, args=(stop,), name="replay", daemon=True)
        player.start()
        self.agent.run(stop)
        player.join(LOOK_S)
        if self._failed is not None:
            raise self._failed

    # ── made ready ───────────────────────────────────────────────────────────────────────────────────────

    def _take_state(self, store: Path) -> None:
        """What the store knew of earlier runs then, this one knows."""
        there = self._folder / recording.STATE
        for path in there.iterdir() if there.is_dir() else ():
            if KEPT.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                shutil.copyfile(path, store / path.name)

    def _check(self, models: Models) -> None:
        """RefusedError where a model is another one than then."""
        now = models.open_now()
        for then in self.head.models:
            served = now.get(then.asked)
            if served is None:  # as of a part that the pipelines' tasks do not ask for by themselves
                continue
            is_now = {row.role: row.sha256 for row in served.manifest.file if row.role}
            different = [role for role, sha in then.beside.items() if is_now.get(role) != sha]
            if (served.ref.name, served.ref.version) != (then.name, then.version) or different:
                what = (
                    f"its {different[0]} is another file"
                    if different
                    else f"it is {served.ref.name} {served.ref.version}"
                )
                raise RefusedError(
                    f"{then.asked}: {then.name} {then.version} answered then, and here {what}; "
                    "get that version (`edge-agent models`)"
                )

    def _attach(self, line: Line) -> None:
        """Have a pipeline take what it is handed here."""
        name = line.config.name
        line.opened = msgspec.structs.replace(line.opened, run=partial(self._handed, self._queues[name]))
        line.seen = lambda what: self._dealt.set()

    def _handed(self, waiting: queue.Queue[Item], stop: threading.Event) -> Iterator[Sample | StreamState]:
        while not stop.is_set():
            try:
                item = waiting.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item

    # ── its thread ───────────────────────────────────────────────────────────────────────────────────────

    def _play(self, stop: threading.Event) -> None:
        ended: set[str] = set()
        try:
            for row in recording.rows(self._folder):
                if stop.is_set():
                    break
                self._until(Now(row.mono + self._later, row.wall), stop)
                self.lost += row.lost
                self._step(row, ended, stop)
        except EdgeAgentError as error:
            self._failed = error
        except Exception as error:  # a bug: said by `run`
            log.exception("the replay failed")
            self._failed = EdgeAgentError(f"{self._folder}: {type(error).__name__}: {error}")
        self.agent.rules.freeze()
        for name in self._queues.keys() - ended:
            self._hand(name, None, stop)

    def _until(self, now: Now, stop: threading.Event) -> None:
        """Let time go by up to then, for all that waits for a time."""
        if self._pace:
            stop.wait(max(0.0, now.mono - time.monotonic()))
        last = -math.inf
        while last < (due := self.agent.rules.tick(now.mono)) <= now.mono:
            last = due
            if due > self._now.mono:
                self._now = Now(due, now.wall - (now.mono - due))
            self._settle()
        self._now = now

    def _step(self, row: Row, ended: set[str], stop: threading.Event) -> None:
        """What a row says."""
        rules, name = self.agent.rules, row.pipeline
        if row.profile:
            if row.profile in rules.profiles:
                rules.set_profile(row.profile, "replay")
        elif name not in self._queues or name in ended:
            raise InputError(f'{self._folder / recording.ROWS}: "{name[:64]}" is no pipeline that goes on there')
        elif row.ended:
            if row.stopped:
                rules.freeze()
            ended.add(name)
            self._hand(name, None, stop)
        elif row.sample is not None:
            self._hand(name, recording.sample_of(self._folder, row.sample, self._later), stop)
            self.samples += 1
        elif row.state is not None:
            self._hand(name, row.state, stop)
        self._settle()

    def _hand(self, name: str, item: Item, stop: threading.Event) -> None:
        """Give it to a pipeline, and wait until that has dealt with it."""
        self._dealt.clear()
        self._queues[name].put(item)
        line = next(line for line in self.agent.lines if line.config.name == name)
        while not self._dealt.wait(LOOK_S) and not stop.is_set() and not line.ended:
            pass

    def _settle(self) -> None:
        while not self.agent.rules.idle:
            time.sleep(SETTLE_S)

    def _kept(self, event: Event) -> None:
        self.said.append(msgspec.json.encode(event))
        self.on_event(event)


def config_of(head: Head, folder: Path, store: Path, page: Page | None) -> Config:
    """The recording's config, whose sources are the recording. InputError for one that looks outside of it."""
    pipes = []
    for pipe in head.config.pipeline:
        source = str(Uri("replay", str(folder), {"pipeline": pipe.name}))
        then = head.pipes.get(pipe.name)
        if then is None:
            raise InputError(f'{folder / recording.HEAD}: nothing is said of "{pipe.name}"; it is damaged')
        report = pipe.report or ("changes" if then.live and then.yields != "Text" else None)
        tasks = [_with_files(task, folder) for task in pipe.tasks]
        pipes.append(
            msgspec.structs.replace(
                pipe, source=source, tasks=tasks, report=report, workers=1, isolate=False, deadline_ms=None
            )
        )
    return msgspec.structs.replace(head.config, pipeline=pipes, store=Store(path=str(store)), page=page)


def _with_files(task: str, folder: Path) -> str:
    """A task with the files that stand in the recording."""
    uri, inside = parse_task(task), f"{recording.FILES}/"
    if ":" in uri.scheme:
        raise InputError(
            f"{folder}: it runs code of {uri.scheme.partition(':')[0]}; a recording may be a stranger's, so name the "
            f'task in a config of your own, with source = "replay:{folder}"'
        )
    options = {
        key: str(folder / value) if value.startswith(inside) and ".." not in value else value
        for key, value in uri.options.items()
    }
    return str(Uri(uri.scheme, uri.rest, options)) if options != uri.options else task
