"""What stands around conditions: all, any, not, for; and by which of them a tree is what it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edge_agent.rules.facts import Cause, Now, Truth, World
from edge_agent.rules.leaves import Leaf


@dataclass(slots=True)
class Group:
    """All of its parts (`all`), or one of them at least."""

    parts: list[Node]
    all: bool
    truth: Truth = False

    def look(self, world: World, now: Now) -> Truth:
        """Each part is asked, whatever the others say: they count time."""
        found = {part.look(world, now) for part in self.parts}
        decides = not self.all
        self.truth = decides if decides in found else None if None in found else self.all
        return self.truth

    def deciding(self) -> list[Node]:
        """The parts by which it is what it is."""
        return [part for part in self.parts if part.truth is self.truth] or self.parts


@dataclass(slots=True)
class Not:
    """The other way round."""

    part: Node
    truth: Truth = True

    def look(self, world: World, now: Now) -> Truth:
        """What cannot be known cannot be known the other way round."""
        truth = self.part.look(world, now)
        self.truth = None if truth is None else not truth
        return self.truth

    def deciding(self) -> list[Node]:
        return [self.part]


@dataclass(slots=True)
class Held:
    """A part that has to have been true for so long without a break; what cannot be known is a break."""

    part: Node
    seconds: float
    since: float | None = None
    """monotonic"""
    maybe: bool = False
    """it had been true for so long when nobody could know any more, or before a restart, and has not been false since:
    so it may still be"""
    truth: Truth = False

    def look(self, world: World, now: Now) -> Truth:
        truth = self.part.look(world, now)
        if truth is None:
            self.maybe |= self.truth is True
        if truth is not True:
            self.since, self.maybe = None, self.maybe and truth is None
        elif self.since is None:
            self.since = now.mono
        if self.since is not None and now.mono < self.since + self.seconds:
            world.wake(self.since + self.seconds)
            truth = None if self.maybe else False
        self.truth = truth
        return truth

    def deciding(self) -> list[Node]:
        return [self.part]


Node: TypeAlias = "Leaf | Group | Not | Held"


def every(node: Node) -> Iterator[Node]:
    """It and all that it is made of."""
    yield node
    for part in node.parts if isinstance(node, Group) else [] if isinstance(node, Leaf) else [node.part]:
        yield from every(part)


def leaves_of(node: Node) -> list[Leaf]:
    """The conditions in it that look at something themselves."""
    return [one for one in every(node) if isinstance(one, Leaf)]


def deciding(node: Node) -> list[Leaf]:
    """The leaves by which it is what it is."""
    if isinstance(node, Leaf):
        return [node]
    return [leaf for part in node.deciding() for leaf in deciding(part)]


def causes_of(node: Node, world: World) -> list[Cause]:
    """The events by which it is what it is, the newest last."""
    return sorted({cause for leaf in deciding(node) for cause in leaf.causes(world)})


def why_of(node: Node, holds: bool) -> str:
    """In words why it holds, or holds no more."""
    told = list(dict.fromkeys(leaf.words for leaf in deciding(node)))
    return _listed(told) if holds else f"no longer: {_listed(told)}"


def _listed(told: Sequence[str], most: int = 200) -> str:
    text = ", ".join(told)
    return text if len(text) <= most else text[: most - 1] + "…"
