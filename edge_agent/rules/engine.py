"""The rules at work: events and times go in, what comes on or goes off comes out.

Nothing here reads a clock, a file or a thread's mind: whoever calls says what time it is. A rule is asked when it heard
something, and when something about it changes by itself (`due`).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from edge_agent.config.rules import Rule
from edge_agent.config.times import seconds
from edge_agent.events import Event, ObjectEvent, kind_of
from edge_agent.events.objects import STOPPED
from edge_agent.rules.facts import AGENT, Cause, Change, Now, Pipes, World
from edge_agent.rules.leaves import GRACE_S, Leaf, Other, Things
from edge_agent.rules.made import node_of
from edge_agent.rules.nodes import Held, Node, causes_of, every, leaves_of, why_of

LEAST_COOLDOWN_S = 1.0
"""so that a storm of events makes two events of a rule a second at most"""
MOST_CAUSES = 20
"""events that one of a rule names: the newest"""


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


@dataclass(slots=True)
class Running:
    """One rule at work."""

    rule: Rule
    node: Node
    key: str
    pipes: tuple[object, ...]
    """what it was made of beside the config"""
    leaves: list[Leaf] = field(default_factory=list)
    on: bool = False
    since: float = 0.0
    ready: float = -math.inf
    """monotonic: before this it does not come on again"""
    due: float = -math.inf
    """monotonic: when it is to be asked, heard of or not"""
    restored: bool = False
    """it was on before a restart, and has not been seen to hold since"""
    hold: float | None = None
    """monotonic: until then a restored one stays on"""

    @property
    def name(self) -> str:
        """As in the config."""
        return self.rule.name

    def waits_for(self) -> set[str]:
        """Rules that it looks at."""
        return {leaf.name for leaf in self.leaves if isinstance(leaf, Other)}

    def step(self, world: World, now: Now, allowed: bool) -> Change | None:
        """Ask it. `allowed`: the active profile lets it be on."""
        world.due = math.inf
        truth = self.node.look(world, now)
        change = None
        if not allowed:
            change = self.off(world, "not in this profile") if self.on else None
        elif truth is True:
            self.restored = False
            change = self._try(world, now)
        elif truth is False and self.on and not self._waits(world, now):
            change = self.off(world, why_of(self.node, False))
        self.due = world.due
        return change

    def _try(self, world: World, now: Now) -> Change | None:
        """It holds: it comes on, if it is not."""
        if self.on:
            return None
        if now.mono < self.ready:
            world.wake(self.ready)
            return None
        self.on, self.since, self.hold = True, now.wall, None
        self.ready = now.mono + max(LEAST_COOLDOWN_S, seconds(self.rule.cooldown))
        return self._change(world, "on", why_of(self.node, True))

    def _waits(self, world: World, now: Now) -> bool:
        """It was on before a restart, and what made it so may be found again."""
        if not self.restored or any(leaf.moment for leaf in self.leaves):
            return False
        if self.hold is None:
            self.hold = now.mono + GRACE_S
        world.wake(self.hold)
        return now.mono < self.hold

    def off(self, world: World, why: str) -> Change:
        """It goes off."""
        self.on = self.restored = False
        return self._change(world, "off", why)

    def _change(self, world: World, phase: str, why: str) -> Change:
        causes = causes_of(self.node, world)
        if self.on:
            world.on[self.name] = causes
        else:
            world.on.pop(self.name, None)
        of = {cause.pipeline for cause in causes}
        ids = tuple(cause.id for cause in causes if cause.id)[-MOST_CAUSES:]
        pipeline = of.pop() if len(of) == 1 else AGENT
        return Change(self.name, "on" if phase == "on" else "off", pipeline, ids, why, self.since)


def key_of(rule: Rule) -> str:
    """The same as long as the config says the same of it."""
    return hashlib.sha256(msgspec.json.encode(rule)).hexdigest()[:16]


def running(rule: Rule, pipes: Pipes) -> Running:
    """A rule that the config's checks let pass, ready to hear."""
    node = node_of(rule.condition(), pipes)
    leaves = leaves_of(node)
    of = tuple(pipes[name] for name in sorted({name for leaf in leaves for name in leaf.pipelines}))
    return Running(rule, node, key_of(rule), of, leaves)


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
        self._order = 0
        self._there: dict[tuple[str, str], tuple[ObjectEvent, Cause]] = {}
        """pipeline and id of the objects that are there, and the last that was heard of each"""
        self._hears: dict[tuple[str, str], list[tuple[Leaf, Running]]] = {}
        """kind of event, pipeline -> who hears of it"""
        self.turn_to(rules, pipes)

    def turn_to(self, rules: Iterable[Rule], pipes: Pipes) -> list[Change]:
        """Other rules: those that are the same, on the same pipelines, go on as they are; the others begin, or end."""
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

    def _show(self, fresh: Running) -> None:
        """Tell it what is there already."""
        for event, cause in self._there.values():
            for leaf in fresh.leaves:
                if isinstance(leaf, Things) and (kind_of(event), event.pipeline) in leaf.hears:
                    leaf.hear(event, cause, Now(0.0, 0.0), True)

    # ── what goes in ─────────────────────────────────────────────────────────────────────────────────────

    def wants(self, event: Event) -> bool:
        """Whether an event says anything to any rule. From any thread."""
        return (kind_of(event), event.pipeline) in self._hears

    def take(self, event: Event, now: Now) -> list[Change]:
        """Hear an event."""
        if self.stopping and isinstance(event, ObjectEvent) and event.why == STOPPED:
            return []
        self._order += 1
        cause = Cause(self._order, event.pipeline, event.id)
        known = self._see(event, cause)
        hearing = self._hears.get((kind_of(event), event.pipeline), ())
        return self._ask({one.name for leaf, one in hearing if leaf.hear(event, cause, now, known)}, now)

    def _see(self, event: Event, cause: Cause) -> bool:
        """Whether its object was there before."""
        if not isinstance(event, ObjectEvent):
            return False
        known = self._there.pop((event.pipeline, event.object), None) is not None
        if event.phase != "end":
            self._there[event.pipeline, event.object] = event, cause
        return known

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
                _restore(one, before.since)
                self.world.on[one.name] = ()
        for name, before in kept.items():
            if before.on and name not in self.world.on:
                gone.append(Change(name, "off", AGENT, (), "the config has changed", before.since))
        return gone


def _left(wall: float, most: float, now: Now) -> float:
    """Monotonic time of what was to be at a time of the wall clock, at most so many seconds from now."""
    return now.mono + min(most, max(0.0, wall - now.wall))


def _restore(one: Running, since: float) -> None:
    one.on = one.restored = True
    one.since = since
    for node in every(one.node):
        if isinstance(node, Held):
            node.primed = True


def _ordered(rules: Sequence[Running]) -> list[Running]:
    """Those that look at others behind these; there is no circle."""
    left, done = {one.name: one for one in rules}, list[Running]()
    while left:
        free = [one for one in left.values() if not one.waits_for() & left.keys()]
        done += free
        for one in free:
            del left[one.name]
    return done
