"""What waits on disk: through a restart, in order, bounded, for its owner alone."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from edge_agent.events import Event, TextEvent
from edge_agent.notify import spool as spools
from edge_agent.notify.spool import Spool


def event(text: str, number: int = 0) -> Event:
    return TextEvent(pipeline="p", at="2026-11-01T10:00:00.000Z", text=text, seq=number, id=f"d/1/{number}")


def texts(spool: Spool, hours: float = 24) -> list[str]:
    found = [spool.read(number) for number in spool.waiting(hours)]
    return [getattr(each.event, "text", "") for each in found if each is not None]


def add(spool: Spool, text: str, number: int = 1) -> int:
    at = spool.add(event(text))
    spool.settle(at, event(text, number), "")
    return at


def test_what_was_settled_is_sent_after_a_restart_and_what_was_done_is_not(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a")
    numbers = [add(spool, word) for word in ("one", "two", "three")]
    assert texts(spool) == ["one", "two", "three"]
    spool.confirm()
    spool.done([numbers[1]])
    again = Spool(tmp_path / "a")
    assert texts(again) == ["one", "three"]
    add(again, "four")
    assert texts(again) == ["one", "three", "four"]


def test_what_a_kill_left_before_it_was_kept_is_sent_once_we_are_back_and_not_before(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a")
    spool.add(event("about to be kept"))
    assert texts(spool) == []
    assert texts(Spool(tmp_path / "a")) == ["about to be kept"]
    # once it is kept, with its number
    spool.settle(spool.add(event("kept")), event("kept", 7), "pic.jpg")
    found = Spool(tmp_path / "a")
    last = found.read(found.waiting(24)[-1])
    assert last is not None and (last.event.seq, last.picture) == (7, "pic.jpg")


def test_its_owner_alone_reads_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a" / "b")
    add(spool, "one")
    spool.confirm()
    for path in (tmp_path / "a" / "b").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_bounds_of_count_bytes_and_age_and_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "MOST", 3)
    spool = Spool(tmp_path / "a")
    for number in range(5):
        add(spool, f"{number}")
    assert texts(spool) == ["2", "3", "4"] and spool.dropped == 2
    assert len(list((tmp_path / "a").glob("*.json"))) == 3
    monkeypatch.setattr(spools, "MOST_BYTES", 700)
    add(spool, "5" * 300)
    assert texts(spool) == ["5" * 300]
    monkeypatch.setattr(spools, "MOST_BYTES", 7000)
    spool.confirm()
    for path in (tmp_path / "a").glob("*.json"):
        os.utime(path, (time.time() - 7200,) * 2)
    assert texts(Spool(tmp_path / "a"), hours=3) == ["5" * 300]
    old = Spool(tmp_path / "a")
    assert texts(old, hours=1) == [] and old.dropped == 1


def test_a_flood_is_bounded_though_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "MOST", 10)
    spool = Spool(tmp_path / "a")
    for number in range(100):
        add(spool, f"{number}")
    assert len(list((tmp_path / "a").glob("*.json"))) == 10 and spool.dropped == 90
    assert texts(spool) == [f"{number}" for number in range(90, 100)]


def test_a_clock_that_was_not_set_makes_nothing_old(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a")
    add(spool, "in 1970")
    spool.confirm()
    for path in (tmp_path / "a").glob("*.json"):
        os.utime(path, (100.0, 100.0))
    assert texts(Spool(tmp_path / "a"), hours=1) == ["in 1970"]


@pytest.mark.parametrize("junk", [b"", b"{", b"\xff\xfe", b"[" * 5000, b'{"at": 1, "event": {"kind": "no"}}'])
def test_what_cannot_be_read_is_passed_over_and_counted(tmp_path: Path, junk: bytes) -> None:
    spool = Spool(tmp_path / "a")
    number = add(spool, "one")
    add(spool, "two")
    spool.confirm()
    spool._path(number).write_bytes(junk)
    again = Spool(tmp_path / "a")
    assert texts(again) == ["two"] and again.dropped == 1
    assert texts(again) == ["two"]


def test_a_disk_that_refuses_costs_nothing_while_the_process_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(spools, "write_private", full)
        add(spool, "one")
        spool.confirm()
        assert texts(spool) == ["one"]
    spool.confirm()
    assert texts(Spool(tmp_path / "a")) == ["one"]
