"""Samples with one label each: a classifier's likeliest label, or how an autoencoder's error tells the unusual."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.figures import scores
from edge_agent.figures.interval import figure, share
from edge_agent.figures.scores import Doubles, macro, ranked, same
from edge_agent.manifest import Served
from edge_agent.tasks.recognise.recognise import unlike
from edge_agent.tasks.text.head import UNKNOWN
from edge_agent.workshop.data.feed import served_by
from edge_agent.workshop.data.labelled import GIVE, LabelledSample, read_rows
from edge_agent.workshop.data.pictures import few, match_classes
from edge_agent.workshop.evaluate.frame import Answers, Evaluation, Say, ask_all, finds, measured
from edge_agent.workshop.evaluate.worst import save_worst

NORMAL = ("normal", "good", "ok", "nominal", "regular", "0", "false")
"""labels of what is usual; whatever else stands there is unusual"""


# ── classifiers, of texts too ────────────────────────────────────────────────────────────────────────────


def classifier(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Accuracy, F1 and AUROC where there are labels, agreement where there is a parent."""
    rows, notes = read_rows(Path(args.data), True, args.limit), list[str]()
    check_parent(args, model, parent)
    names = unlike(list(model.manifest.labels))
    if labelled := all(row.label is not None for row in rows):
        rows = as_said(rows, names, notes)

    def answers(one: Served, rows: Sequence[LabelledSample], say: Say) -> Answers:
        """All labels are asked for; from --score on the likeliest counts."""
        told = {"score": str(one.manifest.score if args.score is None else args.score)}
        told |= {"top": "1000"} if one.manifest.task == "recognise" else {}
        return ask_all(one.ref.name, finds(served_by(one, told)), rows, say)

    def figures(answers: Answers) -> dict[str, Any]:
        found = of_labels(answers, "samples")
        return {**found, "auroc": figure(lambda of: _auroc(answers, names, of), len(answers.said))}

    how = Evaluation(
        "sample", rows, labelled, GIVE.partition(" ")[2], figures, agreement, answers, save_wrong if labelled else None
    )
    return measured(args, model, parent, how, say, notes)


def check_parent(args: argparse.Namespace, model: Served, parent: Served | None) -> None:
    """UsageError for a parent that has other labels."""
    if parent is not None and parent.manifest.labels != model.manifest.labels:
        raise UsageError(f"--against {args.against}: its labels are not those of {args.model}")


def as_said(
    rows: Sequence[LabelledSample], names: Sequence[str], notes: list[str], own: bool = True
) -> list[LabelledSample]:
    """The samples, their labels as a model calls them, which are found by name, or by number where they are its `own`
    and not the user's. A note on those that it cannot say, UsageError where these are all.
    """
    truth = sorted({row.label or "" for row in rows})
    known = (_known if own else _named)(truth, names)
    foreign = [label for label in truth if label not in known]
    if foreign:
        count = sum(row.label in foreign for row in rows)
        what = "samples have a label that the model cannot say, and count as wrong"
        notes.append(f"{count} {what}: {', '.join(foreign[:5])}")
    return [replace(row, label=known.get(row.label or "", row.label)) for row in rows]


