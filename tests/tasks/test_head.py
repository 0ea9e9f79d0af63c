from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.tasks.text import counted, head, logistic
from edge_agent.tasks.text.counted import grams
from edge_agent.tasks.text.head import UNKNOWN, fit, strangers


def clusters(
    seed: int, labels: int = 4, each: int = 8, width: int = 32, spread: float = 0.6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors around `labels` centres, their labels, and 40 unit vectors around other centres."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((labels + 20, width))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    y = np.repeat(np.arange(labels), each)
    around = np.concatenate([y, labels + np.arange(40) % 20])
    x = centres[around] + spread * rng.standard_normal((len(around), width)) / np.sqrt(width)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return x[: len(y)], y, x[len(y) :]


@pytest.mark.parametrize("l2", [0.01, 0.1, 1.0])
def test_least_loss_is_where_the_slope_is_none(l2: float) -> None:
    x, y, _ = clusters(0)
    weight, bias = logistic.logistic(x, y, 4, l2, 1e-5)
    p = logistic.softmax((x @ weight + bias).astype(np.float64)) - np.eye(4)[y]
    assert np.abs(x.T @ p + l2 * weight).max() < 1e-3
    assert np.abs(p.sum(0)).max() < 1e-3


@pytest.mark.parametrize("shape", [(9, 40), (40, 9), (12, 12)])
def test_the_span_of_the_examples_leads_back(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    rows[-1] = rows[0]
    x, turn = head._span(rows)
    np.testing.assert_allclose(rows @ turn, x, atol=1e-4)
    np.testing.assert_allclose(x @ x.T, rows @ rows.T, atol=1e-3)
    assert x.shape[1] <= min(shape)


def test_words_and_letters_are_counted() -> None:
    at, much = grams("Pump pump THREE!")
    assert abs(much @ much - 1) < 1e-5 and len(set(at)) == len(at) and at.max() < counted.BUCKETS
    assert np.array_equal(at, grams("pump PUMP three !")[0])
    assert not np.array_equal(at, grams("three pump pump!")[0])
    for odd in ("", " ", "\u200b", "\ud800x", "a" * 100_000):
        at, much = grams(odd)
        assert len(at) == len(much) and np.isfinite(much).all()


def test_words_tell_apart_what_vectors_hold_for_the_same() -> None:
    x, _, _ = clusters(0, labels=1, each=24)
    texts = [f"{'arrivals' if i % 2 else 'departures'} at gate {i}" for i in range(24)]
    y = np.arange(24) % 2
    made = fit(x, y, ("out", "in"), texts)
    for vector in x:
        assert (told := made(vector, "departures today"))["out"] > told["in"]
        assert (told := made(vector, "arrivals today"))["in"] > told["out"]
    # and the other way round
    x, y, _ = clusters(0, labels=2, each=12)
    made = fit(x, y, ("a", "b"), ["the same words"] * 24)
    for vector, label in zip(x, y, strict=True):
        assert (told := made(vector, "the same words"))["ab"[label]] > told["ba"[label]]


@pytest.mark.parametrize("few", [False, True])
def test_few_of_what_it_knows_are_lost(few: bool) -> None:
    lost = []
    for seed in range(6):
        x, y, _ = clusters(seed, labels=5, each=45, width=16, spread=1.0)
        train = np.arange(len(y)) % 9 == 0 if few else np.arange(len(y)) % 3 == 0
        made = fit(x[train], y[train], tuple("abcde"))
        lost += [max(s := made(v), key=s.__getitem__) == UNKNOWN for v in x[~train]]
    assert 0.01 < np.mean(lost) < 0.12


@pytest.mark.parametrize("seed", range(4))
def test_new_texts_get_their_label_and_strange_ones_none(seed: int) -> None:
    x, y, others = clusters(seed, each=24)
    train = np.arange(len(y)) % 3 == 0
    made = fit(x[train], y[train], ("a", "b", "c", "d"))
    told = [made(v) for v in x[~train]]
    right = [max(s, key=s.__getitem__) == "abcd"[i] for s, i in zip(told, y[~train], strict=True)]
    strange = [max(s, key=s.__getitem__) == UNKNOWN for s in map(made, others)]
    assert np.mean(right) > 0.9
    assert np.mean(strange) > 0.9


def test_probabilities_are_those_of_being_right() -> None:
    # clusters that run into each other, so that nobody can be right always
    x, y, _ = clusters(5, labels=5, each=120, width=16, spread=1.4)
    train = np.arange(len(y)) % 6 == 0
    made = fit(x[train], y[train], tuple("abcde"))
    shares = [{k: v / (1 - s[UNKNOWN]) for k, v in s.items() if k != UNKNOWN} for s in map(made, x[~train])]
    sure = np.array([max(s.values()) for s in shares])
    right = np.array([max(s, key=s.__getitem__) == "abcde"[i] for s, i in zip(shares, y[~train], strict=True)])
    assert 0.4 < right.mean() < 0.98
    assert abs(sure.mean() - right.mean()) < 0.08
    assert right[sure > np.median(sure)].mean() > right[sure <= np.median(sure)].mean() + 0.1


def test_same_examples_same_head() -> None:
    x, y, _ = clusters(1)
    one, two = (fit(x, y, tuple("abcd")) for _ in range(2))
    assert np.array_equal(one.weight, two.weight)
    assert np.array_equal(one.limit, two.limit)


@settings(max_examples=40)
@given(st.integers(2, 6), st.integers(2, 5), st.integers(0, 10_000), st.booleans(), st.booleans())
def test_scores_sum_to_one_whatever_the_examples(labels: int, each: int, seed: int, same: bool, strange: bool) -> None:
    x, y, others = clusters(seed, labels, each, width=12)
    if same:
        x = np.repeat(x[:1], len(x), 0)
    made = fit(x, y, (*(str(i) for i in range(labels - 1)), UNKNOWN if strange else "last"))
    for vector in [*x[:3], *others[:3], -x[0], np.zeros_like(x[0])]:
        scores = made(vector)
        assert set(scores) == {UNKNOWN, *made.labels}
        assert abs(sum(scores.values()) - 1) < 1e-6
        assert all(0 <= p <= 1 for p in scores.values())


def test_a_label_of_ones_own_may_be_called_unknown() -> None:
    x, y, _ = clusters(2, labels=3)
    scores = fit(x, y, ("a", "b", UNKNOWN))(x[-1])
    assert max(scores, key=scores.__getitem__) == UNKNOWN
    assert abs(sum(scores.values()) - 1) < 1e-6


def test_examples_of_what_is_unknown_catch_more_and_lose_few() -> None:
    labels = tuple("abcde")
    lost: tuple[list[bool], list[bool]] = ([], [])
    caught: tuple[list[bool], list[bool]] = ([], [])
    for seed in range(6):
        x, y, others = clusters(seed, labels=5, each=40, width=16, spread=1.0)
        train, shown, asked = np.arange(len(y)) % 4 == 0, others[::2], others[1::2]
        plain = fit(x[train], y[train], labels)
        more = np.concatenate([x[train], shown]), np.concatenate([y[train], np.full(len(shown), 5)])
        made = fit(*more, (*labels, UNKNOWN))
        assert len(made.examples) == len(plain.examples)
        for number, one in enumerate((plain, made)):
            lost[number].extend(max(s := one(v), key=s.__getitem__) == UNKNOWN for v in x[~train])
            caught[number].extend(max(s := one(v), key=s.__getitem__) == UNKNOWN for v in asked)
    assert np.mean(caught[1]) > np.mean(caught[0])
    assert np.mean(lost[1]) < 0.12


def test_sentences_of_everyday_life_are_shown_as_unknown() -> None:
    plain = strangers({"a": ["one", "two"], "b": ["three", "four"]})
    assert list(plain) == ["a", "b", UNKNOWN] and len(plain[UNKNOWN]) == 2 * head.STRANGE
    taken = plain[UNKNOWN][0]
    own = strangers({UNKNOWN: ["mine", "yours"], "a": [taken, "two"]})
    assert own[UNKNOWN][:2] == ["mine", "yours"] and taken not in own[UNKNOWN]


def test_many_examples_of_one_label_and_few_of_another() -> None:
    x, y, _ = clusters(3, labels=3, each=120)
    keep = (y != 2) | (np.arange(len(y)) % 60 == 0)
    made = fit(x[keep], y[keep], ("a", "b", "c"))
    assert len(made.examples) == 2 * head.MOST + 2
    told = [max(s, key=s.__getitem__) for s in map(made, x[y == 2])]
    assert told.count("c") > 80
