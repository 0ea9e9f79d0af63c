"""What watches over the accuracy of models while they serve: drift, answers given again by a parent, people's checks.

A thread of its own at idle priority; what it is shown by pipelines it only counts, or keeps a sample of.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.accuracy.agreed import agreed
from edge_agent.accuracy.contract import Agreement, Standing, standing
from edge_agent.accuracy.drift import Drift
from edge_agent.accuracy.known import keep, remembered
from edge_agent.accuracy.signals import signals_of
from edge_agent.agent.again import audited, said
from edge_agent.agent.line import Line
from edge_agent.config import Accuracy
from edge_agent.device.health import give_back
from edge_agent.errors import EdgeAgentError
from edge_agent.manifest import Served
from edge_agent.samples import checks
from edge_agent.tasks import TASKS
from edge_agent.types import Frame, Sample
from edge_agent.uri import parse_task
from edge_agent.walk.event import SampleOrFinding

if TYPE_CHECKING:
    from edge_agent.agent.swap import Swap
    from edge_agent.serving.models import Models

log = logging.getLogger("edge_agent")

TICK_S, SAVE_S = 1.0, 600.0
"""seconds between two looks, and between two times that it is written down"""
MOST_KEPT, MOST_COUNTED = 8, 20_000
"""samples that wait to be answered again, and values that wait to be counted"""
IDLE, PATIENCE_S = 0.8, 1800.0
"""load a core below which the device is idle, and seconds after which a sample is answered again all the same"""


class Told(msgspec.Struct, frozen=True):
    """How the contract of one model stands."""

    standing: Standing
    mean: float
    low: float
    high: float
    answers: int


class Guarding:
    """Of one agent."""

    def __init__(self, config: Accuracy, lines: Sequence[Line], models: Models, store: Path, swap: Swap) -> None:
        self.config, self.lines, self._models, self._swap = config, lines, models, swap
        self._store, self.known = store, remembered(store)
        self.told: dict[str, Told] = {}
        """model -> how its contract stands"""
        self.notes: dict[str, str] = {}
        """model -> what was done about it, or why nothing can be said"""
        self._attached: list[Line] = []
        self._counted: deque[tuple[str, float, str, float | str]] = deque(maxlen=MOST_COUNTED)
        self._kept: deque[tuple[Line, Sample]] = deque(maxlen=MOST_KEPT)
        self._seen: dict[str, int] = {}
        self._looked: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="accuracy", daemon=True)
        self.notes |= dict.fromkeys(self.known.back, "its parent serves, as it was found to answer worse")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Begin to end."""
        self._over.set()

    def close(self) -> None:
        """Write down what is known."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        keep(self._store, self.known)

    def about(self) -> str:
        """The worst standing, and how each model and pipeline stands, one line."""
        worst = next((one for one in ("broken", "at risk", "kept") if one in self.standings), "unknown")
        said = []
        for name, told in self.told.items():
            figures = f"{told.mean:.3f} ({told.low:.3f} to {told.high:.3f}) of {told.answers}"
            said.append(f"{name} {told.standing}, agreement {figures}" if told.answers else f"{name} {told.standing}")
        said += [f"{name}: {note}" for name, note in self.notes.items()]
        for name, drift in list(self.known.drift.items()):
            said += [f"{name}: {told}" for told in [drift.told(self._tasks(name))] if told]
        return f"{worst}: {'; '.join(said)}" if said else worst

    @property
    def standings(self) -> set[Standing]:
        """Those of all models."""
        return {told.standing for told in list(self.told.values())}

    def _see(self, line: Line, sample: Sample, found: Sequence[SampleOrFinding]) -> None:
        """On the thread of a pipeline: note what is to be counted, and keep one in so many samples."""
        name, now = line.config.name, time.time()
        look = isinstance(sample, Frame) and sample.mono - self._looked.get(name, 0.0) >= 1.0
        if look:
            self._looked[name] = sample.mono
        if look or not isinstance(sample, Frame):
            for signal, value in signals_of(sample, found):
                self._counted.append((name, now, signal, value))
        self._seen[name] = self._seen.get(name, 0) + 1
        if self._seen[name] % self.config.every == 0:
            self._kept.append((line, sample))

    def _run(self) -> None:
        # of this thread alone: on Linux each has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        saved = time.monotonic()
        while not self._over.wait(TICK_S):
            try:
                self.look(time.time())
                if time.monotonic() - saved > SAVE_S:
                    saved = time.monotonic()
                    keep(self._store, self.known)
            except Exception:
                log.exception("accuracy: a look failed; it goes on")

    def look(self, now: float) -> None:
        """Count what came, answer again what was kept, and settle how each contract stands."""
        self._attach()
        while self._counted:
            self._count(*self._counted.popleft())
        if self._kept and (self._idle() or time.monotonic() - self._kept[0][1].mono > PATIENCE_S):
            self.audit(now)
        for model, at, value in checks.since(self.known):
            self.known.agreement.setdefault(model, Agreement()).add(at, value)
        self._settle(now)

    def _attach(self) -> None:
        """Be shown what pipelines answer, also those that were opened since."""
        known = {id(line) for line in self._attached}
        for line in self.lines:
            if id(line) not in known:
                line.watchers.append(partial(self._see, line))
        self._attached = list(self.lines)

    def _count(self, name: str, at: float, signal: str, value: float | str) -> None:
        learn = self.config.learn_hours * 3600
        drift = self.known.drift.setdefault(name, Drift(learn))
        serves = "; ".join(line.models[0] for line in self.lines if line.config.name == name and line.models)
        if drift.model != serves:
            drift = self.known.drift[name] = Drift(learn, model=serves)
        if drift.add(at, signal, value):
            log.warning("%s: %s", name, drift.told(self._tasks(name)) or "what had drifted is as in the first days")

    def _tasks(self, name: str) -> list[str]:
        return [parse_task(task).scheme for one in self.lines if one.config.name == name for task in one.config.tasks]

    def _idle(self) -> bool:
        return os.getloadavg()[0] < IDLE * (os.cpu_count() or 1)

    def audit(self, now: float) -> None:
        """Have the parents answer what was kept, and hold their answers against those of what serves."""
        parents: dict[str, Served] = {}
        # those of now: more may come than can be answered again
        for line, sample in [self._kept.popleft() for _ in range(len(self._kept))]:
            if self._over.is_set():
                break
            try:
                self._answer_again(line, sample, now, parents)
            except EdgeAgentError as error:
                log.warning("%s: could not be answered again: %s", line.config.name, error)
        if parents:
            parents.clear()
            give_back()

    def _answer_again(self, line: Line, sample: Sample, now: float, parents: dict[str, Served]) -> None:
        uri = audited(line, sample)
        if uri is None:
            return
        name = uri.rest or TASKS[uri.scheme].default
        serves = self._models.serve(name, line.pace)
        if name not in parents:
            parents[name] = self._parent(name)
        if parents[name].ref.sha256 == serves.ref.sha256:
            self.notes.setdefault(name, "what serves is the most precise there is: nothing to hold it against")
            return
        mine, theirs = (said(uri, sample, served) for served in (serves, parents[name]))
        for one, other in zip(mine, theirs, strict=False):
            if (value := agreed(one, other)) is not None:
                self.known.agreement.setdefault(name, Agreement()).add(now, value)

    def _parent(self, name: str) -> Served:
        """The model that answers again: the one of the config, else the most precise file of what serves."""
        from edge_agent.registry.catalogue import locate
        from edge_agent.serving.models import Models

        asked = self.config.auditor or name
        only = {} if self.config.auditor else {name: locate(name).manifest.original().sha256}
        return Models(threads=1, lane=self._models.lane, once=True, only=only).serve(asked)

    def _settle(self, now: float) -> None:
        """How each contract stands; what is broken is gone back from."""
        for name in {name for line in self.lines for uses in line.uses for name in uses}:
            self._begin_anew_with_another(name)
            told, before = self._standing(name, now), self.told.get(name)
            self.told[name] = told
            if before is None or before.standing == told.standing:
                continue
            level = logging.INFO if told.standing in ("kept", "unknown") else logging.WARNING
            figures = f"agreement {told.mean:.3f} of {told.answers}"
            log.log(level, "accuracy: the contract of %s is %s (%s)", name, told.standing, figures)
            if told.standing == "broken" and self.config.fall_back:
                self._go_back(name)

    def _begin_anew_with_another(self, name: str) -> None:
        """Forget what is known of a model where another version of it serves than that was known of."""
        serves = self._serving(name)
        if serves is None or self.known.version.setdefault(name, serves.ref.version) == serves.ref.version:
            return
        self.known.version[name] = serves.ref.version
        self.known.agreement.pop(name, None)
        self.notes.pop(name, None)
        if self.known.back.pop(name, None):
            self._models.keep_to(name, "")
            self._swap.again(name)

    def _serving(self, name: str) -> Served | None:
        """The model that serves under a name."""
        using = next((line for line in self.lines if any(name in uses for uses in line.uses)), None)
        return None if using is None else self._models.serve(name, using.pace)

    def _standing(self, name: str, now: float) -> Told:
        """How the contract of a model stands."""
        using = {line.config.name for line in self.lines if any(name in uses for uses in line.uses)}
        drifted = any(drift.drifted for key, drift in self.known.drift.items() if key in using)
        ledger = self.known.agreement.get(name, Agreement())
        mean, low, high, count = ledger.over(now - self.config.hours * 3600)
        return Told(standing(mean, high, count, self.config.agreement, drifted), mean, low, high, count)

    def _go_back(self, name: str) -> None:
        """To the most precise file of the model; where that serves already, to the version before it."""
        from edge_agent.registry.add import rollback
        from edge_agent.registry.catalogue import locate

        try:
            best = locate(name).manifest.original()
            serves = self._serving(name)
            if serves is not None and serves.ref.sha256 != best.sha256:
                self._models.keep_to(name, best.sha256)
                self._swap.again(name)
                self.known.back[name] = best.sha256
                self.notes[name] = f"went back to its parent {best.title()}"
            else:
                self.notes[name] = f"went back to version {rollback(name).manifest.version}"
                self._swap.look.set()
            log.warning("accuracy: %s: %s", name, self.notes[name])
            self.known.agreement[name] = Agreement()
            keep(self._store, self.known)
        except EdgeAgentError as error:
            self.notes[name] = f"nothing to go back to: {error}"
            log.error("accuracy: %s: %s", name, self.notes[name])
