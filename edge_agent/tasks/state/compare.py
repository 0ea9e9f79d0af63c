"""How two files of one model of taught states are compared: by the features, as any picture tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.figures.interval import Figure, mean
from edge_agent.figures.scores import Doubles, pearson
from edge_agent.manifest import Served
from edge_agent.samples.carried import pictures
from edge_agent.tasks.proofs import Measure, least_of, same_labels
from edge_agent.tasks.state.state import head_of, reader_of
from edge_agent.types import Frame, Sample


def compare(one: Served, other: Served) -> tuple[float, int, str]:
    """The least correlation of the features of a picture with the other's, in the units of the head. And the pictures,
    and what it is.
    """
    same_labels(one, other)
    shown = list(pictures())
    mine, theirs = (_features(model, other, shown) for model in (one, other))
    name = "least correlation of the features of a picture"
    value, name = least_of([(pearson(a, b), name) for a, b in zip(mine, theirs, strict=True)])
    return value, len(shown), name


def measure(parent: Served, shown: Sequence[Sample]) -> Measure:
    """Mean correlation of the features of a picture with the parent's."""
    frames = [item for item in shown if isinstance(item, Frame)]
    theirs = _features(parent, parent, frames)

    def measured(candidate: Served) -> Figure:
        mine = _features(candidate, parent, frames)
        return mean(np.nan_to_num([pearson(a, b) for a, b in zip(mine, theirs, strict=True)]))

    return measured


def _features(model: Served, of: Served, shown: Sequence[Frame]) -> list[Doubles]:
    """Those of each picture, in the units of the head `of` a model."""
    head, read = head_of(of), reader_of(model)
    return [((read(frame.image) - head.centre) / head.unit).astype(np.float64) for frame in shown]
