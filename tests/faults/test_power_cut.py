"""The store as power cuts may leave it: whatever was not yet confirmed by the disk lost, torn or out of order."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.events import TextEvent
from edge_agent.outbox import journal, numbering
from edge_agent.outbox.outbox import Outbox
from tests.conftest import ROOT
from tests.faults.images import Disk, Facts, lay_out, read_log
from tests.faults.record import MAX_BYTES, STEP

BURST = 8
"""events that the recorded work puts at once, at most"""


def record(folder: Path, seeds: list[int], rounds: int) -> list[list[Any]]:
    """Work on one store, killed after each seed's run and started again: the log of all that was done to its files."""
    for seed in seeds:
        command = [sys.executable, "-m", "tests.faults.record", "store", "log", str(seed), str(rounds)]
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 9, done.stderr
    return list(read_log(folder / "log"))


def drain(box: Outbox) -> dict[int, dict[str, Any]]:
    """Take and acknowledge everything: number -> body."""
    got: dict[int, dict[str, Any]] = {}
    while not box.empty:
        for taken in box.take(100):
            got[taken.seq] = msgspec.json.decode(taken.payload)
            box.done(taken)
    return got


def declared(bodies: list[dict[str, Any]], why: str = "") -> set[int]:
    """The numbers that gap events declare lost, for a reason."""
    gaps = [body for body in bodies if body["kind"] == "gap" and why in body["why"]]
    return {n for gap in gaps for n in range(gap["first"], gap["last"] + 1)}


def check(image: Path, facts: Facts) -> tuple[int, int]:
    """Open an image after a reboot and hold it to every promise; how many alerts and telemetry it had, and lost."""
    box = Outbox(image, "d", max_bytes=MAX_BYTES)
    marks = box.marks
    fresh = box.put(TextEvent(pipeline="after", at="2026-01-01T00:00:00Z", text="new"), "alert").seq
    got = drain(box)
    box.close()
    done = {seq: msgspec.json.decode(payload) for seq, payload in facts.done.items()}
    bodies = [*got.values(), *done.values()]
    assert fresh > facts.given, "a number is given out again"
    assert all(body["seq"] == seq for seq, body in got.items())
    for seq in done.keys() & got.keys():
        assert done[seq] == got[seq], "one number, two events"
    there = got.keys() | done.keys()
    dropped = declared(bodies, "the store is full")
    lost = {seq: facts.put[seq] for seq in facts.put.keys() - there - dropped}
    assert not [seq for seq, (kind, _) in lost.items() if kind == "alert"], "an alert that was confirmed is gone"
    bound = journal.SYNC_EVERY + BURST * STEP
    assert all(facts.clock - at <= bound for _, at in lost.values()), "telemetry is gone that was older than promised"
    holes = set(range(1, fresh + 1)) - there - declared(bodies)
    assert not holes, f"numbers that are neither there nor declared: {sorted(holes)[:10]}"
    assert marks.get("alert", -1) >= facts.marks.get("alert", -1), "a line whose alert is kept would be read again"
    again = Outbox(image, "d", max_bytes=MAX_BYTES)
    assert again.last >= fresh and not again.take(9), "a second start finds everything in order"
    again.close()
    return len(facts.put), len(lost)


def cut(tmp_path: Path, reboot: Callable[[], None], images: int, seeds: list[int], rounds: int) -> tuple[int, int]:
    """Cut the power `images` times at random moments of a recorded run: events put before a cut, and lost by it."""
    ops = record(tmp_path, seeds, rounds)
    rng = random.Random(seeds[0])
    moments = sorted(rng.randrange(1, len(ops)) for _ in range(images))
    disk, facts, at = Disk(), Facts(), 0
    put = lost = 0
    reboot()
    for number, moment in enumerate(moments):
        for op in ops[at:moment]:
            disk.apply(op)
            facts.learn(op)
        at = moment
        if "mark" not in disk.safe:  # no store was there yet
            continue
        image = lay_out(disk.image(rng), tmp_path / f"image{number}")
        try:
            had, gone = check(image, facts)
        except Exception as error:
            error.args = (f"image {number} of seeds {seeds}, after {moment} changes: {error}",)
            raise
        put, lost = put + had, lost + gone
        shutil.rmtree(image)
    for op in ops[at:]:
        disk.apply(op)
    there = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    assert there == disk.killed(), "the log tells another story than the files"
    return put, lost


@pytest.fixture
def reboot(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on the kernel has another boot id."""
    return lambda: monkeypatch.setattr(numbering, "boot_id", lambda: b"another boot id!")


@pytest.mark.parametrize("seed", [1])
def test_power_cuts_lose_no_alert_and_telemetry_within_its_bound(
    tmp_path: Path, reboot: Callable[[], None], seed: int
) -> None:
    put, lost = cut(tmp_path, reboot, images=20, seeds=[seed * 10, seed * 10 + 1], rounds=120)
    assert put > 1000 and 0 < lost < put / 10


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10, 20))
def test_two_hundred_power_cuts(tmp_path: Path, reboot: Callable[[], None], seed: int) -> None:
    put, lost = cut(tmp_path, reboot, images=20, seeds=[seed * 10, seed * 10 + 1, seed * 10 + 2], rounds=250)
    assert put > 1000 and 0 < lost < put / 10
