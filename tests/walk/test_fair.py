"""Who goes first on the processor: shares, deadlines, priorities, on a clock of the test's own."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.walk.fair import AHEAD, LONG_S, Client, Queue, Turn


class Work(NamedTuple):
    """What one thread of a pipeline does again and again."""

    client: Client
    seconds: float
    """that each run takes"""
    every: float = 0.0
    """seconds between two samples; 0: they wait already"""
    threads: int = 1


@dataclass
class Box:
    """A processor that takes no time but for runs, which last exactly as long as they say."""

    queue: Queue
    now: float = 100.0
    done: list[tuple[Work, float, float]] = field(default_factory=list)
    """work, when it was asked for, when it began"""
    _events: list[tuple[float, int, Turn | Work]] = field(default_factory=list)
    _count: int = 0
    _of: dict[int, tuple[Work, float]] = field(default_factory=dict)

    def _at(self, when: float, what: Turn | Work) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def run(self, works: list[Work], seconds: float) -> None:
        for number, work in enumerate(works):
            self._at(self.now + number * 1e-4, work)
        end = self.now + seconds
        while self._events and self._events[0][0] < end:
            self.now, _, what = heapq.heappop(self._events)
            if isinstance(what, Turn):
                self.queue.end(what, self.now, self.now - what.began)
                work, asked = self._of.pop(what.number)
                self._at(max(self.now, asked + work.every), work)
            else:
                due = self.now + what.client.deadline
                turn = self.queue.ask(what.client, what.threads, what.seconds, due, self.now)
                self._of[turn.number] = what, self.now
            for turn in self._begun():
                work, asked = self._of[turn.number]
                self.done.append((work, asked, self.now))
                self._at(self.now + work.seconds, turn)

    def _begun(self) -> Iterator[Turn]:
        while (turn := self.queue.next(self.now)) is not None:
            assert turn.slots > 0 and self.queue.free >= 0, "no slot is given twice"
            for other in self.queue.waiting:
                # nobody starves: each run brings a pipeline further, and then it is too far
                assert turn.start <= other.client.spent + AHEAD or not self.queue._may(other, self.now)
            yield turn

    def waits(self, client: Client) -> list[float]:
        """Seconds that each of its runs waited."""
        return [began - asked for work, asked, began in self.done if work.client is client]


def twice(*works: Work) -> list[Work]:
    """With two threads each: one cannot ask for its next run before its last one has ended, and then others begin."""
    return [*works, *works]


def shares(works: list[Work]) -> list[float]:
    total = sum(work.client.used for work in works)
    return [work.client.used / total for work in works]


def test_each_gets_its_share_of_one_core_whatever_it_asks_for_at_once() -> None:
    works = [Work(Client(share=4), 0.01), Work(Client(share=2), 0.05), Work(Client(), 0.003), Work(Client(), 0.09)]
    Box(Queue(1)).run(twice(*works), 120)
    assert shares(works) == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.01)


def test_four_pipelines_on_two_cores_get_their_shares() -> None:
    lengths = (0.03, 0.02, 0.01, 0.04)
    works = [Work(Client(share=share), length) for share, length in zip((4, 2, 1, 1), lengths, strict=True)]
    Box(Queue(2)).run(twice(*works), 240)
    assert shares(works) == pytest.approx([0.5, 0.25, 0.125, 0.125], rel=0.05)


def test_what_one_leaves_goes_to_the_others_and_is_not_kept_for_it() -> None:
    rests, works, box = Client(share=9), Client(), Box(Queue(1))
    box.run([Work(rests, 0.001, every=1.0), *twice(Work(works, 0.01))], 60)
    assert works.used > 0.99 * 60 * 0.99
    before = works.used
    box.run(twice(Work(rests, 0.01)), 10)
    assert works.used - before == pytest.approx(1.0, abs=0.1), "a tenth from the first second on"


def test_the_highest_priority_waits_for_one_run_at_most_while_within_its_share() -> None:
    camera = Work(Client(priority=9, share=2), 0.03, every=0.1)
    box = Box(Queue(1))
    box.run([camera, *twice(*(Work(Client(priority=priority), 0.02) for priority in (5, 5, 0)))], 60)
    assert max(box.waits(camera.client)) < 0.0201


def test_on_two_cores_the_highest_priority_waits_for_nobody_while_within_its_share() -> None:
    """Whatever the lowest does."""
    camera = Work(Client(priority=9, share=2), 0.02, every=0.1)
    box = Box(Queue(2))
    rest = [Work(Client(priority=priority), seconds) for priority, seconds in ((5, 0.03), (5, 0.02), (0, 0.09))]
    box.run([camera, *twice(*rest)], 60)
    waits = box.waits(camera.client)
    assert max(waits[1:]) < 0.0001 and max(waits) <= 0.02


def test_priority_does_not_give_more_than_the_share() -> None:
    works = [Work(Client(priority=9), 0.03), Work(Client(priority=0), 0.02)]
    Box(Queue(1)).run(twice(*works), 60)
    assert shares(works) == pytest.approx([0.5, 0.5], abs=0.01)


def test_among_equals_the_earliest_deadline_goes_first() -> None:
    queue = Queue(1)
    busy = queue.ask(Client(), 1, 0.01, 9.0, 0.0)
    assert queue.next(0.0) is busy
    late, soon, never = (queue.ask(Client(), 1, 0.01, due, 0.0) for due in (3.0, 1.0, float("inf")))
    queue.end(busy, 0.01, 0.01)
    order = []
    while turn := queue.next(0.01):
        order.append(turn)
        queue.end(turn, 0.01, 0.01)
    assert order == [soon, late, never]


def test_what_is_given_up_takes_no_turn() -> None:
    queue = Queue(1)
    old = queue.ask(Client(gives_up=True), 1, 0.01, 1.0, 0.0)
    assert queue.next(2.0) is None and queue.waiting == [old]
    queue.drop(old)
    assert not queue.waiting and not old.client.turns


@pytest.mark.parametrize(("threads", "of_the_camera"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_no_camera_waits_behind_a_long_run_where_there_are_two_cores(threads: int, of_the_camera: int) -> None:
    camera = Work(Client(), 0.03, every=0.1, threads=of_the_camera)
    speech = [Work(Client(), 0.8, threads=threads) for _ in range(2)]
    box = Box(Queue(2))
    box.run([camera, *speech], 60)
    assert max(box.waits(camera.client)) == 0
    assert all(work.client.used > 0 for work in speech)


@pytest.mark.parametrize(("under_way", "waits"), [(0.06, False), (0.004, True)])
def test_a_run_of_every_core_waits_for_what_ends_sooner_than_sharing_would_cost(under_way: float, waits: bool) -> None:
    """60 ms of another pipeline are less than LONG_S, and six times what a camera's 10 ms are."""
    queue = Queue(2)
    queue.ask(Client(), 1, under_way, 1e9, 100.0)
    assert queue.next(100.0) is not None
    camera = queue.ask(Client(7), 2, 0.01, 1e9, 100.0)
    assert (queue.next(100.0) is not camera) is waits


