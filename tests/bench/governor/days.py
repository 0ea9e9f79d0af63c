"""Ten days of 24 hours: what the camera sees, how warm it is, what else runs; and a board that heats up (RC model)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.bench.governor.scenes import ARMS, CONDITIONS, COST, DARK, Array

STEP_S = 2
SECONDS = 86_400
LIMIT_C, LIMIT_CPU = 80.0, 90.0
CORES = 1.6
"""of the board: what a neighbour takes of them is not there"""
IDLE_C, CORE_C, TAU_S = 12.0, 38.0, 240.0
"""degrees above the air when idle, degrees more for a core, and how fast it heats up"""

_NIGHT, _QUIET = {"nightsparse": 0.3, "empty": 0.7}, {"sparse": 0.5, "empty": 0.5}
_DAY, _RUSH = {"sparse": 0.5, "busy": 0.3, "empty": 0.2}, {"busy": 0.9, "sparse": 0.1}
_EVENING, _DARK = {"night": 0.5, "nightsparse": 0.3, "empty": 0.2}, {"night": 0.85, "nightsparse": 0.15}
Hours = list[tuple[int, dict[str, float]]]
ORDINARY: Hours = [(0, _NIGHT), (6, _QUIET), (7, _RUSH), (9, _DAY), (12, _RUSH), (13, _DAY), (16, _RUSH),
                   (18, _EVENING), (22, _NIGHT)]  # fmt: skip
BUSY: Hours = [(0, _EVENING), (6, _RUSH), (22, _EVENING)]


class Day(NamedTuple):
    """Each column has a row every STEP_S seconds."""

    sees: Array
    """number of the condition"""
    air: Array
    """°C"""
    others: Array
    """cores that neighbours take"""
    heat: Array
    """times as badly cooled"""


def days(seed: int) -> dict[str, Day]:
    """By name."""
    hour, rng = np.arange(0, SECONDS, STEP_S) / 3600, np.random.default_rng(seed)
    none, one = np.zeros(len(hour)), np.ones(len(hour))
    work = ((hour >= 8) & (hour < 18)) * 0.7 + ((hour >= 18) & (hour < 23)) * 0.25
    bursts = np.repeat(rng.random(288) < 0.4, 300 // STEP_S) * 0.3
    sun = 16 * np.clip(np.minimum(hour - 11, 15 - hour) * 2, 0, 1)

    def air(mean: float, swing: float) -> Array:
        return np.asarray(mean + swing * np.sin((hour - 9) / 24 * 2 * np.pi))

    rows = {
        "ordinary": (ORDINARY, air(22, 5), none, one),
        "heat wave": (ORDINARY, air(34, 8), none, one),
        "rush hour": (BUSY, air(24, 5), none, one),
        "night": ([(0, _DARK), (7, _DAY), (18, _DARK)], air(18, 4), none, one),
        "neighbour process": (ORDINARY, air(24, 5), work, one),
        "dying fan": (ORDINARY, air(24, 5), none, 1 + 0.9 * np.clip((hour - 8) / 8, 0, 1)),
        "metered link": (ORDINARY, air(22, 5), none, one),
        "sun on the box": (BUSY, air(25, 4) + sun, none, 1.15 * one),
        "holiday": ([(0, _NIGHT), (7, _QUIET), (20, _NIGHT)], air(26, 6), none, one),
        "all at once": (BUSY, air(30, 7), bursts, 1 + 0.3 * ((hour >= 12) & (hour < 18))),
    }
    return {name: Day(_sees(hours, rng), *rest) for name, (hours, *rest) in rows.items()}


def _sees(hours: Hours, rng: Any) -> Array:
    """Minutes of one condition after the other, as likely as the hour has it."""
    out, at = np.zeros(SECONDS // STEP_S, int), 0
    while at < len(out):
        likely = next(one for begin, one in reversed(hours) if begin <= at * STEP_S / 3600)
        condition = rng.choice(list(likely), p=np.array(list(likely.values())) / sum(likely.values()))
        length = int(rng.exponential(600) + 60) // STEP_S
        out[at : at + length] = CONDITIONS.index(condition)
        at += length
    return out


class Seen(NamedTuple):
    """What a policy is shown."""

    now: float
    things: float
    """most in view in the last eight looks at it"""
    dark: int
    celsius: float
    cpu: float
    """percent of a core, mean of the last ten seconds or so"""


class Came(NamedTuple):
    """What came of a day."""

    matched: float
    found: float
    people: float
    cpu: float
    """mean cores"""
    hot: int
    """seconds above LIMIT_C"""
    busy: int
    """minutes above LIMIT_CPU"""


Policy = Callable[[Seen], int]
"""-> number of an arm; -1: paused"""


def live(day: Day, table: Array, policy: Policy, seed: int = 0) -> Came:
    """A day with a policy."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.3, len(day.sees)).tolist()
    sees, air, others, heat = (column.tolist() for column in day)
    things, costs, slower = table[6].tolist(), COST.tolist(), _slower()
    counts: dict[tuple[int, int, int], int] = {}
    warm = air[0] + IDLE_C
    recent, used, minute, cpu, hot, busy = [9.0] * 8, 0.0, 0.0, 0.0, 0, 0
    arm, film = 0, table.shape[3]
    for at, condition in enumerate(sees):
        second = at * STEP_S % film
        arm = policy(Seen(at * STEP_S, max(recent), DARK[condition], warm + noise[at], used))
        if arm >= 0:
            arm = slower[arm][max(0, min(160, round(100 * (CORES - others[at]))))]
            counts[condition, arm, second] = counts.get((condition, arm, second), 0) + 1
            recent[at % 8] = things[condition][arm][second]
        own = costs[arm] if arm >= 0 else 0.02
        cpu += own
        used += (100 * own - used) * STEP_S / 10
        minute += own
        warm += (air[at] + (IDLE_C + CORE_C * (own + others[at])) * heat[at] - warm) * STEP_S / TAU_S
        hot += STEP_S * (warm > LIMIT_C)
        if (at + 1) % 30 == 0:
            busy, minute = busy + (minute / 30 * 100 > LIMIT_CPU), 0.0
    sums = sum((n * table[:3, c, a, s] for (c, a, s), n in counts.items()), np.zeros(3))
    missed = sum(table[2, c, 0, int(s)] for c, s in _paused(sees, counts, film))
    return Came(sums[0], sums[1], sums[2] + missed, cpu / len(sees), hot, busy)


def _paused(sees: list[int], counts: dict[tuple[int, int, int], int], film: int) -> list[tuple[int, int]]:
    """Condition and second of film of what nobody looked at."""
    left: dict[tuple[int, int], int] = {}
    for at, condition in enumerate(sees):
        key = condition, at * STEP_S % film
        left[key] = left.get(key, 0) + 1
    for (condition, _, second), count in counts.items():
        left[condition, second] -= count
    return [key for key, count in left.items() for _ in range(count)]


def _slower() -> list[list[int]]:
    """Arm, hundredths of a core that are there -> the arm that comes of it, as frames are dropped."""
    rows = []
    for side, often in ARMS:
        same = [n for n, (other, share) in enumerate(ARMS) if other == side and share <= often]
        fits = [[n for n in same if COST[n] <= free / 100] for free in range(161)]
        rows.append([max(some, key=lambda n: COST[n]) if some else same[-1] for some in fits])
    return rows


def f1(came: list[Came]) -> float:
    """Of several days together."""
    matched, found, people = (sum(getattr(one, what) for one in came) for what in ("matched", "found", "people"))
    return float(2 * matched / (found + people))
