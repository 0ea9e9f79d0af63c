"""The task `classify` of an encoder: its head fitted on examples of each label."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_agent.errors import InputError, UsageError
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.tasks import make_task
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.tasks.text.head import fit, strangers
from edge_agent.tasks.text.understand import LEAST, Classify
from edge_agent.types import Floats, Task
from edge_agent.uri import Uri
from edge_agent.workshop.data.texts import Texts
from edge_agent.workshop.evaluate.verb import Say

STEP = 64
"""texts that are embedded between two looks at the progress"""


def fit_head(args: argparse.Namespace, model: Served, train: Texts | None, say: Say, notes: list[str]) -> Task:
    """The task `classify`, its head fitted on the examples of --labels or on all rows of --train."""
    if model.manifest.task == "classify":
        return make_task(Uri("classify", model.ref.name), lambda _: model, home())
    if train is None:
        return make_task(Uri("classify", model.ref.name, {"labels": args.labels}), lambda _: model, home())
    if train.labels is None:
        raise UsageError(f"--train {args.train}: texts without labels; give a table with a text and a label column")
    given = list(zip(train.texts, train.labels, strict=True))
    labels = _frequent(train.labels, args.train, notes)
    examples = {label: [text for text, own in given if own == label] for label in labels}
    return _fitted(model, examples, f"{model.ref.name} on {Path(args.train).name}", say)


def _fitted(model: Served, examples: dict[str, list[str]], what: str, say: Say) -> Classify:
    """The task `classify`, its head fitted on texts of each label; `what`: named in the progress."""
    shown = strangers(examples)
    rows = [(text, number) for number, texts in enumerate(shown.values()) for text in texts]
    made = encoder(model)
    vectors = _vectors(made, [text for text, _ in rows], what, say)
    read = np.isfinite(vectors[:, 0])
    y = np.array([label for _, label in rows], np.int64)
    texts = [text for (text, _), there in zip(rows, read, strict=True) if there]
    return Classify(made, fit(vectors[read], y[read], tuple(shown), texts))


def _frequent(given: Sequence[str], path: str, notes: list[str]) -> list[str]:
    """The labels that enough rows have. UsageError for less than two."""
    counts = Counter(given)
    labels = sorted(label for label, count in counts.items() if count >= LEAST)
    rare = sorted(counts.keys() - set(labels))
    if rare:
        notes.append(f"{len(rare)} labels have fewer than {LEAST} rows in {path} and are never said: {rare[0]} …")
    if len(labels) < 2:
        raise UsageError(f"--train {path}: {len(labels)} labels with {LEAST} rows or more; give two such labels")
    return labels


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