def test_long_runs_have_all_cores_where_nobody_asks_for_short_ones() -> None:
    works = [Work(Client(), 0.8) for _ in range(2)]
    box = Box(Queue(2))
    box.run(works, 60)
    assert sum(work.client.used for work in works) > 0.95 * 2 * 59


def test_on_one_core_a_camera_waits_for_the_long_run_that_is_under_way() -> None:
    camera, speech = Work(Client(priority=9), 0.03, every=0.1), Work(Client(), 0.8)
    box = Box(Queue(1))
    box.run([camera, speech], 60)
    assert 0.5 < max(box.waits(camera.client)) < 0.8001


works_of = st.builds(
    Work,
    st.builds(
        Client,
        priority=st.integers(0, 9),
        share=st.sampled_from([0.1, 1.0, 3.0, 20.0]),
        deadline=st.sampled_from([0.01, 1.0, float("inf")]),
    ),
    seconds=st.sampled_from([0.01, 0.02, 0.09, LONG_S, 0.7]),
    every=st.sampled_from([0.0, 0.0, 0.03, 0.5]),
    threads=st.integers(1, 4),
)


@settings(max_examples=60)
@given(st.lists(works_of, min_size=1, max_size=6), st.integers(1, 4))
def test_nobody_starves_and_no_slot_is_given_twice(works: list[Work], cores: int) -> None:
    """See `Box._begun`."""
    box = Box(Queue(cores))
    box.run(works, 10)
    assert box.done and len(box.queue.running) + len(box.queue.waiting) <= len(works)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1.0, 2.0, 3.0])), min_size=2, max_size=8))
def test_order_of_those_who_are_level_is_priority_then_deadline_then_coming(wanted: list[tuple[int, float]]) -> None:
    queue = Queue(1)
    busy = queue.ask(Client(), 1, 0.0, 0.0, 0.0)
    assert queue.next(0.0) is busy
    turns = [queue.ask(Client(priority), 1, 0.0, due, 0.0) for priority, due in wanted]
    queue.end(busy, 0.0, 0.0)
    order = []
    while turn := queue.next(0.0):
        order.append(turns.index(turn))
        queue.end(turn, 0.0, 0.0)
    assert order == sorted(range(len(wanted)), key=lambda at: (-wanted[at][0], wanted[at][1], at))
