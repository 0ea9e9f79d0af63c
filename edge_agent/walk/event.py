"""From what was found to the event that says it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from edge_agent.errors import ModelError
from edge_agent.events import (
    AnomalyEvent,
    AnswerEvent,
    Box,
    CrossingEvent,
    Detection,
    DetectionsEvent,
    Event,
    FillEvent,
    ObjectEvent,
    ScoresEvent,
    SimilarEvent,
    Span,
    SpansEvent,
    SummaryEvent,
    TextEvent,
    TopicEvent,
    rfc3339,
)
from edge_agent.events.objects import Crossing, Life, Tracked
from edge_agent.events.understood import Answer, Fill, Similar, Summary, Topic
from edge_agent.types import Anomaly, Audio, Detections, Embedding, Finding, Frame, Heard, Sample, Scores, Spans, Text

SampleOrFinding: TypeAlias = Sample | Finding


HOT = 0.7
"""of the hottest cell of a heat map: what else counts to where it is"""
Head = dict[str, Any]
"""the fields that every event has"""


def to_event(found: SampleOrFinding, pipeline: str) -> Event:
    """The event of one finding, not yet numbered; `age_ms` is the sample's age when the finding was ready. ModelError
    for what no event says.
    """
    sample, ready = (found.of, found.mono) if isinstance(found, Finding) else (found, time.monotonic())
    head: Head = {
        "pipeline": pipeline,
        "at": rfc3339(sample.at),
        "age_ms": round((ready - sample.mono) * 1000, 1),
    }
    if isinstance(sample, Text) and sample.got is not None:
        head["heard" if isinstance(sample.got, Heard) else "read"] = sample.got
    if isinstance(found, Text):
        return TextEvent(**head, text=found.text)
    if not isinstance(found, Finding):
        raise ModelError(f"{pipeline}: no event holds {found.words} alone; give the pipeline a task")
    head["model"] = found.model
    head["spent_ms"] = {stage: round(ms, 3) for stage, ms in found.spent_ms.items()}
    said = _SAID.get(type(found.what))
    if said is None:
        raise ModelError(f"{pipeline}: no event holds {type(found.what).__name__} yet")
    if not isinstance(sample, said.of):
        what = type(found.what).__name__.lower()
        raise ModelError(f"{pipeline}: no event holds {what} of {sample.words}; mend the task")
    return said.event(head, sample, found.what)


def in_view(item: SampleOrFinding) -> Counter[object] | None:
    """What there is of each kind, by which a report tells a change; None for what is always reported."""
    said = _SAID.get(type(item.what)) if isinstance(item, Finding) else None
    return said.view(item.of, item.what) if said is not None and isinstance(item, Finding) else None


def _detections(head: Head, sample: Frame, what: Detections) -> Event:
    rows = detections(what)
    return DetectionsEvent(**head, width=sample.width, height=sample.height, name=sample.name, detections=rows)


def _scores(head: Head, sample: Sample, what: Scores) -> Event:
    scores = {label: round(score, 4) for label, score in what.scores.items()}
    label, score = what.label, round(what.score, 4)
    return ScoresEvent(**head, text=sample.text, name=sample.name, label=label, score=score, scores=scores)


def _spans(head: Head, sample: Text, what: Spans) -> Event:
    return SpansEvent(**head, text=sample.text, spans=spans(what, sample.text))


def _vector(head: Head, sample: Text, what: Embedding) -> Event:
    return TextEvent(**head, text=sample.text, embedding=[round(float(x), 6) for x in what.vector])


def _topic(head: Head, sample: Text, what: Topic) -> Event:
    since = rfc3339(what.since)
    return TopicEvent(**head, lines=what.lines, since=since, first=what.first, last=sample.text, keywords=what.words)


def _summary(head: Head, sample: Text, what: Summary) -> Event:
    return SummaryEvent(**head, sentences=what.sentences, of=what.of, since=rfc3339(what.since))


def _as_found(event: Callable[..., Event]) -> Callable[[Head, Any, Any], Event]:
    """The event that has a text, and the fields of what was found in it."""
    return lambda head, sample, what: event(**head, text=sample.text, **msgspec.structs.asdict(what))


def _anomaly(head: Head, sample: Sample, what: Anomaly) -> Event:
    told: Head = {key: getattr(what, key) for key in ("error", "limit", "unusual", "value")}
    told["parts"] = {name: float(f"{x:.6g}") for name, x in what.parts.items()}
    return AnomalyEvent(**head, name=sample.name, where=_hottest(sample, what), **told)


def _hottest(sample: Sample, what: Anomaly) -> Box | None:
    """Where an unusual frame is most so: the box around all that is at least HOT times as hot as the hottest cell."""
    if what.heat is None or not what.unusual or not isinstance(sample, Frame):
        return None
    (rows, columns), (y, x) = what.heat.shape, (what.heat >= HOT * what.heat.max()).nonzero()
    wide, high = sample.width / columns, sample.height / rows
    left, top, right, bottom = x.min() * wide, y.min() * high, (x.max() + 1) * wide, (y.max() + 1) * high
    return round(float(left), 1), round(float(top), 1), round(float(right), 1), round(float(bottom), 1)


def _size(what: Life | Crossing) -> Head:
    return {"width": what.size[0], "height": what.size[1], "box": _rounded(what.box), "score": round(what.score, 4)}


def _rounded(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(x, 2) for x in numbers)


def _life(head: Head, sample: Frame, what: Life) -> Event:
    fields = {key: getattr(what, key) for key in ("phase", "object", "label", "class_id", "stationary", "why")}
    fields |= {key: list(getattr(what, key)) for key in ("zones", "entered", "left", "loiters")}
    fields |= {"since": rfc3339(what.since), "seconds": round(what.seconds, 2)}
    fields["snapshot"] = what.snapshot
    fields["speed"] = UNSET if what.speed is None else round(what.speed, 2)
    fields["path"] = [(round(x, 1), round(y, 1)) for x, y in what.path]
    fields["dwell"] = {zone: round(seconds, 2) for zone, seconds in what.dwell.items()}
    return ObjectEvent(**head, **_size(what), **fields)


def _crossing(head: Head, sample: Frame, what: Crossing) -> Event:
    named = {key: getattr(what, key) for key in ("line", "direction", "object", "label", "snapshot")}
    return CrossingEvent(**head, **_size(what), **named)


@dataclass(frozen=True, slots=True)
class _Said:
    """What becomes of one kind of finding."""

    event: Callable[[Head, Any, Any], Event]
    of: type | tuple[type, ...] = (Frame, Text, Audio)
    """samples in which such a thing can be found"""
    view: Callable[[Sample, Any], Counter[object] | None] = lambda sample, what: None
    """what of it a report looks at; None: it is always reported"""


_SAID: dict[type, _Said] = {
    Detections: _Said(_detections, Frame, lambda sample, what: Counter(what.label.tolist())),
    Tracked: _Said(_detections, Frame, lambda sample, what: Counter(what.label.tolist())),
    Life: _Said(_life, Frame),
    Crossing: _Said(_crossing, Frame),
    # each text is reported
    Scores: _Said(_scores, view=lambda sample, what: None if isinstance(sample, Text) else Counter([what.label])),
    Spans: _Said(_spans, Text),
    Embedding: _Said(_vector, Text),
    Fill: _Said(_as_found(FillEvent), Text),
    Answer: _Said(_as_found(AnswerEvent), Text),
    Similar: _Said(_as_found(SimilarEvent), Text),
    Topic: _Said(_topic, Text),
    Summary: _Said(_summary, Text),
    Anomaly: _Said(_anomaly, view=lambda sample, what: None if what.unusual is None else Counter([what.unusual])),
}
"""what was found -> what becomes of it"""


def spans(what: Spans, text: str) -> list[Span]:
    """The marked pieces of a text as rows of an event."""
    rows = zip(what.label, what.start.tolist(), what.end.tolist(), what.score.tolist(), strict=True)
    return [Span(label, text[start:end], start, end, round(score, 4)) for label, start, end, score in rows]


def detections(what: Detections) -> list[Detection]:
    """Columns as rows, rounded to what the numbers are worth: scores to 4 digits, pixels to 2."""
    boxes, scores = what.xyxy.astype(float).round(2).tolist(), what.score.astype(float).round(4).tolist()
    return [
        Detection(what.names.get(label, str(label)), label, score, tuple(box), object=thing)
        for box, score, label, thing in zip(boxes, scores, what.label.tolist(), _objects(what), strict=True)
    ]


def _objects(what: Detections) -> Sequence[str | int | UnsetType]:
    """Which object each box is of: its id, or else its number."""
    if isinstance(what, Tracked):
        return what.ids or what.object.tolist()
    return [UNSET] * len(what)
