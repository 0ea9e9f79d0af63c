"""What rules and profiles say: an event of each change, and what is retained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from edge_agent.agent.rules_file import Kept
from edge_agent.events import RuleEvent, rfc3339
from edge_agent.rules.facts import Change
from edge_agent.rules.running import Running


def event_of(change: Change, profile: str, wall: float) -> RuleEvent:
    """What is said of a rule that comes on or goes off. `wall`: when it does, seconds since 1970."""
    return RuleEvent(
        pipeline=change.pipeline,
        at=rfc3339(wall),
        rule=change.rule,
        phase=change.phase,
        because=list(change.because),
        why=change.why,
        profile=profile,
        since=rfc3339(change.since),
    )


def profile_said(kept: Kept, profiles: Sequence[str]) -> bytes:
    """Which profile is active."""
    told = {"v": 1, "profile": kept.profile, "since": rfc3339(kept.since), "by": kept.by}
    return msgspec.json.encode({**told, "profiles": profiles})


def rules_said(rules: Iterable[Running]) -> bytes:
    """Which rules are on."""
    told = {one.name: {"on": one.on, "since": rfc3339(one.since) if one.on else None} for one in rules}
    return msgspec.json.encode({"v": 1, "rules": told})
