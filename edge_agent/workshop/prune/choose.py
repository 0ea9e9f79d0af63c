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
from dataclasses import dataclass, replace

import numpy as np

from edge_agent.workshop.prune.axes import Traced
from edge_agent.workshop.prune.channels import ChannelGroup, sizes
from edge_agent.workshop.prune.graph import Array, PruneGraph, attributes, per_weight
from edge_agent.workshop.prune.walk import Feeds, Live, Say, cells, touched, walk

BY = ("magnitude", "reconstruction", "gradient", "gradient-weight")
LEAST = 0.125
"""share of a family that always stays"""
ROWS = 8_000
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
            others = tuple(axis for axis in range(weight.ndim) if axis != use.axis)
            np.add.at(sums, traced.roots(use.atoms), np.abs(weight).sum(axis=others, dtype=np.float64))
    return [_falling(family, sums[family.roots], relative=True) for family in found]


def by_gradient(
    graph: PruneGraph, traced: Traced, found: list[ChannelGroup], gradients: Gradients, times_weight: bool
) -> list[Ranked]:
    """Needs the gradient of each sample."""
    squares = np.zeros(len(traced.parent))
    outs = [use for use in traced.uses if use.role == "out" and use.place == 1]
    roots = [traced.roots(use.atoms) for use in outs]
    samples = 0
    for gradient in gradients:
        sums = np.zeros(len(traced.parent))
        for use, root in zip(outs, roots, strict=True):
            name = graph.nodes[use.node].input[1]
            if name in gradient:
                value = gradient[name].astype(np.float64)
                others = tuple(axis for axis in range(value.ndim) if axis != use.axis)
                made = (value * graph.values[name]).sum(axis=others) if times_weight else (value**2).sum(axis=others)
                np.add.at(sums, root, made)
        squares += sums**2 if times_weight else sums
        samples += 1
    scores = np.sqrt(squares / max(1, samples))
    return [_falling(family, scores[family.roots], relative=False) for family in found]


def _falling(family: ChannelGroup, scores: Array, relative: bool) -> Ranked:
    order = np.argsort(-scores, kind="stable")
    lost = scores.sum() - np.concatenate([[0.0], np.cumsum(scores[order])])
    cost = np.maximum(lost, 0) / (max(scores.sum(), 1e-12) if relative else 1.0)
    return Ranked(family, family.roots[order], cost)


def by_reconstruction(
    graph: PruneGraph,
    traced: Traced,
    found: list[ChannelGroup],
    feeds: Feeds,
    say: Say,
    boxes: list[Array] | None = None,
) -> list[Ranked]:
    """Needs samples; `boxes`: where objects are, as in `prune_fit.refit`."""
    readers = {use.node: use for use in traced.uses if use.role == "in"}
    seen: dict[int, _Moments] = {}
    most = max(1, ROWS // len(feeds))

    def visit(number: int, live: list[Live]) -> None:
        if number in readers:
            seen[number] = _moments(live[0][graph.nodes[number].input[0]], most, readers[number].axis == 1, boxes)

    walk([graph], feeds, visit, say, "looking")
    members: dict[int, list[tuple[int, Array]]] = {}
    family_of = {int(root): index for index, family in enumerate(found) for root in family.roots}
    for number, use in readers.items():
        roots = traced.roots(use.atoms)
        owner = np.array([family_of.get(int(root), -1) for root in roots])
        for index in set(owner.tolist()) - {-1}:
            members.setdefault(index, []).append((number, owner == index))
    ranked, behind = [], _behind(graph)
    for index, family in enumerate(found):
        place = {int(root): at for at, root in enumerate(family.roots)}
        terms = []
        for number, mine in members.get(index, []):
            use = readers[number]
            weight = np.moveaxis(graph.weight(number).astype(np.float64), use.axis, 0)
            flat = weight.reshape(len(weight), -1)[mine]
            covariance = seen[number].covariance()[np.ix_(mine, mine)]
            at = np.array([place[int(root)] for root in traced.roots(use.atoms)[mine]])
            terms.append((covariance, flat @ flat.T, at))
        reached = set().union(*(behind[number] for number, _ in members.get(index, [])))
        one = _greedy(family, terms)
        # what only one of the heads sees costs less than what all of them see
        ranked.append(replace(one, cost=one.cost * len(reached) / max(1, len(behind[-1]))))
    return ranked


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


# ── single weights ───────────────────────────────────────────────────────────────────────────────────────


def masks(
    graph: PruneGraph, sparsity: float, gradients: Gradients | None = None, times_weight: bool = True
) -> dict[int, Array]:
    """For each layer which weights stay (bool, shaped as the weight), so that `sparsity` of all of them is 0.

    Depthwise convolutions keep all: they have few weights, and lose most by each (as in Zhu & Gupta 2017, arXiv
    1710.01878). With `gradients` by these, else by magnitude.
    """
    dense = [n for n in graph.layers() if not _depthwise(graph, n)]
    scores: dict[int, Array] = {}
    if gradients is None:
        for number in dense:
            weight = np.abs(graph.weight(number).astype(np.float64))
            scores[number] = weight / max(float(graph.weight(number).std()), 1e-12)
    else:
        for gradient in gradients:
            for number in dense:
                value = gradient.get(graph.nodes[number].input[1])
                if value is not None:
                    made = value.astype(np.float64) * (graph.weight(number) if times_weight else 1.0)
                    scores[number] = scores.get(number, 0.0) + made**2
    for number in scores:
        scores[number] = np.where(graph.weight(number) == 0, -1.0, scores[number])
    every = np.concatenate([s.ravel() for s in scores.values()])
    count = min(len(every), round(sparsity * sum(graph.weight(n).size for n in graph.layers())))
    if not count:
        return {number: np.ones(s.shape, bool) for number, s in scores.items()}
    # exactly so many, ties too
    chosen = np.ones(len(every), bool)
    chosen[np.argpartition(every, count - 1)[:count]] = False
    found, begin = {}, 0
    for number, score in scores.items():
        found[number] = chosen[begin : begin + score.size].reshape(score.shape)
        begin += score.size
    return found


def _depthwise(graph: PruneGraph, number: int) -> bool:
    return int(attributes(graph.nodes[number]).get("group", 1)) > 1


def zeroed(graph: PruneGraph, stay: Mapping[int, Array]) -> None:
    """Set the weights that do not stay to 0, in place."""
    for number, mask in stay.items():
        name = graph.own(number, 1)
        graph.values[name] = graph.values[name] * mask.astype(graph.values[name].dtype)
