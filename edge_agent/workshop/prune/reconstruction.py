"""Which channels go first by reconstruction: those without which the layers that read them can be rebuilt best.

Greedy: the next channel is the one that explains most of what these layers still miss; the cost is what stays
unexplained. It needs data, no gradients (the aim of He et al. 2017, arXiv 1707.06168, and ThiNet, 1707.06342).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, numbers
from edge_agent.workshop.prune.axes import Traced, Use
from edge_agent.workshop.prune.channels import ChannelGroup
from edge_agent.workshop.prune.choose import Ranked
from edge_agent.workshop.prune.walk import Feeds, Live, Say, rows, walk

ROWS = 8_000
"""cells, or tokens, of a layer's inputs that are looked at, in all samples together"""


ENOUGH = 4
"""rows for each channel"""


@dataclass(frozen=True, slots=True)
class _Reader:
    """A layer that reads channels of a family."""

    covariance: Array
    """of its inputs, (inputs, inputs)"""
    products: Array
    """of its weights, summed over all that it gives, (inputs, inputs)"""
    at: Array
    """for each input the place of its channel in the family"""


def by_reconstruction(
    model: ir.Model, traced: Traced, found: list[ChannelGroup], feeds: Feeds, say: Say, boxes: list[Array] | None = None
) -> list[Ranked]:
    """Needs samples; `boxes`: for each sample where objects are, as in `fit.refit`."""
    readers = {use.node: use for use in traced.uses if use.role == "in"}
    seen: dict[ir.Node, Array] = {}
    most = max(1, ROWS // len(feeds))

    def visit(node: ir.Node, live: list[Live]) -> None:
        if node in readers and node.inputs[0].name in live[0]:
            seen[node] = _covariance(node, live[0][node.inputs[0].name], most, boxes)

    walk([model], feeds, visit, say, "looking")
    ends = {node: _last_layers(node) for node in readers}
    whole = len(set().union(*ends.values()))
    ranked = []
    for family in found:
        place = {int(root): at for at, root in enumerate(family.roots)}
        terms, reached = [], set[ir.Node]()
        for node, use in readers.items():
            at = np.array([place.get(int(root), -1) for root in traced.roots(use.atoms)])
            if (at >= 0).any() and node in seen:
                terms.append(_reader(use, at, seen[node]))
                reached |= ends[node]
        one = _greedy(family, terms)
        # what only one of the heads sees costs less than what all of them see
        ranked.append(replace(one, cost=one.cost * len(reached) / max(1, whole)))
    return ranked


def _reader(use: Use, at: Array, covariance: Array) -> _Reader:
    mine = at >= 0
    weight = np.moveaxis(numbers(use.node.inputs[1]).astype(np.float64), use.axis, 0)
    flat = weight.reshape(len(weight), -1)[mine]
    return _Reader(covariance[np.ix_(mine, mine)], flat @ flat.T, at[mine])


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
