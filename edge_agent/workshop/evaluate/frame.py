"""What all evaluations have in common: a model is asked one sample at a time, as it is served; its answers are held
against labels, and against a parent's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.errors import InputError, SourceError, UsageError
from edge_agent.manifest import Served
from edge_agent.types import Finding, Task
from edge_agent.workshop.data.feed import served_by
from edge_agent.workshop.data.labelled import LabelledSample

Say = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""
Ask = Callable[[Any], Any]
"""a sample -> what a model says of it; InputError where it can say nothing"""


@dataclass(slots=True)
class Answers:
    """What one model said of the samples that it could take."""

    rows: list[LabelledSample] = field(default_factory=list)
    said: list[Any] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    """what else is known of each sample"""
    spent: list[float] = field(default_factory=list)
    """milliseconds a sample, without reading the file"""
    bad: list[tuple[LabelledSample, str]] = field(default_factory=list)
    """each sample that could not be taken, and why; these are in no other field"""

    def notes(self) -> list[str]:
        """On what was left out."""
        few = "; ".join(f"{row.name}: {why}" for row, why in self.bad[:3])
        return [f"{len(self.bad)} samples cannot be taken and are left out: {few}"] if self.bad else []

    def add(self, more: Answers) -> None:
        """Those of further samples."""
        for name in self.__slots__:
            getattr(self, name).extend(getattr(more, name))

    def some(self) -> Answers:
        """Itself. UsageError where no sample could be taken."""
        if self.said:
            return self
        row, why = self.bad[0]
        raise UsageError(f"none of {len(self.bad)} samples can be taken; the first, {row.name}: {why}")


def finds(task: Task) -> Ask:
    """What a task finds, one thing a sample."""

    def ask(item: Any) -> Any:
        (finding,) = task(item)
        assert isinstance(finding, Finding)
        return finding.what

    return ask


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How models of one kind are measured."""

    unit: str
    """what a sample is called in JSON"""
    rows: Sequence[LabelledSample]
    labelled: bool
    give: str
    """what to give where there are neither labels nor a parent"""
    figures: Callable[[Answers], dict[str, Any]]
    """on the labels"""
    agreement: Callable[[Answers, Answers], dict[str, Any]]
    """(the parent's, the model's) -> how far they say the same"""
    answers: Callable[[Served, Sequence[LabelledSample], Say], Answers] = lambda model, rows, say: ask_all(
        model.ref.name, finds(served_by(model)), rows, say
    )
    """what a model says of samples"""
    save: Callable[[Path, Answers], str] | None = None
    """write the worst cases into a folder; a note on them"""
    more: Callable[[Answers], dict[str, Any]] = lambda answers: {}
    """what else is known of the model itself"""


def ask_all(
    name: str,
    ask: Ask,
    rows: Sequence[LabelledSample],
    say: Say,
    read: Callable[[LabelledSample], Any] = LabelledSample.read,
    keep: Callable[[Any], Any] = lambda item: None,
) -> Answers:
    """What is said of each sample, as it is read; `keep`: what else to know of it; `name`: told in the progress."""
    answers = Answers()
    for number, row in enumerate(rows):
        say(name, number, len(rows))
        try:
            item = read(row)
            began = time.perf_counter()
            answers.said.append(ask(item))
        except (InputError, SourceError) as error:
            answers.bad.append((row, str(error)))
            continue
        answers.spent.append((time.perf_counter() - began) * 1e3)
        answers.rows.append(row)
        answers.kept.append(keep(item))
    say(name, len(rows), len(rows))
    return answers


def measured(
    args: argparse.Namespace, model: Served, parent: Served | None, how: Evaluation, say: Say, notes: list[str]
) -> dict[str, Any]:
    """The figures where there are labels, the agreement where there is a parent, and `notes`, to which some are added.
    UsageError for neither.
    """
    if not how.labelled and parent is None:
        raise UsageError(f"{args.data}: {how.unit}s without labels; give --against PARENT, or {how.give}")
    if args.save and how.save is None:
        raise UsageError(f"--save {args.save}: of such a model, or without labels, there are no errors to show")
    answers = how.answers(model, how.rows, say).some()
    notes += answers.notes()
    shown: dict[str, Any] = {**identity(model), "data": str(args.data), f"{how.unit}s": len(answers.said)}
    shown |= {f"ms_per_{how.unit}": statistics.median(answers.spent), "notes": notes}
    shown |= {**(how.figures(answers) if how.labelled else {}), **how.more(answers)}
    if parent is not None:
        shown["against"] = _against(args, parent, how, answers, say)
    if args.save and how.save is not None:
        notes.append(how.save(Path(args.save), answers))
    return shown


def _against(args: argparse.Namespace, parent: Served, how: Evaluation, mine: Answers, say: Say) -> dict[str, Any]:
    """What a parent says of the same samples, and how good it is on their labels."""
    theirs = how.answers(parent, mine.rows, say).some()
    if theirs.bad:
        raise UsageError(f"--against {args.against}: {theirs.notes()[0]}")
    found = {**identity(parent), f"ms_per_{how.unit}": statistics.median(theirs.spent), **how.agreement(theirs, mine)}
    return {**found, "on_labels": how.figures(theirs)} if how.labelled else found


def identity(model: Served) -> dict[str, Any]:
    """Which model it is, as each evaluation says it first."""
    return {"model": model.ref.name, "version": model.ref.version, "sha256": model.ref.sha256}
