"""An encoder or a classifier of text: its labels against those that people gave, and its answers against a parent's."""

from __future__ import annotations

import argparse
import contextlib
import csv
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import InputError, UsageError
from edge_agent.figures import scores
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.tasks import make_task
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.tasks.text.head import UNKNOWN, fit, strangers
from edge_agent.tasks.text.understand import LEAST, Classify
from edge_agent.types import Embedding, Finding, Floats, Scores, Task, Text
from edge_agent.uri import Uri
from edge_agent.workshop.data.pictures import spread
from edge_agent.workshop.data.texts import Texts, read_texts
from edge_agent.workshop.evaluate.verb import Say, folder

COMPARED = 1000
"""texts whose pairwise similarities are compared with the parent's: half a million pairs"""
STEP = 64
"""texts that are embedded between two looks at the progress"""


@dataclass(slots=True)
class _Answers:
    """What one model said about all texts."""

    said: list[Scores | None]
    """None where a text has nothing to read"""
    spent: list[float]
    """milliseconds a text"""

    def best(self) -> list[str]:
        """The likeliest label of each text that was read, "unknown" set aside."""
        return [_best(one) for one in self.said if one is not None]


def _best(one: Scores) -> str:
    return max((key for key in one.scores if key != UNKNOWN), key=lambda key: one.scores[key], default=UNKNOWN)


