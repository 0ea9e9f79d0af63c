"""Marked sentences for a tagger: tables of slots, as SLURP and Snips have them, or CoNLL's and ATIS's columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from edge_agent.tasks.text.texthead import OUTSIDE
from edge_agent.tasks.text.wordpiece import WordPiece
from edge_agent.workshop.data.marked import Marked


def tags_of(labels: Iterable[str]) -> list[str]:
    """O, and of each label the tag that begins a span and the one that goes on with it."""
    return [OUTSIDE, *(f"{how}-{label}" for label in labels for how in "BI")]


def encode(one: Marked, words: WordPiece, tags: Sequence[str], most: int) -> tuple[list[int], list[int]]:
    """Ids of the pieces of a sentence and the number of each one's tag; -1 for pieces that do not begin a word."""
    pieces = words.pieces(one.text, most - 2)
    ids, told, open_span = [words.cls], [-1], -1
    for piece, start, _ in pieces:
        at = next((i for i, span in enumerate(one.spans) if span[0] <= start < span[1]), -1)
        tag = OUTSIDE if at < 0 else f"{'I' if at == open_span else 'B'}-{one.spans[at][2]}"
        inner = piece in words.inner
        told.append(-1 if inner else tags.index(tag))
        open_span = open_span if inner else at
        ids.append(piece)
    return [*ids, words.sep], [*told, -1]


def exchanged(one: Marked, others: dict[str, list[str]], dice: np.random.Generator, share: float) -> Marked:
    """The sentence with some of its slots filled with what stands in the same slot of another one."""
    text, spans, done = "", [], 0
    for start, end, label, slot in one.spans:
        text += one.text[done:start]
        words = one.text[start:end]
        if dice.random() < share:
            words = others[slot][int(dice.integers(len(others[slot])))]
        spans.append((len(text), len(text) + len(words), label, slot))
        text += words
        done = end
    return Marked(text + one.text[done:], tuple(spans))


def by_slot(rows: Iterable[Marked]) -> dict[str, list[str]]:
    """Slot -> all that stands in it."""
    found: dict[str, list[str]] = {}
    for one in rows:
        for start, end, _, slot in one.spans:
            found.setdefault(slot, []).append(one.text[start:end])
    return found
