"""What a rule says: it holds, or it holds no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from edge_agent.events.envelope import Pictured


class RuleEvent(Pictured, frozen=True, kw_only=True, tag="rule"):
    """A rule of the config holds from now on, or no more."""

    rule: Annotated[str, msgspec.Meta(description="its name in the config")]
    phase: Literal["on", "off"]
    because: Annotated[list[str], msgspec.Meta(description="ids of the events that made it so, the newest last")] = (
        msgspec.field(default_factory=list)
    )
    why: Annotated[str, msgspec.Meta(description="the conditions that hold, in words; of an off: why it ended")] = ""
    profile: Annotated[str, msgspec.Meta(description="the one that was active; empty where there are none")] = ""
    since: Annotated[str, msgspec.Meta(description="when it came on, RFC 3339 UTC")]

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """Which rule, what became of it, and why."""
        profile = f" ({body['profile']})" if body["profile"] else ""
        events = ", ".join(name.rpartition("/")[2] for name in body["because"])
        of = f"   (event{'s' * (len(body['because']) > 1)} {events})" if events else ""
        return f"rule {body['rule']} is {body['phase']}{profile}   {body['why']}{of}".rstrip()
