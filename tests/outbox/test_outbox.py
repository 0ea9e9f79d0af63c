"""The store: numbers, order, kills, power cuts, damage, full disks, quota."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent import files
from edge_agent.errors import StoreError
from edge_agent.events import AnyEvent, Encoding, GapEvent, TextEvent
from edge_agent.link.acks import ACK_WINDOW, Acks
from edge_agent.outbox import committer, numbering, recovery, waiting
from edge_agent.outbox.entries import Record
from edge_agent.outbox.outbox import Outbox
from edge_agent.outbox.records import pack, parse


def event(text: str = "x") -> TextEvent:
    return TextEvent(pipeline="words", at="2026-01-01T00:00:00Z", text=text)


def drain(box: Outbox) -> list[Record]:
    """Take and acknowledge all that is there."""
    got: list[Record] = []
    while records := box.take(50):
        got += records
        for record in records:
            box.done(record)
    return got


def settle(box: Outbox) -> None:
    """Wait until the committer has written what was put."""
    with box._state:
        assert box._state.wait_for(lambda: not box._waiting.pending, 120)


def test_numbers_order_and_contents(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "store", "cam1")
    sent = [box.put(event(f"line {i}"), "telemetry" if i % 3 else "alert") for i in range(30)]
    settle(box)
    assert [e.seq for e in sent] == list(range(1, 31))
    got = drain(box)
    alerts = [r.seq for r in got if r.kind == "alert"]
    assert [r.seq for r in got[: len(alerts)]] == alerts == sorted(alerts)
    assert sorted(r.seq for r in got) == list(range(1, 31))
    body = json.loads(got[0].payload)
    assert body["id"] == f"cam1/{box.epoch}/1" and body["device"] == "cam1" and body["kind"] == "text"
    assert box.empty
    box.close()


def test_nothing_leaves_the_disk_before_it_is_done(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d")
    for i in range(10):
        box.put(event(str(i)))
    first = box.take(4)
    box.done(first[0])
    box.close()
    box = Outbox(tmp_path, "d")
    assert [r.seq for r in drain(box)] == list(range(2, 11))
    assert box.put(event()).seq == 11
    epoch = box.epoch
    box.close()
    again = Outbox(tmp_path, "d")
    assert again.epoch == epoch and again.put(event()).seq == 12
    again.close()


def test_what_is_passed_over_waits_and_alerts_come_back_first(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d")
    for pipeline, kind in (("a", "telemetry"), ("b", "telemetry"), ("a", "alert"), ("b", "alert")):
        box.put(TextEvent(pipeline=pipeline, at="2026-01-01T00:00:00Z", text="x"), kind)
    settle(box)
    assert [record.seq for record in box.take(9, but={"b"})] == [3, 1]
    box.again()
    assert [record.seq for record in box.take(9)] == [3, 4, 1, 2]
    box.close()


def test_what_is_passed_over_takes_a_segments_worth_of_memory(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d", max_bytes=1_000_000)
    for _ in range(300):
        box.put(event("x" * 1000), "telemetry")
    box.put(event("later"), "alert")
    settle(box)
    assert [record.seq for record in box.take(40, but={"words"})] == []
    for _ in range(50):
        assert box.take(40, but={"words"}) == []
    assert 0 < sum(len(record.payload) for record in box._waiting.again) < 2 * 65536
    assert [record.seq for record in drain(box)] == [301, *range(1, 301)]
    box.close()


def test_again_gives_back_what_was_in_flight_in_order(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d")
    for _ in range(5):
        box.put(event())
    flying = box.take(3)
    box.done(flying[1])
    box.again()
    assert [r.seq for r in drain(box)] == [1, 3, 4, 5]
    assert box.empty
    box.close()


def test_finished_segments_are_deleted(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d", max_bytes=4_000_000)
    for i in range(3000):
        box.put(event("some words " * 8 + str(i)), "telemetry")
    settle(box)
    assert len(list(tmp_path.glob("telemetry-*.log"))) > 3
    assert len(drain(box)) == 3000
    box.put(event())
    assert len(drain(box)) == 1
    box.close()
    assert len(list(tmp_path.glob("telemetry-*.log"))) <= 1


CHILD = """
import json, sys
from pathlib import Path
from edge_agent.outbox.outbox import Outbox
from edge_agent.events import TextEvent
box = Outbox(Path(sys.argv[1]), "d")
kinds = sys.argv[2].split(",")
for i in range(10**9):
    e = box.put(TextEvent(pipeline="words", at="2026-01-01T00:00:00Z", text="t" * 200), kinds[i % len(kinds)])
    if kinds[i % len(kinds)] == "alert":
        print(e.seq, flush=True)
    for record in box.take(3):
        if record.seq % 2:
            body = json.loads(record.payload)
            if body["kind"] == "gap":
                print("gap", body["first"], body["last"], flush=True)
            print(-record.seq, flush=True)  # said before it is done: a kill in between costs a duplicate, not the count
            box.done(record)
