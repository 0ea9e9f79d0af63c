"""From what was found to the event that says it."""

from __future__ import annotations

import time
from typing import Any, TypeAlias

from edge_agent.errors import ModelError
from edge_agent.events import (
    AnomalyEvent,
    Detection,
    DetectionsEvent,
    Event,
    ScoresEvent,
    Span,
    SpansEvent,
    TextEvent,
    rfc3339,
)
from edge_agent.types import Anomaly, Detections, Embedding, Finding, Frame, Sample, Scores, Spans, Text

SampleOrFinding: TypeAlias = Sample | Finding


def to_event(found: SampleOrFinding, pipeline: str) -> Event:
    """The event of one finding, not yet numbered; `age_ms` is the sample's age when the finding was ready."""
    sample, ready = (found.of, found.mono) if isinstance(found, Finding) else (found, time.monotonic())
    head: dict[str, Any] = {
        "pipeline": pipeline,
        "at": rfc3339(sample.at),
        "age_ms": round((ready - sample.mono) * 1000, 1),
    }
    if not isinstance(found, Finding):
        if isinstance(found, Text):
            return TextEvent(**head, text=found.text)
        raise ModelError(f"{pipeline}: a {type(found).__name__} has no event of its own; give the pipeline a task")
    head["model"] = found.model
    head["spent_ms"] = {stage: round(ms, 3) for stage, ms in found.spent_ms.items()}
    text = sample.text if isinstance(sample, Text) else ""
    name = sample.name if isinstance(sample, Frame) else ""
    what = found.what
    if isinstance(what, Detections):
        assert isinstance(sample, Frame)
        return DetectionsEvent(**head, width=sample.width, height=sample.height, name=name, detections=detections(what))
    if isinstance(what, Scores):
        scores = {label: round(score, 4) for label, score in what.scores.items()}
        return ScoresEvent(**head, text=text, name=name, label=what.label, score=round(what.score, 4), scores=scores)
    if isinstance(what, Spans):
        return SpansEvent(**head, text=text, spans=spans(what, text))
    if isinstance(what, Embedding):
        return TextEvent(**head, text=text, embedding=[round(float(x), 6) for x in what.vector])
    if isinstance(what, Anomaly):
        return AnomalyEvent(**head, name=name, error=what.error, limit=what.limit, unusual=what.unusual)
    raise ModelError(f"{pipeline}: no event holds {type(what).__name__} yet")


def spans(what: Spans, text: str) -> list[Span]:
    """The marked pieces of a text as rows of an event."""
    rows = zip(what.label, what.start.tolist(), what.end.tolist(), what.score.tolist(), strict=True)
    return [Span(label, text[start:end], start, end, round(score, 4)) for label, start, end, score in rows]


def detections(what: Detections) -> list[Detection]:
    """Columns as rows, rounded to what the numbers are worth: scores to 4 digits, pixels to 2."""
    boxes, scores = what.xyxy.astype(float).round(2).tolist(), what.score.astype(float).round(4).tolist()
    return [
        Detection(what.names.get(label, str(label)), label, score, tuple(box))
        for box, score, label in zip(boxes, scores, what.label.tolist(), strict=True)
    ]
