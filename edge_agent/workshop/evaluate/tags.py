"""A tagger of text: the spans that it marks against those that people marked, and against a parent's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.figures.interval import Figure, f1, ratio
from edge_agent.manifest import Served
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.data.marked import GIVE, find
from edge_agent.workshop.data.texts import read_texts, spread
from edge_agent.workshop.evaluate.frame import Answers, Evaluation, Say, measured

Spans = set[tuple[int, int, int, str]]
"""number of the text, start and end in characters, kind"""


def tagger(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Precision, recall and F1 of whole spans of the right kind, as CoNLL-2003's evaluation counts them."""
    marked = find(Path(args.data))
    if marked is None:
        texts, spans = read_texts(Path(args.data), args.limit).texts, None
    elif not marked:
        raise UsageError(f"{args.data}: no text in it; {GIVE}")
    else:
        some = [marked[i] for i in spread(len(marked), args.limit)]
        texts = [one.text for one in some]
        spans = {(number, *span[:3]) for number, one in enumerate(some) for span in one.spans}
    rows = [LabelledSample(str(number), text, None) for number, text in enumerate(texts)]

    def figures(answers: Answers) -> dict[str, Any]:
        return _figures(spans or set(), _marked_by(answers), len(texts))

    def agreement(theirs: Answers, mine: Answers) -> dict[str, Any]:
        return _figures(_marked_by(theirs), _marked_by(mine), len(texts))

    how = Evaluation("text", rows, spans is not None, GIVE.partition(" ")[2], figures, agreement)
    return measured(args, model, parent, how, say, [])


def _marked_by(answers: Answers) -> Spans:
    """The spans that a model marked."""
    pairs = zip(answers.rows, answers.said, strict=True)
    return {
        (int(row.name), int(start), int(end), label)
        for row, one in pairs
        for start, end, label in zip(one.start, one.end, one.label, strict=True)
    }


def _figures(truth: Spans, said: Spans, texts: int) -> dict[str, Any]:
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


def _score(truth: Spans, said: Spans) -> dict[str, Any]:
    right, nothing = len(truth & said), float("nan")
    return {
        "precision": right / len(said) if said else nothing,
        "recall": right / len(truth) if truth else nothing,
        "f1": 2 * right / (len(truth) + len(said)) if truth or said else nothing,
        "spans": len(truth),
    }
