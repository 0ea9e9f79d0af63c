"""``evaluate MODEL DATA``: how good is a model, on labels that people gave and against the model it was made from.

Detectors on pictures: COCO's mean average precision. Classifiers of pictures: accuracy, F1, AUROC. Autoencoders: AUROC,
rank correlation. Text: accuracy, F1, AUROC of "unknown", correlation of similarities; F1 of spans. Speech: word
error rate. The models answer through the same tasks that serve, so what is measured is what serves.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import UsageError
from edge_agent.figures.interval import Figure, Groups, difference, interval
from edge_agent.tasks import found_at

if TYPE_CHECKING:
    from edge_agent.manifest import Served
    from edge_agent.workshop.evaluate.frame import Say

TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "detect": ("pictures:detector", ("score", "iou", "workers")),
    **dict.fromkeys(("recognise", "state"), ("labels:classifier", ("score",))),
    "anomaly": ("labels:autoencoder", ()),
    "classify": ("text:text", ()),
    "tag": ("tags:tagger", ()),
    **dict.fromkeys(("fill", "follows", "answer"), ("headed:headed", ())),
    "transcribe": ("speech:speech", ()),
    "encode": ("text:text", ("labels", "train", "unknown")),
}
"""task -> what measures such a model, module:function of this room, and the options that it takes"""
OPTIONS = ("score", "iou", "labels", "train", "unknown", "workers")
"""those that not every task takes"""


def run(args: argparse.Namespace, serve: Callable[[str], Served], say: Say) -> dict[str, Any]:
    """The figures by name, as --json prints them; a figure that does not exist is NaN. "notes" are lines for people.

    Raises UsageError for arguments and data, ModelError for models.
    """
    model = serve(args.model)
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
    measure, own = TASKS[task]
    odd = [f"--{key}" for key in OPTIONS if key not in own and getattr(args, key) is not None]
    if odd:
        raise UsageError(f"{', '.join(odd)}: not for {args.model}, whose task is {task}")
    if args.save:
        _make(Path(args.save))
    found = found_at(f"edge_agent.workshop.evaluate.{measure}")(args, model, parent, say)
    return _finished({"task": task, **found})


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--save {folder}: the folder cannot be made ({error.strerror})") from None


def _finished(figures: dict[str, Any]) -> dict[str, Any]:
    """With intervals, and the change against the parent, all rounded."""
    groups = figures.pop("groups", None)
    against = figures.get("against", {})
    if "on_labels" in against:
        against["change"] = _changes(figures, against["on_labels"], groups)
    told: dict[str, Any] = _told(figures, groups)
    return told


def _changes(mine: Mapping[str, Any], theirs: Mapping[str, Any], groups: Groups | None) -> dict[str, Any]:
    """What a model has more than its parent on the same samples, with its interval."""
    both = [key for key, one in theirs.items() if isinstance(one, Figure) and isinstance(mine.get(key), Figure)]
    same = [key for key in both if mine[key].count == theirs[key].count]
    changes: dict[str, Any] = {key: float(mine[key]) - float(theirs[key]) for key in same}
    return {**changes, "intervals": {key: [*difference(mine[key], theirs[key], groups)] for key in same}}


def _told(value: Any, groups: Groups | None) -> Any:
    """Figures to six digits, however deep they lie, and beside them "intervals" by their names: [low, high]."""
    if isinstance(value, dict):
        known = {key: [*interval(one, groups)] for key, one in value.items() if isinstance(one, Figure)}
        whole = {**value, "intervals": known} if known else value
        return {key: _told(inner, groups) for key, inner in whole.items()}
    if isinstance(value, list):
        return [_told(inner, groups) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────

TITLES = {
    "map": "mAP50-95",
    "map50": "mAP50",
    "map75": "mAP75",
    "map_small": "small",
    "map_medium": "medium",
    "map_large": "large",
    "f1": "F1",
    "auroc": "AUROC",
    "wer": "word errors",
    "agreement_f1": "agreement, F1",
    "iou": "NMS overlap",
}
"""names of figures that are not those of the JSON"""
TABLES = ("labels", "classes")
ASIDE = (*TABLES, "intervals", "on_labels", "change", "against")
"""what stands in a table, beside a figure, or below all of them"""


def lines(result: Mapping[str, Any]) -> list[str]:
    """All figures, beside them the parent's; how far the two say the same; and those of each label or class."""
    against = result.get("against", {})
    told = [f"{result['model']}: {_counts(result)}", *_figures(result, against)]
    if against:
        told += [f"against {against['model']}: {against.get('what') or _counts(against)}", *_figures(against, {})]
    return [*told, *(line for key in TABLES for line in _table(result.get(key) or against.get(key)))]


def _counts(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{value} {key}" for key, value in result.items() if isinstance(value, int)) or "the same samples"


def _figures(result: Mapping[str, Any], against: Mapping[str, Any]) -> list[str]:
    """A line a figure, behind it what the parent has, and the difference to that."""
    told = []
    change, theirs = against.get("change", {}), against.get("on_labels", {})
    for key, value in result.items():
        if isinstance(value, dict) and key not in ASIDE:
            few = ", ".join(f"{name} {_cell(value, name)}" for name in value if name not in ASIDE)
            told.append(f"{_title(key):15} {few}")
        elif isinstance(value, float):
            parent = f"   {against['model']} {_cell({key: theirs[key]}, key)}" if key in theirs else ""
            apart = f", difference {_cell(change, key)}" if key in change else ""
            told.append(f"{_title(key):15} {_cell(result, key)}{parent}{apart}")
    return told


def _table(rows: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    """A row a label, those first that have the most of what its last column counts."""
    if not rows:
        return []
    columns = list(next(iter(rows.values())))
    order = sorted(rows, key=lambda name: -rows[name][columns[-1]])
    cells = [(name, *(_cell(rows[name], key, True) for key in columns)) for name in order]
    heads = ("", *map(_title, columns))
    return [f"{name:32}" + "".join(f"{one:>10}" for one in row) for name, *row in (heads, *cells)]


def _title(key: str) -> str:
    return TITLES.get(key, key.replace("_", " "))


def _cell(result: Mapping[str, Any], key: str, shares: bool = False) -> str:
    """A count as it is, a figure with its interval where it has one, for people; `shares`: it is one in any case."""
    value, between = result[key], result.get("intervals", {}).get(key, ())
    if not isinstance(value, float) or math.isnan(value):
        return str(value) if isinstance(value, int) else "-"
    # what is no share may be any number: a limit, milliseconds
    told = f"{value:.4f}" if shares or between or value == 0 or 0.001 <= abs(value) <= 1 else f"{value:.4g}"
    return f"{told} ({between[0]:.4f} to {between[1]:.4f})" if between and all(map(math.isfinite, between)) else told
