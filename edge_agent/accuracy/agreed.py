"""How far two answers to one sample agree: 1 wholly, 0 not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_agent.figures.overlap import shared
from edge_agent.types import Anomaly, Detections, Scores, Spans


def agreed(one: object, other: object) -> float | None:
    """Boxes: 2 matched / all of both, of one label and half over each other. Labels: the same or not. Spans: as boxes,
    wholly the same. Anomalies: unusual or not. None for what cannot be compared.
    """
    for kind, compare in COMPARED.items():
        if isinstance(one, kind) and isinstance(other, kind):
            return compare(one, other)
    return None


def _spans(one: Spans, other: Spans) -> float:
    mine, theirs = (set(zip(a.start.tolist(), a.end.tolist(), a.label, strict=True)) for a in (one, other))
    return 2 * len(mine & theirs) / (len(mine) + len(theirs)) if mine or theirs else 1.0


Rows = list[tuple[str, list[float]]]


def _sure(found: Detections) -> Rows:
    """Label and box of each that counts by itself."""
    rows = zip(found.label.tolist(), found.xyxy.tolist(), found.score.tolist(), strict=True)
    return [(found.names.get(label, str(label)), box) for label, box, score in rows if score >= found.sure]


COMPARED: dict[type, Callable[[Any, Any], float | None]] = {
    Detections: lambda one, other: shared(_sure(one), _sure(other)),
    Scores: lambda one, other: float(one.label == other.label),
    Spans: _spans,
    Anomaly: lambda one, other: None if one.unusual is None else float(one.unusual == other.unusual),
}
"""kind of finding -> how far two of them agree"""
