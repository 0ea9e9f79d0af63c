"""Text networks with a head of their own: ``classify:MODEL`` -> a Text's label, ``tag:MODEL`` -> what is named in it.

A tagger says for each word piece how likely each tag is. A word takes the tag of its first piece, as BERT's is trained
(Devlin et al., arXiv 1810.04805, 5.3); tags are joined to spans by their prefixes: B- and I- (Ramshaw and Marcus 1995),
also E-, L-, S-, U- of the schemes that mark the last and the only word, or none at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_agent.errors import ConfigError, InputError, ManifestError, ModelError
from edge_agent.manifest import Served
from edge_agent.samples.everyday import SENTENCES
from edge_agent.tasks.text.encoder import inputs_of, proved, words_of
from edge_agent.tasks.text.head import UNKNOWN
from edge_agent.tasks.text.reader import padded
from edge_agent.tasks.text.wordpiece import WordPiece
from edge_agent.types import Finding, Floats, Net, Scores, Spans, Task, TensorSpec, Text
from edge_agent.uri import Uri, option

PROBED, SUM = 3, 0.02
"""texts that are looked at to tell probabilities, and how far from 1 these may sum up: logits never all do"""
OUTSIDE = "O"
"""the tag of a word that belongs to nothing"""
BEGINS, GOES_ON, ENDS = "BSU", "IEL", "ESLU"
"""letters before the dash of a tag: a span begins here, one goes on that is open, one ends with this word"""


@dataclass(frozen=True, slots=True)
class TextHead:
    """A text network that gives scores, ready to read."""

    model: Served
    words: WordPiece
    inputs: dict[str, TensorSpec]
    output: TensorSpec
    labels: list[str]
    length: int
    """most pieces of one text"""
    fixed: int | None
    """pieces that every input must have; None where the network takes any number"""
    ready: bool = False
    """probabilities come out of the network, no softmax is wanted"""

    def read(self, text: str) -> list[int]:
        """Ids of the word pieces of one text. InputError when there is nothing in it to read."""
        ids = self.words.encode(text, self.length)
        if len(ids) <= 2:
            raise InputError(f"{'empty text' if not text.strip() else 'no letter in the text'}; nothing to understand")
        return ids

    def shares(self, ids: list[int]) -> Floats:
        """Probabilities (C,) of a text, or (len(ids), C) of its pieces. ModelError for numbers that are none."""
        found = self.scores(ids)
        if self.ready:
            return found
        power = np.exp(found - found.max(axis=-1, keepdims=True))
        shares: Floats = power / power.sum(axis=-1, keepdims=True)
        return shares

    def scores(self, ids: list[int]) -> Floats:
        """What the network gives, in the same shapes. ModelError, as above."""
        size = self.fixed or len(ids)
        rows = padded([(ids, len(ids))], size, self.words.pad)
        feed = {spec.name: rows[role].astype(spec.dtype) for role, spec in self.inputs.items()}
        found: Floats = self.model.net.run(feed)[self.output.name].astype(np.float32, copy=False)[0]
        found = found[: len(ids)] if found.ndim == 2 else found
        name = self.model.ref.name
        if found.shape[-1] != len(self.labels):
            raise ManifestError(f"{name}: {found.shape[-1]} scores come out for {len(self.labels)} labels")
        if not np.isfinite(found).all():
            raise ModelError(f"{name}: no finite score came out; `edge-agent models verify` it")
        return found

    def tags(self, text: str) -> list[tuple[int, int, str, float]]:
        """(start, end, tag, probability) of each word."""
        self.read(text)
        tagged: list[tuple[int, int, str, float]] = []
        for _, piece, start, end, share in self._pieces(text):
            if start == end:
                continue  # a space alone is a piece of some tokenizers
            touches = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
            if tagged and (touches if self.words.by_letters else piece in self.words.inner):
                tagged[-1] = (tagged[-1][0], end, *tagged[-1][2:])
            else:
                label = int(share.argmax())
                tagged.append((start, end, self.labels[label], float(share[label])))
        return tagged

    def _pieces(self, text: str) -> list[tuple[int, int, int, int, Floats]]:
        """How many pieces are seen around each piece, its id, start, end and probabilities (C,); of a long text by
        windows, each piece by the one that shows most of what stands around it.
        """
        best: dict[int, tuple[int, int, int, int, Floats]] = {}
        for begin, pieces in self.words.windows(text, self.length):
            ids = [self.words.cls, *(piece for piece, _, _ in pieces), self.words.sep]
            for at, ((piece, start, end), share) in enumerate(zip(pieces, self.shares(ids)[1:-1], strict=True)):
                around = min(at, len(pieces) - 1 - at)
                if begin + at not in best or best[begin + at][0] < around:
                    best[begin + at] = around, piece, start, end, share
        return [best[at] for at in sorted(best)]


def text_head(model: Served) -> TextHead:
    """Make it, and run it once. ManifestError when file and manifest do not fit together."""
    manifest, net = model.manifest, model.net
    axes = {"classify": 2, "tag": 3}.get(manifest.task)
    if axes is None or manifest.text is None:
        raise ManifestError(f"{manifest.name}: no text classifier or tagger (its task is {manifest.task})")
    output = _output(manifest.name, net, axes)
    inputs = inputs_of(manifest.name, net)
    fixed, most = inputs["ids"].shape[1], manifest.text.max_length
    words, labels = words_of(model), [str(label) for label in manifest.labels]
    made = TextHead(model, words, inputs, output, labels, min(most, fixed or most), fixed)
    proved(manifest.name, words, made.scores)
    given = np.concatenate([np.atleast_2d(made.scores(made.read(text))) for text in SENTENCES[:PROBED]])
    return replace(made, ready=bool((given >= 0).all() and np.abs(given.sum(axis=1) - 1).max() < SUM))


def _output(name: str, net: Net, axes: int) -> TensorSpec:
    """The one with so many axes; ManifestError where there is none, or another one."""
    found = [spec for spec in net.outputs if len(spec.shape) == axes]
    if len(found) != 1:
        seen = ", ".join(f"{s.name} {list(s.shape)}" for s in net.outputs)
        raise ManifestError(f"{name}: one output with {axes} axes is wanted, there is {seen}")
    return found[0]


# ── a text's label ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Labeller:
    """The task ``classify`` of a network that has labels of its own."""

    head: TextHead
    takes: tuple[type, ...] = (Text,)

    @property
    def gives_names(self) -> list[str]:
        """The labels that it may give."""
        return [*self.head.labels, UNKNOWN]

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with the text's Scores. InputError for a text with nothing to read.

        Of a long text the mean over its windows; a text whose words the model does not know is "unknown".
        """
        began = time.perf_counter()
        self.head.read(item.text)
        words = self.head.words
        windows = [w for _, w in words.windows(item.text, self.head.length) if not words.unread(item.text, w)]
        read = time.perf_counter()
        rows = [self.head.shares([words.cls, *(piece for piece, _, _ in window), words.sep]) for window in windows]
        spent = {"prepare": (read - began) * 1e3, "infer": (time.perf_counter() - read) * 1e3}
        if not rows:
            none = {**dict.fromkeys([UNKNOWN, *self.head.labels], 0.0), UNKNOWN: 1.0}
            yield Finding(item, Scores(UNKNOWN, 1.0, none), self.head.model.ref, spent)
            return
        shares = np.average(rows, axis=0, weights=[len(window) for window in windows])
        order = np.argsort(-shares, kind="stable")
        scores = {self.head.labels[i]: float(shares[i]) for i in order}
        first = int(order[0])
        yield Finding(item, Scores(self.head.labels[first], float(shares[first]), scores), self.head.model.ref, spent)


