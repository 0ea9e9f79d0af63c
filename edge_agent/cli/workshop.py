"""The verbs of the workshop: train, quantize, prune, tune, graph make a model, evaluate measures one."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import ModuleType

from edge_agent.cli.models import models_of
from edge_agent.cli.say import note, print_json, steps
from edge_agent.errors import UsageError


def train(args: argparse.Namespace) -> int:
    """Run a training recipe."""
    from edge_agent.workshop import train

    return train.run(args, note)


def quantize(args: argparse.Namespace) -> int:
    """Quantize a model; 1 when the gate refuses what came of it."""
    from edge_agent.workshop.quantize import verb

    return _made(args, verb)


def prune(args: argparse.Namespace) -> int:
    """Prune a model; 1 when the gate refuses what came of it."""
    from edge_agent.workshop.prune import verb

    return _made(args, verb)


def graph(args: argparse.Namespace) -> int:
    """Write a model's network down better; 1 when the gate refuses what came of it."""
    from edge_agent.workshop.graph import verb

    return _made(args, verb)


def _made(args: argparse.Namespace, verb: ModuleType) -> int:
    """Run a verb that writes a model folder and gives a report."""
    import msgspec

    try:
        report = verb.run(args, steps())
    except KeyboardInterrupt:
        return interrupted(args.out)
    if args.json:
        print_json(msgspec.json.decode((args.out / "report.json").read_bytes()))
        return 0
    print("\n".join(verb.lines(report)))
    note(f"{args.out}: a model folder; its report is {args.out / 'report.html'}")
    return 0


def tune(args: argparse.Namespace) -> int:
    """Search the settings of a model; 1 when nothing is fast enough, or the gate refuses it."""
    import msgspec

    from edge_agent.workshop.report.report import lines
    from edge_agent.workshop.tune.verb import folder_of, run

    try:
        report = run(args, steps())
    except KeyboardInterrupt:
        return interrupted(folder_of(args))
    if args.json:
        print_json(msgspec.to_builtins(report, enc_hook=str))
        return 0
    print("\n".join(lines(report)))
    note(f"{args.out}: a model folder; its report is {args.out / 'report.html'}" if args.out else report.notes[-1])
    return 0


def interrupted(out: Path) -> int:
    """What Ctrl-C leaves behind, one line."""
    begun = any(path.is_file() for path in (out / ".work").rglob("*"))
    kept = "; run the same command again to go on" if begun else ""
    note(f"\ninterrupted, nothing was changed{kept}")
    return 130


def evaluate(args: argparse.Namespace) -> int:
    """Measure a model on labels, or against its parent."""
    from edge_agent.workshop.evaluate import verb

    models = models_of(args)
    name = models.serve(args.model).ref.name if args.card else ""
    if name:
        from edge_agent.samples import evaluated

        if args.save:
            raise UsageError("--save and --card: give one of them")
        args.save = str(evaluated.fresh(name))
    result = verb.run(args, models.serve, steps())
    for line in result["notes"]:
        if not (name and args.save in line):  # the folder has another name in the end
            note(line)
    if args.json:
        print_json(result)
    else:
        print("\n".join(verb.lines(result)))
    if name:
        found = evaluated.Evaluated(result["version"], result["sha256"], time.time(), verb.lines(result))
        note(f"kept for its card on the page, pictures too: {evaluated.keep(name, found)}")
    return 0
