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

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from edge_agent.samples.everyday import SENTENCES
from edge_agent.types import Floats

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
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
FOLDS = 4
MEMORY = 10
ROUNDS = 200
CLOSE, CLOSER = 1e-3, 1e-4
"""slope at which a search ends, relative to the loss: of heads that are tried, and of those that serve"""
HELD, LIKELY = 4.0, 1.65
"""how strongly the two heads' weights are held near what is likely, and what the head on words is likely to count"""
LOST = 0.04
"""share of unseen examples that are given up as "unknown", each label having the same say, at most half of them as they
look more like its examples"""
STRANGE = 2
"""sentences of everyday life, for each example that a label has, that show what is unknown"""
ODDS = 0.05
"""what one unit of the log odds of the best label adds to the cosine of the nearest example"""

# ── words and letters ────────────────────────────────────────────────────────────────────────────────────

BUCKETS = 1 << 12
WORDS, LETTERS = (1, 2), (2, 3, 4)
"""how many words, and letters of a word with its ends, are counted together"""
READ = 4096
"""characters of a text that are counted"""
PART = re.compile(r"\w+|[^\w\s]")


Counts = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""buckets, and how often each was counted"""
EVEN = np.ones(BUCKETS, np.float32)


def count(text: str) -> tuple[Counts, Counts]:
    """Buckets of a text's words and pairs of words; and of its runs of letters."""
    words = PART.findall(text[:READ].lower())
    whole = [" ".join(words[i : i + n]) + "\n" for n in WORDS for i in range(len(words) - n + 1)]
    ended = [f" {word} " for word in words]
    runs = [word[i : i + n] for word in ended for n in LETTERS for i in range(len(word) - n + 1)]
    return _counts(whole), _counts(runs)


def _counts(keys: list[str]) -> Counts:
    buckets = np.array([crc32(key.encode(errors="replace")) % BUCKETS for key in keys], np.int64)
    at, often = np.unique(buckets, return_counts=True)
    return at, often


def grams(text: str, rare: Floats = EVEN) -> tuple[npt.NDArray[np.int64], Floats]:
    """Buckets of a text, and how much of each, together of length 1: half of its words, half of its runs of letters.

    `rare`: (BUCKETS,) how much each tells.
    """
    whole: Floats = np.zeros(BUCKETS, np.float32)
    parts = count(text)
    for at, often in parts:
        much = (1 + np.log(often)).astype(np.float32) * rare[at]
        whole[at] += much / np.float32(np.sqrt(much @ much) or 1.0)
    at = np.union1d(parts[0][0], parts[1][0])
    much = whole[at]
    return at, much / np.float32(np.sqrt(much @ much) or 1.0)


def rarity(texts: Sequence[str]) -> Floats:
    """(BUCKETS,): the root of the usual inverse frequency in documents; the words of every sentence tell little."""
    seen = np.zeros(BUCKETS)
    for text in texts:
        seen[np.union1d(*(at for at, _ in count(text)))] += 1
    rare: Floats = np.sqrt(np.log((1 + len(texts)) / (1 + seen)) + 1).astype(np.float32)
    return rare


def _dense(rows: Sequence[tuple[npt.NDArray[np.int64], Floats]]) -> Floats:
    """(n, BUCKETS)."""
    out: Floats = np.zeros((len(rows), BUCKETS), np.float32)
    for row, (at, much) in zip(out, rows, strict=True):
        row[at] = much
    return out


