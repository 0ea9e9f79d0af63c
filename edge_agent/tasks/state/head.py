"""From features to a state: a multinomial logistic head, fitted on a few examples, and how far from them is unknown.

Each feature is taken in a unit between two spreads: that of the examples, and that of pictures of anything. How sure
the head may be is one factor of its logits, the one with the least loss on examples that it has not seen (temperature
scaling, Guo et al. 2017). What is further from every example than FAR times the largest distance of an example to its
nearest, and than most of the way from one state to another, is unknown.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.errors import RefusedError
from edge_agent.tasks.state.features import Region
from edge_agent.tasks.text.crossval import weigh
from edge_agent.tasks.text.logistic import Labels, logistic, softmax
from edge_agent.types import Floats

UNKNOWN = "unknown"
L2, CLOSE = 0.01, 1e-4
"""penalty of the weights, and the slope at which the search ends"""
FAR, BETWEEN = 2.5, 0.75
"""of the largest distance of an example to its nearest, and of the distance of two states, from which on is unknown"""
STEEP = 8.0
"""how fast doubt grows around that"""
KEPT = 100
"""examples of a state that are kept to be near to"""
FOLDS = 5
WIDE = 16
"""pixels of a side to which a picture is shrunk for the baseline"""
MOST_FEATURES = 100_000


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A head as its file has it: JSON; arrays of little-endian float32 in base64."""

    v: Literal[1]
    labels: Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=64)]], msgspec.Meta(min_length=2)]
    region: Region
    centre: str
    unit: str
    weight: str
    bias: str
    examples: str
    which: list[Annotated[int, msgspec.Meta(ge=0)]]
    limit: float
    probe: str


@dataclass(frozen=True, slots=True)
class StateHead:
    """A fitted head of K states on d features."""

    labels: tuple[str, ...]
    region: Region
    centre: Floats
    """(d,) taken from the features"""
    unit: Floats
    """(d,) and what they are divided by then"""
    weight: Floats
    """(d, K)"""
    bias: Floats
    """(K,)"""
    examples: Floats
    """(m, d), in units"""
    which: npt.NDArray[np.int64]
    """(m,) state of each"""
    limit: float
    """distance from the nearest example from which on a picture is unknown"""
    probe: Floats
    """(d,) features of a carried picture where it was taught: what serves has to give the same"""

    def __call__(self, features: Floats) -> dict[str, float]:
        """Probability of each state, and of "unknown"; they sum to 1."""
        x = (features - self.centre) / self.unit
        shares = softmax((x @ self.weight + self.bias)[None].astype(np.float64))[0]
        near = float(np.sqrt(((self.examples - x) ** 2).sum(1).min()))
        doubt = 1 / (1 + np.exp(np.clip(STEEP * (1 - near / self.limit), -50, 50)))
        scores = {label: float(share * (1 - doubt)) for label, share in zip(self.labels, shares, strict=True)}
        scores[UNKNOWN] = scores.get(UNKNOWN, 0.0) + float(doubt)
        return scores


def fit(
    features: Floats, y: Labels, labels: Sequence[str], anything: Floats, region: Region, probe: Floats
) -> StateHead:
    """Fit a head: `features` (n, d) of examples, `y` (n,) indices into `labels`; `anything`: of other pictures."""
    count = len(labels)
    centre, unit = _units(features, anything)
    x = ((features - centre) / unit).astype(np.float32)
    weight, bias = _fitted(x, y, count)
    _, sure = weigh([held_out(features, y, count, anything)], y)
    apart = np.sqrt(((x[:, None] - x[None]) ** 2).sum(2))
    others = (y[:, None] == y[None]) & ~np.eye(len(y), dtype=bool)
    nearest = np.where(others, apart, np.inf).min(1)
    middles = np.stack([x[y == label].mean(0) for label in range(count)])
    between = np.sqrt(((middles[:, None] - middles[None]) ** 2).sum(2))[np.triu_indices(count, 1)].min()
    limit = max(FAR * float(nearest[np.isfinite(nearest)].max(initial=0)), BETWEEN * float(between), 1e-6)
    few = np.concatenate([_spread(np.flatnonzero(y == label)) for label in range(count)])
    scaled = ((weight * sure[0]).astype(np.float32), (bias * sure[0]).astype(np.float32))
    return StateHead(tuple(labels), region, centre, unit, *scaled, x[few], y[few], limit, probe)


