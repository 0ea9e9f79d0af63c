"""Every state file of the store damaged in every way: it opens, loses what was hit and nothing else, and says so."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from edge_agent.errors import StoreError
from edge_agent.events import TextEvent
from edge_agent.outbox import segments
from edge_agent.outbox.entries import Record
from edge_agent.outbox.outbox import Outbox
from edge_agent.outbox.records import RECORD, SegmentRead
from edge_agent.outbox.segments import HEADER, Segment
from tests.faults.record import MAX_BYTES, settle
from tests.faults.test_power_cut import declared, drain

PAGE = 4096


class Said(Protocol):
    """What was logged: pytest's caplog, or the like."""

    @property
    def text(self) -> str: ...

    def clear(self) -> None: ...


@dataclass
class Store:
    """A store as it was left, to be copied and damaged."""

    path: Path
    done: set[int]
    """numbers that a consumer has"""
    last: int
    marks: dict[str, int]
    epoch: int
    extents: dict[str, list[tuple[int, int, int]]]
    """segment's name -> (seq, begin, end) of each record in it"""


def fill(path: Path, seed: int, ended: str) -> Store:
    """Both kinds in several segments, some of it delivered, one event refused; closed in order or killed."""
    rng = random.Random(seed)
    box = Outbox(path, "d", max_bytes=MAX_BYTES)
    done: set[int] = set()
    flying: list[Record] = []
    for i in range(700):
        kind = "alert" if rng.random() < 0.4 else "telemetry"
        text = "w" * rng.randrange(20, 900)
        box.put(TextEvent(pipeline=kind, at="2026-01-01T00:00:00Z", text=text), kind, i)
        if rng.random() < 0.6:
            flying += box.take(1)
        while flying and rng.random() < 0.6:
            record = flying.pop(rng.randrange(len(flying)))
            done.add(record.seq)
            if len(done) == 5:
                box.refuse(record, "a test")
            else:
                box.done(record)
    settle(box, box.last)
    copy = path.with_name(f"{path.name}-{ended}")
    if ended == "killed":
        shutil.copytree(path, copy)
    last, marks, epoch = box.last, box.marks, box.epoch
    box.close()
    if ended == "closed":
        shutil.copytree(path, copy)
    extents: dict[str, list[tuple[int, int, int]]] = {}
    for log in copy.glob("*.log"):
        at, extents[log.name] = HEADER.size + RECORD.size + len(segments.head(log)[1]), []
        for item in segments.scan(Segment(log, 0, log.stat().st_size)):
            begin, at = at, at + RECORD.size + len(item.body or b"")
            extents[log.name].append((item.seq, begin, at))
    return Store(copy, done, last, marks, epoch, extents)


def damage(rng: random.Random, path: Path) -> tuple[str, int, int]:
    """Damage one file: how, and the bytes from .. to that were hit."""
    raw = bytearray(path.read_bytes())
    size = len(raw)
    at = rng.randrange(max(1, size))
    n = min(rng.choice((1, 16, 512, PAGE, 3 * PAGE)), size - at)
    how = rng.choice(("flip", "zero", "random", "cut", "insert", "delete", "repeat", "remove", "empty", "append"))
    begin, end = at, size
    if how == "flip":
        end = at + 1
        raw[at:end] = bytes([raw[at] ^ 1 << rng.randrange(8)]) if size else b""
    elif how in ("zero", "random"):
        at -= at % PAGE if how == "zero" else 0
        begin, end = at, min(size, at + n)
        raw[begin:end] = bytes(end - begin) if how == "zero" else rng.randbytes(end - begin)
    elif how == "cut":
        del raw[at:]
    elif how == "insert":
        raw[at:at] = rng.randbytes(n)
        end = at + 1
    elif how == "delete":
        del raw[at : at + n]
        end = at + n
    elif how == "repeat":
        raw[at:at] = raw[at : at + n]
        end = at + 1
    elif how == "append":
        raw += rng.randbytes(n)
        begin = end
    else:
        begin, raw = 0, bytearray()
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes(raw)
    return how, begin, end