# ── the head ─────────────────────────────────────────────────────────────────────────────────────────────


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
        for label, share in zip(self.labels, _softmax(wide)[0] / (1 + doubt), strict=True):
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
    count = len(labels)
    vectors = _unit(vectors.astype(np.float32))
    few = _thin(y, count, min(MOST, max(LEAST, TRIED // count)))
    fy, folds = y[few], _folds(y[few], count)
    spans = [_span(vectors[few])]
    rare = np.zeros(0, np.float32) if texts is None else rarity([texts[i] for i in few])
    rows = [] if texts is None else [grams(texts[i], rare) for i in few]
    near = vectors[few] @ vectors[few].T
    if rows:
        counted = _dense(rows)
        spans.append(_span(counted))
        near = (near + counted @ counted.T) / 2
    strange = _strange(labels)
    known = fy != strange
    near = np.where((folds[:, None] != folds[None]) & known[None], near, -1).max(1)
    held = [
        [_held_out(x, fy, count, folds, l2) for l2 in (L2 if i == 0 else (GRAMS_L2,))] for i, (x, _) in enumerate(spans)
    ]
    tries = [[z, *(other[0] for other in held[1:])] for z in held[0]]
    found = [_weigh(logits, fy) for logits in tries]
    best = min(range(len(found)), key=lambda i: found[i][0])
    share = found[best][1]
    logits = np.stack([f * z for f, z in zip(share, tries[best], strict=True)]).sum(0, dtype=np.float64)
    # each label has the same say, however many examples it has
    weight = 1 / np.bincount(fy)[fy[known]]
    down = 0.0
    if strange >= 0:
        room = _known(logits, strange).max(1) - logits[:, strange]
        # a little more: examples that are all the same would lie on the very border
        down = min(0.0, float(_quantiles(room[known], weight, (LOST / 2,))[0]) - 0.01)
        logits[:, strange] += down
    score = _score(near, logits, strange)[known]
    low, middle = _quantiles(score, weight, (LOST, 0.5))
    steep = 3 / max(float(middle - low), 0.02)
    # "unknown" is said where it is likelier than the best label
    shares = _softmax(logits)[known]
    best_share = _known(shares, strange).max(1)
    there = best_share == shares.max(1)
    left = float(weight[there].sum() / weight.sum())
    values = score[there] + np.log(best_share[there]) / steep
    (limit,) = _quantiles(values, weight[there], (max(0.0, LOST - (1 - left)) / left,))

    whole = _served(vectors, y, few, spans[0], count, L2[best])
    weights, bias = share[0] * whole[0], share[0] * whole[1]
    words = np.zeros((0, count))
    if rows and texts is not None:
        more = few if len(few) == len(y) else _thin(y, count, max(1, COUNTED // count))
        if len(more) > len(few):
            counted = _dense([grams(texts[i], rare) for i in more])
            w, b = _logistic(counted, y[more], count, GRAMS_L2, CLOSER)
        else:
            w, b = _logistic(spans[1][0], fy, count, GRAMS_L2, CLOSER)
            w = spans[1][1] @ w
        words, bias = share[1] * w, bias + share[1] * b
    if strange >= 0:
        bias[strange] += down
    rows = [row for row, keep in zip(rows, known, strict=False) if keep]
    sizes = [len(at) for at, _ in rows]
    return LabelHead(
        labels,
        weights.astype(np.float32),
        bias.astype(np.float32),
        words.astype(np.float32),
        vectors[few][known],
        np.concatenate([at for at, _ in rows]).astype(np.int32) if rows else np.zeros(0, np.int32),
        np.concatenate([much for _, much in rows]) if rows else np.zeros(0, np.float32),
        np.cumsum([0, *sizes[:-1]]).astype(np.int32) if rows else np.zeros(0, np.int32),
        rare,
        np.array([limit, steep], np.float32),
    )


def _served(
    vectors: Floats, y: Labels, few: npt.NDArray[np.intp], span: tuple[Floats, Floats], count: int, l2: float
) -> tuple[Real, Real]:
    """Weights (d, K) and bias (K,) of the head on vectors, fitted on all examples."""
    if len(few) < len(y):
        return _logistic(vectors, y, count, l2, CLOSER)
    w, b = _logistic(span[0], y[few], count, l2, CLOSER)
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


def _quantiles(values: Doubles, weight: Doubles, at: Sequence[float]) -> Doubles:
    """Of weighted values those that such shares of the weight lie below."""
    order = np.argsort(values, kind="stable")
    share = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    found: Doubles = np.interp(at, share, values[order])
    return found


# ── cross-validation ─────────────────────────────────────────────────────────────────────────────────────


def _thin(y: Labels, count: int, most: int) -> npt.NDArray[np.intp]:
    """Indices of at most so many examples of each label, spread evenly over those given."""
    picks = []
    for label in range(count):
        own = np.flatnonzero(y == label)
        picks.append(own[np.linspace(0, len(own) - 1, min(len(own), most)).round().astype(int)])
    return np.concatenate(picks)


def _folds(y: Labels, count: int) -> Labels:
    """Fold of each example: every label's examples are dealt out in turn."""
    folds = np.zeros(len(y), np.int64)
    for label in range(count):
        own = np.flatnonzero(y == label)
        folds[own] = np.arange(len(own)) % min(FOLDS, max(2, len(own)))
    return folds


def _held_out(x: Floats, y: Labels, count: int, folds: Labels, l2: float) -> Floats:
    """(n, K) logits of examples by heads that have not seen them."""
    logits: Floats = np.zeros((len(y), count), np.float32)
    for fold in np.unique(folds):
        rest = folds != fold
        w, b = _logistic(x[rest], y[rest], count, l2, CLOSE)
        logits[~rest] = x[~rest] @ w + b
    return logits


def _weigh(logits: Sequence[Floats], y: Labels) -> tuple[float, Doubles]:
    """The least loss of a weighted sum of logits (n, K) each, and the weights.

    Few examples say little about the weights: these are held near 1 and, of words, LIKELY.
    """
    rows = np.arange(len(y))
    likely = np.log([1.0, LIKELY])[: len(logits)]

    def loss(free: Doubles) -> tuple[float, Doubles]:
        z = sum(f * each for f, each in zip(np.exp(free), logits, strict=True))
        assert not isinstance(z, int)
        p = _softmax(z.astype(np.float64))
        off = free - likely
        value = -np.log(np.maximum(p[rows, y], 1e-12)).sum() + HELD * (off @ off) / 2
        p[rows, y] -= 1
        slope = [np.exp(f) * (p * each).sum() for f, each in zip(free, logits, strict=True)]
        return float(value), np.array(slope) + HELD * off

    free = _lbfgs(loss, np.zeros(len(logits)), 1e-4)
    return loss(free)[0], np.exp(free)


# ── optimisation ─────────────────────────────────────────────────────────────────────────────────────────


def _logistic(x: Floats, y: Labels, count: int, l2: float, close: float) -> tuple[Floats, Floats]:
    """Weights (d, K) and bias (K,) of about the least penalised loss.

    The search runs in units in which each column of `x` bends the loss about equally, so few steps do.
    """
    n, size = x.shape
    bend = 0.1 / count
    unit = np.append(1 / np.sqrt(bend * (x**2).sum(0) + l2), 1 / np.sqrt(bend * n)).astype(np.float32)[:, None]
    wide = np.concatenate([x, np.ones((n, 1), np.float32)], 1) * unit[:, 0]
    pull = (l2 * unit**2).astype(np.float32)
    pull[-1] = 0
    rows = np.arange(n)

    def loss(flat: Floats) -> tuple[float, Floats]:
        v = flat.reshape(size + 1, count)
        z = wide @ v
        z -= z.max(1, keepdims=True)
        said = z[rows, y].sum(dtype=np.float64)
        np.exp(z, out=z)
        mass = z.sum(1, keepdims=True)
        value = float(np.log(mass).sum(dtype=np.float64) - said + (pull * v * v).sum(dtype=np.float64) / 2)
        z /= mass
        z[rows, y] -= 1
        return value, (wide.T @ z + pull * v).ravel()

    v = _lbfgs(loss, np.zeros((size + 1) * count, np.float32), close).reshape(size + 1, count) * unit
    return v[:size], v[size]


def _lbfgs(loss: Callable[[Any], tuple[float, Any]], at: Any, close: float) -> Any:
    """Where a smooth `loss` (value and gradient) is least, by L-BFGS with backtracking (Armijo)."""
    value, slope = loss(at)
    steps: list[tuple[Any, Any, float]] = []
    for _ in range(ROUNDS):
        if np.abs(slope).max() < close * max(1.0, abs(value)):
            break
        way, shares = slope.copy(), []
        for s, g, rho in reversed(steps):
            shares.append(rho * float(s @ way))
            way -= shares[-1] * g
        way *= float(
            (steps[-1][0] @ steps[-1][1]) / (steps[-1][1] @ steps[-1][1]) if steps else 1 / np.linalg.norm(slope)
        )
        for (s, g, rho), share in zip(steps, reversed(shares), strict=True):
            way += s * (share - rho * float(g @ way))
        fall = float(slope @ way)
        length = 1.0
        while length > 1e-10:
            ahead, ahead_slope = loss(at - length * way)
            if ahead <= value - 1e-4 * length * fall:
                break
            length /= 2
        else:
            break
        s, g = -length * way, ahead_slope - slope
        if s @ g > 1e-12:
            steps = [*steps[-MEMORY + 1 :], (s, g, 1 / float(s @ g))]
        at, value, slope = at + s, ahead, ahead_slope
    return at


def _softmax(z: Doubles) -> Doubles:
    e = np.exp(z - z.max(1, keepdims=True))
    p: Doubles = e / e.sum(1, keepdims=True)
    return p
