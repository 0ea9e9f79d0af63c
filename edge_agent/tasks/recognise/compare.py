"""How two classifiers of pictures are compared."""

from __future__ import annotations

import numpy as np

from edge_agent.manifest import Served
from edge_agent.samples.carried import pictures
from edge_agent.tasks.proofs import answers, follows, least_of, margin, same_labels
from edge_agent.types import Floats, Scores


def compare(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: share of the pictures with the same first label; of those that the other is sure of, the share that
    `one` names alike, surely enough to report it; how far the shares follow the other's. And the pictures, and which it
    is.
    """
    same_labels(one, other)
    shown, its = list(pictures()), other.manifest.score
    options = {"score": "0", "top": "1000"}
    mine, theirs = (
        [what for what in answers(model, shown, options) if isinstance(what, Scores)] for model in (one, other)
    )
    same = np.array([a.label == b.label for a, b in zip(mine, theirs, strict=True)])
    said = same & np.array([what.score >= one.manifest.score for what in mine])
    sure = np.array([what.score >= its + margin(its) for what in theirs])
    figures = [(float(same.mean()), "agreement of the first label")]
    figures.append((float(said[sure].mean()) if sure.any() else float("nan"), "share of its parent's sure labels"))
    labels = sorted({label for what in (*mine, *theirs) for label in what.scores})
    value, name = least_of([*figures, follows(_shares(mine, labels), _shares(theirs, labels))])
    return value, len(shown), name


def _shares(said: list[Scores], labels: list[str]) -> Floats:
    """Of each picture the share of each label, 0 where it was left out."""
    return np.array([[what.scores.get(label, 0.0) for label in labels] for what in said], np.float32)
