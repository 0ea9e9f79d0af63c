"""A new model answers some of the live samples beside the one that serves, before it serves itself.

Both are asked in a thread of their own, one after the other, about the same sample: what they say is compared, what
each takes of the clock and of the processor, and how warm the board becomes. What serves goes on answering as before.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_agent.agent.line import Line, make_tasks
from edge_agent.config import Update
from edge_agent.config.times import seconds
from edge_agent.device.board import warmest
from edge_agent.errors import EdgeAgentError, NotNowError
from edge_agent.figures.coco_map import iou
from edge_agent.figures.scores import Doubles
from edge_agent.fleet.bundle import Bundle
from edge_agent.manifest import Served
from edge_agent.serving.models import Models
from edge_agent.serving.order import Pace
from edge_agent.types import Anomaly, Detections, Embedding, Finding, Frame, Pixels, Sample, Scores, Spans, Task
from edge_agent.walk.event import SampleOrFinding
from edge_agent.walk.pipeline import Watcher, walk

FEWEST = 10
"""samples that tell anything"""
SAME = 0.5
"""IoU from which on two boxes of a label are the same"""
SAID_S = 1.0


Disagreed = Callable[[str, "Sequence[SampleOrFinding]", "Pixels | None", str], None]
"""pipeline, what the serving model found, the picture as it may be kept, why"""


Pair = tuple["list[Task]", "list[Task]"]
"""the same tasks on the model that serves, and on the new one"""


class Live(NamedTuple):
    """A sample that came in just now."""

    line: Line
    sample: Sample
    picture: Pixels | None
    """as it may be kept, where somebody may want it"""


class Answer(NamedTuple):
    """What one of the two says of a sample."""

    found: list[SampleOrFinding] | None
    """None: it could not answer"""
    ms: float
    cpu_ms: float
    """of the thread that asks: what a runtime computes in threads of its own is not in it"""


class Asked(msgspec.Struct):
    """What came of it so far."""

    agreed: list[float] = msgspec.field(default_factory=list)
    """of each sample, 0..1"""
    old: list[Answer] = msgspec.field(default_factory=list)
    new: list[Answer] = msgspec.field(default_factory=list)
    failed: int = 0
    """samples that the new one could not answer, and the other could"""
    celsius: float = 0.0
    """highest so far; 0 where the board has no sensor"""

    def figures(self) -> dict[str, float]:
        """What is told of it."""
        told = {"samples": float(len(self.agreed)), "failed": float(self.failed), "celsius": self.celsius}
        told["agreement"] = round(float(np.mean(self.agreed)), 4) if self.agreed else 0.0
        for end, answers in (("_before", self.old), ("", self.new)):
            told[f"ms{end}"] = _median([one.ms for one in answers])
            told[f"cpu_ms{end}"] = _median([one.cpu_ms for one in answers])
        return told


def _median(values: list[float]) -> float:
    return round(float(np.median(values)), 3) if values else 0.0


def _answered(live: Live, tasks: Sequence[Task]) -> Answer:
    """One sample through tasks of the canary's own."""
    began, cpu = time.monotonic(), time.thread_time()
    found: list[SampleOrFinding] | None = None
    with suppress(EdgeAgentError):
        found = list(walk(live.sample, tuple(tasks), live.line.guard))
    return Answer(found, (time.monotonic() - began) * 1000, (time.thread_time() - cpu) * 1000)


