"""Labels from a few examples: a multinomial logistic head on sentence vectors, fitted here in well under a second.

Weights minimise  sum_i -log softmax(W x_i + b)[y_i] + l2/2 |W|^2  (b is free) by L-BFGS (Nocedal & Wright, Numerical
Optimization, alg. 7.4 and 7.5). l2 and the temperature (Guo et al. 2017, On Calibration of Modern Neural Networks)
are those with the least cross-validated loss. Whether a text fits any label at all is a second, two-variable logistic
regression on how near its nearest example is and how sure the head is, with everyday sentences as its negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.types import Floats

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

UNKNOWN = "unknown"
L2 = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
PER_LABEL = 24
"""examples of a label that cross-validation looks at, and that are kept to be near to"""
FOLDS = 4
MEMORY = 10
ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted head of K labels on vectors of d numbers."""

    labels: tuple[str, ...]
    weight: Floats
    """(d, K), divided by the temperature already"""
    bias: Floats
    """(K,), likewise"""
    examples: Floats
    """(m, d) of length 1"""
    fits: Floats
    """(3,): log odds that a text fits any label = fits @ [1, nearest cosine, log of the best odds]"""

    def __call__(self, vector: Floats) -> dict[str, float]:
        """Probability of each label and of "unknown" for one vector (d,); they sum to 1."""
        logits = (vector @ self.weight + self.bias).astype(np.float64)
        near = float((self.examples @ vector).max())
        known = float(_sigmoid(self.fits.astype(np.float64) @ _features(logits[None], np.array([near]))[0]))
        shares = _softmax(logits[None])[0] * known
        scores = {UNKNOWN: 1.0 - known}
        for label, share in zip(self.labels, shares, strict=True):
            scores[label] = scores.get(label, 0.0) + float(share) if label == UNKNOWN else float(share)
        return scores


def fit(vectors: Floats, y: Labels, labels: tuple[str, ...], others: Floats) -> Head:
    """Fit a head: `vectors` (n, d) of length 1, `y` (n,) indices into `labels`, at least 2 examples of each label.

    `others` (m, d) are sentences of no label; those as near to an example as examples are to each other are left out.
    """
    count, few = len(labels), _thin(y, len(labels))
    # all weights lie in the span of the examples: the search runs there
    _, s, basis = np.linalg.svd(vectors[few].astype(np.float64), full_matrices=False)
    turn = basis[s > 1e-6 * s[0]].T
    x, fy, folds = vectors[few] @ turn, y[few], _folds(y[few], count)
    l2, temperature, held_out = _choose(x, fy, count, folds)
    weight, bias = _logistic(x, fy, count, l2)
    fits = _fit_known(x, folds, held_out / temperature, others @ turn, (weight / temperature, bias / temperature))
    if len(few) < len(y):
        weight, bias = _logistic(vectors.astype(np.float64), y, count, l2)
        turn = np.eye(len(weight))
    scaled = (turn @ weight / temperature).astype(np.float32), (bias / temperature).astype(np.float32)
    return Head(labels, *scaled, vectors[few], fits.astype(np.float32))


# ── cross-validation ─────────────────────────────────────────────────────────────────────────────────────


def _thin(y: Labels, count: int) -> npt.NDArray[np.intp]:
    """Indices of at most PER_LABEL examples of each label, spread evenly over those given."""
    picks = []
    for label in range(count):
        own = np.flatnonzero(y == label)
        picks.append(own[np.linspace(0, len(own) - 1, min(len(own), PER_LABEL)).round().astype(int)])
    return np.concatenate(picks)


def _folds(y: Labels, count: int) -> Labels:
    """Fold of each example: every label's examples are dealt out in turn."""
    folds = np.zeros(len(y), np.int64)
    for label in range(count):
        own = np.flatnonzero(y == label)
        folds[own] = np.arange(len(own)) % min(FOLDS, max(2, len(own)))
    return folds


def _choose(x: Doubles, y: Labels, count: int, folds: Labels) -> tuple[float, float, Doubles]:
    """(l2, temperature) of the least loss on examples that the head has not seen, and their logits (n, K)."""
    logits = np.zeros((len(L2), len(y), count))
    for fold in np.unique(folds):
        rest, start = folds != fold, None
        for i, l2 in enumerate(L2):
            start = _logistic(x[rest], y[rest], count, l2, start)
            logits[i, ~rest] = x[~rest] @ start[0] + start[1]
    best = (np.inf, 0, 1.0)
    for i in range(len(L2)):
        for temperature in np.geomspace(0.02, 5.0, 40):
            p = _softmax(logits[i] / temperature)[np.arange(len(y)), y]
            best = min(best, (float(-np.log(np.maximum(p, 1e-12)).mean()), i, float(temperature)))
    return L2[best[1]], best[2], logits[best[1]]


