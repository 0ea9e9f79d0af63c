"""The consumer's account: missing, declared, twice."""

from __future__ import annotations

import random

import msgspec
import pytest

from edge_agent.consumer.audit import Audit, _Ranges


def event(seq: int, device: str = "d", **more: object) -> bytes:
    return msgspec.json.encode({"device": device, "epoch": 7, "seq": seq, "kind": "text", **more})


def test_missing_declared_and_twice() -> None:
    audit = Audit()
    for seq in (1, 2, 3, 3, 9, 10):
        audit.add(event(seq))
    audit.add(event(11, kind="gap", first=5, last=7, count=3, why=""))
    audit.add(event(1, device="e"))
    audit.add(b"not ours")
    audit.add(b'{"device": 3}')
    d, e = audit.rows()
    assert (d.first, d.last, d.received, d.duplicates, d.gaps, d.declared, d.missing) == (1, 11, 6, 1, 1, 3, 2)
    assert (e.device, e.received, e.missing) == ("e", 1, 0)


def test_what_was_dropped_before_the_first_that_came_is_told_too() -> None:
    """A store that was full begins with its newest events, and a gap event for those before them."""
    audit = Audit()
    for seq in (101, 102, 103):
        audit.add(event(seq))
    audit.add(event(104, kind="gap", first=1, last=100, count=100, why=""))
    (row,) = audit.rows()
    assert (row.first, row.last, row.received, row.declared, row.missing) == (101, 104, 4, 100, 0)


@pytest.mark.parametrize(
    ("gaps", "declared", "missing"),
    [
        ([(2, 10, 9)], 9, 10),
        ([(2, 10, 2)], 2, 17),
        ([(2, 10, 2), (5, 20, 3)], 5, 14),
        ([(2, 4, 3), (5, 20, 2)], 5, 14),
        ([(2, 4, 50)], 3, 16),
    ],
)
def test_a_gap_declares_no_more_than_its_count(gaps: list[tuple[int, int, int]], declared: int, missing: int) -> None:
    """Numbers 2 to 20 did not come."""
    audit = Audit()
    audit.add(event(1))
    for seq, (first, last, count) in enumerate(gaps, 21):
        audit.add(event(seq, kind="gap", first=first, last=last, count=count, why=""))
    (row,) = audit.rows()
    assert (row.declared, row.missing) == (declared, missing)


def test_who_came_late_misses_nothing_of_what_a_gap_left_to_others() -> None:
    audit = Audit()
    audit.add(event(50))
    audit.add(event(51, kind="gap", first=1, last=49, count=5, why=""))
    (row,) = audit.rows()
    assert (row.declared, row.missing) == (5, 0)


def test_ranges_are_sets() -> None:
    rng = random.Random(3)
    for _ in range(200):
        ranges = _Ranges()
        plain: set[int] = set()
        for _ in range(rng.randrange(1, 30)):
            first = rng.randrange(60)
            last = first + rng.randrange(6)
            fresh = set(range(first, last + 1)) - plain
            assert ranges.add(first, last) == bool(fresh)
            plain |= fresh
        assert [n for low, high in ranges.spans for n in range(low, high + 1)] == sorted(plain)
        holes = [n for low, high in ranges.missing(0, 70) for n in range(low, high + 1)]
        assert holes == sorted(set(range(71)) - plain)
        assert all(a[1] + 1 < b[0] for a, b in zip(ranges.spans, ranges.spans[1:], strict=False))
