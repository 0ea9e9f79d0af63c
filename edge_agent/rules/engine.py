"""The rules at work: events and times go in, what comes on or goes off comes out.

Nothing here reads a clock, a file or a thread's mind: the caller says what time it is. A rule is asked when it heard
something, and when something about it changes by itself (`due`).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from edge_agent.config.rules import Rule
from edge_agent.config.times import seconds
from edge_agent.events import AnomalyEvent, DetectionsEvent, Event, ObjectEvent, ScoresEvent, kind_of
from edge_agent.events.objects import STOPPED
from edge_agent.rules.facts import AGENT, Cause, Change, Now, Pipes, World
from edge_agent.rules.leaves import Leaf
from edge_agent.rules.running import LEAST_COOLDOWN_S, Running, running

LASTING = (AnomalyEvent, DetectionsEvent, ScoresEvent)
"""kinds of events that may hold until the next one"""


class KeptRule(msgspec.Struct, frozen=True):
    """What a restart has to know of a rule."""

    key: str
    """of what the config says of it"""
    on: bool
    since: float
    """when it came on last, seconds since 1970 UTC"""
    ready: float
    """before which it does not come on again, seconds since 1970 UTC"""
    until: list[float] = []
    """of each of its conditions: until when it counts after it held, seconds since 1970 UTC"""


class Engine:
    """All rules of a config. Of one thread."""

    def __init__(
        self, rules: Iterable[Rule], pipes: Pipes, local: Callable[[float], time.struct_time] = time.localtime
    ) -> None:
        """`local`: seconds since 1970 -> time of day where the device stands."""
        self.world = World(local)
        self.allowed: frozenset[str] | None = None
        """rules that may be on; None: all"""
        self.stopping = False
        """the agent stops: what its pipelines end now has not gone away"""
        self.rules: list[Running] = []
        """those that look at others behind these"""
        self._orders = itertools.count(1)
        self._there: dict[tuple[str, str], tuple[Event, Cause]] = {}
        """pipeline and id of the objects that are there, and the last that was said of each; kind and pipeline of other
        events that may hold until the next one, and the last one"""
        self._hears: dict[tuple[str, str], list[tuple[Leaf, Running]]] = {}
        """kind of event, pipeline -> the rules that hear of it"""
        self.turn_to(rules, pipes)

    def turn_to(self, rules: Iterable[Rule], pipes: Pipes, anew: Collection[str] = ()) -> list[Change]:
        """Other rules: those that are the same, on the same pipelines, go on as they are; the others begin, or end.

        `anew`: pipelines that end, or are opened anew: of what these said only things in view still count.
        """
        self._forget(anew)
        old, made = {one.name: one for one in self.rules}, list[Running]()
        for rule in rules:
            fresh, before = running(rule, pipes), old.get(rule.name)
            if before is not None and (before.key, before.pipes) == (fresh.key, fresh.pipes):
                made.append(old.pop(rule.name))
            else:
                self._show(fresh)
                made.append(fresh)
        self.rules, hears = _ordered(made), dict[tuple[str, str], list[tuple[Leaf, Running]]]()
        for one in self.rules:
            one.due = -math.inf
            for leaf in one.leaves:
                for where in leaf.hears:
                    hears.setdefault(where, []).append((leaf, one))
        self._hears = hears
        return [one.off(self.world, "the config has changed") for one in old.values() if one.on]

    def _forget(self, anew: Collection[str]) -> None:
        for key, (event, _) in list(self._there.items()):
            if event.pipeline in anew and not isinstance(event, ObjectEvent):
                del self._there[key]

    def _show(self, fresh: Running) -> None:
        """Tell it what is there already."""
        for event, cause in list(self._there.values()):
            for leaf in fresh.leaves:
                if (kind_of(event), event.pipeline) in leaf.hears:
                    leaf.show(event, cause)

    # ── what goes in ─────────────────────────────────────────────────────────────────────────────────────

    def wants(self, event: Event) -> bool:
        """Whether an event says anything to any rule. From any thread."""
        return (kind_of(event), event.pipeline) in self._hears

    def see(self, event: Event) -> tuple[Cause, bool]:
        """Note an event that is kept, also for rules that begin later; whether its object was there before. From any
        thread.
        """
        cause = Cause(next(self._orders), event.pipeline, event.id)
        if isinstance(event, ObjectEvent):
            known = self._there.pop((event.pipeline, event.object), None) is not None
            if event.phase != "end":
                self._there[event.pipeline, event.object] = event, cause
            return cause, known
        if isinstance(event, LASTING):
            self._there[kind_of(event), event.pipeline] = event, cause
        return cause, False

    def take(self, event: Event, now: Now) -> list[Change]:
        """See an event, and hear it."""
        return self.hear(event, *self.see(event), now)

    def hear(self, event: Event, cause: Cause, known: bool, now: Now) -> list[Change]:
        """Have the rules hear an event that was seen."""
        if self.stopping and isinstance(event, ObjectEvent) and event.why == STOPPED:
            return []
        hearing = self._hears.get((kind_of(event), event.pipeline), ())
        return self._ask({one.name for leaf, one in hearing if leaf.hear(event, cause, now, known)}, now)

    def stream(self, pipeline: str, condition: str, now: Now) -> list[Change]:
        """A pipeline's source is in this condition from now on."""
        if self.world.streams.get(pipeline) == condition:
            return []
        self.world.streams[pipeline] = condition
        return self._ask(
            {one.name for one in self.rules if any(pipeline in leaf.pipelines for leaf in one.leaves)}, now
        )

    def switch(self, allowed: frozenset[str] | None, now: Now) -> list[Change]:
        """Only these rules may be on from now on; None: all."""
        self.allowed = allowed
        return self._ask({one.name for one in self.rules}, now)

    def tick(self, now: Now) -> list[Change]:
        """Ask those of which something changes by itself."""
        return self._ask(set(), now)

    @property
    def due(self) -> float:
        """Monotonic time of the next `tick`; endless where nothing changes by itself."""
        return min((one.due for one in self.rules), default=math.inf)

    def _ask(self, names: set[str], now: Now) -> list[Change]:
        changes = []
        for one in self.rules:
            if one.name not in names and now.mono < one.due:
                continue
            allowed = self.allowed is None or one.name in self.allowed
            if change := one.step(self.world, now, allowed):
                changes.append(change)
                names |= {other.name for other in self.rules if one.name in other.waits_for()}
        return changes

    # ── what a restart has to know ───────────────────────────────────────────────────────────────────────

    def kept(self, now: Now) -> dict[str, KeptRule]:
        """Those that are on, or not to come on again soon."""
        kept = {}
        for one in self.rules:
            times = [one.ready, *(leaf.until for leaf in one.leaves)]
            ready, *until = [now.wall + time - now.mono if time > now.mono else 0.0 for time in times]
            if one.on or ready or any(until):
                kept[one.name] = KeptRule(one.key, one.on, one.since, ready, until)
        return kept

    def restore(self, kept: dict[str, KeptRule], now: Now) -> list[Change]:
        """What was on goes on without being said again; of what is another one, or none any more, the end is said."""
        gone = []
        for one in self.rules:
            before = kept.get(one.name)
            if before is None or before.key != one.key:
                continue
            one.ready = _left(before.ready, max(LEAST_COOLDOWN_S, seconds(one.rule.cooldown)), now)
            for leaf, until in zip(one.leaves, before.until, strict=False):
                leaf.until = _left(until, leaf.within, now)
            if before.on:
                one.restore(before.since)
                self.world.on[one.name] = ()
        for name, before in kept.items():
            if before.on and name not in self.world.on:
                gone.append(Change(name, "off", AGENT, (), "the config has changed", before.since))
        return gone


def _left(wall: float, most: float, now: Now) -> float:
    """Monotonic time of what was to be at a time of the wall clock, at most so many seconds from now."""
    return now.mono + min(most, max(0.0, wall - now.wall))


def _ordered(rules: Sequence[Running]) -> list[Running]:
    """Those that look at others behind these; there is no circle."""
    left, done = {one.name: one for one in rules}, list[Running]()
    while left:
        free = [one for one in left.values() if not one.waits_for() & left.keys()]
        done += free
        for one in free:
            del left[one.name]
    return done
