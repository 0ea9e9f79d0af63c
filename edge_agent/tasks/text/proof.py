"""How an encoder, a labeller and a tagger of texts prove themselves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from edge_agent.backends import longest
from edge_agent.errors import ModelError, RefusedError
from edge_agent.manifest import Served
from edge_agent.samples.carried import SENTENCES
from edge_agent.samples.everyday import SENTENCES as EVERYDAY
from edge_agent.tasks.proofs import Recorder
from edge_agent.tasks.text.encoder import encoder
from edge_agent.tasks.text.texthead import OUTSIDE, joined, text_head
from edge_agent.tasks.text.wordpiece import WordPiece


def prove_encoder(model: Served, seen: Recorder) -> list[str]:
    """Run it on what it is for. Notes on what it says; RefusedError where that makes no sense."""
    made = encoder(model)
    _full(model, made.words, made.length, made.embed)
    vectors = made.embed_many([sentence for pair in SENTENCES for sentence in pair]).astype(np.float64)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    if np.ptp(vectors, axis=0).max() < 1e-6:
        raise RefusedError("it gives the same vector for six different sentences")
    cosine = unit @ unit.T
    alike = float(np.mean([cosine[i, i + 1] for i in range(0, len(unit), 2)]))
    apart = float(np.mean([cosine[i, j] for i, j in combinations(range(len(unit)), 2) if i // 2 != j // 2]))
    notes = [f"cosine of sentences that mean the same {alike:.2f}, of others {apart:.2f}"]
    if alike <= apart:
        notes.append("doubtful: sentences that mean the same are no closer to each other than others")
    return notes


def _full(model: Served, words: WordPiece, length: int, answer: Callable[[list[int]], object]) -> None:
    """Have it read as many pieces as its manifest says. RefusedError, with how many it takes."""
    try:
        answer([words.cls, *[words.unknown] * (length - 2), words.sep])
    except ModelError:
        raise RefusedError(
            f"it takes {longest(model.net, length)} word pieces of a text, and max_length under [text] says {length}; "
            "write what it takes"
        ) from None


def prove_labeller(model: Served, seen: Recorder) -> list[str]:
    """Run it on what it is for. Notes on what it says; RefusedError where that makes no sense."""
    head = text_head(model)
    _full(model, head.words, head.length, head.scores)
    shares = np.stack([head.shares(head.read(text)) for text in EVERYDAY])
    if np.ptp(shares, axis=0).max() < 1e-6:
        raise RefusedError(f"it gives the same scores for {len(shares)} different sentences")
    said = [head.labels[i] for i in shares.argmax(axis=1)]
    counts = ", ".join(f"{label} {said.count(label)}" for label in sorted(set(said), key=lambda one: -said.count(one)))
    notes = [f"of {len(said)} everyday sentences: {counts}"]
    return [*notes, f"doubtful: it says {said[0]} to all of them"] if len(set(said)) == 1 else notes


def prove_tagger(model: Served, seen: Recorder) -> list[str]:
    """Run it on what it is for. Notes on what it says; RefusedError where that makes no sense."""
    head = text_head(model)
    _full(model, head.words, head.length, head.scores)
    shares = np.concatenate([head.shares(head.read(text)) for text in EVERYDAY])
    if np.ptp(shares, axis=0).max() < 1e-6:
        raise RefusedError(f"it gives the same scores for all {len(shares)} word pieces of {len(EVERYDAY)} sentences")
    tagged = [(text, head.tags(text)) for text in EVERYDAY]
    words = sum(len(tags) for _, tags in tagged)
    notes = [f"in {len(EVERYDAY)} everyday sentences of {words} words it finds {_few(tagged)}"]
    outside = any(tag.upper() == OUTSIDE for _, tags in tagged for _, _, tag, _ in tags)
    return [*notes, "doubtful: every word belongs to something"] if not outside else notes


def _few(tagged: list[tuple[str, list[tuple[int, int, str, float]]]]) -> str:
    """The first of the spans in texts and their tags, in words."""
    found = [(text[start:end], kind) for text, tags in tagged for start, end, kind, _ in joined(tags)]
    return ", ".join(f"{word} {kind}" for word, kind in found[:4]) or "nothing"
