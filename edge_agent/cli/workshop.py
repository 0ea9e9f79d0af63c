"""The verbs that make a model out of another one: quantize."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_agent.cli.say import note, print_json, steps


def quantize(args: argparse.Namespace) -> int:
    """Quantize a model; 1 when the gate refuses what came of it."""
    import msgspec

    from edge_agent.workshop import quantize

    try:
        report = quantize.run(args, steps())
    except KeyboardInterrupt:
        return interrupted(args.out)
    if args.json:
        print_json(msgspec.json.decode((args.out / "report.json").read_bytes()))
        return 0
    print("\n".join(quantize.lines(report)))
    note(f"{args.out}: a model folder; its report is {args.out / 'report.html'}")
    return 0


def interrupted(out: Path) -> int:
    """What Ctrl-C leaves behind, one line."""
    kept = "; run the same command again to go on" if (out / ".work").is_dir() else ""
    note(f"\ninterrupted, nothing was changed{kept}")
    return 130
