"""What is known of a rollout: its plan, and each device's execution. One value, which is the operator's file."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import msgspec

from edge_agent.fleet.messages import OVER

BAD = ("FAILED", "REJECTED", "TIMED_OUT")
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e8)]


class Plan(msgspec.Struct, frozen=True):
    """What is rolled out, to whom, and when it stops."""

    target: str
    group: str
    canary: _Count = 1
    """devices of the first wave; any failure there stops it"""
    factor: Annotated[float, msgspec.Meta(ge=1, le=100)] = 2.0
    """times of the devices before that the next wave has"""
    most: _Count = 1000
    """devices of a wave at most"""
    abort_share: _Share = 0.1
    """share of those that are over and went wrong from which on it stops"""
    abort_after: _Count = 5
    """devices that have to be over for that"""
    timeout_s: _Seconds = 7200.0
    """that one may be at work"""
    soak_s: Annotated[float, msgspec.Meta(ge=0, le=1e7)] = 60.0
    """that nothing goes wrong after a wave, before the next one"""
    patience_s: _Seconds = 600.0
    """after which a wave waits no longer for devices that have not begun: these are offline, and catch up later"""
    agreement: _Share | None = None
    """least agreement with the model before; a device with less counts as gone wrong"""
    expires_s: _Seconds = 30 * 86_400.0
    """after which a job is not begun any more"""


class Device(msgspec.Struct):
    """One device's execution."""

    status: str = ""
    """empty: it was not offered yet"""
    wave: int = -1
    version: int = 1
    at: float = 0.0
    """when the status came, seconds since 1970"""
    details: dict[str, str] = {}
    lost: str = ""
    """of one that succeeded: why it counts as gone wrong"""
    run: int = 1
    """of the same job on it: another one after it was taken back"""
    forgiven: bool = False
    """it went wrong before somebody had the rollout go on all the same"""

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in OVER

    @property
    def wrong(self) -> bool:
        """Whether it counts against the rollout."""
        return self.status in BAD or bool(self.lost)

    @property
    def said(self) -> str:
        """What came of it, in words."""
        return ", ".join(filter(None, [self.lost or self.status, self.details.get("reason", "")]))


class Rollout(msgspec.Struct):
    """All that is known of a rollout: what its file holds."""

    job: str
    plan: Plan
    began: float
    status: Literal["RUNNING", "HALTED", "DONE"] = "RUNNING"
    why: str = ""
    wave: int = -1
    wave_at: float = 0.0
    """when the wave began, or when the last thing of it happened"""
    devices: dict[str, Device] = {}

    def of_wave(self, number: int) -> list[Device]:
        """Those of a wave."""
        return [one for one in self.devices.values() if one.wave == number]

    def judged(self) -> list[Device]:
        """Those that are over, by which it is seen whether it has to stop."""
        return [one for one in self.devices.values() if one.over and not one.forgiven]


def counted(it: Rollout) -> dict[str, int]:
    """Status -> devices; "WAITING": not offered yet."""
    return dict(Counter(one.status or "WAITING" for one in it.devices.values()))
