"""A model that fills in words, judges pairs of lines or finds answers: how often it is right, and as its parent is.

DATA: for words and pairs plain text, a line each, where lines that follow each other in the file belong together; for
answers a .tsv of question, text and answer, the last one empty where the text has none.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
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
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.data.texts import rows_of, spread, text_of
from edge_agent.workshop.evaluate.frame import Answers, Ask, Evaluation, Say, ask_all, measured

GIVE = "give a text, or a .tsv of question, text and answer"
FIVE = 5


def headed(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """The figures of the model's task, and how far it agrees with a parent, as the gate looks at that."""
    task, of = model.manifest.task, row_of(model)
    rows = (_questions if task == "answer" else _lines)(Path(args.data))
    rows = [rows[i] for i in spread(len(rows), args.limit)]
    texts = [str(row.what).rpartition("\n")[2] for row in rows]
    if task == "follows":
        rows = _pairs([text for text in texts if any(map(str.isalnum, text))])

    def agreement(theirs: Answers, mine: Answers) -> dict[str, Any]:
        measure = found_at(of.measure)(parent, [Text(text, 0.0, 0.0) for text in texts])
        return {"agreement": measure(model), "what": of.measured}

    def answers(one: Served, rows: Sequence[LabelledSample], say: Say) -> Answers:
        return ask_all(one.ref.name, asker(one), rows, say)

    asker, figures = KINDS[task]
    return measured(args, model, parent, Evaluation("text", rows, True, "", figures, agreement, answers), say, [])


def _questions(path: Path) -> list[LabelledSample]:
    """A question and a text, a line each, with the answer as the label. UsageError, one line."""
    rows = rows_of(path, GIVE, True)
    if not rows or len(rows[0]) != 3:
        raise UsageError(f"{path}: 3 columns a line are wanted: question, text and answer, parted by tabs")
    return [LabelledSample(f"row {at}", f"{row[0]}\n{row[1]}", row[2]) for at, row in enumerate(rows, 1)]


def _lines(path: Path) -> list[LabelledSample]:
    """Each line that is not blank. UsageError where there is none."""
    lines = [line for line in text_of(path, GIVE).splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"{path}: no text in it; {GIVE}")
    return [LabelledSample(f"line {at}", line, None) for at, line in enumerate(lines, 1)]


def _pairs(texts: Sequence[str]) -> list[LabelledSample]:
    """Of each line the line, its next one, and another one from half of the file further on."""
    if len(texts) < 4:
        raise UsageError(f"{len(texts)} lines are too few pairs; give four or more")
    half = len(texts) // 2
    others = [texts[(at + half) % len(texts)] for at in range(len(texts))]
    rows = zip(texts, texts[1:], others, strict=False)
    return [LabelledSample(f"pair {at}", "\n".join(row), None) for at, row in enumerate(rows, 1)]


def _fills(model: Served) -> Ask:
    """How often the word that was masked is the first, and among the first five; and the masks."""
    by = masked(model)

    def ask(item: Text) -> tuple[int, int, int]:
        shares, truth = masked_words(by, item.text)
        hits = np.argsort(-shares, axis=1)[:, :FIVE] == np.array(truth)[:, None]
        return int(hits[:, 0].sum()), int(hits.any(axis=1).sum()), len(truth)

    return ask


def _of_words(answers: Answers) -> dict[str, Any]:
    first, five, asked = np.array(answers.said, np.int64).T
    return {
        "masked": int(asked.sum()),
        "top1": Figure(lambda drawn: ratio(drawn @ first, drawn @ asked), len(asked), coarse=True),
        "top5": Figure(lambda drawn: ratio(drawn @ five, drawn @ asked), len(asked), coarse=True),
    }


def _follows(model: Served) -> Ask:
    """Whether a line's next one follows it, and whether the other one does not."""
    by = follower(model)

    def ask(item: Text) -> tuple[bool, bool]:
        line, following, other = item.text.split("\n")
        true, false = by.shares([(line, following), (line, other)])
        return true > 0.5, not false > 0.5

    return ask


def _of_pairs(answers: Answers) -> dict[str, Any]:
    right = np.array(answers.said, bool)
    # a line is drawn with both of its pairs
    both = mean(right.mean(1), coarse=True)
    return {"accuracy": both, "true_pairs": share(right[:, 0]), "false_pairs": share(right[:, 1])}


def _answers(model: Served) -> Ask:
    by = Extractor(reader(model, "qa"))

    def ask(item: Text) -> str:
        question, text = item.text.split("\n")
        return by.best(question, [Passage(text, "", 1.0)])[0] or ""

    return ask


def _of_answers(answers: Answers) -> dict[str, Any]:
    """Exact answers and F1 of their words, as SQuAD counts them; no answer is right where there is none."""
    exact, shared = list[float](), list[float]()
    for row, said in zip(answers.rows, answers.said, strict=True):
        mine, theirs = Counter(words(said)), Counter(words(row.label or ""))
        exact.append(float(mine == theirs))
        both = sum((mine & theirs).values())
        shared.append(2 * both / (sum(mine.values()) + sum(theirs.values())) if mine and theirs else exact[-1])
    return {"exact": mean(exact, coarse=True), "f1": mean(shared, coarse=True)}


KINDS = {"fill": (_fills, _of_words), "follows": (_follows, _of_pairs), "answer": (_answers, _of_answers)}