def evaluate(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Accuracy and F1 where there is a head (--labels, --train), correlation where there is a parent."""
    if args.labels and args.train:
        raise UsageError("--labels and --train: both say what the labels are; give one")
    own = model.manifest.task == "classify"
    headed = bool(own or args.labels or args.train)
    if not headed and parent is None:
        raise UsageError(
            f"{args.model}: an encoder has no labels; give --labels FILE, --train FILE or --against PARENT"
        )
    if args.unknown and not headed:
        raise UsageError(f"--unknown {args.unknown}: without labels nothing is unknown; give --labels or --train")
    data = read_texts(Path(args.data), args.limit)
    if own and data.labels is not None:
        data = replace(data, labels=_by_number(data.labels, [str(label) for label in model.manifest.labels]))
    if headed and data.labels is None:
        raise UsageError(f"{args.data}: texts without labels; give a table with a text and a label column")
    if own and parent is not None and parent.manifest.labels != model.manifest.labels:
        raise UsageError(f"--against {args.against}: its labels are not those of {args.model}")
    if len(data.texts) < 3 and parent is not None and not own:
        raise UsageError(f"{args.data}: {len(data.texts)} texts have no pairs to correlate; give three or more")
    strange = read_texts(Path(args.unknown)).texts if args.unknown else []
    train = read_texts(Path(args.train)) if args.train else None
    notes = [data.how]
    if data.skipped:
        notes.append(f"{data.skipped} rows without text are left out")
    shown: dict[str, Any] = {
        "model": model.ref.name,
        "version": model.ref.version,
        "sha256": model.ref.sha256,
        "data": str(args.data),
        "texts": len(data.texts),
        "notes": notes,
    }
    against: dict[str, Any] = {}
    if parent is not None:
        against |= {"model": parent.ref.name, "version": parent.ref.version, "sha256": parent.ref.sha256}
        against |= {} if own else _correlation(model, parent, data.texts, say, notes)
    if headed:
        assert data.labels is not None
        task = _head(args, model, train, say, notes)
        answers = _ask(task, data.texts, model.ref.name, say)
        if not any(answers.said):
            raise UsageError(f"{args.data}: no text has a letter to read; give text")
        truth = [label for label, one in zip(data.labels, answers.said, strict=True) if one is not None]
        _check_labels(args.data, truth, answers, notes)
        shown |= _figures(truth, answers)
        shown |= _unknown(_ask(task, strange, "unknown", say), answers) if strange else {}
        if parent is not None:
            theirs = _ask(_head(args, parent, train, say, []), data.texts, parent.ref.name, say)
            both = [(a, b) for a, b in zip(theirs.said, answers.said, strict=True) if a is not None and b is not None]
            told, said = [_best(a) for a, _ in both], [_best(b) for _, b in both]
            against |= {"agreement": scores.accuracy(told, said), "agreement_f1": scores.macro_f1(told, said)}
            known = [label for label, one in zip(data.labels, theirs.said, strict=True) if one is not None]
            of_parent = _figures(known, theirs)
            against["on_labels"] = {key: of_parent[key] for key in ("accuracy", "f1", "ms_per_text")}
        if args.save:
            path = folder(Path(args.save)) / "errors.tsv"
            count = _write_errors(path, data, answers)
            notes.append(f"{count} errors in {path}, the surest first")
    elif args.save:
        raise UsageError(f"--save {args.save}: without labels there are no errors to write; give --labels or --train")
    return {**shown, "against": against} if against else shown


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────


def _head(args: argparse.Namespace, model: Served, train: Texts | None, say: Say, notes: list[str]) -> Task:
    """The task `classify`, its head fitted on the examples of --labels or on all rows of --train."""
    if model.manifest.task == "classify":
        return make_task(Uri("classify", model.ref.name), lambda _: model, home())
    if train is None:
        return make_task(Uri("classify", model.ref.name, {"labels": args.labels}), lambda _: model, home())
    if train.labels is None:
        raise UsageError(f"--train {args.train}: texts without labels; give a table with a text and a label column")
    made = encoder(model)
    counts = {label: train.labels.count(label) for label in sorted(set(train.labels))}
    labels = [label for label, count in counts.items() if count >= LEAST]
    rare = [label for label, count in counts.items() if count < LEAST]
    if rare:
        notes.append(f"{len(rare)} labels have fewer than {LEAST} rows in {args.train} and are never said: {rare[0]} …")
    if len(labels) < 2:
        raise UsageError(f"--train {args.train}: {len(labels)} labels with {LEAST} rows or more; give two such labels")
    given = list(zip(train.texts, train.labels, strict=True))
    shown = strangers({label: [text for text, own in given if own == label] for label in labels})
    rows = [(text, number) for number, texts in enumerate(shown.values()) for text in texts]
    vectors = _vectors(made, [text for text, _ in rows], f"{model.ref.name} on {Path(args.train).name}", say)
    read = np.isfinite(vectors[:, 0])
    y = np.array([label for _, label in rows], np.int64)
    texts = [text for (text, _), there in zip(rows, read, strict=True) if there]
    return Classify(made, fit(vectors[read], y[read], tuple(shown), texts))


def _by_number(given: list[str], names: list[str]) -> list[str]:
    """Labels that are only the numbers of the model's classes, by their names; others as they are, if they are known
    but for their case.
    """
    if not set(given) & set(names) and all(label.isdigit() and int(label) < len(names) for label in given):
        return [names[int(label)] for label in given]
    known = {name.casefold(): name for name in names}
    return [known.get(label.casefold(), label) for label in given]


def _vectors(made: Encoder, texts: Sequence[str], what: str, say: Say) -> Floats:
    """(n, d) vectors, NaN where a text has nothing to read."""
    good = []
    for number, text in enumerate(texts):
        with contextlib.suppress(InputError):
            if made.windows(text):
                good.append(number)
    chunks = []
    for start in range(0, len(good), STEP):
        say(what, start, len(good))
        chunks.append(made.embed_many([texts[i] for i in good[start : start + STEP]]))
    say(what, len(good), len(good))
    if not chunks:
        raise UsageError(f"{what}: no text has a letter to read; give text")
    found = np.concatenate(chunks)
    vectors: Floats = np.full((len(texts), found.shape[1]), np.nan, np.float32)
    vectors[good] = found
    return vectors


def _ask(task: Task, texts: Sequence[str], what: str, say: Say) -> _Answers:
    answers = _Answers([], [])
    for number, finding in enumerate(_findings(task, texts, what, say)):
        if finding is None:
            answers.said.append(None)
            continue
        assert isinstance(finding.what, Scores), number
        answers.said.append(finding.what)
        answers.spent.append(sum(finding.spent_ms.values()))
    return answers


def _findings(task: Task, texts: Sequence[str], what: str, say: Say) -> list[Finding | None]:
    """One text at a time, as they are served; None for a text with nothing to read."""
    found: list[Finding | None] = []
    for number, text in enumerate(texts):
        say(what, number, len(texts))
        try:
            (finding,) = task(Text(text, 0.0, 0.0))
        except InputError:
            found.append(None)
            continue
        assert isinstance(finding, Finding)
        found.append(finding)
    say(what, len(texts), len(texts))
    return found


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────


def _check_labels(data: str, truth: Sequence[str], answers: _Answers, notes: list[str]) -> None:
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


def _figures(truth: Sequence[str], answers: _Answers) -> dict[str, Any]:
    """Accuracy and macro F1 of the likeliest label; how many of these texts would be answered with "unknown"."""
    best = answers.best()
    each = scores.f1_by_label(truth, best)
    doubted = [one.label == UNKNOWN for one in answers.said if one is not None]
    return {
        "accuracy": scores.accuracy(truth, best),
        "f1": scores.macro_f1(truth, best),
        "doubted": float(np.mean(doubted)),
        "ms_per_text": statistics.median(answers.spent),
        "labels": {label: {"f1": each[label], "texts": truth.count(label)} for label in each},
    }


def _unknown(strange: _Answers, known: _Answers) -> dict[str, Any]:
    """How well texts of no label are told from those of one."""
    shares = [np.array([one.scores[UNKNOWN] for one in a.said if one is not None]) for a in (strange, known)]
    caught = [one.label == UNKNOWN for one in strange.said if one is not None]
    return {
        "auroc": scores.auroc(*shares),
        "unknown": {"texts": len(caught), "caught": float(np.mean(caught)) if caught else float("nan")},
    }


def _correlation(model: Served, parent: Served, texts: list[str], say: Say, notes: list[str]) -> dict[str, Any]:
    """Pearson and Spearman between the two models' cosines of each pair of texts."""
    if len(texts) > COMPARED:
        notes.append(f"similarities are compared on {COMPARED} of the {len(texts)} texts, spread evenly")
        texts = [texts[i] for i in spread(len(texts), COMPARED)]
    columns = []
    for one in (model, parent):
        task = make_task(Uri("embed", one.ref.name), lambda _, one=one: one, home())  # type: ignore[misc]
        found = _findings(task, texts, f"{one.ref.name}, similarities", say)
        columns.append([f.what.vector if f and isinstance(f.what, Embedding) else None for f in found])
    pairs = [(a, b) for a, b in zip(*columns, strict=True) if a is not None and b is not None]
    if len(pairs) < 3:
        raise UsageError(f"{len(pairs)} texts can be read by both models; give three or more")
    mine, theirs = (scores.similarities(np.stack([pair[side] for pair in pairs])) for side in (0, 1))
    return {"pearson": scores.pearson(mine, theirs), "spearman": scores.spearman(mine, theirs), "pairs": len(mine)}


def _write_errors(path: Path, data: Texts, answers: _Answers) -> int:
    """A table of the texts whose likeliest label is wrong, the surest first."""
    assert data.labels is not None
    rows = []
    for text, label, one in zip(data.texts, data.labels, answers.said, strict=True):
        if one is not None and _best(one) != label:
            rows.append((one.scores.get(_best(one), 0.0), label, _best(one), one.scores.get(UNKNOWN, 0.0), text))
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
        told.append(f"{'accuracy':16}{result['accuracy']:.4f}{_beside(against, 'accuracy')}")
        told.append(f"{'macro F1':16}{result['f1']:.4f}{_beside(against, 'f1')}")
        told.append(f'{"doubted":16}{result["doubted"]:.4f}   answered with "unknown"')
    if "auroc" in result:
        unknown = result["unknown"]
        told.append(f"{'AUROC':16}{result['auroc']:.4f}   of telling the {unknown['texts']} unknown texts")
        told.append(f'{"caught":16}{unknown["caught"]:.4f}   of these answered with "unknown"')
    if "pairs" in against:
        told.append(f"against {against['model']}, cosines of {against['pairs']} pairs of texts")
        told += [f"{key.capitalize():16}{against[key]:.4f}" for key in ("pearson", "spearman")]
    if "agreement" in against:
        told.append(f"{'same label':16}{against['agreement']:.4f}   as {against['model']}")
        told.append(f"{'':16}{against['agreement_f1']:.4f}   macro F1 of that")
    if "labels" in result:
        told.append(f"{'label':32}{'F1':>8}{'texts':>7}")
        by_count = sorted(result["labels"].items(), key=lambda item: -item[1]["texts"])
        told += [f"{name:32}{row['f1']:>8.4f}{row['texts']:>7}" for name, row in by_count]
    return told


def _beside(against: dict[str, Any], key: str) -> str:
    return f"   ({against['model']}: {against['on_labels'][key]:.4f})" if "on_labels" in against else ""
