"""What the proofs and comparisons of several tasks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from edge_agent.errors import InputError, ModelError, RefusedError
from edge_agent.figures.interval import Figure, share
from edge_agent.figures.scores import Doubles
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.tasks import make_task, plain
from edge_agent.types import Finding, Floats, Net, Sample, Scores, Tensors
from edge_agent.uri import Uri

LOW = 0.05
"""score of a box that is looked at"""


@dataclass(slots=True)
class Recorder:
    """Keeps what a network gave."""

    outputs: list[dict[str, Any]] = field(default_factory=list)

    def around(self, net: Net) -> Net:
        """The same network, its outputs kept."""

        def run(tensors: Tensors) -> dict[str, Any]:
            self.outputs.append({name: np.array(array) for name, array in net.run(tensors).items()})
            return dict(self.outputs[-1])

        return msgspec.structs.replace(net, run=run)


def constant(seen: Recorder) -> bool:
    """Whether the network gave the same whatever went in."""
    first, *others = seen.outputs
    return all(np.array_equal(first[name], other[name]) for other in others for name in first)


STEP = 1 / 256
"""of scores that come out as int8"""
FOLLOWS = 0.6
"""slope of its log shares over its parent's that a sound variant has, or its reciprocal; measured: 0.8 to 1"""
LITTLE = 0.05
"""standard deviation of log shares that says nothing"""


def margin(score: float) -> float:
    """How far above a threshold a score is sure: half of it again, or half way to 1."""
    return min(score, 1 - score) / 2


def least_of(figures: list[tuple[float, str]]) -> tuple[float, str]:
    """The least figure and its name, the first of equals; NaN only where all are."""
    return min([figure for figure in figures if not np.isnan(figure[0])] or figures, key=itemgetter(0))


def follows(mine: Floats, theirs: Floats) -> tuple[float, str]:
    """How far the shares of labels, (n, C) each, go up and down with the other's from sample to sample, and its name.

    The slope of the one's log shares over the other's, less what a sample and a label have in the mean: 0 for a variant
    that says the same of everything, which agrees on all labels with a parent that finds nothing in these samples; and
    1 from FOLLOWS up to its reciprocal. A parent that hardly varies asks for nothing.
    """
    least = max(_least_share(mine), _least_share(theirs))
    a, b = (np.log(np.maximum(shares.astype(np.float64), least)) for shares in (mine, theirs))
    a, b = (logs - logs.mean(1, keepdims=True) for logs in (a, b))
    a, b = a - a.mean(0), b - b.mean(0)
    little = a.size * LITTLE**2
    slope = float((a * b).sum() + little) / float((b * b).sum() + little)
    value = min(slope, 1 / slope) if slope > 0 else 0.0
    return min(1.0, value / FOLLOWS), f"following of the shares (slope {slope:.3f})"


def _least_share(shares: Floats) -> float:
    """The smallest of these that says something: the smallest at all of int8, and of a softmax that rounds to 0."""
    steps = shares / np.float32(STEP)
    coarse = (shares <= 0).any() or np.array_equal(steps, np.rint(steps))
    return float(np.clip(shares[shares > 0].min(), 1e-12, STEP)) if coarse else 1e-12


def same_labels(one: Served, other: Served) -> None:
    """RefusedError unless both have the same labels in the same order."""
    if one.manifest.labels != other.manifest.labels:
        raise RefusedError(f"its labels are not those of its parent {other.manifest.name}")


def correlation(measure: Callable[[Doubles, Doubles], float], mine: Doubles, theirs: Doubles) -> float:
    """`measure`; 0 where only the parent's answers vary: it says nothing of what the parent tells apart."""
    return 0.0 if np.ptp(mine) == 0 < np.ptp(theirs) else measure(mine, theirs)


def answers(model: Served, shown: Sequence[Sample], options: Mapping[str, str] = {}) -> list[object]:
    """What the model finds in each sample, by the task that needs nothing but the model."""
    task = make_task(Uri(plain(model), model.ref.name, options), lambda _: model, home())
    return [finding.what for item in shown for finding in task(item) if isinstance(finding, Finding)]


Measure = Callable[[Served], Figure]
"""How well a candidate does what its parent does: 1 the most"""


def answers_or_none(model: Served, shown: Sequence[Sample]) -> list[object]:
    """As `answers`, with None for a sample whose result is refused: a broken candidate is measured, too."""
    task = make_task(Uri(plain(model), model.ref.name), lambda _: model, home())
    found: list[object] = []
    for item in shown:
        try:
            (finding,) = task(item)
            found.append(getattr(finding, "what", None))
        except (InputError, ModelError):
            found.append(None)
    return found


def measure_labels(parent: Served, shown: Sequence[Sample]) -> Measure:
    """Share of the samples with the parent's likeliest label, whether that is sure enough or not."""
    theirs = [_likeliest(one) for one in answers_or_none(parent, shown)]

    def measure(candidate: Served) -> Figure:
        said = [_likeliest(one) for one in answers_or_none(candidate, shown)]
        return share([a == b for a, b in zip(theirs, said, strict=True)])

    return measure


def _likeliest(answer: object) -> str:
    """The likeliest label; nothing for a result that was refused."""
    scores = answer.scores if isinstance(answer, Scores) else {}
    return max(scores, key=lambda name: scores[name], default="")
