"""One thing in view: where it was, which zones it is in, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edge_agent.config.zones import Zone
from edge_agent.events.objects import Crossing, Life, Phase
from edge_agent.walk.ground import Speedometer
from edge_agent.walk.objects_file import Kept
from edge_agent.walk.path import Path, Point
from edge_agent.walk.zones import Area

UPDATE_S, MOVED_S = 1.0, 10.0
"""seconds at least between two events of one object while it lives, and between two on its moving alone"""
MOVED = 1.0
"""heights that it has to have moved for that"""
Size = tuple[int, int]


@dataclass(slots=True)
class Thing:
    """One object. Times are of the frames' clock but `since`."""

    id: str
    label: str
    class_id: int
    since: float
    began: float
    seen: float
    score: float = 0.0
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    still: bool = False
    path: Path = field(default_factory=Path)
    speedometer: Speedometer = field(default_factory=Speedometer)
    inside: dict[str, float] = field(default_factory=dict)
    """zone -> when it came in"""
    dwell: dict[str, float] = field(default_factory=dict)
    """zone -> seconds of earlier visits"""
    loiters: set[str] = field(default_factory=set)
    sides: dict[str, tuple[int, Point]] = field(default_factory=dict)
    """line -> on which side it was last, and where"""
    picture: Callable[[], str] = str
    """gives the name of its best picture so far, which is then on disk; "" where there is none"""
    told: tuple[object, ...] = ()
    """what was said of it last, in which zones it was then, when and where"""
    told_zones: frozenset[str] = frozenset()
    told_at: float = 0.0
    told_foot: Point = (0.0, 0.0)

    @property
    def seconds(self) -> float:
        """How long it has been seen."""
        return max(0.0, self.seen - self.began)

    def place(
        self, areas: Sequence[Area], states: Sequence[int], foot: Point, size: Size
    ) -> Iterator[tuple[Area, Literal["in", "out"]]]:
        """It stands here now: which zones it is in, and the lines that it went over."""
        for area, state in zip(areas, states, strict=True):
            if area.labels and self.label.casefold() not in area.labels:
                continue
            if not area.zone.line:
                self._stay(area.zone, state)
            elif state:
                side, where = self.sides.get(area.zone.name, (state, foot))
                self.sides[area.zone.name] = state, foot
                if side != state and area.over(where, foot, size):
                    yield area, "in" if state > 0 else "out"

    def _stay(self, zone: Zone, state: int) -> None:
        """Its state in a zone: above 0 it is in it, below it is out, 0 it is at the edge and stays what it was."""
        if state > 0:
            self.inside.setdefault(zone.name, self.seen)
        elif state < 0:
            self.leave(zone.name)
        if self.seen - self.inside.get(zone.name, self.seen) >= zone.limit:
            self.loiters.add(zone.name)

    def leave(self, zone: str) -> None:
        """It is in a zone no more."""
        if zone in self.inside:
            self.dwell[zone] = self.dwell.get(zone, 0.0) + self.seen - self.inside.pop(zone)
            self.loiters.discard(zone)

    def is_due(self, foot: Point) -> bool:
        """Whether something of it has changed, and the last event of it is long enough ago."""
        if self.seen - self.told_at < UPDATE_S:
            return False
        if self._says() != self.told:
            return True
        moved = max(abs(foot[0] - self.told_foot[0]), abs(foot[1] - self.told_foot[1]))
        return self.seen - self.told_at >= MOVED_S and moved > MOVED * (self.box[3] - self.box[1])

    def _says(self) -> tuple[object, ...]:
        """What of it is worth an event when it changes."""
        return self.label, self.still, frozenset(self.inside), frozenset(self.loiters)

    def _dwells(self) -> dict[str, float]:
        """Zone -> seconds in it so far."""
        now = {zone: self.seen - since for zone, since in self.inside.items()}
        return {zone: self.dwell.get(zone, 0.0) + now.get(zone, 0.0) for zone in {**self.dwell, **now}}

    def life(self, phase: Phase, size: Size, why: str = "") -> Life:
        """What is said of it now, which counts as told."""
        zones = frozenset(self.inside)
        life = Life(
            phase=phase,
            object=self.id,
            label=self.label,
            class_id=self.class_id,
            score=self.score,
            box=self.box,
            size=size,
            since=self.since,
            seconds=self.seconds,
            path=tuple(self.path.points),
            zones=tuple(sorted(zones)),
            entered=tuple(sorted(zones - self.told_zones)),
            left=tuple(sorted(self.told_zones - zones)),
            loiters=tuple(sorted(self.loiters)),
            dwell=self._dwells(),
            speed=0.0 if self.still and self.speedometer.speed is not None else self.speedometer.speed,
            stationary=self.still,
            why=why,
            snapshot=self.picture(),
        )
        self.told, self.told_zones, self.told_at = self._says(), zones, self.seen
        self.told_foot = self.path.points[-1] if self.path.points else (0.0, 0.0)
        return life

    def crossing(self, line: str, direction: Literal["in", "out"], size: Size) -> Crossing:
        """It goes over a line."""
        return Crossing(
            line=line,
            direction=direction,
            object=self.id,
            label=self.label,
            score=self.score,
            box=self.box,
            size=size,
            snapshot=self.picture(),
        )

    def kept(self, size: Size, is_open: bool) -> Kept:
        """What a restart has to know of it."""
        head = self.id, self.label, self.class_id, self.score, self.box, size
        return Kept(*head, self.since, self.seconds, tuple(self.inside), self._dwells(), self.still, is_open)