def check(store: Store, image: Path, name: str, begin: int, end: int, said: Said) -> None:
    """Open a damaged copy and hold it to its promises."""
    said.clear()
    box = Outbox(image, "d", max_bytes=MAX_BYTES)
    marks, opened = box.marks, box.last
    fresh = box.put(TextEvent(pipeline="after", at="2026-01-01T00:00:00Z", text="new"), "alert").seq
    got = drain(box)
    settle(box, box.last)
    got |= drain(box)
    bodies = list(got.values())
    last = box.last
    box.close()
    assert box.epoch > store.epoch or opened >= store.last, "a number is given out again"
    assert all(body["seq"] == seq for seq, body in got.items())
    before = {seq for seq, body in got.items() if body["epoch"] == store.epoch}
    lost = set(range(1, store.last + 1)) - before - store.done
    hit = {seq for seq, a, b in store.extents.get(name, []) if a < end and b > begin}
    assert lost <= hit, f"{len(lost - hit)} events are lost that were not hit"
    if lost or box.epoch == store.epoch:
        assert lost <= declared(bodies), f"{len(lost - declared(bodies))} lost events are not declared"
        assert set(range(store.last + 1, last + 1)) <= got.keys() | declared(bodies), "the count does not close"
    assert fresh in got
    kept = {key: mark for key, mark in store.marks.items() if marks.get(key) != mark}
    if kept and not hit:
        assert "marks.json" in said.text, f"marks are gone without a word: {kept}"
        assert all(marks.get(key, -1) <= mark for key, mark in kept.items()), "a source would skip lines"


def batter(tmp_path: Path, said: Said, times: int, seed: int) -> dict[str, int]:
    """Damage one file of a store, `times` over: file kind -> how often."""
    rng = random.Random(seed)
    counted: dict[str, int] = {}
    stores = [fill(tmp_path / f"{seed}{how}", seed, how) for how in ("closed", "killed")]
    for number in range(times):
        store = stores[number % 2]
        image = tmp_path / f"image{seed}-{number}"
        shutil.copytree(store.path, image)
        kind = rng.choice(
            ("mark", "mark.copy", "marks.json", "marks.old", "*.log", "*.log", "*.ack", "lock", "*.jsonl")
        )
        path = rng.choice(sorted(image.glob(kind)))
        how, begin, end = damage(rng, path)
        try:
            check(store, image, path.name, begin, end, said)
        except Exception as error:
            error.args = (f"seed {seed}, {number}: {how} of {path.name} at {begin} to {end}: {error}",)
            raise
        counted[kind] = counted.get(kind, 0) + 1
        shutil.rmtree(image)
    return counted


