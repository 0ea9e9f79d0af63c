"""An encoder or a classifier of text: its labels against those that people gave, and its answers against a parent's."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import InputError, UsageError
from edge_agent.figures import scores
from edge_agent.figures.interval import figure, share
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.tasks import make_task
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.tasks.text.head import UNKNOWN
from edge_agent.tasks.text.understand import LEAST, Classify, learn
from edge_agent.types import Floats, Task
from edge_agent.uri import Uri
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.data.texts import Texts, read_texts, spread
from edge_agent.workshop.evaluate.frame import Answers, Evaluation, Say, ask_all, finds, identity, measured
from edge_agent.workshop.evaluate.labels import agreement, as_said, check_parent, of_labels, save_wrong

COMPARED = 1000
"""texts whose pairwise similarities are compared with the parent's: half a million pairs"""


def text(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Accuracy and F1 where there is a head (--labels, --train), correlation where there is a parent."""
    own = model.manifest.task == "classify"
    headed = bool(own or args.labels or args.train)
    _check(args, parent, headed)
    if own:
        check_parent(args, model, parent)
    data = read_texts(Path(args.data), args.limit)
    if len(data.texts) < 3 and parent is not None and not own:
        raise UsageError(f"{args.data}: {len(data.texts)} texts have no pairs to correlate; give three or more")
    notes = data.notes()
    shown: dict[str, Any] = {**identity(model), "data": str(args.data), "texts": len(data.texts), "notes": notes}
    if headed:
        shown = measured(args, model, parent, _headed(args, model, parent, data, say, notes), say, notes)
    if parent is not None and not own:
        alike = _correlation(model, parent, data.texts, say, shown["notes"])
        shown["against"] = {**identity(parent), **shown.get("against", {}), **alike}
    return shown


def _check(args: argparse.Namespace, parent: Served | None, headed: bool) -> None:
    """UsageError for options that do not go together."""
    if args.labels and args.train:
        raise UsageError("--labels and --train: both say what the labels are; give one")
    if not headed and parent is None:
        raise UsageError(
            f"{args.model}: an encoder has no labels; give --labels FILE, --train FILE or --against PARENT"
        )
    for option in () if headed else ("unknown", "save"):
        if getattr(args, option):
            raise UsageError(f"--{option}: without labels there is nothing to show; give --labels or --train")


def _headed(
    args: argparse.Namespace, model: Served, parent: Served | None, data: Texts, say: Say, notes: list[str]
) -> Evaluation:
    """How a classifier is measured, or a head that is fitted on an encoder."""
    if data.labels is None:
        raise UsageError(f"{args.data}: texts without labels; give a table with a text and a label column")
    strange = _rows(read_texts(Path(args.unknown)).texts) if args.unknown else []
    tasks = {model.ref.sha256: _labeller(args, model, say, notes)}
    if parent is not None and parent.ref.sha256 not in tasks:
        tasks[parent.ref.sha256] = _labeller(args, parent, say, [])
    asks = {key: finds(task) for key, task in tasks.items()}
    # by attribute: a task is a protocol without it
    names: list[str] = getattr(tasks[model.ref.sha256], "gives_names")  # noqa: B009
    return Evaluation(
        "text",
        as_said(_rows(data.texts, data.labels), names, notes, own=model.manifest.task == "classify"),
        True,
        "",
        lambda answers: of_labels(answers, "texts"),
        agreement,
        lambda one, rows, say: ask_all(one.ref.name, asks[one.ref.sha256], rows, say),
        save=save_wrong,
        more=lambda answers: _unknown(ask_all("unknown", asks[model.ref.sha256], strange, say), answers),
    )


def _labeller(args: argparse.Namespace, model: Served, say: Say, notes: list[str]) -> Task:
    """The task `classify`, its head fitted on the examples of --labels or on all rows of --train that can be read."""
    if not args.train:
        options = {"labels": args.labels} if args.labels else {}
        return make_task(Uri("classify", model.ref.name, options), lambda _: model, home())
    train = read_texts(Path(args.train))
    if train.labels is None:
        raise UsageError(f"--train {args.train}: texts without labels; give a table with a text and a label column")
    made = encoder(model)
    examples = _examples(made, train, args.train, notes)
    say(f"{model.ref.name} on {Path(args.train).name}", 0, 1)
    head = learn(made, examples)
    say(f"{model.ref.name} on {Path(args.train).name}", 1, 1)
    return Classify(made, head)


def _examples(made: Encoder, train: Texts, path: str, notes: list[str]) -> dict[str, list[str]]:
    """Of each label that has enough of them the texts that can be read. UsageError for less than two labels."""
    examples: dict[str, list[str]] = {label: [] for label in sorted(set(train.labels or []))}
    for text, label in zip(train.texts, train.labels or [], strict=True):
        with contextlib.suppress(InputError):
            examples[label] += [text] * bool(made.windows(text))
    rare = [label for label, texts in examples.items() if len(texts) < LEAST]
    if rare:
        notes.append(f"{len(rare)} labels have fewer than {LEAST} rows in {path} and are never said: {rare[0]} …")
    if len(examples) < len(rare) + 2:
        raise UsageError(
            f"--train {path}: {len(examples) - len(rare)} labels with {LEAST} rows or more; give two such labels"
        )
    return {label: texts for label, texts in examples.items() if label not in rare}


def _rows(texts: Sequence[str], labels: Sequence[str] | None = None) -> list[LabelledSample]:
    return [LabelledSample(f"text {at + 1}", text, labels[at] if labels else None) for at, text in enumerate(texts)]


def _unknown(strange: Answers, known: Answers) -> dict[str, Any]:
    """How well texts of no label are told from those of one; nothing without such texts."""
    if not strange.said and not strange.bad:
        return {}
    shares = np.array([one.scores[UNKNOWN] for one in (*strange.some().said, *known.said)])
    caught = [one.label == UNKNOWN for one in strange.said]
    odd = np.arange(len(shares)) < len(caught)
    told = figure(lambda of: scores.auroc(shares[of][odd[of]], shares[of][~odd[of]]), len(shares))
    return {"auroc": told, "unknown": {"texts": len(caught), "caught": share(caught)}}


def _correlation(model: Served, parent: Served, texts: list[str], say: Say, notes: list[str]) -> dict[str, Any]:
    """Pearson and Spearman between the two models' cosines of each pair of texts."""
    if len(texts) > COMPARED:
        notes.append(f"similarities are compared on {COMPARED} of the {len(texts)} texts, spread evenly")
        texts = [texts[i] for i in spread(len(texts), COMPARED)]
    rows = _rows(texts)
    mine, theirs = (_vectors(one, rows, say) for one in (model, parent))
    both = [row.name for row in rows if row.name in mine and row.name in theirs]
    if len(both) < 3:
        raise UsageError(f"{len(both)} texts can be read by both models; give three or more")
    linear, ranked = scores.correlations(*(np.stack([column[name] for name in both]) for column in (mine, theirs)))
    return {"pearson": linear, "spearman": ranked, "pairs": len(both) * (len(both) - 1) // 2}


def _vectors(model: Served, rows: Sequence[LabelledSample], say: Say) -> dict[str, Floats]:
    """Of each text that can be read, by its name."""
    task = make_task(Uri("embed", model.ref.name), lambda _: model, home())
    found = ask_all(f"{model.ref.name}, similarities", finds(task), rows, say)
    return {row.name: one.vector for row, one in zip(found.rows, found.said, strict=True)}
