"""No alert is lost to kill -9, whoever is hit and whenever."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.storm import LINES_S, Result, storm


def check(result: Result) -> None:
    assert result.lost == 0, f"{result.lost} of {result.lines} lines are lost"
    assert result.twice == 0, f"{result.twice} lines came under two numbers"
    assert result.undeclared == 0, "numbers are missing and no gap event declares them"
    assert result.worst["agent"] <= 20, f"{result.worst['agent']} duplicates after one kill of the agent"
    assert result.worst["broker"] <= 20 + 3 * LINES_S, "more than the window and what the broker saves a second"
    assert min(result.kills["agent"], result.kills["broker"]) > 0


def test_storm_of_kills(tmp_path: Path) -> None:
    check(storm(tmp_path, kills=20, seed=1))


@pytest.mark.faults
def test_storm_of_a_thousand_kills(tmp_path: Path) -> None:
    check(storm(tmp_path, kills=1000, seed=2))
