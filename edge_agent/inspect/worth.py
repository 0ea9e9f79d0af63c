"""What a reading of a file is worth, as it is tried on proof pictures or sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from edge_agent.manifest import Seen
from edge_agent.types import Net

SLIGHTLY, SURELY = 1.05, 1.15
"""how many times better a preparation must do than another one where nobody knows how it was trained: if it does as
well by each thing, and if it does not. Measured: a wrong one (Caffe's mean, of a CenterNet that takes 0..255) did 1.11
times better than the right one, worse by the cat, and found 0.22 instead of 0.29 mAP; right ones do up to 1.2 times
better
"""


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
    each: Mapping[str, float] = {}
    """name of each thing that was found -> how surely, in all pictures together"""


TryReading = Callable[[Net, Seen, Mapping[str, Path]], Worth]
"""(net, candidate, parts by role) -> what it is worth"""


def is_clear(one: Worth, other: Worth) -> bool:
    """Whether one preparation does so much better than another that nobody has to be asked."""
    if one.placed != other.placed:
        return one.placed
    by_each = all(one.each.get(name, 0.0) >= surely for name, surely in other.each.items())
    return one.value >= other.value * (SLIGHTLY if by_each else SURELY)
