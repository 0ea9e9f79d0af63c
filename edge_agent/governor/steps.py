"""What a step down means for a pipeline: how large the pictures are that its detector sees, and how many it looks at.

Between two looks the tracker says where things are, so a share of the frames costs little while few things move. How
the steps were chosen, against a learned policy among others: docs/governor.md.
"""

from __future__ import annotations

from typing import NamedTuple

FEW = 2
"""things in view up to which there are few"""
SMALLEST = 1 / 8
"""share of the frames that is looked at, at least"""


class Look(NamedTuple):
    """How a detector looks."""

    side: float = 1.0
    """of its input's own sides"""
    often: float = 1.0
    """share of the frames"""

    def at(self, sides: tuple[float, ...]) -> Look:
        """The same at about the same cost, where only those `sides` can be had."""
        if self.side in sides:
            return self
        side = min((one for one in sides if one >= self.side), default=1.0)
        return Look(side, max(SMALLEST, min(1.0, self.often * (self.side / side) ** 2)))


class Plan(NamedTuple):
    """How a detector before a tracker looks by how much is in view, or a pipeline without one."""

    nothing: Look = Look()
    few: Look = Look()
    many: Look = Look()
    rate: float = 1.0
    """share of the frames that a pipeline without a tracker takes"""
    cost: float = 1.0
    """of the processor time of a whole pipeline; as measured over ten days"""

    def of(self, things: float) -> Look:
        """How to look while so many are in view."""
        return self.many if things > FEW else self.few if things > 0 else self.nothing


_CALM, _FEW = Look(0.62, 1 / 4), Look(0.62, 1 / 3)
PLANS = (
    Plan(),
    Plan(_CALM, _FEW, Look(), 1 / 2, 0.66),
    Plan(_CALM, _FEW, Look(0.77), 1 / 2, 0.43),
    Plan(_CALM, _FEW, Look(0.77, 1 / 2), 1 / 3, 0.3),
    Plan(_CALM, _CALM, Look(0.62, 1 / 3), 1 / 4, 0.16),
    Plan(Look(0.62, 1 / 8), Look(0.62, 1 / 8), Look(0.62, 1 / 8), 1 / 8, 0.1),
)
"""from the first step to the last; what comes after them is that pipelines are paused"""
SIDES = (1.0, 0.77, 0.62)
"""of the input's own that plans ask for"""


def plan_of(rung: int, rank: int) -> Plan:
    """That of a pipeline at a rung; `rank`: how many priorities are above its own. Lower ones step down first."""
    return PLANS[min(len(PLANS) - 1, rung + 2 * rank)] if rung else PLANS[0]


def words(rung: int, paused: int) -> str:
    """A rung for people."""
    if not rung:
        return "nothing is saved"
    told = f"step {min(rung, len(PLANS) - 1)} of {len(PLANS) - 1}"
    return f"{told}, {paused} paused" if paused else told