def test_damage_of_every_state_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "edge_agent")
    counted = batter(tmp_path, caplog, times=50, seed=1)
    assert len(counted) == 8


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(2, 12))
def test_five_hundred_damages(tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    caplog.set_level(logging.WARNING, "edge_agent")
    batter(tmp_path, caplog, times=50, seed=seed)


@pytest.mark.parametrize("name", ["mark", "mark.copy", "lock", "marks.json"])
def test_a_folder_in_a_file_s_place_is_one_line(tmp_path: Path, name: str) -> None:
    store = fill(tmp_path / "s", 1, "closed").path
    (store / name).unlink()
    (store / name).mkdir()
    if name == "marks.json":
        Outbox(store, "d", max_bytes=MAX_BYTES).close()
        return
    with pytest.raises(StoreError) as caught:
        Outbox(store, "d", max_bytes=MAX_BYTES)
    assert "\n" not in str(caught.value) and str(store) in str(caught.value)


def test_many_damaged_places_are_passed_over_one_by_one(tmp_path: Path) -> None:
    """Each hole costs its own record; what stands between them comes."""
    store = fill(tmp_path / "s", 3, "killed")
    log = max(store.path.glob("alert-*.log"), key=lambda path: path.stat().st_size)
    hit = {seq for i, (seq, _, _) in enumerate(store.extents[log.name]) if i % 3 == 1}
    with log.open("r+b") as file:
        for seq, begin, _ in store.extents[log.name]:
            if seq in hit:
                os.pwrite(file.fileno(), b"\0", begin + 30)
    box = Outbox(store.path, "d", max_bytes=MAX_BYTES)
    got = drain(box)
    settle(box, box.last)
    got |= drain(box)
    lost = set(range(1, store.last + 1)) - got.keys() - store.done
    assert lost <= hit and lost <= declared(list(got.values()))
    assert msgspec.json.encode(lost) and box.counts.damaged >= len(hit - store.done)
    box.close()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """How it ended -> a store to be copied."""
    return {ended: fill(tmp_path_factory.mktemp(ended) / "s", 5, ended) for ended in ("closed", "killed")}


@pytest.mark.parametrize("ended", ["closed", "killed"])
@pytest.mark.parametrize("kind", ["alert", "telemetry"])
@pytest.mark.parametrize("how", ["removed", "removed with its acknowledgements", "emptied", "cut", "thinned"])
@pytest.mark.parametrize("which", [0, -1])
def test_what_is_gone_without_a_trace_is_declared(
    tmp_path: Path, stores: dict[str, Store], ended: str, kind: str, how: str, which: int
) -> None:
    """A segment that someone removes, or shortens where a record ends: no bad byte is left to be found."""
    if (ended, how, which) == ("killed", "thinned", -1):
        pytest.skip("how long the newest segment of a killed process was is not known, only how far it went")
    store = stores[ended]
    image = tmp_path / "image"
    shutil.copytree(store.path, image)
    log = sorted(image.glob(f"{kind}-*.log"))[which]
    records = store.extents[log.name]
    half = len(records) // 2
    raw = log.read_bytes()
    hit = {seq for seq, _, _ in records}
    if how.startswith("removed"):
        log.unlink()
        if "with" in how:
            log.with_suffix(".ack").unlink(missing_ok=True)
    elif how == "emptied":
        log.write_bytes(b"")
    elif how == "cut":
        log.write_bytes(raw[: records[half][1]])
        hit = {seq for seq, _, _ in records[half:]}
    else:
        log.write_bytes(raw[: records[half][1]] + raw[records[half][2] :])
        hit = {records[half][0]}
    box = Outbox(image, "d", max_bytes=MAX_BYTES)
    got = drain(box)
    settle(box, box.last)
    got |= drain(box)
    box.close()
    lost = set(range(1, store.last + 1)) - got.keys() - store.done
    told = declared(list(got.values()))
    assert lost <= hit & told and hit - store.done <= lost
    if how == "removed with its acknowledgements":
        lost |= hit  # what was acknowledged of it cannot be told from what was not
    exact = ended == "closed" or which != -1  # of the newest segment of a killed store only the end is known
    if exact:
        assert box.counts.dropped == len(lost), "the count is not exact"
    again = Outbox(image, "d", max_bytes=MAX_BYTES)
    assert not again.lost_at_start, "it is declared once"
    again.close()


def test_marks_that_are_gone_are_found_in_few_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With marks.json and marks.old removed the newest segments tell where the sources resume: no long reading."""
    box = Outbox(tmp_path / "s", "d", max_bytes=4_000_000)
    for i in range(9000):
        box.put(TextEvent(pipeline="words", at="2026-01-01T00:00:00Z", text="w" * 150), "telemetry", i)
    settle(box, box.last)
    marks = box.marks
    box.close()
    assert len(list((tmp_path / "s").glob("telemetry-*.log"))) > 8
    for name in ("marks.json", "marks.old"):
        (tmp_path / "s" / name).unlink()
    read: list[Path] = []
    real = segments.scan

    def scan(segment: Segment) -> Iterator[SegmentRead]:
        read.append(segment.path)
        return real(segment)

    monkeypatch.setattr(segments, "scan", scan)
    again = Outbox(tmp_path / "s", "d", max_bytes=4_000_000)
    assert again.marks == marks and len(set(read)) <= 2
    again.close()
