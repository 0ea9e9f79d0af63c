"""A tagger of text: the spans that it marks against those that people marked, and against a parent's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.figures.interval import Figure, f1, ratio
from edge_agent.manifest import Served
from edge_agent.tasks.text.texthead import OUTSIDE, joined
from edge_agent.workshop.data import slots
from edge_agent.workshop.data.feed import served_by
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.data.pictures import spread
from edge_agent.workshop.data.texts import read_texts, text_of
from edge_agent.workshop.evaluate.frame import Answers, Evaluation, by_label, head, measured, table
from edge_agent.workshop.evaluate.verb import Say, cell

Marked = set[tuple[int, int, int, str]]
"""number of the text, start and end in characters, kind"""
GIVE = "give CoNLL's form (a word and its tag a line, a blank line between texts) or ATIS's .iob"


@dataclass(frozen=True, slots=True)
class _Data:
    texts: list[str]
    spans: Marked | None
    """None for texts without tags"""


def evaluate(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Precision, recall and F1 of whole spans of the right kind, as CoNLL-2003's evaluation counts them."""
    data = _read(Path(args.data), args.limit)
    rows = [LabelledSample(str(number), text, None) for number, text in enumerate(data.texts)]

    def figures(answers: Answers) -> dict[str, Any]:
        return _figures(data.spans or set(), _marked_by(answers), len(data.texts))

    def agreement(theirs: Answers, mine: Answers) -> dict[str, Any]:
        return _figures(_marked_by(theirs), _marked_by(mine), len(data.texts))

    labelled, give = data.spans is not None, GIVE.partition(" ")[2]
    how = Evaluation("text", "texts", rows, labelled, give, served_by, figures, agreement)
    return measured(args, model, parent, how, say)


def _marked_by(answers: Answers) -> Marked:
    """The spans that a model marked."""
    pairs = zip(answers.rows, answers.said, strict=True)
    return {
        (int(row.name), int(start), int(end), label)
        for row, one in pairs
        for start, end, label in zip(one.start, one.end, one.label, strict=True)
    }


def _figures(truth: Marked, said: Marked, texts: int) -> dict[str, Any]:
    """Over all spans, and of each kind."""
    kinds = sorted({span[3] for span in truth | said})
    rows = {kind: _score({s for s in truth if s[3] == kind}, {s for s in said if s[3] == kind}) for kind in kinds}
    both, own, theirs = (
        np.bincount([span[0] for span in some], minlength=texts) for some in (truth & said, said, truth)
    )
    whole = {
        "f1": f1(own, theirs, both),
        "precision": Figure(lambda drawn: ratio(drawn @ both, drawn @ own), texts, coarse=True),
        "recall": Figure(lambda drawn: ratio(drawn @ both, drawn @ theirs), texts, coarse=True),
    }
    return {**whole, "spans": len(truth), "labels": rows}


def _score(truth: Marked, said: Marked) -> dict[str, Any]:
    right, nothing = len(truth & said), float("nan")
    return {
        "precision": right / len(said) if said else nothing,
        "recall": right / len(truth) if truth else nothing,
        "f1": 2 * right / (len(truth) + len(said)) if truth or said else nothing,
        "spans": len(truth),
    }


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────


def read_marked(path: Path) -> tuple[list[str], Marked]:
    """All texts of a file and the spans that are marked in them. UsageError, one line, for texts without tags."""
    data = _read(path, 0)
    if data.spans is None:
        raise UsageError(f"{path}: texts without tags; {GIVE}")
    return data.texts, data.spans


def _read(path: Path, limit: int) -> _Data:
    """ATIS's lines, CoNLL's columns, or plain texts. UsageError, one line."""
    lines = text_of(path, GIVE).splitlines()
    if lines and lines[0].startswith("BOS ") and "\t" in lines[0]:
        texts = _atis(lines)
    elif path.suffix.lower() in (".conll", ".bio", ".iob", ".iob2"):
        texts = _columns(path, lines)
    elif path.suffix.lower() == ".tsv" and any(slots.SLOT.search(line) for line in lines):
        return _slotted(path, limit)
    else:
        return _Data(read_texts(path, limit).texts, None)
    texts = [texts[i] for i in spread(len(texts), limit)]
    if not texts:
        raise UsageError(f"{path}: no text in it; {GIVE}")
    return _marked(texts)


def _slotted(path: Path, limit: int) -> _Data:
    """Sentences with [slot : words]."""
    every = slots.read(path)
    rows = [every[i] for i in spread(len(every), limit)]
    return _Data([one.text for one in rows], {(i, *span[:3]) for i, one in enumerate(rows) for span in one.spans})


def _marked(texts: Sequence[Sequence[tuple[str, str]]]) -> _Data:
    """Words and their tags as texts and spans."""
    spans = {(number, *span[:3]) for number, words in enumerate(texts) for span in joined(_placed(words))}
    return _Data([" ".join(word for word, _ in words) for words in texts], spans)


def _atis(lines: Sequence[str]) -> list[list[tuple[str, str]]]:
    """The words and tags of each line."""
    rows = [[part.split() for part in line.split("\t", 1)] for line in lines if line.strip()]
    # BOS and EOS have a tag each, and where EOS stands is the intent
    return [list(zip(words[1:-1], tags[1:-1], strict=False)) for words, tags in rows]


def _placed(words: Sequence[tuple[str, str]]) -> list[tuple[int, int, str, float]]:
    """Start and end of each word in its text, its tag, and how sure that is."""
    at, tagged = 0, []
    for word, tag in words:
        tagged.append((at, at + len(word), tag, 1.0))
        at += len(word) + 1
    return tagged


def _columns(path: Path, lines: Sequence[str]) -> list[list[tuple[str, str]]]:
    """The first and the last column; -DOCSTART- and comments are left out."""
    texts: list[list[tuple[str, str]]] = [[]]
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells:
            texts.append([])
        elif cells[0] != "-DOCSTART-" and not line.startswith("# "):
            if len(cells) < 2:
                raise UsageError(f"{path}: line {number} has a word and no tag ({OUTSIDE}, B-…); {GIVE}")
            texts[-1].append((cells[0], cells[-1]))
    return [words for words in texts if words]


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────


def lines(result: dict[str, Any]) -> list[str]:
    """Figures, beside them the parent's, then the kinds by how many spans they have."""
    against = result.get("against", {})
    told = [head(result, "text", "text"), *table(result, [(key, key, "") for key in ("f1", "precision", "recall")])]
    if against:
        told.append(f"{'same spans':16}{cell(against, 'f1')}   F1 on the {against['spans']} of {against['model']}")
    return [*told, *by_label(result if "labels" in result else against, "spans")]