def _fit_known(
    x: Doubles, folds: Labels, held_out: Doubles, others: Doubles, whole: tuple[Doubles, Doubles]
) -> Doubles:
    """(3,) coefficients of "fits some label", examples and others weighing the same.

    `held_out`: calibrated logits of the examples `x` by heads that have not seen them; `whole`: the calibrated head.
    """
    near = np.where(folds[:, None] != folds[None], x @ x.T, -1).max(1)
    other_near = (others @ x.T).max(1)
    apart = other_near <= max(np.median(near), np.median(other_near))
    known = _features(held_out, near)
    strange = _features(others[apart] @ whole[0] + whole[1], other_near[apart])
    rows = np.concatenate([known, strange])
    target = np.repeat([1.0, 0.0], [len(known), len(strange)])
    share = np.repeat([0.5 / len(known), 0.5 / len(strange)], [len(known), len(strange)])
    pull = np.array([0.0, 1e-4, 1e-4])

    def loss(c: Doubles) -> tuple[float, Doubles]:
        z = rows @ c
        value = share @ (np.logaddexp(0, z) - target * z) + (pull * c) @ c / 2
        return float(value), rows.T @ (share * (_sigmoid(z) - target)) + pull * c

    return _lbfgs(loss, np.zeros(3))


def _features(logits: Doubles, near: Doubles) -> Doubles:
    """(n, 3): 1, cosine of the nearest example, log odds of the best label capped at 10."""
    best = logits.max(1)
    rest = np.logaddexp.reduce(np.where(np.arange(logits.shape[1]) == logits.argmax(1)[:, None], -np.inf, logits), 1)
    return np.stack([np.ones(len(near)), near, np.clip(best - rest, -10, 10)], 1)


# ── optimisation ─────────────────────────────────────────────────────────────────────────────────────────


def _logistic(
    x: Doubles, y: Labels, count: int, l2: float, start: tuple[Doubles, Doubles] | None = None
) -> tuple[Doubles, Doubles]:
    """Weights (d, K) and bias (K,) of the least penalised loss, searched from `start`."""
    target = np.eye(count)[y]
    size = x.shape[1]

    def loss(flat: Doubles) -> tuple[float, Doubles]:
        w = flat.reshape(size + 1, count)
        z = x @ w[:size] + w[size]
        top = z.max(1, keepdims=True)
        total = np.exp(z - top)
        mass = total.sum(1, keepdims=True)
        value = float((np.log(mass) + top).sum() - (z * target).sum() + l2 / 2 * (w[:size] ** 2).sum())
        error = total / mass - target
        return value, np.concatenate([x.T @ error + l2 * w[:size], error.sum(0, keepdims=True)]).ravel()

    first = np.zeros((size + 1, count)) if start is None else np.vstack(start)
    w = _lbfgs(loss, first.ravel()).reshape(size + 1, count)
    return w[:size], w[size]


def _lbfgs(loss: Callable[[Doubles], tuple[float, Doubles]], at: Doubles) -> Doubles:
    """Where a smooth convex `loss` (value and gradient) is least, by L-BFGS with backtracking (Armijo)."""
    value, slope = loss(at)
    steps: list[tuple[Doubles, Doubles, float]] = []
    for _ in range(ROUNDS):
        if np.abs(slope).max() < 1e-5 * max(1.0, abs(value)):
            break
        way, shares = slope.copy(), []
        for s, g, rho in reversed(steps):
            shares.append(rho * (s @ way))
            way -= shares[-1] * g
        way *= (steps[-1][0] @ steps[-1][1]) / (steps[-1][1] @ steps[-1][1]) if steps else 1 / np.linalg.norm(slope)
        for (s, g, rho), share in zip(steps, reversed(shares), strict=True):
            way += s * (share - rho * (g @ way))
        fall = slope @ way
        length = 1.0
        while length > 1e-10:
            ahead, ahead_slope = loss(at - length * way)
            if ahead <= value - 1e-4 * length * fall:
                break
            length /= 2
        else:
            break
        s, g = -length * way, ahead_slope - slope
        if s @ g > 1e-12:
            steps = [*steps[-MEMORY + 1 :], (s, g, 1 / (s @ g))]
        at, value, slope = at + s, ahead, ahead_slope
    return at


def _softmax(z: Doubles) -> Doubles:
    e = np.exp(z - z.max(1, keepdims=True))
    p: Doubles = e / e.sum(1, keepdims=True)
    return p


def _sigmoid(z: Doubles) -> Doubles:
    return np.exp(-np.logaddexp(0, -z))
