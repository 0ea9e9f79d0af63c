"""The figures against their definitions, counted out the long way."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.figures.scores import accuracy, auroc, f1_by_label, macro_f1, pearson, ranks, similarities, spearman


def test_accuracy_and_f1() -> None:
    truth = ["a", "a", "a", "b", "b", "c"]
    said = ["a", "a", "b", "b", "d", "a"]
    assert accuracy(truth, said) == 0.5
    # a: precision 2/3, recall 2/3; b: 1/2 and 1/2; c: never said; d: never true
    assert f1_by_label(truth, said) == pytest.approx({"a": 2 / 3, "b": 0.5, "c": 0, "d": 0})
    assert macro_f1(truth, said) == pytest.approx((2 / 3 + 0.5) / 4)
    assert np.isnan(accuracy([], [])) and np.isnan(macro_f1([], []))


@pytest.mark.parametrize("seed", range(5))
def test_auroc_counts_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    good, bad = rng.integers(2, 9, 30) / 8, rng.integers(0, 7, 41) / 8
    pairs = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean()
    assert auroc(good, bad) == pytest.approx(pairs, abs=1e-12)
    assert auroc(bad, good) == pytest.approx(1 - pairs, abs=1e-12)
    assert auroc(good, np.zeros(3)) == 1
    assert np.isnan(auroc(good, np.zeros(0)))


def test_ranks_share_ties() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4, 1, 4, 2, 4]
    assert ranks(np.zeros(0)).tolist() == []


def test_correlations() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(200)
    y = 0.5 * x + rng.standard_normal(200)
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert pearson(x, np.exp(x)) < 0.95
    assert spearman(x, -(x**3)) == pytest.approx(-1)
    # without ties: 1 - 6 sum d^2 / (n (n^2 - 1))
    gaps = x.argsort().argsort() - y.argsort().argsort()
    assert spearman(x, y) == pytest.approx(1 - 6 * (gaps**2).sum() / (200 * (200**2 - 1)))
    assert np.isnan(pearson(x, np.ones(200)))
    assert np.isnan(spearman(np.zeros(0), np.zeros(0)))


def test_similarities_are_each_pair_once() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 1, 0, 2]]
    assert similarities(vectors).tolist() == [0, 1, 0, 0, 0, 0]
