"""Figures of labels, of rankings and of correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_agent.figures.interval import Figure, figure, pearson_of_pairs, share

Doubles = npt.NDArray[np.float64]


def accuracy(truth: Sequence[str], said: Sequence[str]) -> float:
    """Share of the answers that are right; NaN for none."""
    return float(np.mean([t == s for t, s in zip(truth, said, strict=True)])) if truth else float("nan")


def wilson(right: int, of: int) -> tuple[float, float]:
    """Where a share of which `right` of `of` were counted lies, in 95 of 100 cases (Wilson 1927); 0 to 1 for none."""
    if not of:
        return 0.0, 1.0
    z, share = 1.96, right / of
    middle, wide = share + z * z / (2 * of), z * ((share * (1 - share) + z * z / (4 * of)) / of) ** 0.5
    return max(0.0, (middle - wide) / (1 + z * z / of)), min(1.0, (middle + wide) / (1 + z * z / of))


def f1_by_label(truth: Sequence[str], said: Sequence[str]) -> dict[str, float]:
    """F1 of each label that is true or said somewhere, by name: 2 right / (true + said)."""
    right = dict.fromkeys(sorted({*truth, *said}), 0)
    both = dict.fromkeys(right, 0)
    for t, s in zip(truth, said, strict=True):
        both[t] += 1
        both[s] += 1
        right[t] += t == s
    return {label: 2 * right[label] / both[label] for label in right}


def macro_f1(truth: Sequence[str], said: Sequence[str]) -> float:
    """Mean of `f1_by_label`, each label weighing the same; NaN for none."""
    each = f1_by_label(truth, said)
    return sum(each.values()) / len(each) if each else float("nan")


def same(truth: Sequence[str], said: Sequence[str]) -> Figure:
    """`accuracy` as a figure whose interval can be told."""
    return share([t == s for t, s in zip(truth, said, strict=True)])


def macro(truth: Sequence[str], said: Sequence[str]) -> Figure:
    """`macro_f1` as a figure whose interval can be told."""
    return figure(lambda of: macro_f1([truth[i] for i in of], [said[i] for i in of]), len(truth), coarse=True)


def auroc(positive: Doubles, negative: Doubles) -> float:
    """Chance that a positive scores higher than a negative, equal ones counting half (Mann-Whitney U); NaN for none."""
    if not len(positive) or not len(negative):
        return float("nan")
    places = ranks(np.concatenate([positive, negative]))[: len(positive)]
    above = places.sum() - len(positive) * (len(positive) + 1) / 2
    return float(above / (len(positive) * len(negative)))


def ranks(values: Doubles) -> Doubles:
    """(n,) -> (n,) ranks from 1, equal values sharing the mean of theirs."""
    _, which, count = np.unique(values, return_inverse=True, return_counts=True)
    means: Doubles = (np.cumsum(count) - (count - 1) / 2)[which.reshape(-1)]
    return means


def pearson(x: Doubles, y: Doubles) -> float:
    """Linear correlation of (n,) and (n,); NaN where one of them does not vary."""
    a, b = x - x.mean() if len(x) else x, y - y.mean() if len(y) else y
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / spread, -1.0, 1.0)) if spread else float("nan")


def spearman(x: Doubles, y: Doubles) -> float:
    """Rank correlation of (n,) and (n,); NaN where one of them does not vary."""
    return pearson(ranks(x), ranks(y))


def ranked(x: Doubles, y: Doubles) -> Figure:
    """`spearman` as a figure whose interval can be told."""
    return figure(lambda of: spearman(x[of], y[of]), len(x), ends=(-1.0, 1.0))


def similarities(vectors: npt.NDArray[np.float32]) -> Doubles:
    """(n, d) of length 1 -> (n (n - 1) / 2,) cosines of each pair once."""
    wide = vectors.astype(np.float64)
    cosines: Doubles = (wide @ wide.T)[np.triu_indices(len(wide), 1)]
    return cosines


def correlations(mine: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> tuple[Figure, Figure]:
    """Linear and rank correlation of the cosines of each pair, of (n, d) and (n, e), each of length 1."""
    tables = [vectors.astype(np.float64) @ vectors.astype(np.float64).T for vectors in (mine, theirs)]
    place = np.triu_indices(len(mine), 1)
    ordered = []
    for table in tables:
        own = np.zeros_like(table)
        own[place] = ranks(table[place])
        ordered.append(own + own.T)
    return pearson_of_pairs(*tables), pearson_of_pairs(*ordered)
