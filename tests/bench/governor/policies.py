"""The rivals: a static choice, PID, the ladder with and without the rule by what is in view, a bandit, an oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_agent.governor.ladder import Bounds, Ladder, Reading
from edge_agent.governor.steps import PLANS, Look
from tests.bench.governor.days import LIMIT_C, LIMIT_CPU, STEP_S, Day, Policy, Seen
from tests.bench.governor.scenes import ARMS, COST, Array

BOUNDS = Bounds(cpu_percent=LIMIT_CPU, celsius=LIMIT_C)


def arm_of(look: Look) -> int:
    """The arm that looks like this."""
    return min(range(len(ARMS)), key=lambda n: abs(ARMS[n][0] - look.side) * 10 + abs(ARMS[n][1] - look.often))


def static(arm: int) -> Policy:
    """One for all."""
    return lambda seen: arm


def pid(line: list[int], goal_c: float = LIMIT_C - 3, goal_cpu: float = LIMIT_CPU - 5, most: float = 1.0) -> Policy:
    """Heat held at a goal by how much of a core is used; `line`: arms from cheap to dear that it may choose from."""
    whole, before = most, LIMIT_C

    def choose(seen: Seen) -> int:
        nonlocal whole, before
        error, slope = goal_c - seen.celsius, (seen.celsius - before) / STEP_S
        before = seen.celsius
        whole = min(most, max(0.0, whole + 0.0005 * error * STEP_S))
        allowed = min(goal_cpu / 100, most, whole + 0.02 * error - 0.2 * slope)
        fits = [arm for arm in line if COST[arm] <= max(allowed, 0.06)]
        return fits[-1] if fits else line[0]

    return choose


class Laddered:
    """The product's ladder; within a rung the rule by what is in view, or always as for many."""

    def __init__(self, by_things: bool = True, best: int = 0) -> None:
        """`best`: the highest rung that it is let onto."""
        self.ladder = Ladder(BOUNDS, [plan.cost for plan in PLANS] + [0.02])
        self.by_things, self.best = by_things, best
        self.arms = [[arm_of(look) for look in plan[:3]] for plan in PLANS]

    def rung(self, seen: Seen) -> int:
        """Where it stands now."""
        self.ladder.step(seen.now, Reading(cpu_percent=seen.cpu, celsius=seen.celsius))
        return max(self.best, self.ladder.rung)

    def __call__(self, seen: Seen) -> int:
        """The arm of the rung."""
        rung = self.rung(seen)
        if rung >= len(PLANS):
            return -1
        nothing, few, many = self.arms[rung]
        if not self.by_things:
            return many
        return many if seen.things > 2 else few if seen.things > 0.3 else nothing


EDGES = (0.3, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5)


class Bandit:
    """LinUCB with an arm each (Li et al., WWW 2010), on one-hot contexts: how much is in view, and whether it is dark.

    Its reward is what can be had without a truth: agreement with boxes that two sizes and more find, which is looked at
    for all arms in a spot check now and then, made linear in what F1 gains, less a price for processor time.
    """

    def __init__(self, price: float, alpha: float = 0.3, ridge: float = 1.0) -> None:
        self.price, self.alpha, size = price, alpha, 2 * (len(EDGES) + 1)
        self.a = np.full((len(ARMS), size), ridge)
        """of a one-hot context the matrix is its diagonal"""
        self.b = np.zeros((len(ARMS), size))
        self.seen = np.zeros(size)

    def context(self, seen: Seen) -> int:
        """Number of the context."""
        return 2 * int(np.searchsorted(EDGES, seen.things)) + seen.dark

    def learn(self, context: int, rewards: Array) -> None:
        """A spot check: what each arm would have got."""
        self.a[:, context] += 1
        self.b[:, context] += rewards
        self.seen[context] += 1

    def sure(self, context: int, least: int = 5) -> bool:
        """Whether it knows this context."""
        return bool(self.seen[context] >= least)

    def values(self, context: int) -> Array:
        """Upper bound of each arm's reward, less its price."""
        mean = self.b[:, context] / self.a[:, context]
        return np.asarray(mean + self.alpha / np.sqrt(self.a[:, context]) - self.price * COST)


def reward(table: Array, condition: int, second: int, level: float = 0.95) -> Array:
    """Of each arm in a second of film, against what sizes agree on: what F1 gains where it stands at `level`."""
    matched, found, people = table[3:6, condition, :, second]
    return np.asarray(2 * matched - level * (found + people)) / 10


def taught(bandit: Bandit, day: Day, table: Array, every: int = 150, seed: int = 0) -> Policy:
    """A policy that acts by the bandit and spot-checks a second of film every so many steps: to be run on days."""
    at = 0

    def choose(seen: Seen) -> int:
        nonlocal at
        context = bandit.context(seen)
        if at % every == 0:
            ahead = (at + 1) * STEP_S % table.shape[3]
            bandit.learn(context, reward(table, int(day.sees[min(at + 1, len(day.sees) - 1)]), ahead))
        at += 1
        return int(bandit.values(context).argmax()) if bandit.sure(context) else 0

    return choose


class Learned(Laddered):
    """What the bandit has learned, within what the ladder allows; where it is unsure, as the ladder has it."""

    def __init__(self, bandit: Bandit) -> None:
        super().__init__()
        self.bandit = bandit
        self.best_of: dict[tuple[int, int], int] = {}

    def __call__(self, seen: Seen) -> int:
        """The best arm that costs no more than the rung's dearest."""
        rung, context = self.rung(seen), self.bandit.context(seen)
        if rung >= len(PLANS) or not self.bandit.sure(context):
            return super().__call__(seen) if rung < len(PLANS) else -1
        key = rung, context
        if key not in self.best_of:
            most = max(COST[arm] for arm in self.arms[rung]) + 1e-9
            values = np.where(most >= COST, self.bandit.values(context), -np.inf)
            self.best_of[key] = int(values.argmax())
        return self.best_of[key]


def oracle(day: Day, table: Array, price: float, level: float) -> Policy:
    """Knows what each arm will find in the next second; within the ladder's rung."""
    gain = (2 * table[0] - level * (table[1] + table[2])) / 10 - price * COST[None, :, None]
    ladder, at = Laddered(), 0

    def choose(seen: Seen) -> int:
        nonlocal at
        rung, here = ladder.rung(seen), gain[day.sees[at], :, at * STEP_S % table.shape[3]]
        at += 1
        if rung >= len(PLANS):
            return -1
        most = max(COST[arm] for arm in ladder.arms[rung]) + 1e-9
        return int(np.where(most >= COST, here, -np.inf).argmax())

    return choose


def replayed(log: list[tuple[int, int, float, float]], bandit: Bandit) -> tuple[float, float]:
    """What a bandit would have got on a recorded day, and half of the interval around that (95 %), by weighing those
    records in which the recorded policy did what it would have done (self-normalised inverse propensities).

    `log`: context, arm, probability of that arm, reward less price.
    """
    rows: Any = [(r, (int(bandit.values(c).argmax()) == a) / p) for c, a, p, r in log]
    got, weight = (np.array(column) for column in zip(*rows, strict=True))
    if not weight.sum():
        return 0.0, np.inf
    mean = float((got * weight).sum() / weight.sum())
    spread = float(np.sqrt(((weight * (got - mean)) ** 2).sum()) / weight.sum())
    return mean, 1.96 * spread
