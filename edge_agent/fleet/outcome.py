"""How far a bundle got, in the words of a rollout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

State = Literal["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"]
"""as AWS IoT Jobs calls them. REJECTED: refused before anything changed (signature, policy, size, age, a downgrade);
FAILED: it was tried and is given up, and what served before serves"""
Step = Literal["look", "download", "prove", "canary", "switch", "window", "back", "done"]


class Outcome(msgspec.Struct, frozen=True):
    """How far a bundle got."""

    state: State
    target: str
    """KIND/NAME/NUMBER; without a number as long as that is not known"""
    step: Step
    reason: str = ""
    """one line for people; of what is not over: what is done, or waited for"""
    version: str = ""
    """as its makers call it"""
    figures: dict[str, float] = {}
    """what was measured: bytes, agreement, ms, ms_before, samples, celsius"""
    later: bool = False
    """IN_PROGRESS: nothing is done now (no clock, network or budget, not in the window); ask again later"""


WRONG: dict[Step, str] = {"look": "repository", "download": "files", "prove": "proof", "canary": "canary"}
"""step at which one was refused, or given up -> what was wrong; of later ones: its health"""
Tell = Callable[[Outcome], None]
"""is told of each step; on the thread of `take`"""


def untold(_: Outcome) -> None:
    """Told, and forgotten."""


class Take(Protocol):
    """What a rollout's job calls; `Agent.update.take` is one."""

    def __call__(self, target: str, tell: Tell = untold) -> Outcome:
        """Take a bundle (``model/people/3``; ``model/people``: the newest for this device's group), and come back once
        it serves and is healthy (SUCCEEDED), is given up (FAILED), is refused (REJECTED), or has to wait (IN_PROGRESS
        with `later`). Never raises. One at a time; the same one again is no harm: what serves already is SUCCEEDED,
        what was refused or given up is said again, and what a restart interrupted goes on.
        """