"""


@pytest.mark.parametrize("kinds", ["alert", "alert,telemetry,telemetry"])
def test_kill_nine_loses_no_alert_and_leaves_no_hole(tmp_path: Path, kinds: str) -> None:
    done: set[int] = set()
    durable: set[int] = set()
    declared: set[int] = set()
    for turn in range(4):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), kinds], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for n, line in enumerate(child.stdout):
            if line.startswith("gap"):
                first, last = map(int, line.split()[1:])
                declared |= set(range(first, last + 1))
                continue
            number = int(line)
            assert number not in durable, "a number was given out twice"
            (durable if number > 0 else done).add(abs(number))
            if n == 60 + 37 * turn:
                child.send_signal(signal.SIGKILL)
        child.wait()
    box = Outbox(tmp_path, "d")
    box.put(event())
    settle(box)
    got = drain(box)
    for record in got:
        body = json.loads(record.payload)
        if body["kind"] == "gap":
            declared |= set(range(body["first"], body["last"] + 1))
    seqs = [r.seq for r in got]
    assert len(seqs) == len(set(seqs))
    assert durable - done <= set(seqs), "an alert that the disk had confirmed is gone"
    assert set(range(1, box.last + 1)) <= set(seqs) | done | declared
    box.close()


def test_power_cut_never_reuses_a_number_and_declares_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the store without what the disk had not confirmed, opened under another boot id."""
    box = Outbox(tmp_path / "a", "d")
    alerts = [box.put(event("keep"), "alert").seq for _ in range(3)]
    shutil.copytree(tmp_path / "a", tmp_path / "image")
    later = [box.put(event("gone with the power"), "telemetry").seq for _ in range(5)]
    settle(box)
    box.close()
    monkeypatch.setattr(numbering, "boot_id", lambda: b"another boot id!")
    after = Outbox(tmp_path / "image", "d")
    new = after.put(event("new")).seq
    assert new > max(later)
    settle(after)
    bodies = [json.loads(r.payload) for r in drain(after)]
    gap = next(b for b in bodies if b["kind"] == "gap")
    seen = {b["seq"] for b in bodies}
    assert set(alerts) <= seen
    assert set(range(1, new + 1)) == seen | set(range(gap["first"], gap["last"] + 1))
    assert gap["count"] == gap["last"] - gap["first"] + 1 and "power cut" in gap["why"]
    after.close()


@pytest.mark.parametrize("seed", range(12))
def test_damage_costs_what_was_hit_and_is_declared(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    box = Outbox(tmp_path, "d", max_bytes=1_000_000)
    for i in range(600):
        box.put(event(f"{i} " + "w" * rng.randrange(300)), "telemetry" if i % 2 else "alert")
    settle(box)
    last = box.last
    box.close()
    path = rng.choice(sorted(tmp_path.glob("*-*.log")))
    raw = bytearray(path.read_bytes())
    at = rng.randrange(len(raw))
    how = seed % 4
    if how == 0:
        raw[at] ^= 0xFF
    elif how == 1:
        raw[at : at + 4096] = bytes(len(raw[at : at + 4096]))
    elif how == 2:
        del raw[at:]
    else:
        raw[at:at] = rng.randbytes(50)
    path.write_bytes(raw)
    box = Outbox(tmp_path, "d", max_bytes=1_000_000)
    next_seq = box.put(event()).seq
    settle(box)
    got = drain(box)
    settle(box)
    got += drain(box)
    bodies = [json.loads(r.payload) for r in got]
    declared = {n for b in bodies if b["kind"] == "gap" for n in range(b["first"], b["last"] + 1)}
    seen = {r.seq for r in got}
    assert next_seq > last
    assert set(range(1, box.last + 1)) <= seen | declared
    assert len(seen & set(range(1, last + 1))) > 450
    box.close()


@pytest.mark.parametrize("what", [b"", b"\0" * 5000, os.urandom(9000)])
def test_damaged_mark_never_reuses_a_number(tmp_path: Path, what: bytes) -> None:
    box = Outbox(tmp_path, "d")
    for _ in range(20):
        box.put(event())
    epoch = box.epoch
    box.close()
    (tmp_path / "mark").write_bytes(what)
    box = Outbox(tmp_path, "d")
    assert box.epoch == epoch and box.put(event()).seq > 20
    assert {r.seq for r in drain(box)} >= set(range(1, 21))
    box.close()


def test_full_disk_keeps_events_and_writes_them_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Outbox(tmp_path, "d")
    box.put(event("before"))
    full = threading.Event()
    full.set()
    real = files.write_all

    def write_all(fd: int, data: bytes) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd, data)

    monkeypatch.setattr(files, "write_all", write_all)
    for _ in range(10):
        box.put(event("while full"))
    assert box.trouble == "No space left on device"
    flying = box.take(3)
    assert [r.seq for r in flying] == [1, 2, 3]
    full.clear()
    box.put(event("after"))
    box.again()
    box.close()
    box = Outbox(tmp_path, "d")
    assert {r.seq for r in drain(box)} == set(range(1, 13))
    box.close()


