"""How far two answers to one sample agree: 1 wholly, 0 not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_agent.figures.overlap import Row, matched
from edge_agent.types import Anomaly, Detections, Scores, Spans


def agreed(one: object, other: object) -> float | None:
    """None for what cannot be compared. Labels: the same or not. Spans: 2 the same / all of both. Anomalies: unusual or
    not. Boxes: of those that count in either, the share that the other has, too, of one label and half over each other,
    be it as faint as what is given goes: a score that passes its limit is no other answer.
    """
    for kind, compare in COMPARED.items():
        if isinstance(one, kind) and isinstance(other, kind):
            return compare(one, other)
    return None


def _spans(one: Spans, other: Spans) -> float:
    mine, theirs = (set(zip(a.start.tolist(), a.end.tolist(), a.label, strict=True)) for a in (one, other))
    return 2 * len(mine & theirs) / (len(mine) + len(theirs)) if mine or theirs else 1.0


def _boxes(one: Detections, other: Detections) -> float:
    mine, theirs = _rows(one, one.sure), _rows(other, other.sure)
    if not mine and not theirs:
        return 1.0
    return (matched(mine, _rows(other, 0.0)) + matched(theirs, _rows(one, 0.0))) / (len(mine) + len(theirs))


def _rows(found: Detections, least: float) -> list[Row]:
    """Label and box of each of at least this score."""
    rows = zip(found.label.tolist(), found.xyxy.tolist(), found.score.tolist(), strict=True)
    return [(found.names.get(label, str(label)), box) for label, box, score in rows if score >= least]


COMPARED: dict[type, Callable[[Any, Any], float | None]] = {
    Detections: _boxes,
    Scores: lambda one, other: float(one.label == other.label),
    Spans: _spans,
    Anomaly: lambda one, other: None if one.unusual is None else float(one.unusual == other.unusual),
}
"""kind of finding -> how far two of them agree"""