def _known(truth: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Label of the data -> what a model calls it."""
    if all(label.isdigit() and int(label) < len(names) for label in truth) and not set(truth) & set(names):
        return {label: names[int(label)] for label in truth}
    same = match_classes(dict(enumerate(truth)), dict(enumerate(names)))
    return {truth[to]: names[key] for key, to in same.items()}


def _named(truth: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    known = {label: label for label in truth if label in names}
    if not known:
        raise UsageError(f"no label in common: the data has {few(truth)}, the examples {few(names)}")
    return known


def _best(answers: Answers) -> list[str]:
    """The likeliest label of each sample, surely enough or not, "unknown" set aside."""
    known = [{key: share for key, share in one.scores.items() if key != UNKNOWN} for one in answers.said]
    return [max(shares, key=shares.__getitem__, default=UNKNOWN) for shares in known]


def of_labels(answers: Answers, unit: str) -> dict[str, Any]:
    """Accuracy and macro F1 of the likeliest label; how many are answered with "unknown", as none is sure enough."""
    truth, best = [row.label or "" for row in answers.rows], _best(answers)
    each = scores.f1_by_label(truth, best)
    return {
        "accuracy": same(truth, best),
        "f1": macro(truth, best),
        "doubted": share([one.label == UNKNOWN for one in answers.said]),
        "labels": {label: {"f1": each[label], unit: truth.count(label)} for label in each},
    }


def agreement(theirs: Answers, mine: Answers) -> dict[str, Any]:
    """How far the likeliest labels are the parent's."""
    told, said = _best(theirs), _best(mine)
    return {"agreement": same(told, said), "agreement_f1": macro(told, said)}


def _auroc(answers: Answers, names: Sequence[str], of: Sequence[int]) -> float:
    """Of the samples with these numbers: the mean over the labels of how well each is told from the others."""
    told = []
    for label in sorted({row.label or "" for row in answers.rows} & set(names)):
        shares = np.array([answers.said[i].scores.get(label, 0.0) for i in of], np.float64)
        mine = np.array([answers.rows[i].label == label for i in of])
        told.append(scores.auroc(shares[mine], shares[~mine]))
    known = [one for one in told if not np.isnan(one)]
    return float(np.mean(known)) if known else float("nan")


def save_wrong(where: Path, answers: Answers) -> str:
    """The samples whose likeliest label is wrong, the surest first."""
    wrong = [
        (one.scores.get(best, 0.0), row, best, one.scores.get(UNKNOWN, 0.0))
        for row, best, one in zip(answers.rows, _best(answers), answers.said, strict=True)
        if best != row.label
    ]
    wrong.sort(key=lambda one: -one[0])
    shown = [(row, f"{best} {share:.2f}, is {row.label}") for share, row, best, _ in wrong]
    rows = [(row.what, row.label, best, f"{share:.4f}", f"{none:.4f}") for share, row, best, none in wrong]
    return save_worst(where, "errors", shown, ("text", "label", "said", "score", "unknown"), rows)


# ── autoencoders ─────────────────────────────────────────────────────────────────────────────────────────


def autoencoder(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """AUROC, and the best limit, where there are labels; rank correlation of the errors where there is a parent."""
    rows = read_rows(Path(args.data), model.input is not None, args.limit)
    kinds = sorted({row.label for row in rows if row.label is not None})
    usual = [label for label in kinds if label.casefold() in NORMAL]
    if kinds and len(usual) in (0, len(kinds)):
        raise UsageError(
            f"{args.data}: labels {', '.join(kinds[:5])}; what is usual has to be called {' or '.join(NORMAL[:3])}, "
            "and something else has to be there"
        )
    give = "folders normal/ and anomalous/"
    how = Evaluation("sample", rows, bool(kinds), give, _of_errors, _same_order, save=_save_odd if kinds else None)
    return measured(args, model, parent, how, say, [])


def _same_order(theirs: Answers, mine: Answers) -> dict[str, Any]:
    """How alike the two rank the samples."""
    return {"spearman": ranked(_errors(theirs)[0], _errors(mine)[0])}


def _errors(answers: Answers) -> tuple[Doubles, Any]:
    """(n,) errors, and which samples are labelled as usual."""
    errors = np.array([one.error for one in answers.said], np.float64)
    return errors, np.array([(row.label or "").casefold() in NORMAL for row in answers.rows], bool)


def _of_errors(answers: Answers) -> dict[str, Any]:
    """AUROC of the errors; and the limit above which calling a sample unusual has the best F1, with that F1."""
    errors, usual = _errors(answers)
    normal, odd = errors[usual], errors[~usual]
    limit, f1 = _best_limit(normal, odd)
    return {
        "auroc": figure(lambda of: scores.auroc(errors[of][~usual[of]], errors[of][usual[of]]), len(errors)),
        "limit": limit,
        "f1": f1,
        "accuracy": share((errors > limit) != usual),
        **{
            name: {"samples": len(some), "error": float(np.median(some)) if len(some) else float("nan")}
            for name, some in (("normal", normal), ("anomalous", odd))
        },
    }


def _best_limit(normal: Doubles, odd: Doubles) -> tuple[float, float]:
    """Halfway between two neighbouring errors (or below all of them); of equally good ones the highest."""
    every = np.unique(np.concatenate([normal, odd]))
    limits = np.concatenate([every[:1] / 2, (every[1:] + every[:-1]) / 2])
    if not len(odd) or not len(normal):
        return float("nan"), float("nan")
    caught, false = (len(one) - np.searchsorted(np.sort(one), limits, "right") for one in (odd, normal))
    f1 = 2 * caught / (caught + false + len(odd))
    best = len(f1) - 1 - int(f1[::-1].argmax())
    return float(limits[best]), float(f1[best])


def _save_odd(where: Path, answers: Answers) -> str:
    """The usual samples of the largest errors and the unusual ones of the least, in turns."""
    errors, usual = _errors(answers)
    far = np.where(usual, -errors, errors)
    turn = [(int((far[usual == usual[i]] < far[i]).sum()), not usual[i]) for i in range(len(far))]
    order = sorted(range(len(far)), key=turn.__getitem__)
    picked = [(answers.rows[i], errors[i]) for i in order]
    shown = [(row, f"{row.label}, error {error:.4g}") for row, error in picked]
    rows = [(row.name, row.label, f"{error:.6g}") for row, error in picked]
    return save_worst(where, "worst", shown, ("sample", "label", "error"), rows)
