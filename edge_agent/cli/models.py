"""The verbs of models: those below `models`, and bench."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent import paths
from edge_agent.cli.say import note, print_json, progress, table
from edge_agent.errors import InputError, UsageError

if TYPE_CHECKING:
    from edge_agent.gate.read import Ends
    from edge_agent.manifest import Input, Manifest, Seen
    from edge_agent.serving.models import Models, Tried
    from edge_agent.types import Frame


def models_of(args: argparse.Namespace, once: bool = False) -> Models:
    """The models that the options of a verb ask for."""
    from edge_agent.serving.models import Models

    return Models(threads=args.threads, pull=args.pull, say=progress("fetching"), once=once)


def _picture(path: Path) -> Frame:
    """A picture file as a Frame. InputError when it cannot be read."""
    from edge_agent.pictures.read import read_picture

    return read_picture(path)


def models_verb(args: argparse.Namespace) -> int:
    """The verbs below `models`."""
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _models_list,
        "pull": _models_pull,
        "inspect": _models_inspect,
        "add": _models_add,
        "verify": _models_verify,
        "remove": _models_remove,
        "rollback": _models_rollback,
        "gc": _models_gc,
    }
    return verbs[args.models_verb](args)


def _say_whose() -> None:
    """Where a service is, and models go into its home or into another one."""
    home, service = paths.home(), paths.SERVICE_HOME
    if home == service:
        note(f"into {home}, the service's")
    elif service.is_dir() or paths.SERVICE_CONFIG.parent.is_dir():
        note(f"into {home}, not the service's, which are in {service}: for those type sudo")


def _models_list(args: argparse.Namespace) -> int:
    from edge_agent.gate.verdicts import refusals
    from edge_agent.registry import catalogue

    rows = catalogue.listing()
    if args.json:
        print_json(rows)
        return 0
    head = ("name", "task", "family", "state", "MB", "licence", "trained by")
    cells = [
        (
            row["name"],
            row["task"],
            row["family"],
            row["state"],
            f"{row['bytes'] / 1e6:.1f}",
            row["licence"],
            row["trained_by"],
        )
        for row in rows
    ]
    first, *lines = table([head, *cells], right=frozenset({4}))
    print(first)
    for row, line in zip(rows, lines, strict=True):
        print(line)
        if why := row.get("why"):
            print(f"  {why}")
        if before := catalogue.before(row["name"]):
            print(f"  before: {before}; `edge-agent models rollback {row['name']}` brings it back")
        for why in refusals(catalogue.locate(row["name"]).manifest) if row["task"] else []:
            print(f"  {why}")
    return 0


def _models_pull(args: argparse.Namespace) -> int:
    from edge_agent.registry import catalogue

    _say_whose()
    for name in args.name:
        located = catalogue.pull(name, progress(name))
        print(f"{located.manifest.name}: all files here and verified")
    return 0


def _models_inspect(args: argparse.Namespace) -> int:
    from edge_agent.registry import catalogue

    path = Path(args.model)
    bare = path.suffix.lower() in catalogue.SUFFIXES and path.is_file()
    shown = _inspect_bare(args, path) if bare else _inspect_known(args)
    if args.json:
        print_json(shown)
    else:
        _show_inspected(shown)
    return 1 if shown["refusal"] else 0


def _inspect_bare(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    """What a file says of itself."""
    from edge_agent.gate import read

    proofs, told = _proofs(args, args.model), _told(args, args.model)
    found = read.read(path, proofs, told)
    seen = found.seen
    row = _inspected(path.name, seen, found.ends, seen.input)
    return {**row, "reasons": [*seen.reasons, *found.ends.reasons], "refusal": seen.refusal}


def _inspect_known(args: argparse.Namespace) -> dict[str, Any]:
    """What a manifest says of its first network."""
    from edge_agent.backends import WITH_PARTS
    from edge_agent.gate.opened import input_of
    from edge_agent.gate.read import ends
    from edge_agent.gate.verdicts import notes
    from edge_agent.registry import catalogue
    from edge_agent.registry.files import file_path, parts_of

    located = catalogue.locate(args.model)
    _proofs(args, args.model, bare=False)
    _told(args, args.model, bare=False)
    manifest = located.manifest
    first = manifest.networks()[0]
    parts = parts_of(located) if first.format in WITH_PARTS else {}
    net = ends(file_path(located, first), first.format, parts)
    row = _inspected(manifest.name, manifest, net, input_of(manifest, first))
    return {**row, "reasons": [*located.why.split("; "), *net.reasons, *notes(manifest)], "refusal": ""}


def _inspected(name: str, what: Seen | Manifest, net: Ends, picture: Input | None) -> dict[str, Any]:
    import msgspec

    return {
        "name": name,
        "task": what.task,
        "family": what.family,
        "engine": net.engine,
        "inputs": [_tensor(spec) for spec in net.inputs],
        "outputs": [_tensor(spec) for spec in net.outputs],
        "labels": what.labels,
        "class_ids": what.class_ids,
        "input": msgspec.to_builtins(picture),
        "text": msgspec.to_builtins(what.text),
        "licence": what.licence,
    }


def _show_inspected(shown: dict[str, Any]) -> None:
    from edge_agent.graphs.graph import clean

    for key in ("name", "task", "family", "engine", "licence"):
        print(f"{key:9}{shown[key]}")
    for key in ("inputs", "outputs"):
        for spec in shown[key]:
            print(f"{key[:-1]:9}{clean(spec['name'])} {spec['shape']} {spec['dtype']}")
    labels = shown["labels"]
    print(f"{'labels':9}{len(labels)}: {', '.join(labels[:6])}{' …' if len(labels) > 6 else ''}")
    for reason in shown["reasons"]:
        print(f"{'because':9}{reason}")
    if shown["refusal"]:
        print(f"{'refused':9}{shown['refusal']}")


def _proofs(args: argparse.Namespace, model: str, bare: bool = True) -> list[Path]:
    """The pictures that the user gave. InputError for one that is none, UsageError where they would tell nothing."""
    proofs = [Path(proof) for proof in args.proof]
    if proofs and not bare:
        raise UsageError(f"--proof {proofs[0]}: {model} has a manifest, which leaves nothing to be tried; leave it out")
    for proof in proofs:
        try:
            _picture(proof)
        except InputError as error:
            raise InputError(f"--proof {proof}: {error}") from None
    return proofs


def _told(args: argparse.Namespace, model: str, bare: bool = True) -> dict[str, str]:
    """What the user says of the input. UsageError for what cannot be meant, or where a manifest says it."""
    from edge_agent.inspect.options import TOLD, check

    told = {key: str(given) for key in TOLD if (given := getattr(args, key)) is not None}
    if told and not bare:
        raise UsageError(f"--{next(iter(told))}: {model} has a manifest, which says how its pictures go in; edit that")
    check(told)
    return told


def _tensor(spec: Any) -> dict[str, Any]:
    shown = {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}
    return {**shown, "scale": spec.scale, "zero_point": spec.zero_point} if spec.scale else shown


def _models_add(args: argparse.Namespace) -> int:
    from edge_agent.gate.read import read
    from edge_agent.registry.add import add
    from edge_agent.serving.models import try_all

    _say_whose()
    bare = not Path(args.file).is_dir()
    proofs, told = _proofs(args, args.file, bare), _told(args, args.file, bare)
    tried: list[Tried] = []
    located = add(
        Path(args.file),
        args.name,
        lambda path: read(path, proofs, told).seen,
        lambda found: tried.extend(try_all(found)),
    )
    print(f"{located.manifest.name}: added ({located.manifest.task}, {located.manifest.family})")
    for reason in located.why.split("; "):
        print(f"  {reason}")
    _print_tried(tried)
    return 0


def _models_verify(args: argparse.Namespace) -> int:
    from edge_agent.registry import catalogue

    if args.prove:
        return _models_prove(args)
    problems = catalogue.verify(args.name)
    for problem in problems:
        print(problem)
    if not problems:
        print("every file that is here has the hash that its manifest promises")
    return 1 if problems else 0


def _models_prove(args: argparse.Namespace) -> int:
    from edge_agent.gate.read import seen
    from edge_agent.registry import catalogue
    from edge_agent.serving.models import try_all

    if args.name is None:
        raise UsageError("models verify --prove: which model? give its name")
    tried = try_all(catalogue.locate(args.name, read=seen), again=True)
    _print_tried(tried)
    return 1 if any(one.refused for one in tried) else 0


def _print_tried(tried: list[Tried]) -> None:
    for one in tried:
        for line in [one.refused] if one.refused else [f"{one.name}: {one.notes[0]}", *one.notes[1:]]:
            print(f"  {line}")


def _models_remove(args: argparse.Namespace) -> int:
    from edge_agent.registry.add import remove

    print(f"{args.name}: {remove(args.name) / 1e6:.1f} MB freed")
    return 0


def _models_rollback(args: argparse.Namespace) -> int:
    from edge_agent.registry.add import rollback

    manifest = rollback(args.name).manifest
    print(f"{args.name}: version {manifest.version} serves again ({manifest.networks()[0].name})")
    return 0


def _models_gc(args: argparse.Namespace) -> int:
    from edge_agent.registry.add import collect

    freed, left = collect(args.budget or 0)
    print(f"{freed / 1e6:.1f} MB freed, {left / 1e6:.1f} MB left")
    if args.budget is None or left <= args.budget:
        return 0
    note("the rest belongs to current and previous versions; `edge-agent models remove` one to free more")
    return 1


def bench(args: argparse.Namespace) -> int:
    """Time a model's variants on this device."""
    from edge_agent.serving.bench import bench, lines

    found = bench(args.model, args.threads, args.seconds)
    if args.json:
        print_json(found)
    else:
        print("\n".join(lines(found)))
    return 0
