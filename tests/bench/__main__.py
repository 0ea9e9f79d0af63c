"""``python -m tests.bench [PART…]``: what the agent costs, beside a bare `session.run` and the tools people would pick.

Parts: cost rates video start size together text instructions latency; all by default. ``--quick`` takes fewer rounds;
``--docs`` refreshes the table in docs/speed.md and its picture (where only some parts run, the rows of the others
stay); ``--json FILE`` writes the figures. Exit 1 when instructions have grown by a fifth, whatever the other figures
say: they depend on the box.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from edge_agent.events import rfc3339
from edge_agent.gate.verdicts import cpu
from tests.bench import cost, instructions, rates, report, size, start, together, video, words
from tests.bench.measure import Row, load
from tests.bench.setup import Place, prepare
from tests.conftest import ROOT

PARTS: dict[str, Callable[[Place, bool], Iterator[Row]]] = {
    "cost": cost.rows,
    "rates": rates.rows,
    "video": video.rows,
    "start": start.rows,
    "size": size.rows,
    "together": together.rows,
    "text": words.rows,
    "instructions": instructions.rows,
    "latency": video.latency_rows,
}
PEERS = ROOT / ".venv-peers" / "bin" / "python"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=" ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--again", action="store_true", help="on the models that the run before added")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    parser.add_argument("--docs", action="store_true", help="refresh docs/speed.md and docs/speed.svg")
    parser.add_argument("--keep", action="store_true", help="make the instructions counted now the baseline")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="folder for models and results")
    args = parser.parse_args()
    if unknown := [part for part in args.part if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    data = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data"))
    place = prepare(
        args.work.absolute(), data if data.is_dir() else None, PEERS if PEERS.is_file() else None, keep=args.again
    )
    machine = {
        "at": rfc3339(time.time())[:16].replace("T", " "),
        "cpu": cpu().rsplit(" ", 1)[0],
        "cores": len(os.sched_getaffinity(0)),
        "quick": args.quick,
        "load": [load()],
    }
    _say(args, place)
    rows: list[Row] = []
    print(*report.HEAD, sep="\n", flush=True)
    for part in args.part or PARTS:
        for row in PARTS[part](place, args.quick):
            rows.append(replace(row, part=part))
            print(report.line(row), flush=True)
    machine["load"] = [*machine["load"], load()]
    if args.keep:
        instructions.keep(rows)
    if args.json:
        args.json.write_text(report.dumped(rows, machine), encoding="utf-8")
    if args.docs:
        kept = args.work / "speed.json"
        shown = rows
        if kept.is_file() and args.part:
            before = report.undumped(kept.read_text(encoding="utf-8"))
            shown = sorted([*rows, *(row for row in before if row.part not in args.part)], key=lambda row: row.aim)
        report.refresh(ROOT / "docs" / "speed.md", shown, machine)
        (ROOT / "docs" / "speed.svg").write_text(report.svg(shown), encoding="utf-8")
        kept.write_text(report.dumped(shown, machine), encoding="utf-8")
    grown = [row.what for row in rows if "REGRESSION" in row.note]
    for what in grown:
        print(f"a fifth more than the baseline, or worse: {what}", file=sys.stderr)
    return 1 if grown and not args.keep else 0


def _say(args: argparse.Namespace, place: Place) -> None:
    """What is missing, and which rows go with it."""
    if place.data is None:
        print("no data (EDGE_AGENT_DATA): without YOLOX-nano, on the demo's clip and lines", file=sys.stderr)
    if place.peers is None:
        print("no peers (`make bench-peers`): without the rows beside Ultralytics and transformers", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
