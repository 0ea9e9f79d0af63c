"""Which single weights go first, and setting them to 0."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_agent.workshop.prune.choose import Gradients
from edge_agent.workshop.prune.graph import Array, PruneGraph, attributes


def masks(
    graph: PruneGraph, sparsity: float, gradients: Gradients | None = None, times_weight: bool = True
) -> dict[int, Array]:
    """For each layer which weights stay (bool, shaped as the weight), so that `sparsity` of all of them is 0.

    Depthwise convolutions keep all: they have few weights, and lose most by each (as in Zhu & Gupta 2017, arXiv
    1710.01878). With `gradients` by these, else by magnitude.
    """
    dense = [n for n in graph.layers() if not _depthwise(graph, n)]
    scores = _by_magnitude(graph, dense) if gradients is None else _by_gradient(graph, dense, gradients, times_weight)
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


def _by_magnitude(graph: PruneGraph, layers: list[int]) -> dict[int, Array]:
    """|w| over the layer's standard deviation."""
    weights = {number: graph.weight(number) for number in layers}
    return {n: np.abs(w.astype(np.float64)) / max(float(w.std()), 1e-12) for n, w in weights.items()}


def _by_gradient(graph: PruneGraph, layers: list[int], gradients: Gradients, times_weight: bool) -> dict[int, Array]:
    """The square of the gradient, or of gradient × weight, over all samples."""
    scores: dict[int, Array] = {}
    for gradient in gradients:
        for number in layers:
            value = gradient.get(graph.nodes[number].input[1])
            if value is not None:
                made = value.astype(np.float64) * (graph.weight(number) if times_weight else 1.0)
                scores[number] = scores.get(number, 0.0) + made**2
    return scores


def _depthwise(graph: PruneGraph, number: int) -> bool:
    return int(attributes(graph.nodes[number]).get("group", 1)) > 1


def zeroed(graph: PruneGraph, stay: Mapping[int, Array]) -> None:
    """Set the weights that do not stay to 0, in place."""
    for number, mask in stay.items():
        name = graph.own(number, 1)
        graph.values[name] = graph.values[name] * mask.astype(graph.values[name].dtype)