def labeller(uri: Uri, model: Served) -> Task:
    """Make the task. ConfigError for an option: such a model needs none."""
    for key in uri.options:
        if key == "labels":
            raise ConfigError(f'"{uri}": {model.manifest.name} has labels of its own; leave labels= out')
        option(uri, {}, key)
    return Labeller(text_head(model))


# ── what is named in a text ──────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Tagger:
    """The task ``tag``."""

    head: TextHead
    score: float
    takes: tuple[type, ...] = (Text,)

    @property
    def gives_names(self) -> list[str]:
        """The labels that it may give."""
        return sorted({kind for label in self.head.labels if (kind := _split(label)[1])})

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with the text's Spans, in their order. InputError for a text with nothing to read."""
        began = time.perf_counter()
        found = [span for span in joined(self.head.tags(item.text)) if span[3] >= self.score]
        spent = {"infer": (time.perf_counter() - began) * 1e3}
        yield Finding(item, _spans(found), self.head.model.ref, spent)


def tag(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for its options, ManifestError for a model that is no tagger."""
    if model.manifest.task != "tag":
        raise ConfigError(f'"{uri}": {model.manifest.name} is no tagger of text (its task is {model.manifest.task})')
    text = option(uri, {"score": "0"}, "score")
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise ConfigError(f'"{uri}": score={text} is no number from 0 to 1')
    return Tagger(text_head(model), score)


def joined(tags: Sequence[tuple[int, int, str, float]]) -> list[tuple[int, int, str, float]]:
    """Words with their tags -> spans: start, end, kind, and the mean probability of their words' tags.

    A word that goes on with what is not open begins it, as the CoNLL-2000 evaluation counts.
    """
    spans: list[tuple[int, int, str, list[float]]] = []
    still = ""
    for start, end, label, share in tags:
        how, kind = _split(label)
        if not kind:
            still = ""
            continue
        if still == kind and how not in BEGINS:
            spans[-1] = (spans[-1][0], end, kind, [*spans[-1][3], share])
        else:
            spans.append((start, end, kind, [share]))
        still = "" if how in ENDS else kind
    return [(start, end, kind, float(np.mean(shares))) for start, end, kind, shares in spans]


def _split(label: str) -> tuple[str, str]:
    """B-PER -> (B, PER); PER -> (I, PER); O -> (I, "")."""
    how, dash, kind = label.partition("-")
    if dash and len(how) == 1 and how.upper() in BEGINS + GOES_ON:
        return how.upper(), kind
    return "I", "" if label.upper() == OUTSIDE else label


def _spans(found: Sequence[tuple[int, int, str, float]]) -> Spans:
    start, end = (np.array([span[side] for span in found], np.int32) for side in (0, 1))
    return Spans(start, end, tuple(span[2] for span in found), np.array([span[3] for span in found], np.float32))
