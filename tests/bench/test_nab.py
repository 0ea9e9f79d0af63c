"""The scorer of Numenta's benchmark: no alarm is 0, perfect alarms are 100, and what lies between."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.nab import FALSE, Doubles, One, Scorer, alarms, falling


def made(windows: list[tuple[int, int]], count: int = 1000) -> Scorer:
    return Scorer([One("a", [0.0] * count, [0.0] * count, windows)])


def at(*rows: int, count: int = 1000) -> list[Doubles]:
    return [np.isin(np.arange(count), rows).astype(float)]


def test_no_alarm_is_0_and_perfect_alarms_are_100() -> None:
    scorer = made([(300, 399), (700, 799)])
    assert scorer.best(at())[0] == 0
    assert scorer.best(at(300, 700))[0] == pytest.approx(100)
    assert scorer.best(at(300))[0] == pytest.approx(50)


def test_a_late_alarm_is_worth_less_and_only_the_first_counts() -> None:
    scorer = made([(300, 399)])
    half = scorer.best(at(350))[0]
    assert half == pytest.approx(50 * (1 + falling(-0.5) / falling(-1)))
    assert scorer.best(at(350, 351, 399))[0] == half


def test_a_false_alarm_costs_less_right_behind_a_window_and_nothing_where_nothing_counts() -> None:
    scorer = made([(300, 399)])
    assert scorer.at(at(300, 900), 1.0)[0] == pytest.approx(1 - FALSE)
    assert scorer.at(at(300, 200), 1.0)[0] == pytest.approx(1 - FALSE)
    assert scorer.at(at(300, 400), 1.0)[0] == pytest.approx(1 + FALSE * falling(1 / 99))
    assert scorer.at(at(300, 100), 1.0)[0] == pytest.approx(1), "the first 150 rows"


def test_an_alarm_is_held_until_it_was_calm() -> None:
    rare = np.array([0, 9, 1, 9, 1, 1, 1, 9.0])
    assert alarms(rare, 5, 3).nonzero()[0].tolist() == [1, 7]
