"""A tagger of text: the spans that it marks against those that people marked, and against a parent's."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.figures.interval import Figure, f1, ratio
from edge_agent.manifest import Served
from edge_agent.tasks.text.texthead import OUTSIDE, joined
from edge_agent.workshop.data import slots
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.data.texts import read_texts, spread, text_of
from edge_agent.workshop.evaluate.frame import Answers, Evaluation, Say, measured

Marked = set[tuple[int, int, int, str]]
"""number of the text, start and end in characters, kind"""
Text = tuple[str, Sequence[tuple[int, int, str, Any]]]
"""words, and start, end and kind of each span in them"""
GIVE = "give CoNLL's form (a word and its tag a line, a blank line between texts) or ATIS's .iob"


def tagger(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Precision, recall and F1 of whole spans of the right kind, as CoNLL-2003's evaluation counts them."""
    texts, spans = _read(Path(args.data), args.limit)
    rows = [LabelledSample(str(number), text, None) for number, text in enumerate(texts)]

    def figures(answers: Answers) -> dict[str, Any]:
        return _figures(spans or set(), _marked_by(answers), len(texts))

    def agreement(theirs: Answers, mine: Answers) -> dict[str, Any]:
        return _figures(_marked_by(theirs), _marked_by(mine), len(texts))

    how = Evaluation("text", rows, spans is not None, GIVE.partition(" ")[2], figures, agreement)
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
    texts, spans = _read(path, 0)
    if spans is None:
        raise UsageError(f"{path}: texts without tags; {GIVE}")
    return texts, spans


def _read(path: Path, limit: int) -> tuple[list[str], Marked | None]:
    """The texts of a file and the spans that are marked in them, None where it has no tags. UsageError, one line."""
    marked = _marked(path, text_of(path, GIVE).splitlines())
    if marked is None:
        return read_texts(path, limit).texts, None
    if not marked:
        raise UsageError(f"{path}: no text in it; {GIVE}")
    marked = [marked[i] for i in spread(len(marked), limit)]
    return [text for text, _ in marked], {(i, *span[:3]) for i, (_, spans) in enumerate(marked) for span in spans}


def _marked(path: Path, lines: list[str]) -> list[Text] | None:
    """ATIS's lines, CoNLL's columns or sentences with slots; None for anything else."""
    kind = path.suffix.lower()
    if lines and re.match(r"BOS .*\t", lines[0]):
        return [_joined(words) for words in _atis(lines)]
    if kind in (".conll", ".bio", ".iob", ".iob2"):
        return [_joined(words) for words in _columns(path, lines)]
    if kind == ".tsv" and any(slots.SLOT.search(line) for line in lines):
        return [(one.text, one.spans) for one in slots.read(path)]
    return None


def _joined(words: Sequence[tuple[str, str]]) -> Text:
    """Words and their tags as a text and its spans: start, end, kind."""
    at, tagged = 0, []
    for word, tag in words:
        tagged.append((at, at + len(word), tag, 1.0))
        at += len(word) + 1
    return " ".join(word for word, _ in words), joined(tagged)


def _atis(lines: Sequence[str]) -> list[list[tuple[str, str]]]:
    """The words and tags of each line."""
    rows = [[part.split() for part in line.split("\t", 1)] for line in lines if line.strip()]
    # BOS and EOS have a tag each, and where EOS stands is the intent
    return [list(zip(words[1:-1], tags[1:-1], strict=False)) for words, tags in rows]


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
