"""An encoder or a classifier of text: its labels against those that people gave, and its answers against a parent's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.figures import scores
from edge_agent.figures.interval import Figure, figure, share
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.tasks import make_task
from edge_agent.tasks.text.head import UNKNOWN
from edge_agent.types import Floats, Task
from edge_agent.uri import Uri
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.data.pictures import spread
from edge_agent.workshop.data.texts import Texts, read_texts
from edge_agent.workshop.evaluate.fitted import fit_head
from edge_agent.workshop.evaluate.frame import (
    Answers,
    Evaluation,
    ask,
    by_label,
    head,
    measured,
    same_label,
    save_table,
    table,
)
from edge_agent.workshop.evaluate.verb import Say, identity

COMPARED = 1000
"""texts whose pairwise similarities are compared with the parent's: half a million pairs"""


def evaluate(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Accuracy and F1 where there is a head (--labels, --train), correlation where there is a parent."""
    own = model.manifest.task == "classify"
    headed = bool(own or args.labels or args.train)
    _check(args, model, parent, headed)
    data = _texts(args, model, headed)
    if len(data.texts) < 3 and parent is not None and not own:
        raise UsageError(f"{args.data}: {len(data.texts)} texts have no pairs to correlate; give three or more")
    notes = data.notes()
    shown: dict[str, Any] = {**identity(model), "data": str(args.data), "texts": len(data.texts), "notes": notes}
    if headed:
        shown = measured(args, model, parent, _on_labels(args, model, data, say, notes), say, notes)
    if parent is not None and not own:
        alike = _correlation(model, parent, data.texts, say, shown["notes"])
        shown["against"] = {**identity(parent), **shown.get("against", {}), **alike}
    return shown


def _texts(args: argparse.Namespace, model: Served, headed: bool) -> Texts:
    """The data, labels by their names where the model has its own. UsageError where labels are needed and absent."""
    data = read_texts(Path(args.data), args.limit)
    if model.manifest.task == "classify" and data.labels is not None:
        data = replace(data, labels=_by_number(data.labels, [str(label) for label in model.manifest.labels]))
    if headed and data.labels is None:
        raise UsageError(f"{args.data}: texts without labels; give a table with a text and a label column")
    return data


def _check(args: argparse.Namespace, model: Served, parent: Served | None, headed: bool) -> None:
    """UsageError for options that do not go together, and for a parent that has other labels."""
    if args.labels and args.train:
        raise UsageError("--labels and --train: both say what the labels are; give one")
    if model.manifest.task == "classify" and parent is not None and parent.manifest.labels != model.manifest.labels:
        raise UsageError(f"--against {args.against}: its labels are not those of {args.model}")
    if headed:
        return
    if parent is None:
        raise UsageError(
            f"{args.model}: an encoder has no labels; give --labels FILE, --train FILE or --against PARENT"
        )
    if args.unknown:
        raise UsageError(f"--unknown {args.unknown}: without labels nothing is unknown; give --labels or --train")
    if args.save:
        raise UsageError(f"--save {args.save}: without labels there are no errors to write; give --labels or --train")


def _on_labels(args: argparse.Namespace, model: Served, data: Texts, say: Say, notes: list[str]) -> Evaluation:
    """How a classifier is measured, or a head that is fitted on an encoder."""
    train = read_texts(Path(args.train)) if args.train else None
    strange = read_texts(Path(args.unknown)).texts if args.unknown else []
    fitted: dict[str, Task] = {}

    def task(one: Served) -> Task:
        if one.ref.sha256 not in fitted:
            fitted[one.ref.sha256] = fit_head(args, one, train, say, [] if fitted else notes)
        return fitted[one.ref.sha256]

    def more(answers: Answers, notes: list[str]) -> dict[str, Any]:
        _check_labels(args.data, answers, notes)
        if not args.unknown:
            return {}
        return _unknown(ask("unknown", task(model), _rows(strange), say), answers)

    rows = _rows(data.texts, data.labels)
    return Evaluation("text", "texts", rows, True, "", task, _figures, _agreement, _write_errors, more)


def _rows(texts: Sequence[str], labels: Sequence[str] | None = None) -> list[LabelledSample]:
    return [LabelledSample(f"text {at + 1}", text, labels[at] if labels else None) for at, text in enumerate(texts)]


def _by_number(given: list[str], names: list[str]) -> list[str]:
    """Labels that are only the numbers of the model's classes, by their names; others as they are, if they are known
    but for their case.
    """
    if not set(given) & set(names) and all(label.isdigit() and int(label) < len(names) for label in given):
        return [names[int(label)] for label in given]
    known = {name.casefold(): name for name in names}
    return [known.get(label.casefold(), label) for label in given]


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────


def _check_labels(data: str, answers: Answers, notes: list[str]) -> None:
    """A note on labels that the model cannot say. UsageError where it can say none."""
    truth = [row.label or "" for row in answers.rows]
    known = set(answers.said[0].scores)
    foreign = sorted(set(truth) - known)
    if len(foreign) == len(set(truth)):
        raise UsageError(
            f"{data}: no label in common: it has {', '.join(foreign[:5])}, the model says "
            f"{', '.join(sorted(known - {UNKNOWN})[:5])}"
        )
    if foreign:
        rows = sum(label in foreign for label in truth)
        notes.append(
            f"{rows} texts have a label that the model cannot say, and count as wrong: {', '.join(foreign[:5])}"
        )


def _best(answers: Answers) -> list[str]:
    """The likeliest label of each text, "unknown" set aside."""
    known = [{key: share for key, share in one.scores.items() if key != UNKNOWN} for one in answers.said]
    return [max(shares, key=lambda key, of=shares: of[key], default=UNKNOWN) for shares in known]  # type: ignore[misc]


def _figures(answers: Answers) -> dict[str, Any]:
    """Accuracy and macro F1 of the likeliest label; how many of these texts would be answered with "unknown"."""
    truth, best = [row.label or "" for row in answers.rows], _best(answers)
    each = scores.f1_by_label(truth, best)
    return {
        "accuracy": scores.same(truth, best),
        "f1": scores.macro(truth, best),
        "doubted": share([one.label == UNKNOWN for one in answers.said]),
        "labels": {label: {"f1": each[label], "texts": truth.count(label)} for label in each},
    }


def _agreement(theirs: Answers, mine: Answers) -> dict[str, Figure]:
    """How far the likeliest labels are the parent's."""
    told, said = _best(theirs), _best(mine)
    return {"agreement": scores.same(told, said), "agreement_f1": scores.macro(told, said)}


def _unknown(strange: Answers, known: Answers) -> dict[str, Any]:
    """How well texts of no label are told from those of one."""
    shares = np.array([one.scores[UNKNOWN] for one in (*strange.said, *known.said)])
    caught = [one.label == UNKNOWN for one in strange.said]
    odd = np.arange(len(shares)) < len(caught)

    def auroc(of: list[int]) -> float:
        return scores.auroc(shares[of][odd[of]], shares[of][~odd[of]])

    return {"auroc": figure(auroc, len(shares)), "unknown": {"texts": len(caught), "caught": share(caught)}}


def _correlation(model: Served, parent: Served, texts: list[str], say: Say, notes: list[str]) -> dict[str, Any]:
    """Pearson and Spearman between the two models' cosines of each pair of texts."""
    if len(texts) > COMPARED:
        notes.append(f"similarities are compared on {COMPARED} of the {len(texts)} texts, spread evenly")
        texts = [texts[i] for i in spread(len(texts), COMPARED)]
    columns = [_vectors(one, texts, say) for one in (model, parent)]
    pairs = [(a, b) for a, b in zip(*columns, strict=True) if a is not None and b is not None]
    if len(pairs) < 3:
        raise UsageError(f"{len(pairs)} texts can be read by both models; give three or more")
    linear, ranked = scores.correlations(*(np.stack([pair[side] for pair in pairs]) for side in (0, 1)))
    return {"pearson": linear, "spearman": ranked, "pairs": len(pairs) * (len(pairs) - 1) // 2}


def _vectors(model: Served, texts: list[str], say: Say) -> list[Floats | None]:
    """A vector for each text; None where it has nothing to read."""
    task = make_task(Uri("embed", model.ref.name), lambda _: model, home())
    found = ask(f"{model.ref.name}, similarities", task, _rows(texts), say)
    known = {row.name: one.vector for row, one in zip(found.rows, found.said, strict=True)}
    return [known.get(row.name) for row in _rows(texts)]


def _write_errors(where: Path, answers: Answers) -> str:
    """A table of the texts whose likeliest label is wrong, the surest first."""
    rows = []
    for row, best, one in zip(answers.rows, _best(answers), answers.said, strict=True):
        if best != row.label:
            shares = (f"{one.scores.get(key, 0.0):.4f}" for key in (best, UNKNOWN))
            rows.append((row.what, row.label, best, *shares))
    rows.sort(key=lambda row: str(row[3]), reverse=True)
    save_table(where / "errors.tsv", ("text", "label", "said", "score", "unknown"), rows)
    return f"{len(rows)} errors in {where / 'errors.tsv'}, the surest first"


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────

ROWS = (("accuracy", "accuracy", ""), ("macro F1", "f1", ""), ("doubted", "doubted", '   answered with "unknown"'))


def lines(result: dict[str, Any]) -> list[str]:
    """Figures, then the labels by how many texts they have."""
    against = result.get("against", {})
    told = [head(result, "text", "text") if "accuracy" in result else f"{result['model']}: {result['texts']} texts"]
    told += table(result, ROWS)
    if "auroc" in result:
        unknown = result["unknown"]
        told += table(result, (("AUROC", "auroc", f"   of telling the {unknown['texts']} unknown texts"),))
        told += table(unknown, (("caught", "caught", '   of these answered with "unknown"'),))
    if "pairs" in against:
        told.append(f"against {against['model']}, cosines of {against['pairs']} pairs of texts")
    told += table(against, (("Pearson", "pearson", ""), ("Spearman", "spearman", "")))
    told += same_label(against)
    return [*told, *by_label(result, "texts")]
