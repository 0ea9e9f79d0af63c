"""Labels from a few examples: two multinomial logistic heads, fitted here, whose words are weighed against each other.

One reads the encoder's vector, what a text means; the other counts its words and letters (hashed, see `grams`), which
tells apart what an encoder holds for the same. Each head's weights minimise
    sum_i -log softmax(W x_i + b)[y_i] + l2/2 |W|^2  (b is free)
by L-BFGS (Nocedal & Wright, Numerical Optimization, alg. 7.4 and 7.5). How much each head counts, and how sure the sum
is, are the two factors of their logits with the least loss on examples that the heads have not seen (stacking, Wolpert
1992; it holds temperature scaling, Guo et al. 2017). Whether a text fits any label is asked of its nearest example and
of the odds of the best label; the limit is what examples have of each other that were not seen. Examples of a label
"unknown" show what fits no other one: that label is as likely as the heads find it, held down where it would take too
many examples of the others, and its examples are not those that a text has to be near to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_agent.samples.everyday import SENTENCES
from edge_agent.tasks.text.counted import BUCKETS, dense, grams, rarity
from edge_agent.tasks.text.crossval import CLOSER, folds, held_out, quantiles, thin, weigh
from edge_agent.tasks.text.logistic import Doubles, Labels, logistic, softmax
from edge_agent.types import Floats

Places: TypeAlias = npt.NDArray[np.int32]
Gram: TypeAlias = tuple[npt.NDArray[np.int64], Floats]
"""buckets of a text, and how much of each"""
Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]

UNKNOWN = "unknown"
L2 = (0.1, 0.03)
"""of the head on vectors, which of them is tried"""
GRAMS_L2 = 0.03
"""of the head on words and letters"""
LEAST, MOST, TRIED = 8, 100, 1600
"""examples of a label that cross-validation looks at and that are kept to be near to; and of all labels together"""
COUNTED = 4000
"""examples that the head on words and letters is fitted on"""
LOST = 0.04
"""share of unseen examples that are given up as "unknown", each label having the same say, at most half of them as they
look more like its examples"""
STRANGE = 2
"""sentences of everyday life, for each example that a label has, that show what is unknown"""
ODDS = 0.05
"""what one unit of the log odds of the best label adds to the cosine of the nearest example"""


@dataclass(frozen=True, slots=True)
class LabelHead:
    """A fitted head of K labels on vectors of d numbers and, where it was fitted with texts, on their words."""

    labels: tuple[str, ...]
    weight: Floats
    """(d, K), times what this head counts"""
    bias: Floats
    """(K,), of both heads"""
    counted: Floats
    """(BUCKETS, K), times what that head counts; (0, K) without texts"""
    examples: Floats
    """(m, d) of length 1, none of "unknown"'s"""
    at: npt.NDArray[np.int32]
    """(g,) buckets of the examples' words and letters, one example after the other"""
    much: Floats
    """(g,) how much of each"""
    first: npt.NDArray[np.int32]
    """(m,) where each example begins in `at`; (0,) without texts"""
    rare: Floats
    """(BUCKETS,) how much each bucket tells; (0,) without texts"""
    limit: Floats
    """(2,): how near a text has to be to fit any label, and how fast doubt grows below that"""

    def __call__(self, vector: Floats, text: str = "") -> dict[str, float]:
        """Probability of each label and of "unknown" for one vector (d,) and its text; they sum to 1."""
        unit = _unit(vector[None].astype(np.float32))[0]
        logits = unit @ self.weight + self.bias
        near = self.examples @ unit
        if len(self.counted):
            at, much = grams(text, self.rare)
            logits = logits + much @ self.counted[at]
            whole = np.zeros(BUCKETS, np.float32)
            whole[at] = much
            near = (near + np.add.reduceat(whole[self.at] * self.much, self.first)) / 2
        wide, strange = logits[None].astype(np.float64), _strange(self.labels)
        score = _score(near.max()[None], wide, strange)[0]
        doubt = np.exp(np.clip((self.limit[0] - score) * self.limit[1], -50, 50))
        scores = {UNKNOWN: float(doubt / (1 + doubt))}
        for label, share in zip(self.labels, softmax(wide)[0] / (1 + doubt), strict=True):
            scores[label] = scores.get(label, 0.0) + float(share)
        return scores


