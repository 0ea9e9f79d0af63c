"""From tracked boxes to the lives of things: what is new, changes, crosses a line, stays too long, and is gone.

It is the report of a pipeline that tracks. All times are those of the frames' own clock.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.config.zones import Zone
from edge_agent.events.objects import STOPPED, Life, Phase, Tracked, clock_of
from edge_agent.types import Finding, Frame
from edge_agent.walk import objects_file
from edge_agent.walk.event import SampleOrFinding
from edge_agent.walk.ground import ground_of
from edge_agent.walk.objects_file import Kept
from edge_agent.walk.thing import Thing
from edge_agent.walk.zones import Area, feet_of

COUNTED_S = 1.0
"""seconds after its last box in which an object that does not stand counts as in view"""
RETURN_S = 60.0
"""seconds after a start in which what stood before it may be found again; afterwards it is gone"""
PLACE = 0.6
"""overlap from which on a thing stands where another one stood, so that it is that one"""
KEEP_S = 1.0
"""seconds at least between two writes of what a restart has to know, where nothing is new"""
KNOWN, KNOWN_S = 200, 3600.0
"""things that stood for RETURN_S and more and were lost which are remembered, and for how many seconds"""

log = logging.getLogger("edge_agent")


class Follow:
    """Of one pipeline, on its thread; `counts` may be read by others."""

    def __init__(self, name: str, zones: Sequence[Zone], file: Path | None) -> None:
        """`file`: where what a restart has to know is kept; None: nowhere."""
        self.name, self._file = name, file
        self.areas = [Area(zone) for zone in zones if not zone.mask]
        self._ground = ground_of(zones)
        self.run = secrets.token_hex(4)
        """what the ids of this run begin with: those of earlier ones are all over but for what stands"""
        self.picture: Callable[[int], str] = lambda number: ""
        """tracker's number of an object -> the name of its best picture so far; set before the first frame"""
        self._things: dict[int, Thing] = {}
        memory = objects_file.read(file)
        left, self._size = memory.objects, memory.size
        self._made = 0
        self._known = [(one, math.inf) for one in left if one.still]
        """what stood and is lost, and until when (the frames' clock) it may be found again where it was"""
        self._gone = [one for one in left if not one.still and one.open]
        self._written, self._write_at = {""}, 0.0
        self._last: Finding | None = None
        self._crossed: dict[str, dict[str, Counter[str]]] = {
            area.zone.name: {"in": Counter(), "out": Counter()} for area in self.areas if area.zone.line
        }
        self.counts: dict[str, Any] = {}
        self._count(0.0)

    def __call__(self, found: Iterable[SampleOrFinding] | None) -> Iterator[SampleOrFinding]:
        """What is to be said after one frame; None: no more come."""
        if found is None:
            yield from self._end()
            return
        for item in found:
            if isinstance(item, Finding) and isinstance(item.what, Tracked):
                yield from self._frame(item, item.what)

    def takes(self, item: SampleOrFinding) -> bool:
        """Whether it is about tracked objects."""
        return isinstance(item, Finding) and isinstance(item.what, Tracked)

    def named(self, item: SampleOrFinding) -> SampleOrFinding:
        """The same, its boxes with the ids of their objects."""
        if not isinstance(item, Finding) or not isinstance(item.what, Tracked):
            return item
        ids = tuple(self._things[number].id for number in item.what.object.tolist())
        return msgspec.structs.replace(item, what=msgspec.structs.replace(item.what, ids=ids))

    def _frame(self, item: Finding, what: Tracked) -> Iterator[Finding]:
        frame = item.of
        assert isinstance(frame, Frame)
        clock, size = clock_of(frame), (frame.width, frame.height)
        self._see_size(size)
        self._last = msgspec.structs.replace(item, of=_blank(frame), spent_ms={})
        for life in self._left_over(clock, what.alive.tolist(), size):
            yield msgspec.structs.replace(item, what=life)
        boxes = what.xyxy.astype(np.float64)
        feet, states = feet_of(boxes, size).tolist(), [area.states(boxes, size) for area in self.areas]
        for at, number in enumerate(what.object.tolist()):
            thing, phase = self._thing(number, at, what, frame)
            foot = (feet[at][0], feet[at][1])
            thing.path.to(foot, float(boxes[at, 3] - boxes[at, 1]))
            thing.speedometer.to(clock, self._ground(foot, size))
            for area, way in thing.place(self.areas, [state[at] for state in states], foot, size):
                self._crossed[area.zone.name][way][thing.label] += 1
                yield msgspec.structs.replace(item, what=thing.crossing(area.zone.name, way, size))
            if not thing.told or thing.is_due(foot):
                yield msgspec.structs.replace(item, what=thing.life(phase, size))
        self._count(clock)
        self._keep(size)

    def _thing(self, number: int, at: int, what: Tracked, frame: Frame) -> tuple[Thing, Phase]:
        """The thing that a box is of, as it is now: known; or just believed, and new or what stood there before."""
        key, clock, (left, top, right, bottom) = int(what.label[at]), clock_of(frame), what.xyxy[at].tolist()
        label, box = what.names.get(key, str(key)), (left, top, right, bottom)
        phase: Phase = "update"
        thing = self._things.get(number)
        if thing is None:
            size = (frame.width, frame.height)
            found = next((row for row in self._known if row[0].label == label and _same_place(row[0], box, size)), None)
            if found is not None:
                self._known.remove(found)
                old, _ = found
                began = clock - max(0.0, frame.at - old.since)
                thing = Thing(old.id, label, key, old.since, began, clock, dwell=dict(old.dwell))
            else:
                self._made += 1
                thing, phase = Thing(f"{self.run}-{self._made}", label, key, frame.at, clock, clock), "new"
            self._things[number] = thing
            thing.picture = partial(self.picture, number)
        thing.label, thing.class_id, thing.box, thing.seen = label, key, box, clock
        thing.score, thing.still = float(what.score[at]), bool(what.still[at])
        return thing, phase

    # ── what is gone ─────────────────────────────────────────────────────────────────────────────────────

    def _left_over(self, clock: float, alive: Sequence[int], size: tuple[int, int]) -> Iterator[Life]:
        """Ends of what is no more: objects that the tracker has given up, and what an earlier run left."""
        for one in self._never_ended(clock):
            yield _ended(one, "the agent was stopped before it could tell")
        for number in self._things.keys() - set(alive):
            thing = self._things.pop(number)
            if thing.still and thing.seconds >= RETURN_S:
                self._known.append((thing.kept(size, False), clock + KNOWN_S))
            yield self._finish(thing, size)

    def _never_ended(self, clock: float) -> list[Kept]:
        """What an earlier run left and was not found again, to be ended now; what is too old is forgotten."""
        gone, self._gone = self._gone, []
        # those of an earlier run have their time from the first frame on
        self._known = [(one, clock + RETURN_S if until == math.inf else until) for one, until in self._known]
        gone += [one for one, until in self._known if clock > until and one.open]
        self._known = [(one, until) for one, until in self._known if clock <= until][-KNOWN:]
        return gone

    def _finish(self, thing: Thing, size: tuple[int, int], why: str = "") -> Life:
        """Its end: it leaves what it was in when it was last seen."""
        for zone in list(thing.inside):
            thing.leave(zone)
        return thing.life("end", size, why)

    def _end(self) -> Iterator[Finding]:
        """No more frames: what is in view is ended; what stands may be found again by the next run."""
        if self._last is None:
            return
        size = self._size or (0, 0)
        for thing in list(self._things.values()):
            self._known += [(thing.kept(size, False), 0.0)] if thing.still else []
            yield msgspec.structs.replace(self._last, what=self._finish(thing, size, STOPPED))
        self._things.clear()
        self._count(0.0)
        self._write()

    # ── what others see ──────────────────────────────────────────────────────────────────────────────────

    def _count(self, clock: float) -> None:
        """How many of each label there are, in all and in each zone, and how many went over each line."""
        here = self._in_view(clock)
        zones = [area.zone.name for area in self.areas if not area.zone.line]
        self.counts = {
            "v": 1,
            "run": self.run,
            "all": dict(Counter(thing.label for thing in here)),
            "zones": {zone: dict(Counter(thing.label for thing in here if zone in thing.inside)) for zone in zones},
            "lines": {line: {way: dict(n) for way, n in ways.items()} for line, ways in self._crossed.items()},
        }

    def _in_view(self, clock: float) -> list[Thing]:
        """What stands, or was seen just now."""
        return [thing for thing in self._things.values() if thing.still or clock - thing.seen <= COUNTED_S]

    def _see_size(self, size: tuple[int, int]) -> None:
        """Say once where the picture has another shape than the zones were used with."""
        before, self._size = self._size, size
        if before is not None and before != size and self.areas:
            was = f"{before[0]}x{before[1]}"
            names = ", ".join(area.zone.name for area in self.areas)
            fits = abs(before[0] * size[1] - before[1] * size[0]) < 0.02 * before[0] * size[1]
            mend = "they are scaled with it" if fits else "its shape is another; draw them anew"
            log.warning("%s: the camera gives %dx%d, not %s; zones %s: %s", self.name, *size, was, names, mend)

    # ── what a restart has to know ───────────────────────────────────────────────────────────────────────

    def _keep(self, size: tuple[int, int]) -> None:
        """Write what has begun, ended or come to rest, from time to time."""
        now = time.monotonic()
        names = {f"{thing.id}{thing.still}" for thing in self._things.values()} | {one.id for one, _ in self._known}
        # what is new is written at once: its end has to be told, whatever happens
        if names != self._written and (now >= self._write_at or not names <= self._written):
            self._written, self._write_at = names, now + KEEP_S
            self._write([thing.kept(size, True) for thing in self._things.values()])

    def _write(self, more: Sequence[Kept] = ()) -> None:
        if self._file is not None:
            objects_file.write(self._file, self._size, [*more, *(one for one, _ in self._known)])


def _blank(frame: Frame) -> Frame:
    """A frame without its picture, which is said to have been found in it once it is gone."""
    return Frame(np.zeros((1, 1, 3), np.uint8), frame.at, frame.mono, frame.name)


def _ended(one: Kept, why: str) -> Life:
    """The end of an object that an earlier run left."""
    return Life(
        phase="end",
        object=one.id,
        label=one.label,
        class_id=one.class_id,
        score=one.score,
        box=one.box,
        size=one.size,
        since=one.since,
        seconds=one.seconds,
        left=one.zones,
        dwell=one.dwell,
        stationary=one.still,
        why=why,
    )


def _same_place(one: Kept, box: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether a box lies where a thing stood, of a picture of any size."""
    old = [value * size[at % 2] / max(1, one.size[at % 2]) for at, value in enumerate(one.box)]
    wide, high = (min(old[at + 2], box[at + 2]) - max(old[at], box[at]) for at in (0, 1))
    both = max(0.0, wide) * max(0.0, high)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (old, box))
    return both >= PLACE * max(1e-9, areas - both)
