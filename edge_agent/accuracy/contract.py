"""The contract: agreement of at least so much, over so many hours; kept, at risk, broken, or unknown."""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_agent.figures.scores import wilson

Standing = Literal["kept", "at risk", "broken", "unknown"]
ENOUGH = 20
"""answers from which on anything is said"""
MOST = 4000
"""answers that are remembered"""


class Agreement(msgspec.Struct):
    """Of one model, with what is held to be right; JSON on disk."""

    answers: list[tuple[float, float]] = msgspec.field(default_factory=list)
    """when (seconds since 1970), and how far it agreed: 1 wholly, 0 not at all"""

    def add(self, at: float, agreed: float) -> None:
        """One more answer."""
        self.answers = [*self.answers, (at, agreed)][-MOST:]

    def over(self, since: float) -> tuple[float, float, float, int]:
        """Mean since then, where it lies in 95 of 100 cases (from, to), and of how many answers.

        By Wilson, whose interval for shares of yes and no is wide enough for numbers between.
        """
        agreed = [value for at, value in self.answers if at >= since]
        total = sum(agreed)
        low, high = wilson(total, len(agreed))  # type: ignore[arg-type]
        return total / max(1, len(agreed)), low, high, len(agreed)


def standing(mean: float, high: float, count: int, least: float, drifted: bool) -> Standing:
    """How a contract stands. Broken: what is asked for lies above the whole interval. At risk: the mean is below it, or
    what is seen has drifted.
    """
    if count < ENOUGH:
        return "at risk" if drifted else "unknown"
    if high < least:
        return "broken"
    return "at risk" if mean < least or drifted else "kept"