def test_memory_full_too_declares_exactly_what_it_drops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Outbox(tmp_path, "d")
    monkeypatch.setattr(waiting, "RAM_BYTES", 20_000)

    def write_all(fd: int, data: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "write_all", write_all)
    for _ in range(90):
        box.put(event("y" * 200), "telemetry")
        settle(box)
    settle(box)
    bodies = [json.loads(r.payload) for r in drain(box)]
    seen = {b["seq"] for b in bodies}
    declared = sum(b["count"] for b in bodies if b["kind"] == "gap")
    assert declared == box.last - len(seen) == box.counts.dropped > 0
    monkeypatch.undo()
    box.close()


def test_quota_drops_oldest_telemetry_first_and_says_so(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d", max_bytes=1_000_000)
    for i in range(6000):
        box.put(event("keep" if i % 100 == 0 else "z" * 150), "alert" if i % 100 == 0 else "telemetry")
    settle(box)
    assert box.size <= 1_100_000
    bodies = [json.loads(r.payload) for r in drain(box)]
    settle(box)
    bodies += [json.loads(r.payload) for r in drain(box)]
    seen = {b["seq"] for b in bodies}
    gaps = [b for b in bodies if b["kind"] == "gap"]
    assert gaps and all("full" in b["why"] for b in gaps)
    missing = set(range(1, box.last + 1)) - seen
    assert sum(b["count"] for b in gaps) == len(missing) == box.counts.dropped
    assert all(any(b["first"] <= n <= b["last"] for b in gaps) for n in missing)
    assert sum(b.get("text") == "keep" for b in bodies) == 60
    box.close()


def test_events_are_kept_in_the_encoding_that_is_handed_in(tmp_path: Path) -> None:
    packed = Encoding(msgspec.msgpack.encode, lambda payload: msgspec.msgpack.decode(payload, type=AnyEvent))
    box = Outbox(tmp_path, "d", encoding=packed)
    box.put(event("first"))
    for seq in (1, 2):  # the event, and then the gap event that declares it
        (record,) = box.take(1)
        assert record.seq == packed.decode(record.payload).seq == seq
        box.refuse(record, "a test")
        settle(box)
    box.close()
    box = Outbox(tmp_path, "d", encoding=packed)
    (gap,) = [packed.decode(record.payload) for record in drain(box)]
    assert isinstance(gap, GapEvent) and (gap.first, gap.last, gap.count) == (1, 2, 2)
    box.close()


def test_refused_event_is_set_aside_and_declared(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d")
    box.put(event("poison"))
    (record,) = box.take(1)
    box.refuse(record, "the broker takes no packet of this size")
    settle(box)
    (gap,) = [json.loads(r.payload) for r in drain(box)]
    assert (gap["kind"], gap["first"], gap["last"], gap["count"]) == ("gap", 1, 1, 1)
    assert json.loads((tmp_path / "refused.jsonl").read_text())["text"] == "poison"
    assert not (tmp_path / "refused.jsonl").stat().st_mode & 0o077
    box.close()


def test_what_a_refused_declaration_declared_is_declared_anew(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d")
    box.put(event("poison"))
    for _ in range(2):
        settle(box)
        (record,) = box.take(1)
        box.refuse(record, "not taken")
    settle(box)
    (gap,) = [json.loads(r.payload) for r in drain(box)]
    assert (gap["first"], gap["last"], gap["count"], box.counts.dropped) == (1, 2, 2, 2)
    box.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d")
    with pytest.raises(StoreError, match="another edge-agent"):
        Outbox(tmp_path, "d")
    box.close()
    Outbox(tmp_path, "d").close()


def test_a_file_where_the_store_should_be(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(StoreError, match=r"no store can stand here"):
        Outbox(tmp_path / "x", "d")


def test_parse_resyncs_inside_random_bytes() -> None:
    rng = random.Random(1)
    records = [(i, rng.randbytes(rng.randrange(1, 200))) for i in range(1, 40)]
    blob = b"".join(rng.randbytes(rng.randrange(30)) + pack(seq, body) for seq, body in records)
    found = [(r.seq, r.body) for r in parse(blob, final=True) if r.body is not None]
    assert found == records


def test_marks_tell_where_each_source_resumes(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d", max_bytes=1_000_000)
    for i in range(1, 2000):
        box.put(event("q" * 100), "telemetry", mark=i * 10)
    settle(box)
    assert box.marks == {"words": 19990}
    drain(box)  # the segments go, the marks stay
    box.put(event(), "telemetry", mark=20000)
    box.close()
    box = Outbox(tmp_path, "d", max_bytes=1_000_000)
    assert box.marks == {"words": 20000}
    box.close()


def test_marks_survive_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from edge_agent.outbox.outbox import Outbox; "
        "from edge_agent.events import TextEvent; box = Outbox(Path(sys.argv[1]), 'd'); "
        "[box.put(TextEvent(pipeline='words', at='', text='x'), 'alert', mark=i) for i in range(50)]; os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    box = Outbox(tmp_path, "d")
    assert box.marks == {"words": 49} and box.last == 50
    box.close()


def test_a_mark_moves_over_what_had_no_event_but_never_before_an_event(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d")
    box.passed("words", 3)
    box.close()
    box = Outbox(tmp_path, "d")
    assert box.marks == {"words": 3}
    with box._state:  # the committer sees it all at once
        box._number(event(), "alert", 10)
        box.passed("words", 50)
        box._number(event(), "alert", 40)
        box.passed("other", 7)
    box.put(event(), "alert")
    assert box.marks == {"words": 40, "other": 7}, "an event that was put later tells better"
    box.passed("words", 60)
    box.close()
    box = Outbox(tmp_path, "d")
    assert box.marks == {"words": 60, "other": 7}
    box.close()


def test_what_waited_too_long_is_dropped_and_declared(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d")
    for _ in range(5):
        box.put(event("old"))
    box.close()
    for path in tmp_path.glob("*.log"):
        os.utime(path, (1.75e9, 1.75e9))
    box = Outbox(tmp_path, "d", expire_hours=24)
    box.put(event("new"))
    settle(box)
    box.put(event("newer"))
    settle(box)
    bodies = [json.loads(r.payload) for r in drain(box)]
    (gap,) = [b for b in bodies if b["kind"] == "gap"]
    assert (gap["first"], gap["last"], gap["count"]) == (1, 5, 5) and "longer than 24 hours" in gap["why"]
    assert [b["text"] for b in bodies if b["kind"] == "text"] == ["new", "newer"]
    box.close()


def test_a_power_cut_declares_few_numbers_that_were_never_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Outbox(tmp_path / "a", "d")
    for _ in range(20):
        box.put(event())
    shutil.copytree(tmp_path / "a", tmp_path / "image")
    box.close()
    monkeypatch.setattr(numbering, "boot_id", lambda: b"another boot id!")
    after = Outbox(tmp_path / "image", "d")
    (gap,) = [json.loads(r.payload) for r in drain(after) if r.pipeline == "agent"]
    assert gap["count"] <= numbering.FEWEST
    after.close()


def test_quota_in_events_drops_the_oldest_and_says_so(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d", max_events=800)
    for i in range(3000):
        box.put(event("keep" if i % 100 == 0 else "z"), "alert" if i % 100 == 0 else "telemetry")
        if i % 50 == 0:
            settle(box)
    settle(box)
    box.close()
    box = Outbox(tmp_path, "d", max_events=800)
    box.put(event("last"))
    settle(box)
    bodies = [json.loads(r.payload) for r in drain(box)]
    gaps = [b for b in bodies if b["kind"] == "gap"]
    assert 700 < len(bodies) - len(gaps) <= 801 + committer.BATCH
    assert all("800 events" in b["why"] and "telemetry" in b["why"] for b in gaps)
    missing = set(range(1, box.last + 1)) - {b["seq"] for b in bodies}
    assert sum(b["count"] for b in gaps) == len(missing) > 1000
    assert sum(b.get("text") == "keep" for b in bodies) == 30, "telemetry goes first"
    assert {b.get("text") for b in bodies} >= {"last"}
    box.close()


def test_what_was_sent_does_not_count_for_the_quota_in_events(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d", max_events=500)
    for _ in range(40):
        for _ in range(50):
            box.put(event(), "telemetry")
        settle(box)
        drain(box)
    assert box.counts.dropped == 0 and box.counts.done == 2000
    box.close()


def test_what_is_set_aside_is_bounded_and_counts(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d", max_bytes=1_000_000)
    for _ in range(60):
        box.put(event("poison" * 1000))
        (record,) = [r for r in box.take(9) if r.pipeline == "words"]
        box.refuse(record, "the broker takes no packet of this size")
        for gap in box.take(9):
            box.done(gap)
    aside = sum(path.stat().st_size for path in tmp_path.glob("refused.*"))
    assert 60_000 < aside < 2.2 * box._journal.segment_bytes
    assert box.size >= aside
    box.close()


def test_a_consumer_that_answers_faster_than_the_disk_notes_it_is_not_sent_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill would repeat what is acknowledged and not noted, as it would repeat what is not acknowledged."""
    box = Outbox(tmp_path / "store", "cam1")
    for i in range(30):
        box.put(event(f"line {i}"))
    acks = Acks(box)
    flushing, go_on, noted = threading.Event(), threading.Event(), threading.Event()
    confirm = box._journal.confirm

    def slow(now: bool = False) -> None:
        flushing.set()
        assert go_on.wait(120)
        confirm(now)

    monkeypatch.setattr(box._journal, "confirm", slow)
    box.on_noted = noted.set
    assert acks.room(flying=0) == ACK_WINDOW
    box.put(event("the disk is busy with this"), "telemetry")
    assert flushing.wait(120)
    for record in box.take(ACK_WINDOW, ("alert",)):
        acks.sent(record)
        acks.heard(box.name(record), ())
    assert len(acks) == 0 and box.unnoted == ACK_WINDOW and acks.room(flying=0) == 0
    go_on.set()
    assert noted.wait(120)
    assert box.unnoted == 0 and acks.room(flying=0) == ACK_WINDOW
    box.close()
    again = Outbox(tmp_path / "store", "cam1")
    assert again.waiting == 30 - ACK_WINDOW + 1
    again.close()


def test_many_segments_take_few_files_and_a_lack_of_them_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(str(tmp_path) in os.path.realpath(link) for link in links)

    box = Outbox(tmp_path / "store", "cam1")
    monkeypatch.setattr(box._journal, "segment_bytes", 10_000)
    for i in range(400):
        box.put(event(f"{i} {'word ' * 100}"))
    assert len(box._journal.queues["alert"].segments) > 20 and held() < 8
    taken = box.take(200)
    for record in taken[::2]:
        box.done(record)
        with box._state:
            assert box._state.wait_for(lambda: not box._waiting.done and not box._waiting.noting, 120)
    assert held() < 8
    real = os.open

    def none_left(path: object, *rest: Any, **more: Any) -> int:
        if str(path).endswith(".log"):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", none_left)
    while box.take(50):
        pass
    monkeypatch.setattr(os, "open", real)
    assert box.counts.damaged == 0 and box.counts.dropped == 0
    box.again()
    got = {record.seq for record in drain(box)} | {record.seq for record in taken[::2]}
    assert got == set(range(1, 401))
    box.close()


def test_a_board_that_does_not_know_the_time_begins_with_a_number_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [31.0]
    monkeypatch.setattr(recovery, "time", types.SimpleNamespace(time=lambda: now[0]))
    epochs = []
    for name in ("one", "other", "later"):
        box = Outbox(tmp_path / name, "cam1")
        epochs.append(box.epoch)
        box.close()
        if name == "other":
            now[0] = 1_800_000_000.0
    assert len(set(epochs)) == 3 and epochs[2] == 1_800_000_000 > max(epochs[:2])


def test_a_source_resumes_behind_the_latest_event_of_either_class_and_what_arrived_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Outbox(tmp_path / "store", "cam1")
    box.put(event("a"), "telemetry", mark=10)
    box.put(event("b"), "alert", mark=20)
    box.put(event("c"), "telemetry", mark=30)
    settle(box)
    assert box.marks == {"words": 30}
    real = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for mark in (40, 50, 60):
        box.put(event("d"), "alert", mark=mark)
    assert box.unwritten == 3 and box.marks == {"words": 30}
    held = [record for record in box.take(9) if record.segment is None]
    box.done(held[1])
    assert box.marks == {"words": 30}, "the one before it would be lost"
    box.done(held[0], held[2])
    assert box.marks == {"words": 60}
    monkeypatch.setattr(os, "write", real)
    box.close()
