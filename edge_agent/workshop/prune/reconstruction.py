"""Which channels go first by reconstruction: those without which the layers that read them can be rebuilt best."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edge_agent.workshop.prune.axes import Traced, Use
from edge_agent.workshop.prune.channels import ChannelGroup
from edge_agent.workshop.prune.choose import Ranked
from edge_agent.workshop.prune.graph import Array, PruneGraph
from edge_agent.workshop.prune.walk import Feeds, Live, Say, cells, touched, walk

ROWS = 8_000
"""cells, or tokens, of a layer's inputs that are looked at, in all samples together"""


def by_reconstruction(
    graph: PruneGraph,
    traced: Traced,
    found: list[ChannelGroup],
    feeds: Feeds,
    say: Say,
    boxes: list[Array] | None = None,
) -> list[Ranked]:
    """Needs samples; `boxes`: where objects are, as in `fit.refit`."""
    readers = {use.node: use for use in traced.uses if use.role == "in"}
    seen: dict[int, _Moments] = {}
    most = max(1, ROWS // len(feeds))

    def visit(number: int, live: list[Live]) -> None:
        if number in readers:
            seen[number] = _moments(live[0][graph.nodes[number].input[0]], most, readers[number].axis == 1, boxes)

    walk([graph], feeds, visit, say, "looking")
    ranked, behind, members = [], _behind(graph), _members(traced, found, readers)
    for index, family in enumerate(found):
        terms = [
            _term(graph, traced, family, readers[number], mine, seen[number]) for number, mine in members.get(index, [])
        ]
        reached = set().union(*(behind[number] for number, _ in members.get(index, [])))
        one = _greedy(family, terms)
        # what only one of the heads sees costs less than what all of them see
        ranked.append(replace(one, cost=one.cost * len(reached) / max(1, len(behind[-1]))))
    return ranked


def _members(traced: Traced, found: list[ChannelGroup], readers: dict[int, Use]) -> dict[int, list[tuple[int, Array]]]:
    """For each family the layers that read it, and which of their inputs are its own."""
    members: dict[int, list[tuple[int, Array]]] = {}
    family_of = {int(root): index for index, family in enumerate(found) for root in family.roots}
    for number, use in readers.items():
        owner = np.array([family_of.get(int(root), -1) for root in traced.roots(use.atoms)])
        for index in set(owner.tolist()) - {-1}:
            members.setdefault(index, []).append((number, owner == index))
    return members


def _term(
    graph: PruneGraph, traced: Traced, family: ChannelGroup, use: Use, mine: Array, seen: _Moments
) -> tuple[Array, Array, Array]:
    """Of one layer that reads a family: its inputs' covariance, its weights' products, and whose they are."""
    place = {int(root): at for at, root in enumerate(family.roots)}
    weight = np.moveaxis(graph.weight(use.node).astype(np.float64), use.axis, 0)
    flat = weight.reshape(len(weight), -1)[mine]
    at = np.array([place[int(root)] for root in traced.roots(use.atoms)[mine]])
    return seen.covariance()[np.ix_(mine, mine)], flat @ flat.T, at


def _behind(graph: PruneGraph) -> dict[int, set[int]]:
    """For each layer the last layers that its output reaches (itself, where it is one); -1: all of them."""
    layers, reach, found = set(graph.layers()), dict[str, set[int]](), dict[int, set[int]]()
    for number in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[number]
        ends = set().union(*(reach.get(name, set()) for name in node.output))
        if number in layers:
            ends = ends or {number}
            found[number] = ends
        for name in node.input:
            reach[name] = reach.get(name, set()) | ends
    found[-1] = set().union(*found.values())
    return found


@dataclass(slots=True)
class _Moments:
    rows: float
    total: Array
    square: Array

    def covariance(self) -> Array:
        """(channels, channels)"""
        mean = self.total / self.rows
        covariance: Array = self.square / self.rows - np.outer(mean, mean)
        return covariance


def _moments(values: list[Array], most: int, maps: bool, boxes: list[Array] | None) -> _Moments:
    """First and second moments of the channels of a layer's input."""
    rows, total, square = 0.0, 0.0, 0.0
    for index, value in enumerate(values):
        value = value.astype(np.float32, copy=False)
        if maps and value.ndim == 4:
            where = cells(value.shape[2], value.shape[3], most)
            flat = value[0][:, where[0], where[1]].T
            share = np.ones(len(flat), np.float32) if boxes is None else touched(where, value.shape[2:], boxes[index])
        else:
            flat = value.reshape(-1, value.shape[-1])[:most]
            share = np.ones(len(flat), np.float32)
        # products in float32, which is twice as fast; sums over samples in float64
        rows, total = rows + float(share.sum()), total + (share @ flat).astype(np.float64)
        square = square + ((flat * share[:, None]).T @ flat).astype(np.float64)
    return _Moments(float(rows), np.asarray(total), np.asarray(square))


def _greedy(family: ChannelGroup, terms: list[tuple[Array, Array, Array]]) -> Ranked:
    """`terms`: for each layer that reads the family its inputs' covariance, its weights' products, whose they are."""
    count = len(family.roots)
    whole = [max(float((c * h).sum()), 1e-12) for c, h, _ in terms]
    order: list[int] = []
    cost = [float(len(terms))]
    states = [c.copy() for c, _, _ in terms]
    seen = [products @ c for c, products, _ in terms]  # products @ state, kept up to date
    at_once = max(1, count // 128)  # of a very wide layer a few go by the same gains
    while len(order) < count:
        gain = np.zeros(count)
        for state, product, (_, _, at), total in zip(states, seen, terms, whole, strict=True):
            own = np.maximum(state.diagonal(), 1e-9 * max(float(state.diagonal().max()), 1e-12))
            np.add.at(gain, at, (state * product).sum(axis=0) / own / total)
        gain[order] = -np.inf
        for best in np.argsort(-gain, kind="stable")[: min(at_once, count - len(order))]:
            order.append(int(best))
            left = 0.0
            for state, product, (_, _, at), total in zip(states, seen, terms, whole, strict=True):
                for column in np.flatnonzero(at == best):
                    own = float(state[column, column])
                    if own > 1e-12:
                        row = state[column] / own
                        product -= np.outer(product[:, column], row)
                        state -= np.outer(state[:, column].copy(), row)
                left += max(0.0, float(np.trace(product))) / total
            cost.append(min(left, cost[-1]))
    return Ranked(family, family.roots[order], np.array(cost) / max(1, len(terms)))
