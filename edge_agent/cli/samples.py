"""The verbs below `samples`: frames that the agent kept for a person to look through."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from edge_agent.cli.arguments import common_options
from edge_agent.cli.say import note, print_json, table
from edge_agent.errors import UsageError


def samples_options(of: argparse.ArgumentParser) -> None:
    """Of the verb and those below it."""
    each = of.add_subparsers(dest="samples_verb", required=True, metavar="VERB")
    listed = each.add_parser("list", help="what was kept, when and why")
    listed.add_argument("--json", action="store_true", help="print one JSON list, and nothing else")
    export = each.add_parser(
        "export", help="write pictures and boxes (COCO), texts and labels (JSONL) into a new folder, to be corrected"
    )
    export.add_argument("folder", type=Path)
    take = each.add_parser("take", help="take corrected boxes: by them models are gated and evaluated")
    take.add_argument("file", type=Path, help="COCO JSON, e.g. instances.json of what export wrote")
    delete = each.add_parser("delete", help="delete what was kept and not corrected")
    delete.add_argument("name", nargs="*", help="as list prints it")
    delete.add_argument("--all", action="store_true", help="all of it")
    for verb in each.choices.values():
        common_options(verb)


def samples(args: argparse.Namespace) -> int:
    """The verbs below `samples`."""
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "export": _export,
        "take": _take,
        "delete": _delete,
    }
    return verbs[args.samples_verb](args)


def _list(args: argparse.Namespace) -> int:
    import msgspec

    from edge_agent.samples.collected import collected, folder

    found = collected()
    if args.json:
        print_json([{"name": one.path.name, **msgspec.to_builtins(one.about)} for one in found])
        return 0
    if not found:
        note(
            f'{folder()}: nothing was kept; [samples] collect = ["uncertain"], consent = "…" in the config has it kept'
        )
        return 0
    rows = [("name", "at", "pipeline", "boxes", "why")]
    rows += [
        (one.path.name, one.about.at[:19], one.about.pipeline, str(len(one.about.boxes)), one.about.note)
        for one in found
    ]
    print(*table(rows, frozenset({3})), sep="\n")
    return 0


def _export(args: argparse.Namespace) -> int:
    from edge_agent.samples.collected import export

    pictures, texts = export(args.folder)
    note(f"{pictures} pictures in {args.folder}/images, what was found in them in {args.folder}/instances.json")
    if texts:
        note(f"{texts} texts with their labels in {args.folder}/texts.jsonl")
    note(f"correct that, then: edge-agent samples take {args.folder}/instances.json")
    return 0


def _take(args: argparse.Namespace) -> int:
    from edge_agent.samples.collected import take
    from edge_agent.samples.recorded import place

    pictures, boxes = take(args.file)
    note(f"{pictures} pictures and {boxes} boxes taken: edge-agent evaluate detector {place()}")
    return 0


def _delete(args: argparse.Namespace) -> int:
    from edge_agent.samples.collected import collected, delete

    if bool(args.name) == args.all:
        raise UsageError("samples delete: give names as `samples list` prints them, or --all")
    names = [one.path.name for one in collected()]
    if unknown := [name for name in args.name if name not in names]:
        raise UsageError(f"samples delete: {unknown[0]} is none of those that `samples list` prints")
    note(f"{delete(names if args.all else args.name)} deleted")
    return 0
