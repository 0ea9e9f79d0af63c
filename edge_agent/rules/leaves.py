"""The conditions that look at something themselves: things in view, words, labels, streams, other rules, the clock.

Each hears the events that it is about, and says whether it holds: true, false, or None where that cannot be known, as
of a camera that gives no pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edge_agent.config.times import Window
from edge_agent.events import KNOWN_TIME, AnomalyEvent, CrossingEvent, DetectionsEvent, Event, ObjectEvent, ScoresEvent
from edge_agent.events.objects import STOPPED
from edge_agent.rules.facts import Cause, Now, Truth, World

MOMENT_S = 1.0
"""seconds for which what happens in a moment counts, at least"""
UNKNOWN = "unknown"
"""label of what none of the others fits"""
GRACE_S = 75.0
"""seconds for which what stood there before a start still counts: it may be found again for a minute"""


@dataclass(slots=True, kw_only=True)
class Leaf:
    """One condition. `truth` is what it said last."""

    pipelines: frozenset[str] = frozenset()
    hears: frozenset[tuple[str, str]] = frozenset()
    """kinds of events, and of which of the pipelines"""
    within: float = 0.0
    """seconds for which it still counts after it held"""
    words: str = ""
    """what it waits for, for people"""
    until: float = -math.inf
    """monotonic: until then it counts, as it held before"""
    was: Truth = False
    truth: Truth = False
    last: Cause | None = None
    """what changed it last"""

    @property
    def moment(self) -> bool:
        """Whether it happens, and does not last."""
        return False

    def hear(self, event: Event, cause: Cause, now: Now, known: bool) -> bool:
        """Take an event; whether it changes anything. `known`: its object was heard of before."""
        return False

    def show(self, event: Event, cause: Cause) -> None:
        """It begins after that event, which may still hold."""

    def holds(self, world: World, now: Now) -> Truth:
        """Whether it holds now, whatever was before."""
        return False

    def look(self, world: World, now: Now) -> Truth:
        """Whether it holds, or did so within `within`."""
        truth = self.holds(world, now)
        if self.was is True and truth is not True:
            self.until = max(self.until, now.mono + self.within)
        self.was = truth
        if truth is not True and now.mono < self.until:
            world.wake(self.until)
            truth = True
        self.truth = truth
        return truth

    def hit(self, cause: Cause, now: Now) -> bool:
        """It has just happened."""
        self.until, self.last = now.mono + self.within, cause
        return True

    def causes(self, world: World) -> Iterable[Cause]:
        """What made it so."""
        return [self.last] if self.last is not None else [Cause(0, name, "") for name in sorted(self.pipelines)]


@dataclass(slots=True, kw_only=True)
class Things(Leaf):
    """How many things there are: with a label, in a zone."""

    wanted: Callable[[str], bool]
    """whether a label counts"""
    zone: str = ""
    loiters: bool = False
    least: int = 1
    most: float = math.inf
    here: dict[str, dict[str, Cause]] = field(default_factory=dict)
    """pipeline -> object -> what says that it is there"""
    left: dict[tuple[str, str], float] = field(default_factory=dict)
    """what stood when its source stopped, and may be found again: until when, monotonic"""

    def hear(self, event: Event, cause: Cause, now: Now, known: bool) -> bool:
        here = self.here.setdefault(event.pipeline, {})
        before = len(here)
        if isinstance(event, DetectionsEvent):
            boxes = sum(self.wanted(box.label) for box in event.detections)
            if boxes != before:
                self.here[event.pipeline] = {str(number): cause for number in range(boxes)}
        elif isinstance(event, ObjectEvent):
            self._hear_of(event, here, cause, now)
        if changed := len(self.here[event.pipeline]) != before:
            self.last = cause
        # what may be found again counts until then
        return changed or bool(self.left)

    def show(self, event: Event, cause: Cause) -> None:
        self.hear(event, cause, Now(0.0, 0.0), True)

    def _hear_of(self, event: ObjectEvent, here: dict[str, Cause], cause: Cause, now: Now) -> None:
        """Count one object, or do not count it any more."""
        key = event.pipeline, event.object
        self.left.pop(key, None)
        if event.phase == "end" and event.stationary and event.why == STOPPED:
            if event.object in here:
                self.left[key] = now.mono + GRACE_S
            return
        in_ = not self.zone or self.zone in (event.loiters if self.loiters else event.zones)
        if in_ and event.phase != "end" and self.wanted(event.label):
            here.setdefault(event.object, cause)
        else:
            here.pop(event.object, None)

    def holds(self, world: World, now: Now) -> Truth:
        self._forget(world, now)
        count = sum(len(self.here.get(name, ())) for name in self.pipelines if world.known(name))
        if count > self.most:
            return False
        if count < self.least:
            return False if all(map(world.known, self.pipelines)) else None
        # that no more are there is known only of those that look
        looking = self.most == math.inf or all(world.streams.get(name) == "ok" for name in self.pipelines)
        return True if looking else None

    def _forget(self, world: World, now: Now) -> None:
        """What stood when its source stopped, and was not found again."""
        for key in [key for key, until in self.left.items() if until <= now.mono]:
            del self.left[key]
            self.here[key[0]].pop(key[1], None)
        for until in self.left.values():
            world.wake(until)

    def causes(self, world: World) -> Iterable[Cause]:
        now = [cause for things in self.here.values() for cause in things.values()]
        return now or Leaf.causes(self, world)


@dataclass(slots=True, kw_only=True)
class Moves(Leaf):
    """A thing comes into a zone, goes out of one, or goes over a line."""

    wanted: Callable[[str], bool]
    how: str
    """enters, leaves or crosses"""
    zone: str
    direction: str | None = None

    @property
    def moment(self) -> bool:
        return True

    def hear(self, event: Event, cause: Cause, now: Now, known: bool) -> bool:
        return self._is(event, known) and self.wanted(event.label) and self.hit(cause, now)  # type: ignore[attr-defined]

    def _is(self, event: Event, known: bool) -> bool:
        if isinstance(event, CrossingEvent):
            return event.line == self.zone and self.direction in (None, event.direction)
        assert isinstance(event, ObjectEvent)
        if self.how == "leaves":
            # an end for another reason is no going away
            return self.zone in event.left and not event.why
        # what stood there before a start, and is found again, has not come in
        return self.zone in event.entered and (known or event.phase == "new")


@dataclass(slots=True, kw_only=True)
class Found(Leaf):
    """What was found last is so: of pictures until the next one, of texts for a moment."""

    so: Callable[[Event], Truth]
    """what an event says; None: that nobody knows"""
    always: bool = False
    """it lasts, of whatever pipeline it is"""
    lasting: frozenset[str] = frozenset()
    """of the pipelines, those of which it lasts"""
    found: dict[str, tuple[Truth, Cause]] = field(default_factory=dict)

    @property
    def moment(self) -> bool:
        return self.lasting != self.pipelines

    def hear(self, event: Event, cause: Cause, now: Now, known: bool) -> bool:
        so = self.so(event)
        if event.pipeline not in self.lasting:
            return so is True and self.hit(cause, now)
        if event.pipeline in self.found and self.found[event.pipeline][0] is so:
            return False
        self.found[event.pipeline] = so, cause
        self.last = cause
        return True

    def show(self, event: Event, cause: Cause) -> None:
        if event.pipeline in self.lasting:
            self.hear(event, cause, Now(0.0, 0.0), True)

    def holds(self, world: World, now: Now) -> Truth:
        found = [self.found[name][0] if name in self.found and world.known(name) else None for name in self.lasting]
        return True if True in found else None if None in found else False

    def causes(self, world: World) -> Iterable[Cause]:
        return [cause for so, cause in self.found.values() if so] or Leaf.causes(self, world)


@dataclass(slots=True, kw_only=True)
class Streams(Leaf):
    """A pipeline's source is in one of these conditions."""

    conditions: frozenset[str]

    def holds(self, world: World, now: Now) -> Truth:
        return any(world.streams.get(name) in self.conditions for name in self.pipelines)


