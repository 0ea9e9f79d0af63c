"""How far a device steps down, by arithmetic: simulated boards, sensors that lie, limits that cannot be met."""

from __future__ import annotations

import itertools
import math

import pytest

from edge_agent.governor.believe import HOLD_S, Believed
from edge_agent.governor.ladder import START, Bounds, Ladder, Reading
from edge_agent.governor.steps import FEW, PLANS, SIDES, SMALLEST, Look, Plan, plan_of, words

COSTS = [plan.cost for plan in PLANS] + [0.02]


def board(ladder: Ladder, hours: float, core_c: float, air: float, neighbour: tuple[float, float, float] = (0, 0, 0)):  # type: ignore[no-untyped-def]
    """A board that heats up: second, degrees, rung, percent of a core. `neighbour`: from, to (hours), cores."""
    warm, used = air + 12.0, 0.0
    for second in range(0, round(3600 * hours), 2):
        own = COSTS[ladder.rung]
        other = neighbour[2] if neighbour[0] <= second / 3600 < neighbour[1] else 0.0
        warm += (air + 12 + core_c * (own + other) - warm) / 120
        used += (100 * own - used) / 5
        ladder.step(second, Reading(cpu_percent=used, celsius=warm, memory_mb=100.0, watts=2 + 4 * (own + other)))
        yield second, warm, ladder.rung, used


def test_it_begins_safe_and_goes_up_where_there_is_room() -> None:
    ladder = Ladder(Bounds(celsius=80, cpu_percent=150), COSTS)
    assert ladder.rung == START
    rows = list(board(ladder, 1, core_c=30, air=20))
    assert rows[-1][2] == 0 and max(warm for _, warm, _, _ in rows) < 80


@pytest.mark.parametrize("air", [20, 35, 45])
@pytest.mark.parametrize("core_c", [40, 60])
def test_no_limit_of_heat_is_ever_passed(air: float, core_c: float) -> None:
    ladder = Ladder(Bounds(celsius=80), COSTS)
    rows = list(board(ladder, 6, core_c, air, neighbour=(2, 4, 0.3)))
    assert max(warm for _, warm, _, _ in rows) < 80
    steps = sum(a[2] != b[2] for a, b in itertools.pairwise(rows))
    assert steps < 60, "it does not hunt up and down"
    assert any(2.2 < second / 3600 < 4 and rung >= rows[3000][2] for second, _, rung, _ in rows)


def test_processor_and_watts_have_limits_too() -> None:
    for bounds, value in ((Bounds(cpu_percent=50), 50.0), (Bounds(watts=4.5), None)):
        ladder = Ladder(bounds, COSTS)
        rows = list(board(ladder, 1, 40, 20))
        assert 0 < rows[-1][2] < START
        assert value is None or max(used for _, _, _, used in rows) <= value


def test_it_steps_down_at_once_and_says_why() -> None:
    ladder = Ladder(Bounds(memory_mb=200), COSTS)
    assert not ladder.step(0, Reading(memory_mb=100)) and ladder.step(30, Reading(memory_mb=100))
    assert ladder.rung == START - 1 and ladder.why == "there is room again"
    assert ladder.step(40, Reading(memory_mb=190)) and ladder.rung == START
    assert ladder.why == "190 of 200 MB of memory"


def test_what_cannot_be_met_is_said() -> None:
    ladder = Ladder(Bounds(celsius=60), COSTS)
    for second in range(0, 600, 2):
        ladder.step(second, Reading(celsius=90.0))
    assert ladder.rung == len(COSTS) - 1 and ladder.over == "90 of 60 °C" and "no step is left" in ladder.why


def test_a_rung_that_had_to_be_left_is_kept_from_for_longer_each_time() -> None:
    ladder, ups, rung = Ladder(Bounds(watts=10), COSTS), list[int](), START
    for second in range(0, 20_000, 2):
        ladder.step(second, Reading(watts=9.5 if ladder.rung < 2 else 3.0, cpu_percent=1.0))
        if rung == 2 and ladder.rung == 1:
            ups.append(second)
        rung = ladder.rung
    waits = [b - a for a, b in itertools.pairwise(ups)]
    assert len(waits) > 4 and waits == sorted(waits) and waits[-1] > 1000


def test_who_is_blind_stays_on_the_safe_rung() -> None:
    ladder = Ladder(Bounds(celsius=70), COSTS)
    for second in range(0, 400, 2):
        ladder.step(second, Reading(celsius=30.0, cpu_percent=1.0))
    assert ladder.rung == 0
    for second in range(400, 1000, 2):
        ladder.step(second, Reading(blind="no sensor of heat is there"))
    assert ladder.rung == START and "no sensor" in ladder.why
    for second in range(1000, 1600, 2):
        ladder.step(second, Reading(celsius=30.0, cpu_percent=1.0))
    assert ladder.rung == 0


@pytest.mark.parametrize("lie", [[0.0], [255.0], [-273.0], []])
def test_sensors_that_lie_are_not_believed(lie: list[float]) -> None:
    believed = Believed()
    assert believed(0, [41.0, 45.0]) == 45.0
    assert believed(5, lie) == 45.0, "the last one holds for a moment"
    assert believed(5 + HOLD_S, lie) is None and "sensor of heat" in believed.what
    assert believed(60, [46.0, *lie]) == 46.0 and not believed.what


def test_a_jump_has_to_be_said_again_and_again() -> None:
    believed = Believed()
    assert believed(0, [40.0]) == 40.0
    assert [believed(2 * n, [90.0]) for n in range(1, 5)] == [40.0, 40.0, 40.0, 90.0]


def test_plans_get_cheaper_and_lower_priorities_go_first() -> None:
    assert [plan.cost for plan in PLANS] == sorted((plan.cost for plan in PLANS), reverse=True)
    assert plan_of(0, 3) == Plan() and plan_of(1, 0) == PLANS[1] and plan_of(1, 1) == PLANS[3]
    assert plan_of(99, 0) == PLANS[-1] and words(0, 0) == "nothing is saved" and "2 paused" in words(7, 2)
    assert (
        PLANS[2].of(0) == PLANS[2].nothing
        and PLANS[2].of(FEW) == PLANS[2].few
        and PLANS[2].of(FEW + 1) == PLANS[2].many
    )


def test_what_cannot_be_had_smaller_is_looked_at_more_seldom() -> None:
    for plan in PLANS:
        for look in plan[:3]:
            assert look.at(SIDES) == look
            other = look.at((1.0,))
            assert other.side == 1.0 and SMALLEST <= other.often <= look.often
    assert math.isclose(Look(0.77, 1.0).at((1.0,)).often, 0.77**2) and Look(0.62, 1.0).at((1.0, 0.77)).side == 0.77
