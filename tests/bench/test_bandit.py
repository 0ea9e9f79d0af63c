"""The bandit that was held against the governor's rule: its values, those of mabwiser, and what replay says of it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.governor.policies import Bandit, replayed
from tests.bench.governor.scenes import ARMS, COST, Array


def taught(seed: int = 0, price: float = 0.0) -> tuple[Bandit, list[tuple[int, Array]]]:
    bandit, rng, told = Bandit(price), np.random.default_rng(seed), []
    for _ in range(60):
        context, rewards = int(rng.integers(0, 16)), rng.normal(COST, 0.2)
        bandit.learn(context, rewards)
        told.append((context, rewards))
    return bandit, told


def test_its_values_are_those_of_mabwiser() -> None:
    mab = pytest.importorskip("mabwiser.mab", reason="pip install mabwiser for this oracle")
    bandit, told = taught()
    arms = list(range(len(ARMS)))
    other = mab.MAB(arms, mab.LearningPolicy.LinUCB(alpha=bandit.alpha, l2_lambda=1.0))
    decisions = [arm for _ in told for arm in arms]
    rewards = [float(value) for _, row in told for value in row]
    contexts = [np.eye(16)[context] for context, _ in told for _ in arms]
    other.fit(decisions, rewards, contexts)
    for context in range(16):
        theirs = other.predict_expectations([np.eye(16)[context]])
        assert np.allclose([theirs[arm] for arm in arms], bandit.values(context))


def test_it_is_unsure_of_what_it_has_not_seen_and_minds_the_price() -> None:
    bandit, told = taught(price=50.0)
    seen = {context for context, _ in told}
    assert all(bandit.sure(context, 1) == (context in seen) for context in range(16))
    assert all(ARMS[int(bandit.values(context).argmax())] == ARMS[int(COST.argmin())] for context in seen)


def test_replay_weighs_what_the_recorded_policy_did_by_chance() -> None:
    """On records of a policy that draws evenly, the estimate is what the bandit really gets."""
    bandit, _ = taught(3)
    rng, log = np.random.default_rng(5), []
    for _ in range(20_000):
        context, arm = int(rng.integers(0, 16)), int(rng.integers(0, len(ARMS)))
        log.append((context, arm, 1 / len(ARMS), float(COST[arm] + 0.1 * context + rng.normal(0, 0.2))))
    real = float(np.mean([COST[int(bandit.values(c).argmax())] + 0.1 * c for c in range(16)]))
    mean, half = replayed(log, bandit)
    assert 0 < half < 0.1 and abs(mean - real) < 2 * half
