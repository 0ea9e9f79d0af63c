"""One rule at work: when it comes on, how long it stays so, and what it says."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import msgspec

from edge_agent.config.rules import Rule
from edge_agent.config.times import seconds
from edge_agent.rules.facts import AGENT, Change, Now, Pipes, World
from edge_agent.rules.leaves import GRACE_S, Leaf, Other
from edge_agent.rules.made import node_of
from edge_agent.rules.nodes import Held, Node, causes_of, every, leaves_of, why_of

LEAST_COOLDOWN_S = 1.0
"""so that a storm of events makes two events of a rule a second at most"""
MOST_CAUSES = 20
"""events that one of a rule names: the newest"""


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
        if self.hold is None and all(leaf.truth is not None for leaf in self.leaves):
            self.hold = now.mono + GRACE_S  # what stood there before a start can be found from now on
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
        if now.mono < self.hold:
            world.wake(self.hold)
        return now.mono < self.hold

    def restore(self, since: float) -> None:
        """It was on before a restart, from then on (seconds since 1970)."""
        self.on = self.restored = True
        self.since = since
        for node in every(self.node):
            if isinstance(node, Held):
                node.maybe = True

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
