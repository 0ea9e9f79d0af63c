"""``[[rule]]`` and ``[[profile]]``: what has to come together for an alert, and when it counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import msgspec

from edge_agent.config.times import Between, Days, Duration
from edge_agent.toml import Name
from edge_agent.types import StreamCondition

MOST_RULES, MOST_CONDITIONS, DEEPEST, MOST_PROFILES = 200, 50, 8, 50
"""rules of a config, conditions of a rule, and how deep these may stand within each other; profiles"""
ANY = "any"
"""stands for every label of an object"""
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Words = _Word | list[_Word]
"""one of them, or any of several"""
Count = Annotated[int, msgspec.Meta(ge=0, le=1000)]


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of a rule. It has one subject; of what happens and does not last it is true for `within`."""

    # subjects
    object: Words | None = None
    """label of a thing in view, or "any"; with a place behind it"""
    no: Words | None = None
    """as `object` with below = 1"""
    text: Words | None = None
    """words that stand one behind the other in any text"""
    heard: Words | None = None
    """the same, of a text that was spoken"""
    read: Words | None = None
    """the same, of a text in a picture"""
    label: Words | None = None
    """of a text, a picture, a taught state, or a piece of a text"""
    anomaly: bool | None = None
    """what came last is unusual"""
    stream: StreamCondition | list[StreamCondition] | None = None
    """condition of a pipeline's source"""
    rule: Name | None = None
    """another rule is on"""
    all: list[Condition] | None = None
    any: list[Condition] | None = None
    not_: Condition | None = msgspec.field(default=None, name="not")

    # where an object is, and how many of them
    in_: Name | None = msgspec.field(default=None, name="in")
    """zone that it is in"""
    enters: Name | None = None
    leaves: Name | None = None
    """zone that it comes into, or goes out of, at that moment"""
    loiters: Name | None = None
    """zone in which it has been for longer than that zone's `stays`"""
    crosses: Name | None = None
    """line that it goes over, at that moment"""
    direction: Literal["in", "out"] | None = None
    above: Count | None = None
    """more than so many of them"""
    below: Count | None = None
    """fewer than so many of them"""

    # what else has to be so
    score: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """of a label or of a text that was heard or read, at least"""
    pipeline: Name | None = None
    """that it is of; absent: each that gives such a thing"""
    between: Between | None = None
    """time of day, of the device's time zone; past midnight it belongs to the day on which it begins"""
    days: Days | None = None
    within: Duration | None = None
    """so long it still counts after it was true, here and in the conditions below it"""
    for_: Duration | None = msgspec.field(default=None, name="for")
    """so long it has to have been true without a break"""

    @property
    def inner(self) -> list[Condition]:
        """The conditions that it is made of."""
        return [*(self.all or ()), *(self.any or ()), *([self.not_] if self.not_ is not None else ())]

    def every(self) -> Iterator[Condition]:
        """It and all that stand in it."""
        yield self
        for one in self.inner:
            yield from one.every()


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[[rule]]``: says an event of kind `rule` when its conditions have come true, and when they are no more."""

    name: Name
    when: Condition | list[Condition]
    """a list: all of them"""
    within: Duration | None = None
    for_: Duration | None = msgspec.field(default=None, name="for")
    between: Between | None = None
    days: Days | None = None
    """as in a condition, of all of them together"""
    cooldown: Duration = "1s"
    """between two times that it comes on, at least; never less than a second"""

    def condition(self) -> Condition:
        """All that it asks for, as one."""
        many = self.when if isinstance(self.when, list) else [self.when]
        return Condition(all=many, within=self.within, for_=self.for_, between=self.between, days=self.days)


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[[profile]]``: what counts while it is active; the first one is, until another is chosen."""

    name: Name
    rules: list[Name] | None = None
    """those that may come on in it; absent: all"""
    pipelines: list[Name] | None = None
    """those whose events are alerts in it; of the others they are telemetry; absent: all"""
    between: Between | None = None
    days: Days | None = None
    """when it becomes active by itself, by the device's time zone"""


def words(given: Words | None) -> tuple[str, ...]:
    """One or several, as several."""
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def counts(among: Iterable[str], labels: Iterable[str]) -> bool:
    """Whether one of these `labels` is `among` others; none of either, and "any", stand for all."""
    one, other = ({label.casefold() for label in many} for many in (among, labels))
    return not one or not other or ANY in other or bool(one & other)
