"""The verbs of the workshop: train, quantize, prune, tune, graph make a model, evaluate measures one."""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

from edge_agent.cli.models import models_of
from edge_agent.cli.say import note, print_json, steps
from edge_agent.errors import UsageError


def train(args: argparse.Namespace) -> int:
    """Run a training recipe."""
    from edge_agent.workshop import train

    return train.run(args, note)


def make(args: argparse.Namespace) -> int:
    """Quantize, prune, tune or rewrite a model; 1 when the gate refuses what came of it."""
    import msgspec

    from edge_agent.workshop.report.report import encoded, lines

    if importlib.util.find_spec("onnx_ir") is None:
        raise UsageError(f'{args.verb} needs the workshop: pip install "edge-agent-runtime[workshop]"')
    verb = importlib.import_module(f"edge_agent.workshop.{args.verb}.verb")
    try:
        report = verb.run(args, steps())
    except KeyboardInterrupt:
        return interrupted(args.out or verb.folder_of(args))
    if args.json:
        print_json(msgspec.json.decode(encoded(report)))
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
