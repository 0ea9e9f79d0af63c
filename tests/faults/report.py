"""Prints the table of what the store and the link survive: `python -m tests.faults.report [PART...]`.

$KILLS and $EVENTS say how many; $KEEP names a file that remembers the parts of a storm, so that it can be resumed.
Parts: storm paho power damage backlog writes day; all of them by default, about twenty minutes. Each row is counted
by the same code as the tests; times are of the machine it runs on.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge_agent.outbox import numbering
from tests.broker import broker
from tests.conftest import ROOT
from tests.faults.storm import Result, percentile, storm
from tests.faults.test_backlog import day_without_broker, load
from tests.faults.test_damage import batter
from tests.faults.test_power_cut import cut

KILLS = int(os.environ.get("KILLS", "200"))
EVENTS = int(os.environ.get("EVENTS", "1000000"))
SECONDS = 60
"""that each of the writers trickles"""


def row(what: str, told: str) -> None:
    print(f"| {what} | {told} |", flush=True)


def _storm(folder: Path, paho_alone: bool) -> Result:
    """In parts of a hundred kills; those that $KEEP tells of are not run again."""
    result, keep = Result(), Path(os.environ["KEEP"]) if "KEEP" in os.environ else None
    had = keep.read_text().splitlines() if keep and keep.exists() else []
    known = {tuple(json.loads(line)[:3]): json.loads(line)[3] for line in had}
    for seed in range(400, 400 + -(-KILLS // 100)):
        part = ("paho" if paho_alone else "agent", seed, min(KILLS, 100))
        if part in known:
            counters = {name: Counter(known[part][name]) for name in ("kills", "worst")}
            result += Result(**{**known[part], **counters})
            continue
        (here := folder / str(seed)).mkdir()
        one = storm(here, part[2], seed, paho_alone)
        result += one
        if keep:
            with keep.open("a") as file:
                file.write(json.dumps([*part, msgspec.to_builtins(one)]) + "\n")
        print(f"{part}: {one.lost} of {one.lines} lost, {dict(one.worst)}", file=sys.stderr, flush=True)
    kills = ", ".join(f"{n} of the {who}" for who, n in sorted(result.kills.items()))
    who = "the same with plain paho" if paho_alone else "kill -9"
    told = f"{result.lost} of {result.lines} alerts lost, {result.duplicates} duplicates"
    if not paho_alone:
        each = ", ".join(f"{n} of the {who}" for who, n in sorted(result.worst.items()))
        told += f" (a kill at most: {each}; besides, the broker alone repeated {result.redelivered}), "
        told += f"{result.twice} under two numbers, {result.undeclared} undeclared; recovery"
        for victim, seconds in [*sorted(result.recovery.items()), ("yardstick", result.yardstick)]:
            told += f" {victim} p50 {percentile(seconds, 0.5):.2f} s, p99 {percentile(seconds, 0.99):.2f} s;"
        told += " the yardstick is what starting a Python that imports the agent took meanwhile"
    row(f"{who}: {kills}", told)
    return result


def kills(folder: Path) -> None:
    _storm(folder, paho_alone=False)


def paho(folder: Path) -> None:
    _storm(folder, paho_alone=True)


def power(folder: Path) -> None:
    put = lost = 0
    with pytest.MonkeyPatch.context() as patch:
        for seed in range(10):
            part = folder / str(seed)
            part.mkdir()

            def reboot() -> None:
                patch.setattr(numbering, "boot_id", lambda: b"another boot id!")

            had, gone = cut(part, reboot, images=20, seeds=[seed * 10 + 1, seed * 10 + 2], rounds=250)
            put, lost = put + had, lost + gone
    row(
        "200 power cuts", f"0 alerts lost; telemetry {lost} of {put} events, none older than a second; no number reused"
    )


class _Said(logging.Handler):
    """What `batter` asks of pytest's caplog."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"

    def clear(self) -> None:
        self.text = ""


def damage(folder: Path) -> None:
    said = _Said()
    logging.getLogger("edge_agent").addHandler(said)
    for seed in range(10):
        batter(folder, said, times=50, seed=seed)
    row(
        "500 damages of every state file",
        "each store opened; nothing lost but what was hit, and all of it declared",
    )


def backlog(folder: Path) -> None:
    filled = load("fill", folder / "store", EVENTS)
    with broker(folder) as server:
        told = load("drain", folder / "store", server.port)
    row(
        f"{EVENTS:,} events wait ({filled['bytes'] / 1e6:.0f} MB)",
        f"first publish {told['first_s']:.2f} s after start, {told['memory'] / 1e6:.0f} MB more memory, "
        f"{told['sent'] / told['seconds']:.0f} events/s (put at {EVENTS / filled['seconds']:.0f}/s)",
    )


def writes(folder: Path) -> None:
    kinds = ("telemetry", "alert", "paho", "sqlite")
    with broker(folder) as server:
        command = [sys.executable, "-m", "tests.faults.load", "trickle"]
        children = {
            kind: subprocess.Popen(
                [*command, kind, str(folder / kind), str(server.port), str(SECONDS)], cwd=ROOT, stdout=subprocess.PIPE
            )
            for kind in kinds
        }
        told = {kind: json.loads(child.communicate()[0])["bytes"] for kind, child in children.items()}
    names = {"paho": "paho alone (RAM)", "sqlite": "SQLite WAL FULL, commit each"}
    row(
        "bytes written to the disk per 300-byte event, 10 a second, online",
        ", ".join(f"{names.get(kind, kind)} {size:.0f} B" for kind, size in told.items()),
    )


def day(folder: Path) -> None:
    told = day_without_broker(folder / "store", events=86_400, quota=2_000_000)
    row(
        "86,400 events, a tenth of them alerts, no broker, 2 MB",
        f"newest {told['kept alerts']} alerts and {told['kept telemetry']} telemetry kept, "
        f"{told['declared']} dropped, declared exactly",
    )


PARTS: dict[str, Callable[[Path], None]] = {
    "storm": kills,
    "paho": paho,
    "power": power,
    "damage": damage,
    "backlog": backlog,
    "writes": writes,
    "day": day,
}


def main(names: list[str]) -> None:
    log = logging.getLogger("edge_agent")  # what it warns of is what is done to it here
    log.addHandler(logging.NullHandler())
    log.propagate = False
    print("| fault | result |\n|---|---|")
    for name in names or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