def strangers(labels: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """`labels` and, as examples of "unknown" after a user's own, sentences of everyday life, STRANGE for each example
    that a label has.
    """
    taken = {text for texts in labels.values() for text in texts}
    most = round(STRANGE * sum(map(len, labels.values())) / len(labels))
    everyday = [sentence for sentence in SENTENCES[:most] if sentence not in taken]
    return {**{label: list(texts) for label, texts in labels.items()}, UNKNOWN: [*labels.get(UNKNOWN, ()), *everyday]}


def fit(vectors: Floats, y: Labels, labels: tuple[str, ...], texts: Sequence[str] | None = None) -> LabelHead:
    """Fit a head: `vectors` (n, d), `y` (n,) indices into `labels`, at least 2 examples of each label.

    `texts`: what the vectors are of; without them the encoder's word alone counts.
    """
    count, strange = len(labels), _strange(labels)
    vectors = _unit(vectors.astype(np.float32))
    few = thin(y, count, min(MOST, max(LEAST, TRIED // count)))
    rare = np.zeros(0, np.float32) if texts is None else rarity([texts[i] for i in few])
    rows = [] if texts is None else [grams(texts[i], rare) for i in few]
    seen = _seen(vectors[few], rows, y[few], count)
    l2, share, logits = _stacked(seen, count)
    known = seen.y != strange
    near = np.where((seen.folds[:, None] != seen.folds[None]) & known[None], seen.near, -1).max(1)
    # each label has the same say, however many examples it has
    weight = 1 / np.bincount(seen.y)[seen.y[known]]
    down = _held_down(logits, known, strange, weight) if strange >= 0 else 0.0
    logits[:, strange] += down
    limit = _limit(near, logits, known, strange, weight)

    whole = _served(vectors, y, few, seen.spans[0], count, l2)
    weights, bias = share[0] * whole[0], share[0] * whole[1]
    words = np.zeros((0, count))
    if texts is not None:
        w, b = _served_words(texts, rare, y, few, seen.spans[1], count)
        words, bias = share[1] * w, bias + share[1] * b
    if strange >= 0:
        bias[strange] += down
    return LabelHead(
        labels,
        weights.astype(np.float32),
        bias.astype(np.float32),
        words.astype(np.float32),
        vectors[few][known],
        *_kept(rows, known),
        rare,
        limit,
    )


class _Seen(NamedTuple):
    """The examples that cross-validation looks at."""

    y: Labels
    folds: Labels
    spans: list[tuple[Floats, Floats]]
    """of the vectors and, where there are texts, of their words: see `_span`"""
    near: Real
    """(n, n) how near they are to each other"""


def _seen(vectors: Floats, rows: list[Gram], y: Labels, count: int) -> _Seen:
    spans = [_span(vectors)]
    near = vectors @ vectors.T
    if rows:
        counted = dense(rows)
        spans.append(_span(counted))
        near = (near + counted @ counted.T) / 2
    return _Seen(y, folds(y, count), spans, near)


def _stacked(seen: _Seen, count: int) -> tuple[float, Doubles, Doubles]:
    """The best penalty on vectors, how much each head counts, and the weighted logits (n, K) of the examples."""
    held = [
        [held_out(x, seen.y, count, seen.folds, l2) for l2 in (L2 if i == 0 else (GRAMS_L2,))]
        for i, (x, _) in enumerate(seen.spans)
    ]
    tries = [[z, *(other[0] for other in held[1:])] for z in held[0]]
    found = [weigh(logits, seen.y) for logits in tries]
    best = min(range(len(found)), key=lambda i: found[i][0])
    share = found[best][1]
    logits = np.stack([f * z for f, z in zip(share, tries[best], strict=True)]).sum(0, dtype=np.float64)
    return L2[best], share, logits


def _held_down(logits: Doubles, known: npt.NDArray[np.bool_], strange: int, weight: Doubles) -> float:
    """What is added to the logit of "unknown", so that it takes LOST / 2 of the other labels' examples at most."""
    room = _known(logits, strange).max(1) - logits[:, strange]
    # a little more: examples that are all the same would lie on the very border
    return min(0.0, float(quantiles(room[known], weight, (LOST / 2,))[0]) - 0.01)


def _limit(near: Real, logits: Doubles, known: npt.NDArray[np.bool_], strange: int, weight: Doubles) -> Floats:
    """`LabelHead.limit`, of examples that were not seen: LOST of them are below it."""
    score = _score(near, logits, strange)[known]
    low, middle = quantiles(score, weight, (LOST, 0.5))
    steep = 3 / max(float(middle - low), 0.02)
    # "unknown" is said where it is likelier than the best label
    shares = softmax(logits)[known]
    best_share = _known(shares, strange).max(1)
    there = best_share == shares.max(1)
    left = float(weight[there].sum() / weight.sum())
    values = score[there] + np.log(best_share[there]) / steep
    (limit,) = quantiles(values, weight[there], (max(0.0, LOST - (1 - left)) / left,))
    return np.array([limit, steep], np.float32)


def _kept(
    rows: list[Gram], known: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int32], Floats, npt.NDArray[np.int32]]:
    """`LabelHead.at`, `much` and `first` of the examples of known labels."""
    rows = [row for row, keep in zip(rows, known, strict=False) if keep]
    if not rows:
        return np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int32)
    at, much = (np.concatenate(column) for column in zip(*rows, strict=True))
    return at.astype(np.int32), much, np.cumsum([0, *(len(at) for at, _ in rows[:-1])]).astype(np.int32)


def _served_words(
    texts: Sequence[str], rare: Floats, y: Labels, few: npt.NDArray[np.intp], span: tuple[Floats, Floats], count: int
) -> tuple[Real, Real]:
    """Weights (BUCKETS, K) and bias (K,) of the head on words, fitted on COUNTED examples."""
    more = few if len(few) == len(y) else thin(y, count, max(1, COUNTED // count))
    if len(more) > len(few):
        return logistic(dense([grams(texts[i], rare) for i in more]), y[more], count, GRAMS_L2, CLOSER)
    w, b = logistic(span[0], y[few], count, GRAMS_L2, CLOSER)
    return span[1] @ w, b


def _served(
    vectors: Floats, y: Labels, few: npt.NDArray[np.intp], span: tuple[Floats, Floats], count: int, l2: float
) -> tuple[Real, Real]:
    """Weights (d, K) and bias (K,) of the head on vectors, fitted on all examples."""
    if len(few) < len(y):
        return logistic(vectors, y, count, l2, CLOSER)
    w, b = logistic(span[0], y[few], count, l2, CLOSER)
    return span[1] @ w, b


def _unit(rows: Floats) -> Floats:
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.float32(1e-12))
    return unit


def _span(rows: Floats) -> tuple[Floats, Floats]:
    """(n, r) and (d, r): the examples in the space that they span, where all weights lie, and the way back from it."""
    wide = rows.astype(np.float64)
    if len(rows) < rows.shape[1]:
        values, basis = np.linalg.eigh(wide @ wide.T)
        keep = values > 1e-8 * values[-1]
        s = np.sqrt(values[keep])
        x, turn = basis[:, keep] * s, wide.T @ (basis[:, keep] / s)
    else:
        values, turn = np.linalg.eigh(wide.T @ wide)
        turn = turn[:, values > 1e-8 * values[-1]]
        x = wide @ turn
    return x.astype(np.float32), turn.astype(np.float32)


def _strange(labels: tuple[str, ...]) -> int:
    """Which label is "unknown"; -1 where none is."""
    return labels.index(UNKNOWN) if UNKNOWN in labels else -1


def _known(logits: Doubles, strange: int) -> Doubles:
    """(n, K), minus infinity for "unknown"."""
    known: Doubles = np.where(np.arange(logits.shape[1]) == strange, -np.inf, logits)
    return known


def _score(near: Real, logits: Doubles, strange: int) -> Doubles:
    """(n,): how well texts fit any label, from the cosine of the nearest example and the log odds of the best label."""
    known = _known(logits, strange)
    best = known.max(1)
    rest = np.logaddexp.reduce(np.where(np.arange(known.shape[1]) == known.argmax(1)[:, None], -np.inf, logits), 1)
    score: Doubles = near + ODDS * np.clip(best - rest, -10, 10)
    return score
