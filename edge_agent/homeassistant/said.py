"""What an event says that a state of Home Assistant holds: the last text, the last label, whether it was unusual."""

from __future__ import annotations

from typing import Any

from edge_agent.events import AnomalyEvent, AnswerEvent, Event, ScoresEvent, SummaryEvent, TopicEvent

LONGEST_STATE = 255
"""characters of a state"""


def said_by(event: Event) -> dict[str, dict[str, Any]]:
    """The keys of ``PIPELINE/last`` that it renews; empty where it says none of them."""
    at: dict[str, Any] = {"at": event.at}
    found: dict[str, dict[str, Any]] = {}
    if text := _text(event):
        found["text"] = {"value": text[:LONGEST_STATE], **at}
    if isinstance(event, ScoresEvent):
        found["label"] = {"value": event.label[:LONGEST_STATE], "score": event.score, **at}
    elif isinstance(event, AnswerEvent) and event.answer:
        found["label"] = {"value": event.answer[:LONGEST_STATE], "score": event.score, **at}
    elif isinstance(event, AnomalyEvent) and event.unusual is not None:
        found["unusual"] = {"value": event.unusual, "score": event.error, **at}
    return found


def _text(event: Event) -> str:
    if isinstance(event, SummaryEvent):
        return " ".join(event.sentences)
    if isinstance(event, TopicEvent):
        return " ".join(event.keywords)
    return str(getattr(event, "text", ""))
