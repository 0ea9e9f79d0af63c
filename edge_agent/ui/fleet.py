"""What a fleet wants of this device, what it is, and why the two differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from edge_agent.fleet.desired import Difference
from edge_agent.ui.calls import Ask, Call, Refused

if TYPE_CHECKING:
    from edge_agent.ui.server import Page


class Wanted(msgspec.Struct, frozen=True):
    """What is wanted."""

    bundles: Annotated[dict[str, str], msgspec.Meta(description="KIND/NAME -> the bundle")] = {}
    profile: str = ""


class Fleet(msgspec.Struct, frozen=True):
    """What is reported to the fleet."""

    group: str
    bundles: Annotated[dict[str, str], msgspec.Meta(description="KIND/NAME -> number (version) that serves")]
    models: dict[str, str]
    profile: Annotated[str, msgspec.Meta(description="that is active; empty where the config has none")]
    wanted: Wanted
    differs: list[Difference]
    refused: Annotated[int, msgspec.Meta(description="jobs and documents that were refused so far")]
    accuracy: str
    job: Annotated[dict[str, str] | None, msgspec.Meta(description="the job that is being done")] = None


def calls(page: Page) -> list[Call]:
    """Those of the fleet."""

    def fleet(ask: Ask) -> Fleet:
        rollouts: Any = getattr(page.now, "rollouts", None)
        if rollouts is None:
            raise Refused(404, "no fleet updates this device: its config has no [rollout]")
        return msgspec.convert(rollouts.state(), Fleet, strict=False)

    return [
        Call("GET", "/api/v1/fleet", "viewer", "What the fleet wants of this device, and why it differs.", fleet, Fleet)
    ]
