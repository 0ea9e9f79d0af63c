"""How much is on its way at once: little at first, then as the broker answers."""

from __future__ import annotations

import heapq
import random

from edge_agent.link.pace import LATE_S, MOST, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fill(pace: Pace, first: int) -> list[int]:
    """Send as many as there is room for; their packet ids."""
    sent = list(range(first, first + pace.room()))
    for packet in sent:
        pace.sent(packet)
    return sent


def test_a_quick_broker_soon_gets_all_that_may_be_on_its_way() -> None:
    clock = Clock()
    pace, trips, packet, most = Pace(clock), 0, 0, list[int]()
    while not most or most[-1] < MOST:
        flying = fill(pace, packet)
        packet += len(flying)
        most.append(len(flying))
        clock.now += 0.05
        for one in flying:
            pace.answered(one)
        trips += 1
    assert most == [1, 2, 4, 8, 16, 32, 40] and trips == 7


def test_a_late_answer_halves_it_once_and_a_quick_one_lets_it_grow() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.window = 32.0
    flying = fill(pace, 0)
    clock.now += LATE_S[1] + 1
    for one in flying:
        pace.answered(one)
    assert pace.window == 16 and pace.room() == 16, "those that were on their way together count once"
    fill(pace, 100)
    clock.now += 0.1
    pace.answered(100)
    assert pace.window == 17


def test_a_slow_line_is_not_a_busy_broker() -> None:
    clock = Clock()
    pace, packet = Pace(clock), 0
    for _ in range(10):
        flying = fill(pace, packet)
        packet += len(flying)
        clock.now += 0.9  # over a satellite
        for one in flying:
            pace.answered(one)
    assert pace.window == MOST


def test_at_one_it_rests_as_long_as_the_answer_took() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.sent(1)
    clock.now += 10
    pace.answered(1)
    assert pace.window == 1 and pace.room() == 0
    clock.now += 4.9
    assert pace.room() == 0
    clock.now += 10.3
    assert pace.room() == 1
    pace.answered(99)
    assert pace.room() == 1, "an answer to nothing of ours"


def test_a_fleet_does_not_run_over_a_broker_that_comes_back() -> None:
    """500 devices with 20 events each at a broker that takes 250 a second: what lies there at once."""
    random.seed(1)
    clock = Clock()
    fleet, left = [Pace(clock) for _ in range(500)], [20] * 500
    queue: list[tuple[float, int, int]] = []
    free, longest, numbers, begins = clock.now, 0, 0, [clock.now + random.uniform(0, 2) for _ in fleet]
    while any(left) or queue:
        clock.now += 0.02
        while queue and queue[0][0] <= clock.now:
            _, packet, device = heapq.heappop(queue)
            fleet[device].answered(packet)
        for device, pace in enumerate(fleet):
            if left[device] and clock.now >= begins[device]:
                for _ in range(min(pace.room(), left[device])):
                    left[device] -= 1
                    numbers += 1
                    pace.sent(numbers)
                    free = max(free, clock.now) + 0.004
                    heapq.heappush(queue, (free, numbers, device))
        longest = max(longest, len(queue))
    assert longest < 2000, f"{longest}, and not 10,000"
    assert clock.now - 100 < 100, "it takes 40 seconds at the least"
