"""A model that fills in words, judges pairs of lines or finds answers: how often it is right, and as its parent is.

DATA: for words and pairs plain text, a line each, where lines that follow each other in the file belong together; for
answers a .tsv of question, text and answer, the last one empty where the text has none.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import InputError, UsageError
from edge_agent.events.understood import Passage
from edge_agent.figures.interval import Figure, mean, ratio, share
from edge_agent.manifest import Served
from edge_agent.tasks import found_at, row_of
from edge_agent.tasks.text.answer import Extractor
from edge_agent.tasks.text.fill import masked
from edge_agent.tasks.text.follows import follower
from edge_agent.tasks.text.headed import masked_words
from edge_agent.tasks.text.passages import words
from edge_agent.tasks.text.reader import reader
from edge_agent.types import Text
from edge_agent.workshop.data.pictures import spread
from edge_agent.workshop.data.texts import text_of
from edge_agent.workshop.evaluate.frame import head, table
from edge_agent.workshop.evaluate.verb import Say, identity

FIVE = 5


def evaluate(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """The figures of the model's task, and how far it agrees with a parent."""
    if args.save:
        raise UsageError(f"--save {args.save}: nothing is saved for such a model; leave it out")
    task = model.manifest.task
    rows = _rows(Path(args.data), 3 if task == "answer" else 1)
    rows = [rows[i] for i in spread(len(rows), args.limit)]
    figures = {"fill": _fills, "follows": _follows, "answer": _answers}[task]
    began = time.perf_counter()
    shown: dict[str, Any] = {**identity(model), "data": str(args.data), "texts": len(rows), "notes": []}
    shown |= figures(model, rows, say)
    shown["ms_per_text"] = (time.perf_counter() - began) * 1e3 / len(rows)
    if parent is not None:
        texts = [Text(row[-1] if task != "answer" else row[1], 0.0, 0.0) for row in rows]
        agreement = found_at(row_of(model).measure)(parent, texts)(model)
        what = row_of(model).measured
        theirs = figures(parent, rows, say)
        shown["against"] = {**identity(parent), "agreement": agreement, "what": what, **theirs, "on_labels": theirs}
    return shown


def _rows(path: Path, columns: int) -> list[list[str]]:
    """The rows of a table, or the lines of a text. UsageError, one line."""
    text = text_of(path, "give a text, or a .tsv of question, text and answer")
    rows = (
        list(csv.reader(text.splitlines(), delimiter="\t")) if columns > 1 else [[line] for line in text.splitlines()]
    )
    rows = [row for row in rows if row and row[0].strip()]
    if not rows or any(len(row) != columns for row in rows):
        raise UsageError(f"{path}: {columns} columns a line are wanted: question, text and answer, parted by tabs")
    return rows


def _fills(model: Served, rows: Sequence[Sequence[str]], say: Say) -> dict[str, float]:
    """How often the word that was masked is the first, and among the first five."""
    by = masked(model)
    counts: list[tuple[int, int, int]] = []
    for number, (text,) in enumerate(rows):
        say(model.ref.name, number, len(rows))
        try:
            shares, truth = masked_words(by, text)
        except InputError:
            continue
        order = np.argsort(-shares, axis=1)[:, :FIVE]
        hits = order == np.array(truth)[:, None]
        counts.append((int(hits[:, 0].sum()), int(hits.any(axis=1).sum()), len(truth)))
    first, five, asked = np.array(counts, np.int64).reshape(-1, 3).T
    return {
        "masked": int(asked.sum()),
        "top1": Figure(lambda drawn: ratio(drawn @ first, drawn @ asked), len(asked), coarse=True),
        "top5": Figure(lambda drawn: ratio(drawn @ five, drawn @ asked), len(asked), coarse=True),
    }


def _follows(model: Served, rows: Sequence[Sequence[str]], say: Say) -> dict[str, float]:
    """How often a line's next one is told from one half of the file further on."""
    texts = [text for (text,) in rows if any(map(str.isalnum, text))]
    if len(texts) < 4:
        raise UsageError(f"{len(texts)} lines are too few pairs; give four or more")
    half = len(texts) // 2
    true = list(pairwise(texts))
    false = [(a, texts[(n + half) % len(texts)]) for n, (a, _) in enumerate(true)]
    by = follower(model)
    right, odd = (by.shares(pairs) > 0.5 for pairs in (true, false))
    say(model.ref.name, len(texts), len(texts))
    # a line is drawn with both of its pairs
    both = mean((right.astype(np.float64) + ~odd) / 2, coarse=True)
    return {"accuracy": both, "true_pairs": share(right), "false_pairs": share(~odd)}


def _answers(model: Served, rows: Sequence[Sequence[str]], say: Say) -> dict[str, float]:
    """Exact answers and F1 of their words, as SQuAD counts them; no answer is right where there is none."""
    by, exact, shared = Extractor(reader(model, "qa")), [], []
    for number, (question, text, truth) in enumerate(rows):
        say(model.ref.name, number, len(rows))
        said = by.best(question, [Passage(text, "", 1.0)])[0] or ""
        mine, theirs = Counter(words(said)), Counter(words(truth))
        exact.append(float(mine == theirs))
        both = sum((mine & theirs).values())
        shared.append(2 * both / (sum(mine.values()) + sum(theirs.values())) if mine and theirs else exact[-1])
    return {"exact": mean(exact, coarse=True), "f1": mean(shared, coarse=True)}


def lines(result: dict[str, Any]) -> list[str]:
    """The figures, beside them the parent's."""
    against = result.get("against", {})
    keys = ("masked", "top1", "top5", "accuracy", "true_pairs", "false_pairs", "exact", "f1")
    told = [head(result, "text", "text"), *table(result, [(key, key, "") for key in keys])]
    return told + table(against, [("agreement", "agreement", f"   {against.get('what')}")])
