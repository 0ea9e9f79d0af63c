"""Times as people write them: how long, from when to when, on which days."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec

from edge_agent.errors import ConfigError

UNITS = {"s": 1, "min": 60, "h": 3600}
_PATTERN = r"^\d{1,6}(\.\d{1,3})?(s|min|h)\Z"
Duration = Annotated[
    str, msgspec.Meta(pattern=_PATTERN, description='a time such as "60s" or "5min"', examples=["60s"])
]
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
Between = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^{_CLOCK}-({_CLOCK}|24:00)\Z",
        description='a time of day such as "22:00-06:00"',
        examples=["22:00-06:00"],
    ),
]
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = f"({'|'.join(DAYS)})"
Days = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^{_DAY}(-{_DAY})?(, ?{_DAY}(-{_DAY})?){{0,6}}\Z",
        description='days such as "mon-fri" or "sat,sun"',
        examples=["mon-fri"],
    ),
]
DAY = 24 * 60
"""minutes"""


def seconds(duration: str) -> float:
    """How long a Duration is."""
    unit = duration.lstrip("0123456789.")
    return float(duration.removesuffix(unit)) * UNITS[unit]


class Window(NamedTuple):
    """A part of each week, by the clock on the wall. One that goes past midnight belongs to the day it begins on."""

    first: int
    """minutes from midnight"""
    last: int
    """exclusive; before `first`: of the next day"""
    days: frozenset[int]
    """0 is Monday"""

    def holds(self, weekday: int, minute: int) -> bool:
        """Whether it holds on this day at this minute."""
        if self.first < self.last:
            return weekday in self.days and self.first <= minute < self.last
        return (weekday in self.days and minute >= self.first) or (
            (weekday - 1) % 7 in self.days and minute < self.last
        )

    def minutes(self) -> set[int]:
        """Those of the week in which it holds."""
        return {at for at in range(7 * DAY) if self.holds(*divmod(at, DAY))}


def window(between: str | None, days: str | None) -> Window:
    """What the two keys say. ConfigError where no minute is left."""
    first, last = (_minute(part) for part in (between or "00:00-24:00").split("-"))
    if first == last:
        raise ConfigError(f'between: "{between}" is no time at all; write e.g. "22:00-06:00"')
    return Window(first, last, frozenset(_days(days) if days else range(7)))


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _days(days: str) -> Iterable[int]:
    for part in days.replace(" ", "").split(","):
        begin, _, end = part.partition("-")
        first, last = DAYS.index(begin), DAYS.index(end or begin)
        yield from ((first + more) % 7 for more in range((last - first) % 7 + 1))
