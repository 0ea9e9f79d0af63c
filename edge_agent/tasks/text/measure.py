"""How well a candidate of the workshop does what its parent does: an encoder, a tagger."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.errors import InputError, ModelError
from edge_agent.figures.scores import Doubles, pearson, similarities
from edge_agent.manifest import Served
from edge_agent.tasks.proofs import Measure, answers_or_none
from edge_agent.tasks.text.encoder import encoder
from edge_agent.types import Sample, Spans, Text


def measure_encoder(parent: Served, shown: Sequence[Sample]) -> Measure:
    """Correlation of the cosines of all pairs of texts with the parent's; 0 where there is none."""
    texts = [item.text for item in shown if isinstance(item, Text)]
    theirs = _cosines(parent, texts)

    def measure(candidate: Served) -> float:
        try:
            mine = _cosines(candidate, texts)
        except ModelError:
            return 0.0
        agreement = pearson(theirs, mine)
        return 0.0 if np.isnan(agreement) else agreement

    return measure


def _cosines(model: Served, texts: list[str]) -> Doubles:
    vectors = encoder(model).embed_many(texts)
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return similarities(vectors / length)


def measure_tagger(parent: Served, shown: Sequence[Sample]) -> Measure:
    """F1 of the spans with those of the parent. InputError where the parent marks nothing."""
    theirs = _spans(parent, shown)
    if not theirs:
        raise InputError(
            f"{parent.manifest.name} marks nothing in {len(shown)} texts, so no change of it would show; give texts "
            "that name what it marks"
        )

    def measure(candidate: Served) -> float:
        mine = _spans(candidate, shown)
        return 2 * len(mine & theirs) / (len(mine) + len(theirs))

    return measure


def _spans(model: Served, shown: Sequence[Sample]) -> set[tuple[int, int, int, str]]:
    """Number of the text, start, end and label of each span."""
    return {
        (number, int(start), int(end), label)
        for number, what in enumerate(answers_or_none(model, shown))
        if isinstance(what, Spans)
        for start, end, label in zip(what.start, what.end, what.label, strict=True)
    }
