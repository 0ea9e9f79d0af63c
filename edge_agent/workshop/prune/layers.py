"""How channels pass through layers: new ones are made, those that came are read (rules as in rules.py)."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from edge_agent.workshop.prune.axes import Atoms, Axes, Count, Traced, Use
from edge_agent.workshop.prune.graph import PruneGraph, attributes, input_at, weight_at


def conv(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Full convolutions make new channels; depthwise ones keep each where it is; other groups cannot shrink."""
    node, axes = graph.nodes[number], given[0]
    if not weight_at(node, graph.values):
        return None
    groups = int(attributes(node).get("group", 1))
    made = _full(graph, traced, number, axes[1]) if groups == 1 else _depthwise(graph, traced, number, axes[1], groups)
    if made is None or not _bias(graph, traced, number, made):
        return None
    return [[None, made, *[None] * (len(axes) - 2)]]


def _full(graph: PruneGraph, traced: Traced, number: int, came: Atoms | None) -> Atoms:
    """The new channels of a convolution that reads all of those that `came`."""
    inner, outer = (0, 1) if graph.nodes[number].op_type == "ConvTranspose" else (1, 0)
    made = traced.fresh(graph.weight(number).shape[outer])
    if came is not None:
        traced.uses.append(Use(number, 1, inner, came, "in"))
    traced.uses.append(Use(number, 1, outer, made, "out"))
    return made


def _depthwise(graph: PruneGraph, traced: Traced, number: int, came: Atoms | None, groups: int) -> Atoms | None:
    """The channels behind a convolution of each by itself; None where it takes several together."""
    shape = graph.weight(number).shape
    one_each = came is not None and groups == len(came) and shape[1] == 1
    if came is None or not one_each or graph.nodes[number].op_type == "ConvTranspose":
        return None
    made: Atoms = np.repeat(came, shape[0] // groups)
    traced.counts.append(Count(number, "group", -1, came))
    traced.uses.append(Use(number, 1, 0, made, "own"))
    return made


def _bias(graph: PruneGraph, traced: Traced, number: int, made: Atoms) -> bool:
    """Note that the third input has a number for each channel; False where it is no constant."""
    name = input_at(graph.nodes[number], 2)
    if name in graph.values:
        traced.uses.append(Use(number, 2, 0, made, "own"))
    return not name or name in graph.values


def matmul(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """By a constant: a layer. Of two tensors: their inner axes meet, and so do those that count products."""
    node, (one, other) = graph.nodes[number], given[:2]
    if weight_at(node, graph.values):
        weight = graph.weight(number)
        if weight.ndim != 2:
            return None
        if one[-1] is not None:
            traced.uses.append(Use(number, 1, 0, one[-1], "in"))
        made = traced.fresh(weight.shape[1])
        traced.uses.append(Use(number, 1, 1, made, "out"))
        return [[*one[:-1], made]]
    if any(name in graph.values for name in node.input) or min(len(one), len(other)) < 2:
        return None
    if not traced.meet(one[-1], other[-2]):
        return None
    batch: Axes = []
    for a, b in reversed(list(zip_longest(reversed(one[:-2]), reversed(other[:-2])))):
        if not traced.meet(a, b):
            return None
        batch.append(a)
    return [[*batch, one[-2], other[-1]]]


def gemm(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """A layer whose weight may be turned."""
    node, given_as = graph.nodes[number], attributes(graph.nodes[number])
    if not weight_at(node, graph.values) or given_as.get("transA", 0):
        return None
    turned = bool(given_as.get("transB", 0))
    if given[0][1] is not None:
        traced.uses.append(Use(number, 1, 1 if turned else 0, given[0][1], "in"))
    made = traced.fresh(graph.weight(number).shape[0 if turned else 1])
    traced.uses.append(Use(number, 1, 0 if turned else 1, made, "out"))
    if name := input_at(graph.nodes[number], 2):
        bias = graph.values.get(name)
        if bias is None or bias.shape[-1:] != (len(made),):
            traced.fix(made)
        else:
            traced.uses.append(Use(number, 2, bias.ndim - 1, made, "own"))
    return [[given[0][0], made]]


def normalised(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Batch normalisation: four numbers a channel."""
    node, axes = graph.nodes[number], given[0]
    if axes[1] is not None:
        if any(name not in graph.values for name in node.input[1:5]):
            return None
        traced.uses += [Use(number, place, 0, axes[1], "own") for place in range(1, 5)]
    return [axes]
