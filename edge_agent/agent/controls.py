"""What is changed by command while pipelines work: pauses (``cmd/pause``) and thresholds (``cmd/threshold``).

The config stays as it is. What differs from it is kept beside the store, so that a restart forgets nothing, and is said
in each pipeline's state (``by_command``). A threshold is forgotten once the config says something else of its task.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent.agent.threshold import Threshold
from edge_agent.errors import EdgeAgentError, InputError, nearest
from edge_agent.events import UNREADABLE
from edge_agent.files import write_private
from edge_agent.tasks import TASKS
from edge_agent.types import Task

if TYPE_CHECKING:
    from edge_agent.agent.line import Line

log = logging.getLogger("edge_agent")

Reply = Callable[["dict[str, Any]"], None]


class _Set(msgspec.Struct, frozen=True):
    """A threshold that was set."""

    task: str
    """of the config, as it was then"""
    value: float


class _Kept(msgspec.Struct):
    """What a restart has to know."""

    paused: list[str] = []
    thresholds: dict[str, dict[str, _Set]] = {}
    """pipeline -> name of the threshold -> what it was set to"""


class _Pause(msgspec.Struct, frozen=True):
    """``cmd/pause``."""

    pipeline: str
    paused: bool = True


class _Threshold(msgspec.Struct, frozen=True):
    """``cmd/threshold``."""

    pipeline: str
    value: float | None
    """null: as the config has it"""
    name: str = ""
    """as the state names it; may be left out where there is only one"""


def by_command(line: Line) -> str:
    """What is not as the config has it; empty where all is."""
    changed = [(key, one) for key, one in line.thresholds.items() if one.now != one.config]
    told = [f"{one.option} of {key} is {one.now:g}, not {one.config:g}" for key, one in changed]
    return "; ".join(["paused"] * (line.stop.paused and line.held is None) + told)


def _named(line: Line) -> Iterator[tuple[str, str, int]]:
    """Name, option and place of each threshold of a pipeline: detect, and detect-2 where a second one detects."""
    seen: dict[str, int] = {}
    for at, task in enumerate(line.config.tasks):
        scheme = task.partition(":")[0].partition("?")[0]
        row = TASKS.get(scheme)
        if row is not None and row.threshold:
            seen[scheme] = seen.get(scheme, 0) + 1
            yield scheme if seen[scheme] == 1 else f"{scheme}-{seen[scheme]}", row.threshold, at


def _meant(line: Line, asked: _Threshold) -> tuple[str, Threshold]:
    """The threshold that is to be set. InputError where there is none, or it cannot have that value."""
    key = asked.name or (next(iter(line.thresholds)) if len(line.thresholds) == 1 else "")
    if key not in line.thresholds:
        known = ", ".join(line.thresholds) or "none"
        raise InputError(f'name: "{key[:80]}" is no threshold of {asked.pipeline}; there are {known}')
    one = line.thresholds[key]
    most = 1.0 if one.option == "score" else math.inf
    if asked.value is not None and not 0 <= asked.value <= most:
        raise InputError(f"value: {asked.value:g} is no {one.option} from 0{' to 1' if most == 1 else ''}")
    return key, one


class Controls:
    """Of the pipelines of one agent. Commands come on its thread; `tune`: where lines are made or models swapped."""

    def __init__(self, file: Path, lines: Sequence[Line], changed: Callable[[], object] = lambda: None) -> None:
        """`file` keeps what was set. `changed` is called when the state of a pipeline did."""
        self._file, self._lines, self._changed = file, lines, changed
        self._kept = _Kept()
        try:
            with suppress(FileNotFoundError):
                self._kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
        except (OSError, *UNREADABLE) as error:
            log.warning("%s: %s; what was set by command is as the config has it", file, error)
        self.verbs = {"pause": self._answering(self._pause), "threshold": self._answering(self._threshold)}
        """what `Commands` is to call"""

    # ── pipelines are made, and their models swapped ─────────────────────────────────────────────────────

    def begin(self, line: Line) -> None:
        """A pipeline was made: it is as it was set."""
        self.tune(line, line.teams)
        if line.config.name in self._kept.paused:
            self._rest(line)

    def tune(self, line: Line, teams: Sequence[Sequence[Task]]) -> None:
        """Set the thresholds of the tasks that are to work for it."""
        kept = self._kept.thresholds.get(line.config.name, {})
        found: dict[str, Threshold] = {}
        for key, option, at in _named(line):
            before, task = line.thresholds.get(key), teams[0][at]
            fresh = before is None or task is not line.teams[0][at]
            config = getattr(task, option, None) if fresh or before is None else before.config
            if config is None:
                continue
            one = kept.get(key)
            now = one.value if one is not None and one.task == line.config.tasks[at] else config
            found[key] = Threshold(option, at, config, now)
            for team in teams:
                setattr(team[at], option, now)
        line.thresholds = found

    def is_paused(self, line: Line) -> bool:
        """Whether a command has paused it."""
        return line.config.name in self._kept.paused

    def forget_others(self) -> None:
        """There are no other pipelines any more than those that are there now."""
        here = {line.config.name for line in self._lines}
        paused = [name for name in self._kept.paused if name in here]
        thresholds = {name: made for name, made in self._kept.thresholds.items() if name in here}
        if (paused, thresholds) != (self._kept.paused, self._kept.thresholds):
            self._kept = _Kept(paused, thresholds)
            self._keep()

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────

    def _answering(self, act: Callable[[bytes], object]) -> Callable[[bytes, Reply], None]:
        """A verb for `Commands` that answers at once."""

        def verb(payload: bytes, reply: Reply) -> None:
            try:
                reply({"ok": True, "result": act(payload)})
            except (EdgeAgentError, msgspec.MsgspecError) as error:
                reply({"ok": False, "error": str(error)})
            self._changed()

        return verb

    def _pause(self, payload: bytes) -> dict[str, object]:
        asked = msgspec.json.decode(payload, type=_Pause)
        line, name = self._line(asked.pipeline), asked.pipeline
        others = [other for other in self._kept.paused if other != name]
        self._kept.paused = [*others, name] if asked.paused else others
        self._keep()
        if asked.paused and not line.stop.paused:
            self._rest(line)
        elif not asked.paused:
            line.stop.go_on()
        return {"pipeline": name, "paused": line.stop.paused}

    def _threshold(self, payload: bytes) -> dict[str, object]:
        asked = msgspec.json.decode(payload, type=_Threshold)
        line = self._line(asked.pipeline)
        key, one = _meant(line, asked)
        made = self._kept.thresholds.setdefault(asked.pipeline, {})
        made.pop(key, None)
        if asked.value is not None and asked.value != one.config:
            made[key] = _Set(line.config.tasks[one.at], asked.value)
        self._keep()
        self.tune(line, line.teams)
        return {"pipeline": asked.pipeline, "name": key, "value": line.thresholds[key].now, "config": one.config}

    def _rest(self, line: Line) -> None:
        line.paused_at = time.time()
        line.stop.pause(ends=line.opened.live)
        log.info("%s: paused by command", line.config.name)

    def _line(self, name: str) -> Line:
        """InputError where there is none of this name."""
        names = [line.config.name for line in self._lines]
        if name not in names:
            raise InputError(f'pipeline: "{name[:80]}" is none{nearest(name, names)}')
        return self._lines[names.index(name)]

    def _keep(self) -> None:
        """On disk, so that a restart knows. A disk that refuses is said, and is no reason not to do it."""
        try:
            fresh = self._file.with_suffix(".new")
            write_private(fresh, msgspec.json.encode(self._kept), confirm=True)
            fresh.replace(self._file)
        except OSError as error:
            log.warning("%s: %s; the next start does not know what was set", self._file, error.strerror)