class Canary:
    """Of one agent; `lines` is its list, which may change meanwhile."""

    def __init__(
        self, update: Update, lines: Sequence[Line], models: Models, over: threading.Event, disagreed: Disagreed | None
    ) -> None:
        """`disagreed`: is given each sample on which they differ; None: nobody wants it."""
        self._update, self._lines, self._models, self._over = update, lines, models, over
        self._disagreed = disagreed

    def __call__(self, bundle: Bundle, folder: Path) -> dict[str, float]:
        """Hold the model in a folder against the one that serves under its name; what was measured.

        Raises EdgeAgentError for one that is worse, NotNowError where too few samples came.
        """
        lines = [line for line in self._lines if any(bundle.name in uses for uses in line.uses)]
        if not self._update.canary or not lines:
            return {}
        pairs = {id(line): self._pair(line, bundle.name, folder) for line in lines}
        waiting: queue.Queue[Live] = queue.Queue(1)
        watchers = [(line, self._watcher(line, waiting)) for line in lines]
        for line, watcher in watchers:
            line.watchers.append(watcher)
        try:
            return self._settled(bundle, self._compared(pairs, waiting))
        finally:
            for line, watcher in watchers:
                line.watchers.remove(watcher)

    def _compared(self, pairs: Mapping[int, Pair], waiting: queue.Queue[Live]) -> Asked:
        """Ask both about what comes, until there is enough of it."""
        asked, until = Asked(), time.monotonic() + seconds(self._update.canary_most)
        while len(asked.agreed) < self._update.canary_samples and time.monotonic() < until:
            self._check_over()
            with suppress(queue.Empty):
                live = waiting.get(timeout=SAID_S)
                self._ask(pairs[id(live.line)], live, asked)
            self._check_heat(asked)
        return asked

    def _check_over(self) -> None:
        if self._over.is_set():
            raise NotNowError("the agent stops; it goes on with the next start")

    def _check_heat(self, asked: Asked) -> None:
        asked.celsius = max(asked.celsius, warmest())
        if asked.celsius > self._update.celsius:
            raise NotNowError(f"the board is at {asked.celsius:.0f} °C; it goes on when it is cooler")

    def _pair(self, line: Line, name: str, folder: Path) -> Pair:
        """Tasks of the pipeline up to the last one on this model: on the model that serves, and on the new one."""
        last = max(at for at, uses in enumerate(line.uses) if name in uses)
        pipe = msgspec.structs.replace(line.config, tasks=line.config.tasks[: last + 1])
        new = self._models.open(str(folder), line.pace)

        def serve(asked: str, pace: Pace) -> Served:
            return new if asked == name else self._models.serve(asked, pace)

        made = [
            make_tasks(pipe, line.opened.yields, partial(which, pace=line.pace))[0]
            for which in (self._models.serve, serve)
        ]
        return made[0], made[1]

    def _watcher(self, line: Line, waiting: queue.Queue[Live]) -> Watcher:
        """Gives one in so many of its samples to the canary's thread, where that waits for one."""
        count = 0

        def watch(sample: Sample, found: Sequence[SampleOrFinding]) -> None:
            nonlocal count
            count += 1
            if count % self._update.canary == 0 and not waiting.full():
                kept = isinstance(sample, Frame) and self._disagreed is not None
                picture = line.show(sample, found) if kept and isinstance(sample, Frame) else None
                with suppress(queue.Full):
                    waiting.put_nowait(Live(line, sample, picture))

        return watch

    def _ask(self, pair: Pair, live: Live, asked: Asked) -> None:
        """Have both answer a sample; in turn first, so that neither has the warmer cache."""
        answers = {which: _answered(live, pair[which]) for which in ((0, 1) if len(asked.agreed) % 2 else (1, 0))}
        old, new = answers[0], answers[1]
        if old.found is None:
            return
        if new.found is None:
            asked.failed += 1
            asked.agreed.append(0.0)
            return
        value = agreement(old.found, new.found)
        asked.old.append(old)
        asked.new.append(new)
        if value is not None:
            asked.agreed.append(value)
            if value < SAME and self._disagreed is not None:
                self._disagreed(
                    live.line.config.name, old.found, live.picture, f"agreement {value:.2f} with a new model"
                )

    def _settled(self, bundle: Bundle, asked: Asked) -> dict[str, float]:
        """What was measured, of one that may serve. Raises as `__call__` says."""
        told, update = asked.figures(), self._update
        if len(asked.agreed) < FEWEST:
            raise NotNowError(f"only {len(asked.agreed)} live samples came in {update.canary_most}; it is tried again")
        least = update.agreement if bundle.agreement is None else bundle.agreement
        beside = f"on {len(asked.agreed)} live samples, beside the model that serves"
        if asked.failed > len(asked.agreed) / 10:
            raise EdgeAgentError(f"could not answer {asked.failed} of {len(asked.agreed)} live samples")
        if told["agreement"] < least:
            raise EdgeAgentError(f"agreement {told['agreement']:.3f} {beside}; at least {least:g} is asked for")
        for what, of in (("ms", "of the clock"), ("cpu_ms", "of the processor")):
            if told[what] > update.slower * told[f"{what}_before"] + 1.0:
                took = f"takes {told[what]:.1f} ms {of}, {told[f'{what}_before']:.1f} before"
                raise EdgeAgentError(f"{took}; at most {update.slower:g} times as long may be ({beside})")
        return told


def agreement(old: Sequence[SampleOrFinding], new: Sequence[SampleOrFinding]) -> float | None:
    """How far two answers to one sample are the same, 0..1: F1 of boxes or spans, the same label, the same judgement;
    None where nobody can say (vectors of two models are not alike, and nothing found by both says little).
    """
    ours, theirs = ([item.what for item in found if isinstance(item, Finding)] for found in (old, new))
    values = [_same(one, other) for one, other in zip(ours, theirs, strict=False)]
    values += [0.0] * abs(len(ours) - len(theirs))
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _same(one: object, other: object) -> float | None:
    """How far one finding is the other."""
    if type(one) is not type(other) and not (isinstance(one, Detections) and isinstance(other, Detections)):
        return 0.0
    for kind, same in SAMES.items():
        if isinstance(one, kind):
            return same(one, other)
    return float(one == other)


def _marks(spans: Spans) -> set[tuple[int, int, str]]:
    return set(zip(spans.start.tolist(), spans.end.tolist(), spans.label, strict=True))


def _spans(one: Spans, other: Spans) -> float:
    mine, its = _marks(one), _marks(other)
    return 2 * len(mine & its) / (len(mine) + len(its)) if mine or its else 1.0


def _boxes(one: Detections, other: Detections) -> float | None:
    """F1 of the boxes, each met by one of its label at most; None where neither finds any."""
    mine, its = _sure(one), _sure(other)
    if not mine[1] or not its[1]:
        return 0.0 if mine[1] or its[1] else None
    overlap = iou(mine[0], its[0], np.zeros(len(its[1]), bool))
    overlap *= np.array([[label == its_label for its_label in its[1]] for label in mine[1]], float)
    met = 0
    while overlap.size and overlap.max() >= SAME:
        at, to = np.unravel_index(int(overlap.argmax()), overlap.shape)
        overlap[at, :] = overlap[:, to] = 0
        met += 1
    return 2 * met / (len(mine[1]) + len(its[1]))


def _sure(found: Detections) -> tuple[Doubles, list[str]]:
    """The boxes that count, as left, top, width, height, and their labels."""
    rows = found.score >= found.sure
    xyxy = found.xyxy[rows].astype(float)
    labels = [found.names.get(key, str(key)) for key in found.label[rows].tolist()]
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1), labels


SAMES: dict[type, Callable[[Any, Any], float | None]] = {
    Detections: _boxes,
    Spans: _spans,
    Scores: lambda one, other: float(one.label == other.label),
    Anomaly: lambda one, other: float(one.unusual == other.unusual),
    Embedding: lambda one, other: None,
}
"""kind of finding -> how far two of it are the same"""
