"""Recordings of an agent: what its pipelines answer, its events and its models, put onto a tape as they come."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent import __version__
from edge_agent.agent import rules_file
from edge_agent.agent.keep import Keep
from edge_agent.agent.line import Line
from edge_agent.agent.lines import Lines
from edge_agent.agent.rules import Rules
from edge_agent.config import Config, Samples, Zone
from edge_agent.config.sections import Understand
from edge_agent.errors import ConfigError
from edge_agent.events import Event, RuleEvent
from edge_agent.recorder.tape import Tape
from edge_agent.redact import redact
from edge_agent.types import Sample, StreamState
from edge_agent.uri import Uri, parse_task
from edge_agent.walk import recording
from edge_agent.walk.recording import Answered, Head, Piped, Row

if TYPE_CHECKING:
    from edge_agent.serving.models import Models

MOST_FILES = 20_000_000
"""bytes of labels and documents that are copied beside a recording"""
OF_STORE = ("objects-*.json", rules_file.NAME, "by_command.json")
"""what of the store an agent's start looks at"""

log = logging.getLogger("edge_agent")


def recorded(config: Config) -> list[str]:
    """Names of the pipelines that are to be recorded. ConfigError for one in whose pictures something is hidden."""
    asked, hidden = config.samples.record, [pipe.name for pipe in config.pipeline if pipe.blur]
    names = [pipe.name for pipe in config.pipeline] if asked is True else asked or []
    for name in set(names) & set(hidden):
        raise ConfigError(
            f"samples.record: {name} is recorded as it comes, with what blur hides in it; name the other pipelines, "
            "as in record = [\"words\"], or set blur = [] for it"
        )  # fmt: skip
    return names


class Taping:
    """A part of an agent: has what its pipelines do put onto a tape."""

    def __init__(
        self, config: Config, tape: Tape, models: Models, keep: Keep, work: Lines, rules: Rules, store: Path
    ) -> None:
        self.tape = tape
        self._config, self._models, self._work, self._store = config, models, work, store
        self._names = recorded(config)
        self._all = len(self._names) == len(config.pipeline)
        self._uses: dict[str, object] = {}
        """pipeline -> which models serve it"""
        self._missed: dict[str, int] = {}
        self._begun = False
        work.beginning = self._begin
        keep.listeners.append(self._kept)
        if self._all:
            rules.listeners.append(lambda name: tape.row(_row("agent", profile=name)))

    # ── a part of the agent ──────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin; returns at once."""
        self.tape.start()

    def stop(self, seconds: float) -> None:
        """Nothing is to be done before the last event is kept."""

    def close(self) -> None:
        """Write what waits, and end."""
        self.tape.close()

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, lines: Sequence[Line]) -> None:
        """Pipelines are about to work: of this config, which may be another one than before."""
        for line in lines:
            if line.config.name in self._names:
                line.seen = partial(self._seen, line)
                self._missed[line.config.name] = 0
        self._new_part()

    def _new_part(self) -> None:
        lines = [line for line in self._work.all if line.config.name in self._names]
        self._uses = {line.config.name: line.uses for line in lines}
        fresh, self._begun = not self._begun, True
        config, files = _portable(self._config, lines, self._work.zones, self._all)
        if fresh:
            found = (path for pattern in OF_STORE for path in self._store.glob(pattern))
            files |= {f"{recording.STATE}/{path.name}": path.read_bytes() for path in found}
        pipes = {line.config.name: Piped(line.opened.yields.__name__, line.opened.live) for line in lines}  # type: ignore[arg-type]
        now = time.localtime()
        self.tape.begin(
            Head(1, __version__, time.time(), now.tm_gmtoff, fresh, config, pipes, _models(self._models)), files
        )

    def _seen(self, line: Line, what: Sample | StreamState | None) -> None:
        """A sample was dealt with, or its source said something of itself; None: no more comes."""
        name = line.config.name
        if self._uses.get(name) is not line.uses:  # a model was exchanged
            self._new_part()
        if what is None:
            self.tape.row(_row(name, ended=True, stopped=line.stop.over))
        elif isinstance(what, StreamState):
            self.tape.row(_row(name, state=what))
        elif line.stats.missed > self._missed[name]:  # given up, as its turn came too late
            self._missed[name] = line.stats.missed
        else:
            self.tape.row(_row(name), line.guard.sample(what), wait=not line.opened.live)

    def _kept(self, event: Event) -> None:
        if event.pipeline in self._names or (self._all and isinstance(event, RuleEvent)):
            self.tape.event(msgspec.json.encode(event))


def _row(pipeline: str, **what: object) -> Row:
    return Row(pipeline, time.time(), time.monotonic(), **what)  # type: ignore[arg-type]


def _models(models: Models) -> list[Answered]:
    """Those that answer now, to the bit."""
    return [
        Answered(
            asked,
            served.ref.name,
            served.ref.version,
            served.ref.sha256,
            {row.role: row.sha256 for row in served.manifest.file if row.role},
        )
        for asked, served in sorted(models.open_now().items())
    ]


def _portable(
    config: Config, lines: Sequence[Line], zones: Sequence[Zone], every: bool
) -> tuple[Config, dict[str, bytes]]:
    """What a replay needs of a config, without secrets; labels and documents stand beside it, as files."""
    files: dict[str, bytes] = {}
    names = [line.config.name for line in lines]
    pipes = [
        msgspec.structs.replace(
            line.config, source=redact(line.config.source), tasks=[_task(task, files) for task in line.config.tasks]
        )
        for line in lines
    ]
    understand = config.understand and Understand(captured=config.understand.captured)
    made = Config(
        device=config.device,
        privacy=config.privacy,
        understand=understand,
        pipeline=pipes,
        zone=[zone for zone in zones if zone.pipeline in names],
        rule=config.rule if every else [],
        profile=config.profile if every else [],
        samples=Samples(),
    )
    return made, files


def _task(task: str, files: dict[str, bytes]) -> str:
    """A task whose labels and documents are among `files`."""
    uri = parse_task(task)
    options = {
        key: _copied(value, files) if key in ("labels", "context") else value for key, value in uri.options.items()
    }
    return task if options == uri.options else str(Uri(uri.scheme, uri.rest, options))


def _copied(given: str, files: dict[str, bytes]) -> str:
    """What stands for a file or folder once what it holds is among `files`; itself where there is none."""
    path, name = Path(given), f"{recording.FILES}/{len(files)}-{Path(given).name}"
    inner = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    if sum(one.stat().st_size for one in inner) > MOST_FILES:
        log.warning("recording: %s is larger than %d MB, and is not copied", path, MOST_FILES // 10**6)
        return given
    for one in inner:
        files[name if one == path else f"{name}/{one.relative_to(path)}"] = one.read_bytes()
    return name if inner else given
