"""A disk that is full, read-only or broken: no crash, events go on from memory, what is dropped is declared."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent import files
from edge_agent.errors import StoreError
from edge_agent.events import TextEvent
from edge_agent.outbox import numbering, waiting
from edge_agent.outbox.outbox import Outbox
from edge_agent.outbox.quota import SPARE_BYTES
from tests.faults.record import settle
from tests.faults.test_power_cut import declared
from tests.forked import forked


@contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[Path]:
    """A file system of its own; skips where none may be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def put(box: Outbox, n: int, kind: str, size: int = 500) -> None:
    for _ in range(n):
        event = box.put(TextEvent(pipeline=kind, at="2026-01-01T00:00:00Z", text="t" * size), kind)
    settle(box, event.seq)


def drain(box: Outbox, into: dict[int, bytes]) -> None:
    """Take, count and acknowledge until the store is empty."""
    for _ in range(10_000):
        if box.empty:
            return
        for taken in box.take(40):
            into[taken.seq] = taken.payload
            box.done(taken)
        settle(box, box.last)
    pytest.fail("the store does not drain to 0")


def closes(box: Outbox, got: dict[int, bytes]) -> None:
    """Every number came or is declared, and as many were dropped as the counts say."""
    bodies = [msgspec.json.decode(payload) for payload in got.values()]
    missing = set(range(1, box.last + 1)) - got.keys()
    assert missing <= declared(bodies)
    assert len(missing) == sum(body["count"] for body in bodies if body["kind"] == "gap") == box.counts.dropped


def test_full_disk_goes_on_from_memory_and_drains_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "RAM_BYTES", 400_000)
    with small_disk(tmp_path / "disk") as disk:
        box = Outbox(disk / "store", "d", max_bytes=100_000_000)
        got: dict[int, bytes] = {}
        put(box, 1500, "telemetry")
        put(box, 5, "alert")
        assert box.trouble == "No space left on device"
        put(box, 1500, "telemetry")
        assert box.counts.dropped > 0, "the disk and the memory are full"
        for _ in range(20):  # sending makes room, deleting needs none
            for taken in box.take(40):
                got[taken.seq] = taken.payload
                box.done(taken)
            put(box, 1, "alert")
        drain(box, got)
        put(box, 5, "alert")
        drain(box, got)
        assert box.trouble == "", "the disk takes events again"
        closes(box, got)
        box.close()
        assert box.size < 100_000
        again = Outbox(disk / "store", "d")
        assert not again.take(9) and again.last == box.last, "a clean end on a disk that was full"
        again.close()


