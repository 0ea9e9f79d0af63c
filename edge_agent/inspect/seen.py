"""What inspection concludes, and the choice between the readings that a file leaves open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from edge_agent.inspect import picture
from edge_agent.manifest import Seen
from edge_agent.types import Net

BETTER = 1.2
"""how many times better a candidate must do than a likelier one"""
CLEARLY = 1.1
"""how many times better another preparation must do than the one in which everybody trains a family"""
SLIGHTLY = 1.05
"""how many times better a preparation must do than another one where nobody knows how it was trained; measured: the
right one does 1.06 to 1.2 times better than the next"""
ENOUGH = 0.15
"""worth below which nothing was found that makes sense"""


class Worth(NamedTuple):
    """What a reading is worth on proof pictures or sentences."""

    value: float
    """0: nothing makes sense; below 0: what came out cannot be meant as this reading has it"""
    what: str
    """was found, in a few words"""
    placed: bool = False
    """whether what was found is where it should be, more than once"""
    alike: bool = False
    """whether every picture gets the same answer, which tells nothing"""


TryReading = Callable[[Net, Seen, Mapping[str, Path]], Worth]
"""(net, candidate, parts by role) -> what it is worth"""


def way(seen: Seen) -> str:
    """e.g. yolox with BGR 0..255."""
    return f"{seen.family} with {picture.describe(seen.input)}" if seen.input else seen.family


def summary(told: list[tuple[str, str]]) -> str:
    """What was found in which way; ways with the same outcome stand together."""
    outcomes: dict[str, list[str]] = {}
    for how, what in dict(told).items():
        outcomes.setdefault(what, []).append(how)
    return ", ".join(
        f"{' and '.join(ways) if len(ways) < 4 else f'{len(ways)} ways'}: {what}" for what, ways in outcomes.items()
    )