def held_out(features: Floats, y: Labels, count: int, anything: Floats) -> Floats:
    """(n, K) logits of examples by heads that have not seen them, nor those next to them in the order given."""
    logits: Floats = np.zeros((len(y), count), np.float32)
    folds = blocks(y, count)
    for fold in np.unique(folds):
        rest = folds != fold
        centre, unit = _units(features[rest], anything)
        weight, bias = _fitted(((features[rest] - centre) / unit).astype(np.float32), y[rest], count)
        logits[~rest] = (features[~rest] - centre) / unit @ weight + bias
    return logits


def nearest_mean(rows: Floats, y: Labels, count: int) -> npt.NDArray[np.int64]:
    """(n,) the state whose mean row is nearest, of means that a row is no part of: the baseline."""
    said, folds = np.zeros(len(y), np.int64), blocks(y, count)
    for fold in np.unique(folds):
        rest = folds != fold
        means = np.stack([rows[rest][y[rest] == label].mean(0) for label in range(count)])
        said[~rest] = ((rows[~rest][:, None] - means[None]) ** 2).sum(2).argmin(1)
    return said


def blocks(y: Labels, count: int) -> Labels:
    """Fold of each example: of each state those that stand together in the order given, as pictures of one hour do."""
    many = min(FOLDS, int(np.bincount(y, minlength=count).min()))
    folds = np.zeros(len(y), np.int64)
    for label in range(count):
        own = np.flatnonzero(y == label)
        folds[own] = np.arange(len(own)) * many // len(own)
    return folds


def _units(features: Floats, anything: Floats) -> tuple[Floats, Floats]:
    """What is taken from features, and what they are divided by: the distance of two pictures is about 1 then."""
    wide = anything.std(0)
    wide = wide + 0.1 * wide.mean() + 1e-6
    unit = np.sqrt(wide * (features.std(0) + 0.2 * wide) * features.shape[1])
    return features.mean(0, dtype=np.float32), unit.astype(np.float32)


def _fitted(x: Floats, y: Labels, count: int) -> tuple[Floats, Floats]:
    """Weights and bias; how many examples a state has says nothing of how often it comes."""
    weight, bias = logistic(x, y, count, L2, CLOSE)
    return weight, bias - np.log(np.bincount(y, minlength=count) / len(y)).astype(np.float32)


def _spread(own: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """At most KEPT of them, spread evenly."""
    some: npt.NDArray[np.intp] = own[np.linspace(0, len(own) - 1, min(len(own), KEPT)).round().astype(int)]
    return some


# ── as a file ────────────────────────────────────────────────────────────────────────────────────────────

COLUMNS = ("centre", "unit", "weight", "bias", "examples", "probe")


def packed(head: StateHead) -> bytes:
    """The head as its file has it."""
    columns = {key: base64.b64encode(getattr(head, key).astype("<f4").tobytes()).decode() for key in COLUMNS}
    which = [int(label) for label in head.which]
    return msgspec.json.encode(Stored(1, list(head.labels), head.region, which=which, limit=head.limit, **columns))


def unpacked(raw: bytes) -> StateHead:
    """The head that a file has. RefusedError for one that is none."""
    try:
        stored = msgspec.json.decode(raw, type=Stored)
        columns = {key: np.frombuffer(base64.b64decode(getattr(stored, key)), "<f4") for key in COLUMNS}
        count, size, many = len(stored.labels), len(columns["centre"]), len(stored.which)
        shapes: dict[str, tuple[int, ...]] = {"centre": (size,), "unit": (size,), "probe": (size,), "bias": (count,)}
        shapes |= {"weight": (size, count), "examples": (many, size)}
        made = {key: column.reshape(shapes[key]) for key, column in columns.items()}
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RefusedError(f"its head is none ({error}); teach the state anew") from None
    if not _makes_sense(stored, made):
        raise RefusedError("its head holds numbers that make no sense; teach the state anew")
    return StateHead(tuple(stored.labels), stored.region, which=np.array(stored.which), limit=stored.limit, **made)


def _makes_sense(stored: Stored, columns: Mapping[str, Floats]) -> bool:
    """Whether a head of numbers that are read can be asked."""
    left, top, right, bottom = stored.region
    count, unit = len(stored.labels), columns["unit"]
    region = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    finite = all(np.isfinite(column).all() for column in columns.values()) and 0 < stored.limit < np.inf
    sizes = 0 < len(unit) <= MOST_FEATURES and bool(stored.which) and len(set(stored.labels)) == count
    return bool(region and finite and sizes and max(stored.which) < count and (unit > 0).all())
