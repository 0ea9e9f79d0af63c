"""An encoder or a classifier of text: its labels against those that people gave, and its answers against a parent's."""

from __future__ import annotations

import argparse
import csv
import statistics
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
from edge_agent.types import Embedding, Floats
from edge_agent.uri import Uri
from edge_agent.workshop.data.pictures import spread
from edge_agent.workshop.data.texts import Texts, read_texts
from edge_agent.workshop.evaluate.answers import Answers, ask, best, findings, head
from edge_agent.workshop.evaluate.verb import Say, beside, cell, folder, identity

COMPARED = 1000
"""texts whose pairwise similarities are compared with the parent's: half a million pairs"""


def evaluate(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Accuracy and F1 where there is a head (--labels, --train), correlation where there is a parent."""
    own = model.manifest.task == "classify"
    headed = bool(own or args.labels or args.train)
    _check_options(args, headed, parent)
    _check_parent(args, model, parent)
    data = _texts(args, model, headed)
    if len(data.texts) < 3 and parent is not None and not own:
        raise UsageError(f"{args.data}: {len(data.texts)} texts have no pairs to correlate; give three or more")
    notes = data.notes()
    shown: dict[str, Any] = {**identity(model), "data": str(args.data), "texts": len(data.texts), "notes": notes}
    against: dict[str, Any] = {}
    if parent is not None:
        against |= identity(parent) | ({} if own else _correlation(model, parent, data.texts, say, notes))
    if headed:
        _on_labels(args, model, parent, data, say, shown, against)
    return {**shown, "against": against} if against else shown


def _texts(args: argparse.Namespace, model: Served, headed: bool) -> Texts:
    """The data, labels by their names where the model has its own. UsageError where labels are needed and absent."""
    data = read_texts(Path(args.data), args.limit)
    if model.manifest.task == "classify" and data.labels is not None:
        data = replace(data, labels=_by_number(data.labels, [str(label) for label in model.manifest.labels]))
    if headed and data.labels is None:
        raise UsageError(f"{args.data}: texts without labels; give a table with a text and a label column")
    return data


def _check_options(args: argparse.Namespace, headed: bool, parent: Served | None) -> None:
    """UsageError for options that do not go together."""
    if args.labels and args.train:
        raise UsageError("--labels and --train: both say what the labels are; give one")
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


def _check_parent(args: argparse.Namespace, model: Served, parent: Served | None) -> None:
    """UsageError for a parent of a classifier that has other labels."""
    own = model.manifest.task == "classify"
    if own and parent is not None and parent.manifest.labels != model.manifest.labels:
        raise UsageError(f"--against {args.against}: its labels are not those of {args.model}")


def _on_labels(
    args: argparse.Namespace,
    model: Served,
    parent: Served | None,
    data: Texts,
    say: Say,
    shown: dict[str, Any],
    against: dict[str, Any],
) -> None:
    """Add to `shown` what the labels say of the model, and to `against` what they say of its parent."""
    assert data.labels is not None
    notes: list[str] = shown["notes"]
    train = read_texts(Path(args.train)) if args.train else None
    strange = read_texts(Path(args.unknown)).texts if args.unknown else []
    task = head(args, model, train, say, notes)
    answers = ask(task, data.texts, model.ref.name, say)
    if not any(answers.said):
        raise UsageError(f"{args.data}: no text has a letter to read; give text")
    truth = answers.read(data.labels)
    _check_labels(args.data, truth, answers, notes)
    shown |= _figures(truth, answers)
    if args.unknown:
        shown |= _unknown(ask(task, strange, "unknown", say), answers)
    if parent is not None:
        theirs = ask(head(args, parent, train, say, []), data.texts, parent.ref.name, say)
        of_parent = _figures(theirs.read(data.labels), theirs)
        on_labels = {key: of_parent[key] for key in ("accuracy", "f1", "ms_per_text")}
        against |= {**_agreement(theirs, answers), "on_labels": on_labels}
    if args.save:
        path = folder(Path(args.save)) / "errors.tsv"
        notes.append(f"{_write_errors(path, data, answers)} errors in {path}, the surest first")


def _by_number(given: list[str], names: list[str]) -> list[str]:
    """Labels that are only the numbers of the model's classes, by their names; others as they are, if they are known
    but for their case.
    """
    if not set(given) & set(names) and all(label.isdigit() and int(label) < len(names) for label in given):
        return [names[int(label)] for label in given]
    known = {name.casefold(): name for name in names}
    return [known.get(label.casefold(), label) for label in given]


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────


def _check_labels(data: str, truth: Sequence[str], answers: Answers, notes: list[str]) -> None:
    known = next(set(one.scores) for one in answers.said if one is not None)
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
    unread = answers.said.count(None)
    if unread:
        notes.append(f"{unread} texts have no letter to read and are left out")


def _figures(truth: Sequence[str], answers: Answers) -> dict[str, Any]:
    """Accuracy and macro F1 of the likeliest label; how many of these texts would be answered with "unknown"."""
    best = answers.best()
    each = scores.f1_by_label(truth, best)
    doubted = [one.label == UNKNOWN for one in answers.said if one is not None]
    return {
        "accuracy": scores.same(truth, best),
        "f1": scores.macro(truth, best),
        "doubted": share(doubted),
        "ms_per_text": statistics.median(answers.spent),
        "labels": {label: {"f1": each[label], "texts": truth.count(label)} for label in each},
    }


def _agreement(theirs: Answers, mine: Answers) -> dict[str, Figure]:
    """How far the likeliest labels are the parent's, on the texts that both read."""
    both = [(best(a), best(b)) for a, b in zip(theirs.said, mine.said, strict=True) if a and b]
    told, said = [a for a, _ in both], [b for _, b in both]
    return {"agreement": scores.same(told, said), "agreement_f1": scores.macro(told, said)}


def _unknown(strange: Answers, known: Answers) -> dict[str, Any]:
    """How well texts of no label are told from those of one."""
    read = [one for answers in (strange, known) for one in answers.said if one is not None]
    shares = np.array([one.scores[UNKNOWN] for one in read])
    caught = [one.label == UNKNOWN for one in strange.said if one is not None]
    odd = np.arange(len(read)) < len(caught)

    def auroc(of: list[int]) -> float:
        return scores.auroc(shares[of][odd[of]], shares[of][~odd[of]])

    return {"auroc": figure(auroc, len(read)), "unknown": {"texts": len(caught), "caught": share(caught)}}


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
    found = findings(task, texts, f"{model.ref.name}, similarities", say)
    return [one.what.vector if one and isinstance(one.what, Embedding) else None for one in found]


def _write_errors(path: Path, data: Texts, answers: Answers) -> int:
    """A table of the texts whose likeliest label is wrong, the surest first."""
    assert data.labels is not None
    rows = []
    for text, label, one in zip(data.texts, data.labels, answers.said, strict=True):
        if one is not None and best(one) != label:
            rows.append((one.scores.get(best(one), 0.0), label, best(one), one.scores.get(UNKNOWN, 0.0), text))
    rows.sort(key=lambda row: -row[0])
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\", lineterminator="\n")
            table.writerow(("text", "label", "said", "score", "unknown"))
            table.writerows((text, label, said, f"{s:.4f}", f"{u:.4f}") for s, label, said, u, text in rows)
    except OSError as error:
        raise UsageError(f"--save {path}: cannot be written ({error.strerror})") from None
    return len(rows)


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────


def lines(result: dict[str, Any]) -> list[str]:
    """Figures, then the labels by how many texts they have."""
    against = result.get("against", {})
    told = [f"{result['model']}: {result['texts']} texts"]
    if "accuracy" in result:
        told[0] += f", {result['ms_per_text']:.1f} ms a text"
        told.append(f"{'accuracy':16}{cell(result, 'accuracy')}{beside(result, 'accuracy')}")
        told.append(f"{'macro F1':16}{cell(result, 'f1')}{beside(result, 'f1')}")
        told.append(f'{"doubted":16}{cell(result, "doubted")}   answered with "unknown"')
    if "auroc" in result:
        unknown = result["unknown"]
        told.append(f"{'AUROC':16}{cell(result, 'auroc')}   of telling the {unknown['texts']} unknown texts")
        told.append(f'{"caught":16}{cell(unknown, "caught")}   of these answered with "unknown"')
    if "pairs" in against:
        told.append(f"against {against['model']}, cosines of {against['pairs']} pairs of texts")
        told += [f"{key.capitalize():16}{cell(against, key)}" for key in ("pearson", "spearman")]
    if "agreement" in against:
        told.append(f"{'same label':16}{cell(against, 'agreement')}   as {against['model']}")
        told.append(f"{'':16}{cell(against, 'agreement_f1')}   macro F1 of that")
    if "labels" in result:
        told.append(f"{'label':32}{'F1':>8}{'texts':>7}")
        by_count = sorted(result["labels"].items(), key=lambda item: -item[1]["texts"])
        told += [f"{name:32}{row['f1']:>8.4f}{row['texts']:>7}" for name, row in by_count]
    return told
