"""How two encoders, labellers or taggers of texts are compared."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import numpy as np

from edge_agent.errors import ModelError, RefusedError
from edge_agent.figures.scores import accuracy, macro_f1, pearson, similarities
from edge_agent.manifest import Served
from edge_agent.paths import carried
from edge_agent.samples.carried import paragraphs, sentences
from edge_agent.tasks.proofs import correlation, follows, least_of, same_labels
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.tasks.text.head import UNKNOWN, fit
from edge_agent.tasks.text.texthead import TextHead, joined, text_head
from edge_agent.tasks.text.understand import read_labels

Reader = TypeVar("Reader", Encoder, TextHead)
NEAR = 0.9
"""cosine with its parent's vectors that a sound variant has; measured: 0.99 and more"""
TAUGHT = 8
"""carried examples of each label that heads are fitted on and asked about: the margins were measured with these"""


def compare_encoders(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: correlation of the cosines of all pairs of sentences; how often heads that are fitted on each say
    the same of them, and the F1 of that; and, where the vectors are as long, how near they are to the other's, of
    sentences and of long texts. And the sentences, and which it is.
    """
    readers = encoder(one), encoder(other)
    shown = sentences()
    long = _long(*readers, shown, Encoder.embed)
    carried_labels = read_labels(carried("deploy", "demo", "intents.toml"))[1]
    examples = {label: texts[:TAUGHT] for label, texts in carried_labels.items() if label != UNKNOWN}
    asked = [text for texts in examples.values() for text in texts[1::2]] + shown
    cosines, said, units = [], [], []
    for made in readers:
        vectors = made.embed_many(shown + long)
        units.append(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
        cosines.append(similarities(units[-1][: len(shown)]))
        said.append(_said(made, examples, asked))
    mine, theirs = said
    figures = [(correlation(pearson, *cosines), "correlation"), (accuracy(theirs, mine), "agreement of the labels")]
    figures.append((macro_f1(theirs, mine), "F1 of the labels"))
    if units[0].shape == units[1].shape:
        near = (units[0] * units[1]).sum(axis=1).astype(np.float64)
        figures.append(_near(float(near[: len(shown)].mean()), "sentences"))
        figures += [_near(float(near[len(shown) :].min()), "long texts")] if long else []
    value, name = least_of(figures)
    return value, len(asked), name


def _said(made: Encoder, examples: dict[str, list[str]], asked: list[str]) -> list[str]:
    """The labels that a head gives to texts, fitted on the first, third, ... of the examples of each label.

    On the vectors alone: a head that also counts words would hide what became of them.
    """
    taught = [text for texts in examples.values() for text in texts[::2]]
    y = np.repeat(np.arange(len(examples)), [len(texts[::2]) for texts in examples.values()])
    head = fit(made.embed_many(taught), y, tuple(examples))
    scores = [head(vector) for vector in made.embed_many(asked)]
    return [max(score, key=score.__getitem__) for score in scores]


def _near(cosine: float, of: str) -> tuple[float, str]:
    """How near vectors are to the parent's, 1 from a cosine of NEAR on, and its name."""
    return min(1.0, max(0.0, cosine / NEAR)), f"nearness of {of} (cosine {cosine:.3f})"


def _long(one: Reader, other: Reader, shown: list[str], answer: Callable[[Reader, list[int]], object]) -> list[str]:
    """The long texts that the other can answer: its max_length may say more than it takes. RefusedError where `one`
    reads fewer word pieces of these, or of the texts `shown`.
    """
    texts, most = [], max(len(other.read(text)) for text in shown)
    for text in paragraphs():
        ids = other.read(text)
        with suppress(ModelError):
            answer(other, ids)
            texts.append(text)
            most = max(most, len(ids))
    if one.length < most:
        raise RefusedError(
            f"it reads {one.length} word pieces of a text, its parent {most}; convert it with as many, or have both "
            f"read {one.length}: max_length under [text]"
        )
    return texts


def compare_labellers(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: how often the label of a sentence is the same, the F1 of that, and how far the shares follow the
    other's. And the sentences, and which it is.
    """
    same_labels(one, other)
    shown, heads = sentences(), (text_head(one), text_head(other))
    read = shown + _long(*heads, shown, TextHead.shares)
    shares = [np.stack([head.shares(head.read(text)) for text in read]) for head in heads]
    mine, theirs = ([heads[0].labels[i] for i in some[: len(shown)].argmax(axis=1)] for some in shares)
    figures = [(accuracy(theirs, mine), "agreement of the labels"), (macro_f1(theirs, mine), "F1 of the labels")]
    value, name = least_of([*figures, follows(*shares)])
    return value, len(shown), name


def compare_taggers(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: how often the tag of a word is the same, and, where the parent marks any, F1 of the spans; and how
    far the shares follow the other's.
    """
    same_labels(one, other)
    shown, heads = sentences(), (text_head(one), text_head(other))
    read = shown + _long(*heads, shown, TextHead.shares)
    tags = [[head.tags(text) for text in shown] for head in heads]
    mine, theirs = ([tag for text in told for _, _, tag, _ in text] for told in tags)
    figures = [(accuracy(theirs, mine), "agreement of the tags")]
    its, marked = (_spans(told) for told in tags)
    if marked:
        figures.append((2 * len(its & marked) / (len(its) + len(marked)), "F1 of the spans"))
    shares = [np.concatenate([head.shares(head.read(text)) for text in read]) for head in heads]
    value, name = least_of([*figures, follows(*shares)])
    return value, len(shown), name


def _spans(told: list[list[tuple[int, int, str, float]]]) -> set[tuple[int, int, int, str]]:
    """Number of the text, start, end and label of all that is marked in texts with these tags."""
    return {(i, start, end, label) for i, tags in enumerate(told) for start, end, label, _ in joined(tags)}
