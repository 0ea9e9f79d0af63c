"""Which channels go first, and how many.

A family of channels comes in an order, the best first, with a cost for keeping only the first k. What costs the least
for the room that it takes goes first, what costs nothing before all else, and no more than was asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edge_agent.workshop.data.calibration import Say
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, numbers
from edge_agent.workshop.prune.channels import ChannelGroup, Traced
from edge_agent.workshop.prune.fit import Feeds, Live, rows, walk

LEAST = 0.125
"""share of a family that always stays"""
ROWS = 8_000
"""cells, or tokens, of a layer's inputs that are looked at, in all samples together"""
ENOUGH = 4
"""rows for each channel"""


Left = Callable[[Iterable[int]], float]


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
    left, gone = _sizes(model, traced), list[int]()
    for roots in _in_order(left, ranked):
        if left([*gone, *roots]) <= target:  # of the last block only what is still needed
            enough = (n for n in range(len(roots) + 1) if left([*gone, *roots[len(roots) - n :]]) <= target)
            return {*gone, *roots[len(roots) - next(enough) :]}
        gone += roots
    return set(gone)


def _in_order(left: Left, ranked: list[Ranked]) -> list[list[int]]:
    """The blocks of all families, that first which costs the least for each weight that it takes."""
    whole, priced = left([]), []
    for one in ranked:
        each = max(whole - left(one.order), 1e-12) / len(one.order)
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


def _sizes(model: ir.Model, traced: Traced) -> Left:
    """A function that says how many weights are left in the layers without some groups (roots)."""
    table: dict[ir.Node, list[Array | int]] = {node: list(numbers(node.inputs[1]).shape) for node in net.layers(model)}
    for use in traced.uses:
        if use.place == 1 and use.node in table:
            table[use.node][use.axis] = traced.roots(use.atoms)

    def left(gone: Iterable[int]) -> float:
        stay = np.ones(len(traced.parent), bool)
        stay[np.array([*gone], int)] = False
        lengths = [[a if isinstance(a, int) else stay[a].sum() for a in axes] for axes in table.values()]
        return float(sum(np.prod(one) for one in lengths))

    return left


# ── the order ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Reader:
    """A layer that reads channels of a family."""

    covariance: Array
    """of its inputs, (inputs, inputs)"""
    products: Array
    """of its weights, summed over all that it gives, (inputs, inputs)"""
    at: Array
    """for each input the place of its channel in the family"""


def ranked(
    model: ir.Model, traced: Traced, found: list[ChannelGroup], feeds: Feeds, say: Say, boxes: list[Array] | None = None
) -> list[Ranked]:
    """By reconstruction: first goes without what the layers that read a family can be rebuilt best.

    Greedy: the next channel is the one that explains most of what these layers still miss; the cost is what stays
    unexplained. It needs data, no gradients (the aim of He et al. 2017, arXiv 1707.06168, and ThiNet, 1707.06342).
    `boxes`: for each sample where objects are, as in `fit.refit`.
    """
    readers = {use.node: use for use in traced.uses if use.role == "in"}
    seen: dict[ir.Node, Array] = {}
    most = max(1, ROWS // len(feeds))

    def visit(node: ir.Node, live: list[Live]) -> None:
        if node in readers and node.inputs[0].name in live[0]:
            seen[node] = _covariance(node, live[0][node.inputs[0].name], most, boxes)

    walk([model], feeds, visit, say, "looking")
    ends = {node: _last_layers(node) for node in readers}
    whole = len(set().union(*ends.values()))
    ordered = []
    for family in found:
        place = {int(root): at for at, root in enumerate(family.roots)}
        terms, reached = [], set[ir.Node]()
        for node, use in readers.items():
            at = np.array([place.get(int(root), -1) for root in traced.roots(use.atoms)])
            mine = at >= 0
            if mine.any() and node in seen:
                weight = np.moveaxis(numbers(node.inputs[1]).astype(np.float64), use.axis, 0)
                flat = weight.reshape(len(weight), -1)[mine]
                terms.append(_Reader(seen[node][np.ix_(mine, mine)], flat @ flat.T, at[mine]))
                reached |= ends[node]
        one = _greedy(family, terms)
        # what only one of the heads sees costs less than what all of them see
        ordered.append(replace(one, cost=one.cost * len(reached) / max(1, whole)))
    return ordered


def _last_layers(node: ir.Node) -> set[ir.Node]:
    """The layers that its output reaches and from which no other one is reached; itself where there is none."""
    after = [one for one in net.behind(node.outputs[0]) if one.op_type in net.WEIGHTED]
    ends = {one for one in after if not any(n.op_type in net.WEIGHTED for n in net.behind(one.outputs[0]))}
    return ends or {node}


def _covariance(node: ir.Node, values: list[Array], most: int, boxes: list[Array] | None) -> Array:
    """Of the channels of a layer's input."""
    count, total, square = 0.0, np.zeros(1), np.zeros(1)
    for index, value in enumerate(values):
        flat, _, share = rows(node, value.astype(np.float32, copy=False), most, None if boxes is None else boxes[index])
        # products in float32, which is twice as fast; sums over samples in float64
        count, total = count + float(share.sum()), total + (share @ flat).astype(np.float64)
        square = square + ((flat * share[:, None]).T @ flat).astype(np.float64)
    mean: Array = total / count
    covariance = np.asarray(square / count - np.outer(mean, mean))
    # on fewer rows than that any channel seems to be made by the others: what they have in common counts for less
    known = min(1.0, count / (ENOUGH * len(covariance)))
    return np.where(np.eye(len(covariance), dtype=bool), covariance, known * covariance)


def _greedy(family: ChannelGroup, terms: list[_Reader]) -> Ranked:
    count = len(family.roots)
    whole = [max(float((term.covariance * term.products).sum()), 1e-12) for term in terms]
    order: list[int] = []
    cost = [float(len(terms))]
    states = [term.covariance.copy() for term in terms]
    seen = [term.products @ term.covariance for term in terms]  # products @ state, kept up to date
    at_once = max(1, count // 128)  # of a very wide layer a few go by the same gains
    while len(order) < count:
        gain = np.zeros(count)
        for state, product, term, total in zip(states, seen, terms, whole, strict=True):
            own = np.maximum(state.diagonal(), 1e-9 * max(float(state.diagonal().max()), 1e-12))
            np.add.at(gain, term.at, (state * product).sum(axis=0) / own / total)
        gain[order] = -np.inf
        for best in np.argsort(-gain, kind="stable")[: min(at_once, count - len(order))]:
            order.append(int(best))
            left = 0.0
            for state, product, term, total in zip(states, seen, terms, whole, strict=True):
                for column in np.flatnonzero(term.at == best):
                    own = float(state[column, column])
                    if own > 1e-12:
                        row = state[column] / own
                        product -= np.outer(product[:, column], row)
                        state -= np.outer(state[:, column].copy(), row)
                left += max(0.0, float(np.trace(product))) / total
            cost.append(min(left, cost[-1]))
    return Ranked(family, family.roots[order], np.array(cost) / max(1, len(terms)))
