"""Which events are meant by a section of the config."""

from __future__ import annotations

from edge_agent.config import Choice
from edge_agent.events import Event, kind_of


def chosen(choice: Choice, event: Event) -> bool:
    """Whether an event is one that is meant; a limit that it has nothing to do with does not count for it."""
    phase, labels = getattr(event, "phase", None), labels_of(event)
    return (
        _of_kind(choice, event)
        and (phase is None or phase in choice.phases)
        and (not choice.pipelines or event.pipeline in choice.pipelines)
        and (not choice.labels or labels is None or not labels.isdisjoint(map(str.casefold, choice.labels)))
    )


def _of_kind(choice: Choice, event: Event) -> bool:
    """Whether its kind is meant and, of a rule, its name."""
    kind = kind_of(event)
    if kind != "rule":
        return kind in choice.kinds
    if choice.rules:
        return getattr(event, "rule", "") in choice.rules
    return not choice.kinds or kind in choice.kinds


def labels_of(event: Event) -> set[str] | None:
    """The labels of an event without their case, of an opinion its verdict; None for a kind that has none."""
    for key in ("label", "verdict"):
        if hasattr(event, key):
            return {getattr(event, key).casefold()}
    parts = getattr(event, "detections", getattr(event, "spans", None))
    return None if parts is None else {part.label.casefold() for part in parts}
