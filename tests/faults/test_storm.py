"""No alert is lost to kill -9, whoever is hit and whenever."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.storm import Result, Sent, storm


def check(result: Result) -> None:
    assert result.lost == 0, f"{result.lost} of {result.lines} lines are lost"
    assert result.twice == 0, f"{result.twice} lines came under two numbers"
    assert result.undeclared == 0, "numbers are missing and no gap event declares them"
    for who, worst in result.worst.items():
        assert worst <= 20, f"{worst} duplicates after one kill of the {who}"
    assert min(result.kills["agent"], result.kills["broker"]) > 0


def test_storm_of_kills(tmp_path: Path) -> None:
    check(storm(tmp_path, kills=12, seed=1))


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(100, 110))
def test_storm_of_a_thousand_kills(tmp_path: Path, seed: int) -> None:
    """In ten parts, so that one can be run alone, and again: its seed is its name."""
    check(storm(tmp_path, kills=100, seed=seed))


def test_an_id_that_is_cut_in_two_on_the_wire_is_counted_once() -> None:
    wire = b"".join(b'{"v":1,"id":"porch/7/%d","text":"x"}' % (n % 5) for n in range(50))
    for step in (1, 7, 60, 5000):
        sent = Sent()
        for at in range(0, len(wire), step):
            sent(wire[at : at + step])
        assert sent.times == {f"porch/7/{n}": 10 for n in range(5)}
