"""A classifier of pictures: its first label against those that people gave, and against a parent's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.figures import scores
from edge_agent.figures.interval import figure, share
from edge_agent.figures.scores import macro, same
from edge_agent.manifest import Served
from edge_agent.tasks.recognise.recognise import UNKNOWN, unlike
from edge_agent.workshop.data.feed import served_by
from edge_agent.workshop.data.labelled import GIVE, read_rows
from edge_agent.workshop.data.pictures import match_classes
from edge_agent.workshop.evaluate.frame import Answers, Evaluation, by_label, head, measured, same_label, table
from edge_agent.workshop.evaluate.verb import Say
from edge_agent.workshop.report.sheet import MOST, sheet


def evaluate(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Accuracy, F1 and AUROC where there are labels, agreement where there is a parent."""
    rows = read_rows(Path(args.data), True, args.limit)
    labelled = all(row.label is not None for row in rows)
    if parent is not None and parent.manifest.labels != model.manifest.labels:
        raise UsageError(f"--against {args.against}: its labels are not those of {args.model}")
    names = _names(model, sorted({row.label for row in rows if row.label is not None})) if labelled else {}
    how = Evaluation(
        "sample",
        "pictures",
        rows,
        labelled,
        GIVE.partition(" ")[2],
        lambda one: served_by(one, _options(args, one)),
        lambda answers: _figures(answers, names),
        _agreement,
        lambda where, answers: f"{_worst(where, answers, names)} errors in {where}, the surest first",
        lambda answers, notes: _foreign(answers, names, notes),
    )
    return measured(args, model, parent, how, say)


def _foreign(answers: Answers, names: dict[str, str], notes: list[str]) -> dict[str, Any]:
    """A note on labels that the model does not have."""
    foreign = sorted({row.label or "" for row in answers.rows} - set(names.values()))
    count = sum(row.label in foreign for row in answers.rows)
    what = "pictures have a label that the model cannot say, and count as wrong"
    notes += [f"{count} {what}: {foreign[0]}"] if foreign else []
    return {}


def _agreement(theirs: Answers, mine: Answers) -> dict[str, Any]:
    """How alike their likeliest labels are."""
    told, said = _first(theirs), _first(mine)
    return {"agreement": same(told, said), "agreement_f1": macro(told, said)}


def _options(args: argparse.Namespace, model: Served) -> dict[str, str]:
    """Of the task: from which score on a label counts, and that all of them are told."""
    told = {"score": str(model.manifest.score if args.score is None else args.score)}
    return {**told, "top": "1000"} if model.manifest.task == "recognise" else told


def _names(model: Served, truth: list[str]) -> dict[str, str]:
    """The model's labels -> those of the data: by name, else by number. UsageError when they share none."""
    ours = dict(enumerate(unlike(list(model.manifest.labels))))
    numbers = all(label.isdigit() for label in truth)
    theirs = {int(label) if numbers else i: label for i, label in enumerate(truth)}
    if numbers and max(theirs) < len(ours) and not set(truth) & set(ours.values()):
        return {ours[key]: label for key, label in theirs.items()}
    return {ours[key]: theirs[to] for key, to in match_classes(theirs, ours).items()}


def _first(answers: Answers) -> list[str]:
    """The likeliest label of each picture, surely enough or not."""
    return [next(iter(one.scores)) for one in answers.said]


def _figures(answers: Answers, names: dict[str, str]) -> dict[str, Any]:
    """Accuracy and macro F1 of the likeliest label; AUROC, the mean over the labels of telling each from the others;
    and how many pictures are answered with "unknown", as no label is sure enough.
    """
    truth = [row.label or "" for row in answers.rows]
    said = [names.get(label, label) for label in _first(answers)]
    each = scores.f1_by_label(truth, said)
    return {
        "accuracy": same(truth, said),
        "f1": macro(truth, said),
        "auroc": figure(lambda of: _auroc(truth, answers.said, names, of), len(truth)),
        "doubted": share([one.label == UNKNOWN for one in answers.said]),
        "labels": {label: {"f1": each[label], "samples": truth.count(label)} for label in each},
    }


def _auroc(truth: Sequence[str], said: Sequence[Any], names: dict[str, str], of: Sequence[int]) -> float:
    """Of the samples with these numbers."""
    told = []
    for own, label in names.items():
        shares = np.array([said[i].scores.get(own, 0.0) for i in of], np.float64)
        mine = np.array([truth[i] == label for i in of])
        told.append(scores.auroc(shares[mine], shares[~mine]))
    known = [one for one in told if not np.isnan(one)]
    return float(np.mean(known)) if known else float("nan")


def _worst(where: Path, answers: Answers, names: dict[str, str]) -> int:
    """Write FOLDER/worst.jpg: the wrong answers, the surest first; returns how many there are in all."""
    wrong = []
    for row, one in zip(answers.rows, answers.said, strict=True):
        label, share = next(iter(one.scores.items()))
        if names.get(label, label) != row.label:
            wrong.append((share, row, f"{names.get(label, label)} {share:.2f}, is {row.label}"))
    wrong.sort(key=lambda one: -one[0])
    sheet(where / "worst.jpg", [(row, caption) for _, row, caption in wrong[:MOST]])
    return len(wrong)


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────

DOUBTED = '   answered with "unknown"'
ROWS = (("accuracy", "accuracy", ""), ("macro F1", "f1", ""), ("AUROC", "auroc", ""), ("doubted", "doubted", DOUBTED))


def lines(result: dict[str, Any]) -> list[str]:
    """Figures, beside them the parent's, then the labels by how many pictures they have."""
    against = result.get("against", {})
    told = [head(result, "sample", "picture"), *table(result, ROWS), *same_label(against)]
    return [*told, *by_label(result, "samples")]
