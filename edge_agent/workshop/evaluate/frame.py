"""What evaluations by samples have in common: a model is asked one at a time, as it is served; its answers are held
against labels, and against a parent's.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.errors import InputError, UsageError
from edge_agent.figures.interval import Figure
from edge_agent.manifest import Served
from edge_agent.types import Finding, Task
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.evaluate.verb import Say, beside, cell, folder, identity


@dataclass(slots=True)
class Answers:
    """What one model said of the samples that it could take."""

    rows: list[LabelledSample] = field(default_factory=list)
    said: list[Any] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)
    """milliseconds a sample, without reading the file"""
    bad: dict[str, str] = field(default_factory=dict)
    """name of each sample that could not be taken, and why; these are in no other field"""

    def notes(self) -> list[str]:
        """On what was left out."""
        if not self.bad:
            return []
        few = "; ".join(f"{name}: {why}" for name, why in list(self.bad.items())[:3])
        return [f"{len(self.bad)} samples cannot be taken and are left out: {few}"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How models of one kind are measured."""

    unit: str
    """what a sample is called in JSON"""
    word: str
    """and for people, when there are several"""
    rows: Sequence[LabelledSample]
    labelled: bool
    give: str
    """what to give where there are neither labels nor a parent"""
    task: Callable[[Served], Task]
    figures: Callable[[Answers], dict[str, Any]]
    """on the labels"""
    agreement: Callable[[Answers, Answers], dict[str, Any]]
    """(the parent's, the model's) -> how far they say the same"""
    save: Callable[[Path, Answers], str] | None = None
    """write the worst cases into a folder; a note on them"""
    more: Callable[[Answers, list[str]], dict[str, Any]] = lambda answers, notes: {}
    """what else the labels say of the model itself; notes may be added"""


def ask(name: str, task: Task, rows: Sequence[LabelledSample], say: Say) -> Answers:
    """What the task finds in each sample. UsageError when it can take none of them. `name`: told in the progress."""
    answers = Answers()
    for number, row in enumerate(rows):
        say(name, number, len(rows))
        try:
            (finding,) = task(row.read())
        except InputError as error:
            answers.bad[row.name] = str(error)
            continue
        assert isinstance(finding, Finding)
        answers.rows.append(row)
        answers.said.append(finding.what)
        answers.spent.append(sum(ms for stage, ms in finding.spent_ms.items() if stage != "decode"))
    say(name, len(rows), len(rows))
    if not answers.said:
        first, why = next(iter(answers.bad.items()))
        raise UsageError(f"none of {len(rows)} samples can be taken; the first, {first}: {why}")
    return answers


def measured(
    args: argparse.Namespace, model: Served, parent: Served | None, how: Evaluation, say: Say, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The figures where there are labels, the agreement where there is a parent. UsageError for neither."""
    _check(args, parent, how)
    answers = ask(model.ref.name, how.task(model), how.rows, say)
    told = [*notes, *answers.notes()]
    shown: dict[str, Any] = {**identity(model), "data": str(args.data), f"{how.unit}s": len(answers.said)}
    shown |= {f"ms_per_{how.unit}": statistics.median(answers.spent), "notes": told}
    if how.labelled:
        shown |= {**how.figures(answers), **how.more(answers, told)}
    if args.save and how.save is not None:
        told.append(how.save(folder(Path(args.save)), answers))
    if parent is not None:
        shown["against"] = _against(args, parent, how, answers, say)
    return shown


def _check(args: argparse.Namespace, parent: Served | None, how: Evaluation) -> None:
    """UsageError where there is nothing to hold answers against."""
    if not how.labelled and parent is None:
        raise UsageError(f"{args.data}: {how.word} without labels; give --against PARENT, or {how.give}")
    if args.save and how.save is None:
        raise UsageError(f"--save {args.save}: nothing is saved for such a model; leave it out")
    if args.save and not how.labelled:
        raise UsageError(f"--save {args.save}: without labels there are no errors to show; give labels")


def _against(args: argparse.Namespace, parent: Served, how: Evaluation, mine: Answers, say: Say) -> dict[str, Any]:
    """What a parent says of the same samples, and how good it is on their labels."""
    theirs = ask(parent.ref.name, how.task(parent), mine.rows, say)
    if theirs.bad:
        raise UsageError(f"--against {args.against}: {theirs.notes()[0]}")
    found = {**identity(parent), f"ms_per_{how.unit}": statistics.median(theirs.spent), **how.agreement(theirs, mine)}
    if how.labelled:
        found["on_labels"] = {key: one for key, one in how.figures(theirs).items() if isinstance(one, Figure)}
    return found


def save_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table of tabs. UsageError where that cannot be."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\", lineterminator="\n")
            table.writerows([head, *rows])
    except OSError as error:
        raise UsageError(f"--save {path}: cannot be written ({error.strerror})") from None


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────


def head(result: Mapping[str, Any], unit: str, word: str) -> str:
    """What was measured, and how long one takes."""
    return f"{result['model']}: {result[f'{unit}s']} {word}s, {result[f'ms_per_{unit}']:.1f} ms a {word}"


def table(result: Mapping[str, Any], rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """A line for each figure (title, key, what follows) that there is, beside it the parent's."""
    return [f"{title:16}{cell(result, key)}{beside(result, key)}{end}" for title, key, end in rows if key in result]


def same_label(against: Mapping[str, Any]) -> list[str]:
    """How far the labels are a parent's."""
    rows = (("same label", "agreement", f"   as {against.get('model')}"), ("", "agreement_f1", "   macro F1 of that"))
    return table(against, rows)


def by_label(result: Mapping[str, Any], key: str) -> list[str]:
    """F1 of each label, those first that have the most."""
    order = sorted(result.get("labels", {}).items(), key=lambda item: -item[1][key])
    lines = [f"{name:32}{row['f1']:>8.4f}{row[key]:>10}" for name, row in order]
    return [f"{'label':32}{'F1':>8}{key:>10}", *lines] if lines else []
