"""What a model says of texts: asked one at a time, as it is served."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.errors import InputError, UsageError
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.tasks import make_task
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.tasks.text.head import UNKNOWN, fit, strangers
from edge_agent.tasks.text.understand import LEAST, Classify
from edge_agent.types import Finding, Floats, Scores, Task, Text
from edge_agent.uri import Uri
from edge_agent.workshop.data.texts import Texts
from edge_agent.workshop.evaluate.verb import Say

STEP = 64
"""texts that are embedded between two looks at the progress"""


@dataclass(slots=True)
class Answers:
    """What one model said about all texts."""

    said: list[Scores | None]
    """None where a text has nothing to read"""
    spent: list[float]
    """milliseconds a text"""

    def best(self) -> list[str]:
        """The likeliest label of each text that was read, "unknown" set aside."""
        return [best(one) for one in self.said if one is not None]

    def read(self, labels: Sequence[str]) -> list[str]:
        """The labels of the texts that were read, of those of all."""
        return [label for label, one in zip(labels, self.said, strict=True) if one is not None]


def best(one: Scores) -> str:
    """The likeliest label, "unknown" set aside."""
    return max((key for key in one.scores if key != UNKNOWN), key=lambda key: one.scores[key], default=UNKNOWN)


def head(args: argparse.Namespace, model: Served, train: Texts | None, say: Say, notes: list[str]) -> Task:
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


def ask(task: Task, texts: Sequence[str], what: str, say: Say) -> Answers:
    """What a task of labels says of each text; `what`: named in the progress."""
    answers = Answers([], [])
    for number, finding in enumerate(findings(task, texts, what, say)):
        if finding is None:
            answers.said.append(None)
            continue
        assert isinstance(finding.what, Scores), number
        answers.said.append(finding.what)
        answers.spent.append(sum(finding.spent_ms.values()))
    return answers


def findings(task: Task, texts: Sequence[str], what: str, say: Say) -> list[Finding | None]:
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
