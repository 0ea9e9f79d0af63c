"""The governor: [limits] are kept, by what pipelines do less of, step by step and with the reason.

On a thread of its own it reads the board and this process, asks the ladder (edge_agent/governor) for its rung, and sets
what each pipeline does: how its detector looks, which frames it takes, whether it is paused.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from edge_agent import paths
from edge_agent.agent.line import Line
from edge_agent.agent.lines import Lines
from edge_agent.config import Limits, tracks
from edge_agent.device import board
from edge_agent.device.health import give_back, rss_bytes
from edge_agent.errors import EdgeAgentError
from edge_agent.events import rfc3339
from edge_agent.governor.believe import Believed
from edge_agent.governor.ladder import Bounds, Ladder, Reading
from edge_agent.governor.steps import PLANS, SIDES, Look, Plan, plan_of, words
from edge_agent.tasks import make_task
from edge_agent.tasks.chain import wanting
from edge_agent.types import Frame, StreamState, Task
from edge_agent.uri import parse_task

if TYPE_CHECKING:
    from edge_agent.serving.models import Models
    from edge_agent.tasks.detect.thinned import Thinned

log = logging.getLogger("edge_agent")

TICK_S = 2.0
"""seconds between two looks at the readings"""
MEAN_S = 10.0
"""seconds over which the load is a mean"""
TRIM = 0.8
"""of the limit of memory from which on freed memory is given back now and then"""
TRIM_S = 60.0


class Governed(msgspec.Struct, frozen=True):
    """How the governor stands, for health, page and metrics."""

    rung: int
    """0: nothing is saved"""
    step: str
    """the same in words"""
    why: str
    """of the last step, or why there is none now"""
    since: str
    """of the rung, RFC 3339 UTC"""
    met: bool
    """whether each limit is kept now"""
    reading: dict[str, float]
    """of what is limited, by the names of [limits]"""


class Governor:
    """Of one agent; a part beside its pipelines. Without limits it does nothing."""

    def __init__(
        self, limits: Limits, lines: Lines, models: Models, changed: Callable[[], object] = lambda: None
    ) -> None:
        """`changed` is called when it stands on another rung."""
        self._lines, self._models, self._changed = lines, models, changed
        lines.urged = lambda: self.stands_by
        self._over, self._asked = threading.Event(), threading.Event()
        self._believed = Believed()
        self._cpu: tuple[float, float, float] | None = None
        """seconds of processor time, when (monotonic), and the mean load since, percent of a core"""
        self._trimmed = 0.0
        self._limits, self._ladder = limits, self._made(limits)
        self._since = time.time()
        self._reading = Reading()
        self._thread = threading.Thread(target=self._work, name="governor", daemon=True)

    def _made(self, limits: Limits) -> Ladder | None:
        """A ladder for these limits; None where there are none."""
        if limits == Limits():
            return None
        bounds = Bounds(limits.cpu_percent, limits.memory_mb, limits.watts, limits.celsius)
        costs = [plan.cost for plan in PLANS]
        return Ladder(bounds, costs + [costs[-1] * (1 - n / 8) for n in range(1, 1 + min(7, len(self._lines.all)))])

    # ── a part of the agent ──────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin, on the safe rung."""
        self._apply()
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Begin to end."""
        self._over.set()
        self._asked.set()

    def close(self) -> None:
        """Wait for the end."""
        self.stop(0)
        if self._thread.is_alive():
            self._thread.join(TICK_S)

    def turn_to(self, limits: Limits) -> None:
        """Other limits from now on."""
        if limits != self._limits:
            self._limits, self._ladder, self._since = limits, self._made(limits), time.time()
            self._asked.set()

    @property
    def state(self) -> Governed | None:
        """How it stands; None where there are no limits."""
        ladder = self._ladder
        if ladder is None:
            return None
        asked = {what: limit for what in Limits.__struct_fields__ if (limit := getattr(self._limits, what)) is not None}
        read = {what: round(value, 1) for what in asked if (value := getattr(self._reading, what)) is not None}
        why = f"cannot be met: {ladder.over}; {ladder.why}" if ladder.over and self._lowest else ladder.why
        step = words(ladder.rung, len(self._paused))
        return Governed(ladder.rung, step, why, rfc3339(self._since), not ladder.over, read)

    @property
    def stands_by(self) -> bool:
        """Whether others are to be asked to do what this device saves."""
        return self._ladder is not None and self._ladder.rung >= len(PLANS) - 2

    def about(self) -> str:
        """What `health` says under limits."""
        state = self.state
        return "ok" if state is None or (state.met and not state.rung) else f"{state.step}: {state.why}"

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                self.tick(time.monotonic())
            except Exception:
                log.exception("the governor failed; it goes on")
            self._asked.wait(TICK_S if self._ladder is not None else None)
            self._asked.clear()

    # ── what is read ─────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> None:
        """One look, and what follows from it."""
        ladder = self._ladder
        if ladder is not None:
            self._reading = self._read(now)
            over, rung = ladder.over, ladder.rung
            if ladder.step(now, self._reading):
                self._since = time.time()
                log.log(logging.WARNING if ladder.rung > rung else logging.INFO, "[limits]: %s", self.about())
                self._changed()
            elif ladder.over != over:
                self._changed()
        self._apply()

    def _read(self, now: float) -> Reading:
        limits, read = self._limits, Reading(self._load(now), rss_bytes() / (1 << 20))
        blind = []
        if limits.celsius is not None:
            read.celsius = self._believed(now, board.temperatures())
            blind += [self._believed.what] * (read.celsius is None)
        if limits.watts is not None:
            read.watts = board.watts()
            blind += ["no sensor says how many watts it draws"] * (read.watts is None)
        if limits.memory_mb is not None and (read.memory_mb or 0) > TRIM * limits.memory_mb and now > self._trimmed:
            self._trimmed = now + TRIM_S
            give_back()
        read.blind = "; ".join(blind)
        return read

    def _load(self, now: float) -> float:
        """Percent of a core that this process and its children took lately."""
        times = os.times()
        spent = times.user + times.system + times.children_user + times.children_system
        before = self._cpu
        if before is None or now - before[1] < 0.1:
            self._cpu = before or (spent, now, 0.0)
            return self._cpu[2]
        used, share = 100 * (spent - before[0]) / (now - before[1]), min(1.0, (now - before[1]) / MEAN_S)
        self._cpu = spent, now, before[2] + share * (used - before[2])
        return self._cpu[2]

    # ── what is done ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def _lowest(self) -> bool:
        return self._ladder is not None and self._ladder.rung == len(self._ladder.costs) - 1

    @property
    def _order(self) -> list[Line]:
        """Who is paused first: the lowest priority, of equals the last one."""
        lines = enumerate(self._lines.all)
        return [line for _, line in sorted(lines, key=lambda one: (one[1].config.priority, -one[0]))]

    @property
    def _paused(self) -> list[Line]:
        return [line for line in self._lines.all if line.held]

    def _apply(self) -> None:
        """Each pipeline as its rung has it."""
        rung = self._ladder.rung if self._ladder is not None else 0
        order = self._order
        ranks = sorted({line.config.priority for line in order}, reverse=True)
        held = order[: max(0, rung - len(PLANS) + 1)]
        for line in order:
            plan = plan_of(rung, ranks.index(line.config.priority))
            self._look(line, plan)
            self._hold(line, line in held)

    def _hold(self, line: Line, rest: bool) -> None:
        """Pause it, or let it go on, but for what a command has paused."""
        if rest and not line.stop.paused:
            line.held = StreamState("paused", f"paused to keep [limits]: {self._ladder.why if self._ladder else ''}")
            line.paused_at = time.time()
            line.stop.pause(ends=line.opened.live)
        elif not rest and line.held is not None:
            line.held = None
            if not self._lines.controls.is_paused(line):
                line.stop.go_on()

    def _look(self, line: Line, plan: Plan) -> None:
        """How its detector looks, or which frames it takes."""
        if line.opened.yields is not Frame:
            return
        if not _followed(line):
            line.rate = plan.rate if line.opened.live else 1.0
            line.saves = "" if line.rate == 1 else f"every {1 / line.rate:g}th frame"
            return
        thin = self._thinned(line, always=self._ladder is not None)
        if thin is None:
            return
        sides = (1.0, *thin.others)
        thin.plan = lambda things: plan.of(things).at(sides)
        line.saves = "" if plan == Plan() else _said(plan, sides)
        if plan != Plan():
            self._have_smaller(line, thin)

    def _thinned(self, line: Line, always: bool) -> Thinned | None:
        """The detector of a pipeline that tracks, thinned; where it is not, and not `always` is to be, None."""
        from edge_agent.tasks.detect.thinned import Thinned

        (team,) = line.teams
        task: object = team[-2]
        if not isinstance(task, Thinned):
            if not always:
                return None
            team[-2] = task = Thinned(task, lambda things: Look())
        return task

    def _have_smaller(self, line: Line, thin: Thinned) -> None:
        """Get the smaller detectors ready, one a tick, where they can be had and there is memory for them."""
        limit, (name, *_) = self._limits.memory_mb, [*line.uses[-2], ""]
        ref = getattr(getattr(thin.detector, "model", None), "ref", None)
        missing = [side for side in SIDES[1:] if ref and side not in thin.tried]
        if not missing or (limit is not None and rss_bytes() / (1 << 20) > TRIM * limit):
            return
        side = missing[0]
        thin.tried.add(side)
        try:
            thin.others = {**thin.others, side: smaller_task(self._models, line, name, side)}
        except (EdgeAgentError, OSError) as error:
            log.info("%s: no detector of %g of its size: %s", line.config.name, side, error)


def smaller_task(models: Models, line: Line, name: str, side: float) -> Task:
    """The detector of a pipeline that tracks, at another size. Raises an EdgeAgentError, OSError."""
    from edge_agent.serving.smaller import smaller

    served = smaller(models, name, side, line.pace)
    task = make_task(wanting([parse_task(one) for one in line.config.tasks])[-2], lambda _: served, paths.home())
    task.score = line.teams[0][-2].score  # type: ignore[attr-defined]
    return task


def _followed(line: Line) -> bool:
    """Whether a tracker stands right behind its detector."""
    return tracks(line.config) and len(line.config.tasks) > 1 and line.config.tasks[-2].startswith("detect:")


def _said(plan: Plan, sides: tuple[float, ...]) -> str:
    looks = [look.at(sides) for look in plan[:3]]
    told = [
        f"{look.often:.0%} of the frames" + (f" at {look.side:g} of the size" if look.side != 1 else "")
        for look in looks
    ]
    return f"looks at {told[2]}; few things in view: {told[1]}; none: {told[0]}"
