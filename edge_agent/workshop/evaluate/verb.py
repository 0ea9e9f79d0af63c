"""``evaluate MODEL DATA``: how good is a model, on labels that people gave and against the model it was made from.

Detectors on pictures: COCO's mean average precision. Classifiers of pictures: accuracy, F1, AUROC. Autoencoders: AUROC,
rank correlation. Text: accuracy, F1, AUROC of "unknown", correlation of similarities; F1 of spans. Speech: word
error rate. The models answer through the same tasks that serve, so what is measured is what serves.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import UsageError
from edge_agent.figures.interval import Figure, Groups, difference, interval
from edge_agent.workshop import workers

if TYPE_CHECKING:
    from edge_agent.manifest import Served


Say = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""
Others = Callable[[Any, "Served", Any], Future[Any]]
"""(what a worker gets ready by, the model, what it is asked for)"""

TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "detect": ("edge_agent.workshop.evaluate.pictures", ("score", "iou", "workers")),
    **dict.fromkeys(("recognise", "state"), ("edge_agent.workshop.evaluate.labels", ("score",))),
    "anomaly": ("edge_agent.workshop.evaluate.anomaly", ()),
    "classify": ("edge_agent.workshop.evaluate.text", ()),
    "tag": ("edge_agent.workshop.evaluate.tags", ()),
    **dict.fromkeys(("fill", "follows", "answer"), ("edge_agent.workshop.evaluate.headed", ())),
    "transcribe": ("edge_agent.workshop.evaluate.speech", ()),
    "encode": ("edge_agent.workshop.evaluate.text", ("labels", "train", "unknown")),
}
"""task -> the module that measures such a model, and the options that it takes"""
OPTIONS = ("score", "iou", "labels", "train", "unknown", "workers")
"""those that not every task takes"""


def run(args: argparse.Namespace, serve: Callable[[str], Served], say: Say) -> dict[str, Any]:
    """The figures by name, as --json prints them; a figure that does not exist is NaN. "notes" are lines for people.

    Raises UsageError for arguments and data, ModelError for models.
    """
    model = serve(args.model)
    args.sha256 = model.ref.sha256
    parent = serve(args.against) if args.against else None
    task = model.manifest.task
    if parent is not None and parent.manifest.task != task:
        raise UsageError(
            f"--against {args.against}: its task is {parent.manifest.task}, that of {args.model} is {task}"
        )
    if task not in TASKS:
        raise UsageError(
            f"{args.model}: nothing here measures a model whose task is {task}; known are {', '.join(TASKS)}"
        )
    module, own = TASKS[task]
    odd = [f"--{key}" for key in OPTIONS if key not in own and getattr(args, key) is not None]
    if odd:
        raise UsageError(f"{', '.join(odd)}: not for {args.model}, whose task is {task}")
    if args.save:
        folder(Path(args.save))
    return _finished({"task": task, **_measured(args, module, model, parent, say)})


def _measured(args: argparse.Namespace, module: str, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """The figures as the module has them, with the workers that are asked for."""
    with workers.crew(args.workers or "1") as crew:
        args.others = functools.partial(_ask, args, crew) if crew is not None else None
        found: dict[str, Any] = importlib.import_module(module).evaluate(args, model, parent, say)
    return found


def _ask(args: argparse.Namespace, crew: Executor, begin: Any, model: Served, point: Any) -> Future[Any]:
    """A worker, for what it finds by a model: the one of --against, or the one that is measured."""
    name = args.model
    if args.against and model.ref.sha256 != args.sha256:
        name = args.against
    return workers.ask(crew, begin, (name, model.ref.sha256, args.threads), point)


def _finished(figures: dict[str, Any]) -> dict[str, Any]:
    """With intervals, and the change against the parent, all rounded."""
    groups = figures.pop("groups", None)
    against = figures.get("against", {})
    if "on_labels" in against:
        against["change"] = _changes(figures, against["on_labels"], groups)
    rounded: dict[str, Any] = _rounded(_with_intervals(figures, groups))
    return rounded


def _changes(mine: Mapping[str, Any], theirs: Mapping[str, Any], groups: Groups | None) -> dict[str, Any]:
    """What a model has more than its parent on the same samples, with its interval."""
    both = [key for key, one in theirs.items() if isinstance(one, Figure) and isinstance(mine.get(key), Figure)]
    same = [key for key in both if mine[key].count == theirs[key].count]
    changes: dict[str, Any] = {key: float(mine[key]) - float(theirs[key]) for key in same}
    return {**changes, "intervals": {key: [*difference(mine[key], theirs[key], groups)] for key in same}}


def _with_intervals(value: dict[str, Any], groups: Groups | None) -> dict[str, Any]:
    """The same with "intervals" beside figures, by their names: [low, high]."""
    out = {key: _with_intervals(one, groups) if isinstance(one, dict) else one for key, one in value.items()}
    known = {key: [*interval(one, groups)] for key, one in value.items() if isinstance(one, Figure)}
    return {**out, "intervals": known} if known else out


def _rounded(value: Any) -> Any:
    """Figures to six digits, however deep they lie."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


def lines(result: dict[str, Any]) -> list[str]:
    """The figures as lines for people."""
    told: list[str] = importlib.import_module(TASKS[result["task"]][0]).lines(result)
    return told


def cell(result: Mapping[str, Any], key: str, digits: int = 4) -> str:
    """A figure with its interval, for people."""
    value, between = result[key], result.get("intervals", {}).get(key)
    if between is None or not all(map(math.isfinite, (value, *between))):
        return "-" if math.isnan(value) else f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({between[0]:.{digits}f} to {between[1]:.{digits}f})"


def beside(result: Mapping[str, Any], key: str, digits: int = 4) -> str:
    """What the parent has, and how much more the model has, for people; nothing without a parent."""
    against = result.get("against", {})
    if key not in against.get("on_labels", {}):
        return ""
    change = against.get("change", {})
    more = f"; {cell(change, key, digits)} more" if key in change else ""
    return f"   ({against['model']}: {against['on_labels'][key]:.{digits}f}{more})"


def identity(model: Served) -> dict[str, Any]:
    """Which model it is, as each evaluation says it first."""
    return {"model": model.ref.name, "version": model.ref.version, "sha256": model.ref.sha256}


def folder(path: Path) -> Path:
    """Make a folder. UsageError when that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--save {path}: the folder cannot be made ({error.strerror})") from None
    return path
