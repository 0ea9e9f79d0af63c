"""Which channels, or which single weights, go first.

Every criterion gives each family of channels an order, the best first, and a cost for keeping only the first k. One
threshold on the cost serves all families; it is lowered until as many weights are gone as were asked for.

- magnitude: sum of |w| of the filters that make a channel (Li et al. 2017, arXiv 1608.08710); the cost is the share
  of the family's sum that goes. Single weights: |w| over the layer's standard deviation (Han et al. 2015, 1506.02626).
- reconstruction: channels without which the layers that read them can be rebuilt best. Greedy: the next channel is
  the one that explains most of what these layers still miss; the cost is what stays unexplained. It needs data, no
  gradients (the aim of He et al. 2017, arXiv 1707.06168, and ThiNet, 1707.06342).
- gradient, gradient-weight: root mean square over samples of the gradient, or of the sum of gradient × weight over a
  channel's filters (Molchanov et al. 2019, arXiv 1906.10771); the cost is the sum over the channels that go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edge_agent.workshop.prune.axes import Traced
from edge_agent.workshop.prune.channels import ChannelGroup, sizes
from edge_agent.workshop.prune.graph import Array, PruneGraph, per_weight

LEAST = 0.125
"""share of a family that always stays"""
Gradients = Iterable[Mapping[str, Array]]
"""for each sample: gradient by name of the weight"""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A family in the order in which its channels are worth keeping."""

    family: ChannelGroup
    order: Array
    """roots, the best first"""
    cost: Array
    """of keeping the first k, for k = 0 … n; falls"""


# ── how much each channel matters ────────────────────────────────────────────────────────────────────────


def by_magnitude(graph: PruneGraph, traced: Traced, found: list[ChannelGroup]) -> list[Ranked]:
    """Needs nothing but the weights."""
    sums = np.zeros(len(traced.parent))
    for use in traced.uses:
        weight = graph.values[graph.nodes[use.node].input[use.place]]
        if use.role == "out" and weight.ndim > 1:
            np.add.at(sums, traced.roots(use.atoms), _each(np.abs(weight).astype(np.float64), use.axis))
    return [_falling(family, sums[family.roots], relative=True) for family in found]


def by_gradient(
    graph: PruneGraph, traced: Traced, found: list[ChannelGroup], gradients: Gradients, times_weight: bool
) -> list[Ranked]:
    """Needs the gradient of each sample."""
    squares = np.zeros(len(traced.parent))
    outs = [(use, traced.roots(use.atoms)) for use in traced.uses if use.role == "out" and use.place == 1]
    samples = 0
    for gradient in gradients:
        sums = np.zeros(len(traced.parent))
        for use, roots in outs:
            name = graph.nodes[use.node].input[1]
            if name in gradient:
                value = gradient[name].astype(np.float64)
                np.add.at(sums, roots, _each(value * graph.values[name] if times_weight else value**2, use.axis))
        squares += sums**2 if times_weight else sums
        samples += 1
    scores = np.sqrt(squares / max(1, samples))
    return [_falling(family, scores[family.roots], relative=False) for family in found]


def _each(value: Array, axis: int) -> Array:
    """Sums over all axes but one."""
    total: Array = value.sum(axis=tuple(other for other in range(value.ndim) if other != axis))
    return total


def _falling(family: ChannelGroup, scores: Array, relative: bool) -> Ranked:
    order = np.argsort(-scores, kind="stable")
    lost = scores.sum() - np.concatenate([[0.0], np.cumsum(scores[order])])
    cost = np.maximum(lost, 0) / (max(scores.sum(), 1e-12) if relative else 1.0)
    return Ranked(family, family.roots[order], cost)


# ── how many go ──────────────────────────────────────────────────────────────────────────────────────────


def to_remove(
    graph: PruneGraph, traced: Traced, ranked: list[Ranked], target: float, by_work: bool = False
) -> set[int]:
    """Roots of the groups to take out, so that at most `target` weights stay (or as few as can be).

    Each family keeps as many channels as make its cost, plus a price for what they take, least; one price serves all
    families, and it is raised until the target is met. `by_work`: what they take is multiplications of a sample, in
    millions, and so is `target`.
    """
    table = _Sizes(sizes(graph, traced), per_weight(graph) if by_work else None, len(traced.parent))
    takes = [table.left(set()) - table.left({int(root) for root in one.order}) for one in ranked]
    low, high = 0.0, 1e-12
    gone: set[int] = set()
    while table.left(gone) > target and high < 1e12:
        low, high = high, high * 8
        gone = _gone(ranked, takes, high)
    for _ in range(30):
        middle = (low * high) ** 0.5
        trial = _gone(ranked, takes, middle)
        if table.left(trial) <= target:
            high, gone = middle, trial
        else:
            low = middle
    return gone


def _gone(ranked: list[Ranked], takes: list[float], price: float) -> set[int]:
    """What goes at a price of a weight, or of a multiplication."""
    gone: set[int] = set()
    for one, whole in zip(ranked, takes, strict=True):
        count, block = len(one.order), one.family.block
        least = min(count, max(1, -(-int(np.ceil(count * LEAST)) // block) * block))
        choices = np.array([k for k in range(least, count + 1) if k % block == 0 or k == count])
        paid = one.cost[choices] + price * whole * choices / count
        gone |= {int(root) for root in one.order[int(choices[paid.argmin()]) :]}
    return gone


@dataclass(slots=True)
class _Sizes:
    """How much is left when some groups are gone."""

    table: list[list[Array | int]]
    factors: list[float] | None
    """of each layer; None: 1"""
    count: int
    """of all atoms"""

    def left(self, gone: set[int]) -> float:
        out = np.zeros(self.count, bool)
        out[sorted(gone)] = True
        total = 0.0
        for at, axes in enumerate(self.table):
            lengths = [a if isinstance(a, int) else int((~out[a]).sum()) for a in axes]
            total += float(np.prod(lengths)) * (self.factors[at] if self.factors else 1.0)
        return total
