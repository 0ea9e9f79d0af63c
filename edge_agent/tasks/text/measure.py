"""How well a candidate of the workshop does what its parent does: an encoder, a tagger."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.errors import InputError, ModelError
from edge_agent.figures.interval import Figure, f1, pearson_of_pairs, share
from edge_agent.figures.scores import Doubles
from edge_agent.manifest import Served
from edge_agent.tasks.proofs import Measure, answers_or_none
from edge_agent.tasks.text.encoder import encoder
from edge_agent.types import Sample, Spans, Text


def measure_encoder(parent: Served, shown: Sequence[Sample]) -> Measure:
    """Correlation of the cosines of all pairs of texts with the parent's; 0 where there is none."""
    texts = [item.text for item in shown if isinstance(item, Text)]
    theirs = _cosines(parent, texts)

    def measure(candidate: Served) -> Figure:
        try:
            agreement = pearson_of_pairs(_cosines(candidate, texts), theirs)
        except ModelError:
            return share([False] * len(texts))
        return share([False] * len(texts)) if np.isnan(agreement) else agreement

    return measure


def _cosines(model: Served, texts: list[str]) -> Doubles:
    """(n, n)"""
    vectors = encoder(model).embed_many(texts).astype(np.float64)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines: Doubles = unit @ unit.T
    return cosines


def measure_tagger(parent: Served, shown: Sequence[Sample]) -> Measure:
    """F1 of the spans with those of the parent. InputError where the parent marks nothing."""
    theirs = _spans(parent, shown)
    if not theirs:
        raise InputError(
            f"{parent.manifest.name} marks nothing in {len(shown)} texts, so no change of it would show; give texts "
            "that name what it marks"
        )

    def measure(candidate: Served) -> Figure:
        mine = _spans(candidate, shown)
        return f1(
            *(np.bincount([span[0] for span in some], minlength=len(shown)) for some in (mine, theirs, mine & theirs))
        )

    return measure


def _spans(model: Served, shown: Sequence[Sample]) -> set[tuple[int, int, int, str]]:
    """Number of the text, start, end and label of each span."""
    return {
        (number, int(start), int(end), label)
        for number, what in enumerate(answers_or_none(model, shown))
        if isinstance(what, Spans)
        for start, end, label in zip(what.start, what.end, what.label, strict=True)
    }