@pytest.mark.parametrize("kind", ["alert", "telemetry"])
def test_a_store_that_filled_its_disk_opens_says_what_is_lost_and_drains(tmp_path: Path, kind: str) -> None:
    """It was stopped in order while events waited in memory, and nothing else on the disk can be deleted."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        box = Outbox(disk / "store", "d", max_bytes=100_000_000)
        put(box, 450, kind, 5000)
        assert box.trouble == "No space left on device" and box.unwritten > 0
        box.close()
        refused = box.unwritten
        assert refused > 0
        got: dict[int, bytes] = {}
        for _ in range(2):
            box = Outbox(disk / "store", "d", max_bytes=100_000_000)
            for taken in box.take(40):
                got[taken.seq] = taken.payload
                box.done(taken)
            settle(box, box.last)
            box.close()
        box = Outbox(disk / "store", "d", max_bytes=100_000_000)
        drain(box, got)
        gaps = [body for body in map(msgspec.json.decode, got.values()) if body["kind"] == "gap"]
        assert sum(body["count"] for body in gaps) >= refused
        assert (disk / "store" / "spare").exists()
        box.close()


@pytest.mark.parametrize("back", [False, True])
def test_what_is_on_its_way_from_memory_is_declared_when_a_kill_takes_it(tmp_path: Path, back: bool) -> None:
    """`back`: the connection was lost meanwhile, and they were taken back."""
    with small_disk(tmp_path / "disk", "600k") as disk:

        def work() -> None:
            box = Outbox(disk / "store", "d")
            put(box, 20, "alert", 300)
            got = box.take(100)
            box.done(*got)
            (disk / "spare").write_bytes(bytes(100_000))
            try:
                with (disk / "others").open("wb", 0) as others:
                    while True:
                        others.write(bytes(512))
            except OSError:
                pass
            put(box, 30, "alert", 3000)
            taken = box.take(100)
            assert len(taken) == 30 and taken[0].segment is None
            if back:
                box.again()
            with box._state:
                box._state.wait_for(lambda: False, 1.0)  # the committer looks around once or twice
            assert box.unwritten == 30
            os.kill(os.getpid(), signal.SIGKILL)

        assert forked(work) == -signal.SIGKILL
        for name in ("spare", "others"):
            (disk / name).unlink()
        box = Outbox(disk / "store", "d")
        (lost,) = box.lost_at_start
        assert (lost.first, lost.last, lost.count) == (21, 50, 30)
        box.close()


def test_spare_blocks_that_a_full_disk_refused_are_taken_once_it_has_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "600k") as disk:
        Outbox(disk / "store", "d").close()
        spare = disk / "store" / "spare"
        spare.unlink()
        with suppress(OSError), (disk / "others").open("wb", 0) as others:
            while True:
                others.write(bytes(512))
        Outbox(disk / "store", "d").close()
        assert spare.stat().st_size < SPARE_BYTES
        (disk / "others").unlink()
        Outbox(disk / "store", "d").close()
        assert spare.stat().st_size == SPARE_BYTES


def test_a_disk_filled_by_others_and_a_kill(tmp_path: Path) -> None:
    """What was given numbers while nothing could be written gets none of them again after a restart."""
    with small_disk(tmp_path / "disk", "600k") as disk:
        box = Outbox(disk / "store", "d")
        put(box, 20, "alert")
        (disk / "others").write_bytes(b"x" * 100_000)
        with (disk / "more").open("wb", 0) as file, pytest.raises(OSError):
            while True:
                file.write(b"x" * 4096)
        put(box, 9000, "telemetry", 50)
        assert box.trouble
        taken = box.take(100)
        while more := box.take(100):
            taken += more
        given = max(record.seq for record in taken)
        box._journal.close()  # the lock goes, as with a kill; nothing is written to the mark
        (disk / "more").unlink()
        after = Outbox(disk / "store", "d")
        assert after.put(TextEvent(pipeline="a", at="", text="x")).seq > given
        after.close()


def test_read_only_disk_goes_on_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ext4 does on an error: what is open takes no more writes either (no mount can be made so from outside)."""
    readonly = False

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if readonly:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return real(*args, **kwargs)

        return call

    for name in ("write", "pwrite", "ftruncate"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    for name in ("unlink", "replace", "open"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    box = Outbox(tmp_path / "store", "d")
    got: dict[int, bytes] = {}
    put(box, 50, "alert")
    readonly = True
    put(box, 20, "alert")
    put(box, 50, "telemetry")
    drain(box, got)
    assert len(got) == 120 and box.trouble == "Read-only file system"
    put(box, 5, "alert")
    readonly = False
    put(box, 10, "alert")
    drain(box, got)
    put(box, 10, "alert")
    drain(box, got)
    closes(box, got)
    assert box.trouble == "" and len(got) == 145
    box.close()
    again = Outbox(tmp_path / "store", "d")
    assert not again.take(9) and again.last == 145
    again.close()


def test_numbers_sent_while_the_disk_was_read_only_are_not_given_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only, then killed, then writable again: not even the mark could tell how far the numbers went."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    box = Outbox(tmp_path / "store", "d")
    got: dict[int, bytes] = {}
    put(box, 20, "alert")
    with monkeypatch.context() as readonly:
        real = os.pwrite
        store = str(tmp_path)
        readonly.setattr(files, "write_all", refuse)
        readonly.setattr(
            os,
            "pwrite",
            lambda fd, *a: refuse() if str(Path(f"/proc/self/fd/{fd}").readlink()).startswith(store) else real(fd, *a),
        )
        put(box, 30, "alert")
        given = {record.seq: record.payload for record in box.take(100)}
        assert max(given) == 50
        box._journal.close()  # the lock goes, as with a kill
    with monkeypatch.context() as full:  # the next start fails too, before anything could be declared
        full.setattr(files, "write_all", refuse)
        with pytest.raises(StoreError):
            Outbox(tmp_path / "store", "d")
    after = Outbox(tmp_path / "store", "d")
    fresh = after.put(TextEvent(pipeline="a", at="", text="x")).seq
    assert fresh > 50, "a number is given out again"
    drain(after, got)
    bodies = [msgspec.json.decode(payload) for payload in got.values()]
    assert set(range(21, 51)) <= declared(bodies, "the disk had refused them")
    after.close()
    assert Outbox(tmp_path / "store", "d").last == after.last


@pytest.mark.parametrize("call", ["write", "fdatasync", "pwrite", "ftruncate"])
def test_sudden_errors_of_the_disk_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """One call in four fails with EIO for a while: nothing is lost, no thread dies, no event is stuck."""
    rng, broken = random.Random(call), False
    real: Callable[..., object] = getattr(os, call)
    folder = str(tmp_path)

    def sometimes(fd: int, *args: object) -> object:
        if broken and rng.random() < 0.25 and str(Path(f"/proc/self/fd/{fd}").readlink()).startswith(folder):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, *args)

    monkeypatch.setattr(os, call, sometimes)
    box = Outbox(tmp_path / "store", "d", max_bytes=1_000_000)
    got: dict[int, bytes] = {}
    for turn in range(4):
        broken = turn % 2 == 1
        for i in range(30):
            put(box, 1, "alert" if i % 2 else "telemetry", 300)
            for taken in box.take(rng.randrange(3)):
                if rng.random() < 0.2:
                    box.again([taken])
                else:
                    got[taken.seq] = taken.payload
                    box.done(taken)
    broken = False
    drain(box, got)
    assert got.keys() == set(range(1, box.last + 1))
    assert box._committer.thread.is_alive()
    box.close()
    again = Outbox(tmp_path / "store", "d", max_bytes=1_000_000)
    late = {record.seq for record in again.take(1000)}
    assert again.last == box.last and not late - got.keys()
    again.close()


def test_bad_sectors_cost_their_own_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that cannot be read while the agent runs: their events are declared, the others come."""
    real = os.pread
    box = Outbox(tmp_path / "store", "d")
    put(box, 200, "telemetry", 300)

    def pread(fd: int, n: int, at: int) -> bytes:
        if at < 20_480 and at + n > 12_288:
            if at >= 12_288:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            n = 12_288 - at
        return real(fd, n, at)

    monkeypatch.setattr(os, "pread", pread)
    got: dict[int, bytes] = {}
    drain(box, got)
    missing = set(range(1, 201)) - got.keys()
    assert 10 < len(missing) < 40
    closes(box, got)
    box.close()


def test_no_disk_at_all_is_one_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        with (disk / "others").open("wb", 0) as file, pytest.raises(OSError):
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(StoreError) as caught:
            Outbox(disk / "store", "d")
        assert "No space left on device" in str(caught.value) and "\n" not in str(caught.value)
    assert numbering.read_mark(tmp_path / "nothing") == (None, False)
