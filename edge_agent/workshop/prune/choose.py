"""Which channels go first, and how many.

Every criterion gives each family of channels an order, the best first, and a cost for keeping only the first k. What
costs the least for the room that it takes goes first, what costs nothing before all else, and no more than was asked.

- magnitude: sum of |w| of the filters that make a channel (Li et al. 2017, arXiv 1608.08710), and of what is added to
  it; the cost is the share of the family's sum that goes. Single weights: |w| over the layer's standard deviation (Han
  et al. 2015, 1506.02626).
- reconstruction (reconstruction.py): what the layers that read a channel lose when the others rebuild it; needs data.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, numbers
from edge_agent.workshop.prune.axes import Traced, Use
from edge_agent.workshop.prune.channels import ChannelGroup, per_weight

LEAST = 0.125
"""share of a family that always stays"""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A family in the order in which its channels are worth keeping."""

    family: ChannelGroup
    order: Array
    """roots, the best first"""
    cost: Array
    """of keeping the first k, for k = 0 … n; falls"""


def by_magnitude(traced: Traced, found: list[ChannelGroup]) -> list[Ranked]:
    """Needs nothing but the weights."""
    sums = np.zeros(len(traced.parent))
    for use in (use for use in traced.uses if use.role == "out" or _adds(use)):
        size = np.abs(numbers(use.node.inputs[use.place])).astype(np.float64)
        np.add.at(
            sums, traced.roots(use.atoms), np.moveaxis(size, use.axis, 0).reshape(size.shape[use.axis], -1).sum(1)
        )
    ranked = []
    for family in found:
        scores = sums[family.roots]
        order = np.argsort(-scores, kind="stable")
        left = np.append(np.cumsum(scores[order][::-1])[::-1], 0.0)
        ranked.append(Ranked(family, family.roots[order], left / max(scores.sum(), 1e-12)))
    return ranked


def _adds(use: Use) -> bool:
    """Whether it is added to a channel, which then is something even where its filter is 0."""
    op = use.node.op_type
    shifts = op == "BatchNormalization" and use.place in (2, 3)
    return shifts or op in ("Add", "Sub", "Sum") or (op in net.WEIGHTED and use.place == 2)


def to_remove(model: ir.Model, traced: Traced, ranked: list[Ranked], target: float, by_work: bool = False) -> set[int]:
    """Roots of the groups to take out, as few as leave at most `target` weights (or all that can go).

    Families lose blocks of channels, in the order of what a block costs for each weight that it takes. `by_work`: what
    it takes is multiplications of a sample, in millions, and so is `target`.
    """
    nodes = net.layers(model)
    sizes = _Sizes(traced, nodes, per_weight(nodes) if by_work else [1.0] * len(nodes))
    blocks = _in_order(sizes, ranked)
    low, high = 0, len(blocks)
    while low < high:
        middle = (low + high) // 2
        met = sizes.left(itertools.chain(*blocks[:middle])) <= target
        low, high = (low, middle) if met else (middle + 1, high)
    gone = list(itertools.chain(*blocks[: max(0, low - 1)]))
    if low:  # of the last block only what is still needed
        rest = blocks[low - 1]
        gone += next((rest[-n:] for n in range(1, len(rest)) if sizes.left([*gone, *rest[-n:]]) <= target), rest)
    return set(gone)


def _in_order(sizes: _Sizes, ranked: list[Ranked]) -> list[list[int]]:
    """The blocks of all families, that first which costs the least for each weight that it takes."""
    whole, priced = sizes.left([]), []
    for one in ranked:
        each = max(whole - sizes.left(one.order), 1e-12) / len(one.order)
        priced += [(cost / each, roots) for cost, roots in _blocks(one)]
    return [roots for _, roots in sorted(priced, key=lambda block: block[0])]


def _blocks(one: Ranked) -> list[tuple[float, list[int]]]:
    """What of a family goes first: (cost a channel, roots), along the lower hull of what keeping k costs: it rises."""
    count, block = len(one.order), one.family.block
    least = min(count, max(1, -(-int(np.ceil(count * LEAST)) // block) * block))
    ends = [count, *range((count - 1) // block * block, least - 1, -block)]
    hull = [ends[0]]
    for end in ends[1:]:
        while len(hull) > 1 and _slope(one, hull[-2], hull[-1]) > _slope(one, hull[-1], end):
            hull.pop()
        hull.append(end)
    found = []
    for before, after in itertools.pairwise(hull):
        inside = [end for end in ends if after <= end <= before]
        for high, low in itertools.pairwise(inside):
            found.append((_slope(one, before, after), [int(root) for root in one.order[low:high]]))
    return found


def _slope(one: Ranked, high: int, low: int) -> float:
    """What a channel costs on the way from `high` that stay to `low`."""
    return float(one.cost[low] - one.cost[high]) / (high - low)


class _Sizes:
    """How much is left in the layers when some groups are gone."""

    def __init__(self, traced: Traced, nodes: list[ir.Node], factors: list[float]) -> None:
        """`factors`: of each layer, what a weight of it counts."""
        self.table: dict[ir.Node, list[Array | int]] = {node: list(numbers(node.inputs[1]).shape) for node in nodes}
        for use in traced.uses:
            if use.place == 1 and use.node in self.table:
                self.table[use.node][use.axis] = traced.roots(use.atoms)
        self.factors, self.count = factors, len(traced.parent)

    def left(self, gone: Iterable[int]) -> float:
        """Without the roots `gone`."""
        stay = np.ones(self.count, bool)
        stay[np.array([*gone], int)] = False
        lengths = [[a if isinstance(a, int) else stay[a].sum() for a in axes] for axes in self.table.values()]
        return sum(float(np.prod(one)) * factor for one, factor in zip(lengths, self.factors, strict=True))


def masks(model: ir.Model, sparsity: float) -> dict[str, Array]:
    """For each layer, by name, which weights stay (bool, shaped as the weight), so that `sparsity` of all of them is 0.

    Depthwise convolutions keep all: they have few weights, and lose most by each (as in Zhu & Gupta 2017, arXiv
    1710.01878).
    """
    nodes = net.layers(model)
    dense = [node for node in nodes if node.attributes.get_int("group", 1) == 1]
    scores = {}
    for node in dense:
        weight = numbers(node.inputs[1]).astype(np.float64)
        scores[str(node.name)] = np.where(weight == 0, -1.0, np.abs(weight) / max(float(weight.std()), 1e-12))
    every = np.concatenate([score.ravel() for score in scores.values()]) if scores else np.zeros(0)
    count = min(len(every), round(sparsity * sum(numbers(node.inputs[1]).size for node in nodes)))
    stay = np.ones(len(every), bool)
    stay[np.argsort(every, kind="stable")[:count]] = False  # exactly so many, ties too
    ends = np.cumsum([score.size for score in scores.values()])[:-1]
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, np.split(stay, ends), strict=True)}