@dataclass(slots=True, kw_only=True)
class Other(Leaf):
    """Another rule is on."""

    name: str

    def holds(self, world: World, now: Now) -> Truth:
        return self.name in world.on

    def causes(self, world: World) -> Iterable[Cause]:
        return world.on.get(self.name, ())


@dataclass(slots=True, kw_only=True)
class Clock(Leaf):
    """It is this part of the week."""

    window: Window

    def holds(self, world: World, now: Now) -> Truth:
        # zones differ by whole minutes, also when they change
        world.wake(now.mono + 60 - now.wall % 60)
        if now.wall < KNOWN_TIME:
            return None
        at = world.local(now.wall)
        return self.window.holds(at.tm_wday, at.tm_hour * 60 + at.tm_min)

    def causes(self, world: World) -> Iterable[Cause]:
        return ()


def unusual(event: Event) -> Truth:
    """Whether an anomaly is one."""
    return event.unusual if isinstance(event, AnomalyEvent) else None


def labelled(wanted: Callable[[str], bool], score: float) -> Callable[[Event], Truth]:
    """Whether an event has one of the labels."""

    def so(event: Event) -> Truth:
        if isinstance(event, ScoresEvent):
            named = wanted(event.label)
            return None if event.label == UNKNOWN and not named else named and event.score >= score
        spans = getattr(event, "spans", ())
        return any(wanted(span.label) and span.score >= score for span in spans)

    return so
