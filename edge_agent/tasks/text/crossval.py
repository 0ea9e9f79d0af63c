"""Cross-validation of heads, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_agent.tasks.text.logistic import Doubles, Labels, lbfgs, logistic, softmax
from edge_agent.types import Floats

FOLDS = 4
CLOSE, CLOSER = 1e-3, 1e-4
"""slope at which a search ends, relative to the loss: of heads that are tried, and of those that serve"""
HELD, LIKELY = 4.0, 1.65
"""how strongly the two heads' weights are held near what is likely, and what the head on words is likely to count"""


def thin(y: Labels, count: int, most: int) -> npt.NDArray[np.intp]:
    """Indices of at most so many examples of each label, spread evenly over those given."""
    picks = []
    for label in range(count):
        own = np.flatnonzero(y == label)
        picks.append(own[np.linspace(0, len(own) - 1, min(len(own), most)).round().astype(int)])
    return np.concatenate(picks)


def folds(y: Labels, count: int) -> Labels:
    """Fold of each example: every label's examples are dealt out in turn."""
    folds = np.zeros(len(y), np.int64)
    for label in range(count):
        own = np.flatnonzero(y == label)
        folds[own] = np.arange(len(own)) % min(FOLDS, max(2, len(own)))
    return folds


def held_out(x: Floats, y: Labels, count: int, folds: Labels, l2: float) -> Floats:
    """(n, K) logits of examples by heads that have not seen them."""
    logits: Floats = np.zeros((len(y), count), np.float32)
    for fold in np.unique(folds):
        rest = folds != fold
        w, b = logistic(x[rest], y[rest], count, l2, CLOSE)
        logits[~rest] = x[~rest] @ w + b
    return logits


def weigh(logits: Sequence[Floats], y: Labels) -> tuple[float, Doubles]:
    """The least loss of a weighted sum of logits (n, K) each, and the weights.

    Few examples say little about the weights: these are held near 1 and, of words, LIKELY.
    """
    rows = np.arange(len(y))
    likely = np.log([1.0, LIKELY])[: len(logits)]

    def loss(free: Doubles) -> tuple[float, Doubles]:
        z = sum(f * each for f, each in zip(np.exp(free), logits, strict=True))
        assert not isinstance(z, int)
        p = softmax(z.astype(np.float64))
        off = free - likely
        value = -np.log(np.maximum(p[rows, y], 1e-12)).sum() + HELD * (off @ off) / 2
        p[rows, y] -= 1
        slope = [np.exp(f) * (p * each).sum() for f, each in zip(free, logits, strict=True)]
        return float(value), np.array(slope) + HELD * off

    free = lbfgs(loss, np.zeros(len(logits)), 1e-4)
    return loss(free)[0], np.exp(free)


def quantiles(values: Doubles, weight: Doubles, at: Sequence[float]) -> Doubles:
    """Of weighted values those that such shares of the weight lie below."""
    order = np.argsort(values, kind="stable")
    share = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    found: Doubles = np.interp(at, share, values[order])
    return found
