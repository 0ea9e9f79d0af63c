"""Much that waits: counts and memory (times are for the report: machines differ)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from edge_agent.events import TextEvent
from edge_agent.outbox.outbox import Outbox
from tests.broker import broker
from tests.conftest import ROOT
from tests.faults.record import settle
from tests.faults.test_power_cut import declared, drain


def load(*arguments: object) -> dict[str, float]:
    """Run tests/faults/load.py in a process of its own: what it measured."""
    command = [sys.executable, "-m", "tests.faults.load", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def backlog(tmp_path: Path, count: int) -> dict[str, float]:
    assert load("fill", tmp_path / "store", count)["events"] == count
    with broker(tmp_path) as server:
        told = load("drain", tmp_path / "store", server.port)
    assert told["sent"] == count
    assert told["memory"] < 64_000_000
    assert told["left"] < 100_000, "what was sent leaves the disk"
    return told


def test_a_backlog_is_sent_whole_in_little_memory(tmp_path: Path) -> None:
    backlog(tmp_path, 5_000)


@pytest.mark.faults
def test_a_backlog_of_a_million(tmp_path: Path) -> None:
    backlog(tmp_path, 1_000_000)


def day_without_broker(store: Path, events: int, quota: int) -> dict[str, int]:
    """One in ten is an alert, and the alerts alone are more than the quota: what is kept of each, what is declared."""
    box = Outbox(store, "d", max_bytes=quota)

    def put(number: int) -> tuple[int, str]:
        kind = "telemetry" if number % 10 else "alert"
        text = f"{number} ".ljust(140, "t")
        return box.put(TextEvent(pipeline="p", at="2026-01-01T00:00:00Z", text=text), kind).seq, kind

    with ThreadPoolExecutor(16) as threads:
        kinds = dict(threads.map(put, range(events)))
    settle(box, box.last)
    size = box.size
    got = drain(box)
    settle(box, box.last)
    got |= drain(box)
    box.close()
    bodies = list(got.values())
    gaps = [body for body in bodies if body["kind"] == "gap"]
    missing = set(range(1, box.last + 1)) - got.keys()
    assert missing <= declared(bodies, "the store is full")
    assert sum(gap["count"] for gap in gaps) == len(missing) == box.counts.dropped, "the count is not exact"
    kept = {kind: sorted(seq for seq in got if kinds.get(seq) == kind) for kind in ("alert", "telemetry")}
    lost = {kind: [seq for seq in missing if kinds.get(seq) == kind] for kind in kept}
    assert max(lost["alert"]) < min(kept["alert"]), "an older alert was kept for a newer one"
    assert size < quota + 200_000
    return {
        "kept alerts": len(kept["alert"]),
        "kept telemetry": len(kept["telemetry"]),
        "declared": len(missing),
        "gaps": len(gaps),
    }


def test_a_day_without_broker_in_small(tmp_path: Path) -> None:
    told = day_without_broker(tmp_path / "store", events=6_000, quota=200_000)
    assert told["kept alerts"] > 100


@pytest.mark.faults
def test_a_day_without_broker(tmp_path: Path) -> None:
    told = day_without_broker(tmp_path / "store", events=86_400, quota=2_000_000)
    assert told["kept alerts"] > 3_000
    assert msgspec.json.encode(told)


def test_what_was_written_in_1970_does_not_expire_when_the_clock_is_set(tmp_path: Path) -> None:
    box = Outbox(tmp_path, "d", max_bytes=1_000_000, expire_hours=1)
    for _ in range(600):
        box.put(TextEvent(pipeline="p", at="1970-01-01T00:01:00Z", text="t" * 200), "telemetry")
    settle(box, box.last)
    old = sorted(tmp_path.glob("telemetry-*.log"))[:-1]
    assert old
    for path in old:
        os.utime(path, (60, 60))
    settle(box, box.put(TextEvent(pipeline="p", at="2026-01-01T00:00:00Z", text="now"), "alert").seq)
    assert len(drain(box)) == 601
    box.close()
