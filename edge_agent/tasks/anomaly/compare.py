"""How two detectors of unusual readings are compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.figures.interval import Figure, figure
from edge_agent.figures.scores import Doubles, spearman
from edge_agent.manifest import Served
from edge_agent.samples.carried import pictures
from edge_agent.tasks.anomaly.proof import windows
from edge_agent.tasks.proofs import Measure, answers, answers_or_none, correlation, least_of
from edge_agent.types import Anomaly, Sample

OF_SIZE = 1.5
"""times its parent's, or that part of it, is a variant's reconstruction error"""


def compare(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: rank correlation of the reconstruction errors, as their order says what is unusual; and, as a limit
    is set to what the parent gives, how many are of its size. And the samples, and which it is.
    """
    shown: Sequence[Sample] = list(pictures()) if other.input is not None else windows(other)
    mine, theirs = (
        np.array([what.error for what in answers(model, shown) if isinstance(what, Anomaly)]) for model in (one, other)
    )
    # next to errors of nothing a rounding is many times as much
    least = max(float(np.median(theirs)) / 10, 1e-30)
    ratio = (mine + least) / (theirs + least)
    alike = float(((ratio <= OF_SIZE) & (ratio >= 1 / OF_SIZE)).mean())
    figures = [(correlation(spearman, mine, theirs), "rank correlation of the errors")]
    value, name = least_of([*figures, (alike, "share of errors of its parent's size")])
    return value, len(shown), name


def measure(parent: Served, shown: Sequence[Sample]) -> Measure:
    """Rank correlation of the errors with the parent's, times the share of samples that both answer."""
    theirs = _errors(parent, shown)

    def measured(candidate: Served) -> Figure:
        mine = _errors(candidate, shown)
        both = np.isfinite(theirs) & np.isfinite(mine)

        def of(places: list[int]) -> float:
            known = [place for place in places if both[place]]
            agreement = spearman(mine[known], theirs[known]) if len(known) > 2 else float("nan")
            return 0.0 if np.isnan(agreement) else agreement * len(known) / len(places)

        return figure(of, len(shown), ends=(-1.0, 1.0))

    return measured


def _errors(model: Served, shown: Sequence[Sample]) -> Doubles:
    """Reconstruction error of each sample; NaN where it is refused."""
    found = answers_or_none(model, shown)
    return np.array([what.error if isinstance(what, Anomaly) else np.nan for what in found])
