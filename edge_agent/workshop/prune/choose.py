"""Which channels go first, and how many.

A family of channels comes in an order, the best first, with a cost for keeping only the first k (reconstruction.py).
What costs the least for the room that it takes goes first, what costs nothing before all else, and no more than was
asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, numbers
from edge_agent.workshop.prune.axes import Traced
from edge_agent.workshop.prune.channels import ChannelGroup

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


def to_remove(model: ir.Model, traced: Traced, ranked: list[Ranked], target: float) -> set[int]:
    """Roots of the groups to take out, as few as leave at most `target` weights (or all that can go).

    Families lose blocks of channels, in the order of what a block costs for each weight that it takes.
    """
    sizes, gone = _Sizes(model, traced), list[int]()
    for roots in _in_order(sizes, ranked):
        if sizes.left([*gone, *roots]) <= target:  # of the last block only what is still needed
            enough = (n for n in range(len(roots) + 1) if sizes.left([*gone, *roots[len(roots) - n :]]) <= target)
            return {*gone, *roots[len(roots) - next(enough) :]}
        gone += roots
    return set(gone)


def _in_order(sizes: _Sizes, ranked: list[Ranked]) -> list[list[int]]:
    """The blocks of all families, that first which costs the least for each weight that it takes."""
    whole, priced = sizes.left([]), []
    for one in ranked:
        each = max(whole - sizes.left(one.order), 1e-12) / len(one.order)
        priced += [(cost / each, roots) for cost, roots in _blocks(one)]
    return [roots for _, roots in sorted(priced, key=lambda block: block[0])]


def _blocks(one: Ranked) -> list[tuple[float, list[int]]]:
    """What of a family goes first: (cost a channel, roots); no block before one that goes earlier."""
    count, block = len(one.order), one.family.block
    least = min(count, max(1, -(-int(np.ceil(count * LEAST)) // block) * block))
    most, found = 0.0, []
    for high, low in itertools.pairwise([count, *range((count - 1) // block * block, least - 1, -block)]):
        most = max(most, float(one.cost[low] - one.cost[high]) / (high - low))
        found.append((most, [int(root) for root in one.order[low:high]]))
    return found


class _Sizes:
    """How many weights are left in the layers when some groups are gone."""

    def __init__(self, model: ir.Model, traced: Traced) -> None:
        nodes = net.layers(model)
        self.table: dict[ir.Node, list[Array | int]] = {node: list(numbers(node.inputs[1]).shape) for node in nodes}
        for use in traced.uses:
            if use.place == 1 and use.node in self.table:
                self.table[use.node][use.axis] = traced.roots(use.atoms)
        self.count = len(traced.parent)

    def left(self, gone: Iterable[int]) -> float:
        """Without the roots `gone`."""
        stay = np.ones(self.count, bool)
        stay[np.array([*gone], int)] = False
        lengths = [[a if isinstance(a, int) else stay[a].sum() for a in axes] for axes in self.table.values()]
        return float(sum(np.prod(one) for one in lengths))
