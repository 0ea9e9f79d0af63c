"""The choice between the readings that a file leaves open."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from edge_agent.families.table import FAMILIES, training
from edge_agent.inspect import names, picture, ranges
from edge_agent.inspect.model_file import ModelFile
from edge_agent.inspect.worth import Worth, is_clear
from edge_agent.manifest import Input, Seen

BETTER = 1.2
"""how many times better a candidate must do than a likelier one"""
CLEARLY = 1.1
"""how many times better another preparation must do than the one in which everybody trains a family"""
ENOUGH = 0.15
"""worth below which nothing was found that makes sense"""


class Tried(NamedTuple):
    """A reading that was tried."""

    seen: Seen
    ways: picture.Ways
    worth: Worth

    @property
    def is_usual(self) -> bool:
        """Whether its pictures go in as its family is trained, or as the file says."""
        return self.seen.input == self.ways.first


def way(seen: Seen) -> str:
    """e.g. yolox with BGR 0..255."""
    return f"{seen.family} with {ranges.describe(seen.input)}" if seen.input else seen.family


def summary(told: list[tuple[str, str]]) -> str:
    """What was found in which way; ways with the same outcome stand together."""
    outcomes: dict[str, list[str]] = {}
    for how, what in dict(told).items():
        outcomes.setdefault(what, []).append(how)
    return ", ".join(
        f"{' and '.join(ways) if len(ways) < 4 else f'{len(ways)} ways'}: {what}" for what, ways in outcomes.items()
    )


def alike(seen: Seen) -> str:
    """The family whose boxes are read as this one's."""
    return (FAMILIES[seen.family].alike if seen.family in FAMILIES else "") or seen.family


def other(one: Seen, seen: Seen) -> bool:
    """Whether one reads other boxes than the other, or calls them otherwise."""
    return alike(one) != alike(seen) or (one.family == seen.family and one.labels != seen.labels)


def try_all(file: ModelFile, seen: Seen, ways: picture.Ways) -> list[Tried]:
    """Try every scale of one reading; the channel order is left to `best`."""
    return [_try(file, replace(seen, input=how), ways) for how in (ways.first, *ways.ranges)]


def _try(file: ModelFile, seen: Seen, ways: picture.Ways) -> Tried:
    assert file.look is not None
    return Tried(seen, ways, file.look(file.net, seen, {}))


def best(file: ModelFile, tried: list[Tried]) -> tuple[Tried, list[Tried]]:
    """The reading that is worth most, and what was tried to find the order of its channels.

    Where everybody trains a family in one way, another one has to do clearly better.
    """
    most = _worth_most(tried)
    if not most.ways.orders or most.seen.input is None or most.worth.value < ENOUGH:
        return most, []
    turned = _try(file, replace(most.seen, input=ranges.swapped(most.seen.input)), most.ways)
    least = CLEARLY if training(most.seen.family).always else 1.0
    better = turned.worth.value > most.worth.value * least and turned.worth.placed >= most.worth.placed
    return (turned if better else most), [turned]


def _worth_most(tried: list[Tried]) -> Tried:
    def order(row: Tried) -> tuple[bool, bool, float, bool]:
        return row.worth.placed, row.seen.labels != names.UNNAMED, round(row.worth.value, 3), row.is_usual

    most = max(tried, key=order)
    if not training(most.seen.family).always:
        return most
    enough = (most.worth.placed, most.worth.value / CLEARLY)
    same = (row for row in tried if row.seen.family == most.seen.family and not other(row.seen, most.seen))
    return next((row for row in same if row.is_usual and (row.worth.placed, row.worth.value) >= enough), most)


def doubt(most: Tried, told: list[Tried]) -> str:
    """What of the preparation is to be asked for, as another one does about as well; "" where nothing is."""
    if training(most.seen.family).always:
        return ""
    own = most.seen.input
    assert own is not None
    close = [
        row.seen.input
        for row in told
        if row.seen.input not in (None, own) and not other(row.seen, most.seen) and not is_clear(most.worth, row.worth)
    ]
    return _question(own, [how for how in close if how is not None], most)


def _question(own: Input, close: list[Input], most: Tried) -> str:
    """What the user is asked to say, where preparations in `close` do about as well as the best one's `own`."""
    asked = []
    if most.ways.ranges and any(ranges.swapped(how) != own for how in close):
        asked.append(f"--scale ({', '.join(ranges.RANGES)}; or a number with --mean and --std)")
    if any(ranges.swapped(how) == own for how in close):
        asked.append("--channels RGB or BGR")
    if not asked:
        return ""
    also = " and ".join(ranges.describe(how) for how in (own, *close))
    mend = f"say it with {' and '.join(asked)}"
    return f"it is open how its pictures go in: {also} do about as well ({most.worth.what}); {mend}"
