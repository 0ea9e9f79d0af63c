"""What is counted of a sample and of what was found in it, by which a drift is seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from edge_agent.types import Anomaly, Detections, Finding, Frame, Sample, Scores, Text

STEP = 4
"""every so many rows and columns of a frame are looked at"""
UNKNOWN = "unknown"
Signal = tuple[str, "float | str"]


def signals_of(sample: Sample, found: Iterable[object]) -> Iterator[Signal]:
    """(signal, value) of one sample; see drift.BINS."""
    if isinstance(sample, Frame):
        grey = sample.image[::STEP, ::STEP, 1].astype(np.float32)
        yield "brightness", float(grey.mean())
        yield "sharpness", float(np.abs(np.diff(grey, axis=1)).mean() ** 2)
    elif isinstance(sample, Text):
        yield "length", float(len(sample.text))
    for one in found:
        what = one.what if isinstance(one, Finding) else None
        if isinstance(what, Detections) and isinstance(sample, Frame):
            yield from _boxes(what, sample)
        elif isinstance(what, Scores):
            yield "score", what.score
            yield "label", what.label
            yield "unknown", float(what.label == UNKNOWN)
        elif isinstance(what, Anomaly) and "rank" in what.parts:
            yield "rank", what.parts["rank"]


def _boxes(what: Detections, frame: Frame) -> Iterator[Signal]:
    yield "count", float(len(what))
    area = float(frame.width * frame.height)
    for label, score, box in zip(what.label.tolist(), what.score.tolist(), what.xyxy.tolist(), strict=True):
        yield "score", float(score)
        yield "label", what.names.get(label, str(label))
        yield "size", 2**12 * ((box[2] - box[0]) * (box[3] - box[1]) / area) ** 0.5
