"""How channels pass through each operator of ONNX; what has no rule here fixes all that goes into it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

import numpy as np

from edge_agent.workshop.prune.axes import Axes, Count, Traced, Use
from edge_agent.workshop.prune.graph import PruneGraph, attributes, weight_at
from edge_agent.workshop.prune.reshape import flatten, reshape, squeezed

UNARY = (
    *("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid", "HardSwish", "Gelu", "Erf", "Exp", "Log", "Sqrt"),
    *("Abs", "Neg", "Reciprocal", "Softplus", "Elu", "Selu", "Celu", "Mish", "Identity", "Cast", "Dropout", "Floor"),
    *("Ceil", "Round", "ThresholdedRelu", "Softsign", "Swish"),
)
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu", "Sum", "Mean")
SPATIAL = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "Resize", "Upsample", "Pad")
REDUCING = (
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceProd", "ReduceSumSquare"),
    *("Softmax", "LogSoftmax", "ArgMax", "LayerNormalization", "LpNormalization", "InstanceNormalization"),
)

Rule = Callable[[PruneGraph, Traced, int, list[Axes]], list[Axes] | None]
"""(graph, what is known, number of the node, axes of its inputs) -> axes of its outputs; None: no rule fits"""


def follow(graph: PruneGraph, traced: Traced, number: int) -> None:
    """Give the outputs of one node their atoms."""
    node = graph.nodes[number]
    given: list[Axes] = []
    for name in node.input:
        unknown: Axes = [None] * len(graph.shapes.get(name, ()))
        given.append(traced.axes.get(name, unknown))
    known = all(name in graph.shapes for name in [*node.input, *node.output] if name)
    rule = RULES.get(node.op_type) if known and node.domain in ("", "ai.onnx") else None
    found = rule(graph, traced, number, given) if rule else None
    if found is None:
        for axes in given:
            traced.fix_all(axes)
        found = [[None] * len(graph.shapes.get(name, ())) for name in node.output]
    for name, axes in zip(node.output, found, strict=False):
        traced.axes[name] = axes


def _same(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    return [given[0]]


def _spatial(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Channels pass where an operator works on each map by itself."""
    node, axes = graph.nodes[number], given[0]
    out = graph.shapes[node.output[0]]
    if len(axes) < 3 or any(atoms is not None for atoms in axes[2:]) or len(out) != len(axes):
        return None
    if axes[1] is not None and out[1] not in (None, len(axes[1])):
        return None
    if node.op_type == "Resize" and len(node.input) > 3 and node.input[3]:
        if node.input[3] not in graph.values:
            return None
        if axes[1] is not None:
            traced.counts.append(Count(number, 3, 1, axes[1]))
    return [axes] * len(node.output)


def _elementwise(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Tensors of one shape, or spread to one (numpy's rule): what meets goes together."""
    node = graph.nodes[number]
    rank = max(len(axes) for axes in given)
    result: Axes = [None] * rank
    shapes = [graph.shapes[name] for name in node.input]
    for axis in range(rank):
        places = [(i, axis - rank + len(axes)) for i, axes in enumerate(given) if axis - rank + len(axes) >= 0]
        wide = [(i, at) for i, at in places if shapes[i][at] != 1]
        atoms = [given[i][at] for i, at in wide]
        named = next((a for a in atoms if a is not None), None)
        if named is None:
            continue
        if any(a is not None and len(a) != len(named) for a in atoms):
            return None
        for (i, at), own in zip(wide, atoms, strict=True):
            if node.input[i] in graph.values:
                if shapes[i][at] != len(named):
                    return None
                traced.uses.append(Use(number, i, at, named, "own"))
            elif own is None:
                traced.fix(named)
            else:
                traced.unite(named, own)
        result[axis] = named
    return [result]


def _conv(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Full convolutions make new channels; depthwise ones keep each where it is; other groups cannot shrink."""
    node, axes = graph.nodes[number], given[0]
    if not weight_at(node, graph.values):
        return None
    groups, shape, came = int(attributes(node).get("group", 1)), graph.weight(number).shape, axes[1]
    swapped = node.op_type == "ConvTranspose"
    if groups == 1:
        made = traced.fresh(shape[1 if swapped else 0])
        if came is not None:
            traced.uses.append(Use(number, 1, 0 if swapped else 1, came, "in"))
        role = "out"
    elif came is not None and groups == len(came) and shape[1] == 1 and not swapped:
        made, role = np.repeat(came, shape[0] // groups), "own"
        traced.counts.append(Count(number, "group", -1, came))
    else:
        return None
    traced.uses.append(Use(number, 1, 1 if swapped else 0, made, "out" if role == "out" else "own"))
    if len(node.input) > 2 and node.input[2]:
        if node.input[2] not in graph.values:
            return None
        traced.uses.append(Use(number, 2, 0, made, "own"))
    return [[None, made, *[None] * (len(axes) - 2)]]


def _matmul(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
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
    if not _meet(traced, one[-1], other[-2]):
        return None
    batch: Axes = []
    for a, b in reversed(list(zip_longest(reversed(one[:-2]), reversed(other[:-2])))):
        if not _meet(traced, a, b):
            return None
        batch.append(a)
    return [[*batch, one[-2], other[-1]]]


def _meet(traced: Traced, one: object, other: object) -> bool:
    """Both are the same axis of a product."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if len(one) != len(other):
            return False
        traced.unite(one, other)
        return True
    return one is None and other is None


def _gemm(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    node, given_as = graph.nodes[number], attributes(graph.nodes[number])
    if not weight_at(node, graph.values) or given_as.get("transA", 0):
        return None
    turned = bool(given_as.get("transB", 0))
    if given[0][1] is not None:
        traced.uses.append(Use(number, 1, 1 if turned else 0, given[0][1], "in"))
    made = traced.fresh(graph.weight(number).shape[0 if turned else 1])
    traced.uses.append(Use(number, 1, 0 if turned else 1, made, "out"))
    if len(node.input) > 2 and node.input[2]:
        bias = graph.values.get(node.input[2])
        if bias is None or bias.shape[-1:] != (len(made),):
            traced.fix(made)
        else:
            traced.uses.append(Use(number, 2, bias.ndim - 1, made, "own"))
    return [[given[0][0], made]]


def _normalised(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Batch normalisation: four numbers a channel."""
    node, axes = graph.nodes[number], given[0]
    if axes[1] is not None:
        if any(name not in graph.values for name in node.input[1:5]):
            return None
        traced.uses += [Use(number, place, 0, axes[1], "own") for place in range(1, 5)]
    return [axes]


def _concat(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    node = graph.nodes[number]
    at = int(attributes(node)["axis"]) % len(given[0])
    result: Axes = []
    for axis in range(len(given[0])):
        parts = [axes[axis] for axes in given]
        if axis != at:
            first = parts[0]
            if not all(_meet(traced, first, part) for part in parts[1:]):
                return None
            result.append(first)
        elif all(part is None for part in parts):
            result.append(None)
        else:
            joined = []
            for name, part in zip(node.input, parts, strict=True):
                length = graph.shapes[name][axis]
                if part is None and (length is None or name in graph.values):
                    return None
                if part is None:
                    part = traced.fresh(length or 0)
                    traced.fix(part)
                joined.append(part)
            result.append(np.concatenate(joined))
    return [result]


def _split(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Pieces of an axis; their sizes, an attribute before opset 13, become what is left of each."""
    node, axes = graph.nodes[number], given[0]
    told = attributes(node)
    at = int(told.get("axis", 0)) % len(axes)
    whole = axes[at]
    if whole is None:
        return [axes] * len(node.output)
    place: int | str = 1 if len(node.input) > 1 and node.input[1] else "split"
    if place == 1 and node.input[1] not in graph.values:
        return None
    if place == "split" and "split" not in told:
        return None
    lengths = [int(v) for v in (graph.values[node.input[1]] if place == 1 else told["split"])]
    pieces, begin = [], 0
    for index, length in enumerate(lengths):
        piece = whole[begin : begin + length]
        traced.counts.append(Count(number, place, index, piece))
        pieces.append([*axes[:at], piece, *axes[at + 1 :]])
        begin += length
    return pieces


def _slice(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    node, axes = graph.nodes[number], list(given[0])
    constants = [graph.values.get(name) for name in node.input[1:]]
    if len(node.input) < 3 or any(c is None for c in constants):
        return None if any(a is not None for a in axes) else [axes]
    starts, ends = graph.values[node.input[1]], graph.values[node.input[2]]
    where = graph.values[node.input[3]] if len(node.input) > 3 and node.input[3] else np.arange(len(starts))
    steps = graph.values[node.input[4]] if len(node.input) > 4 and node.input[4] else np.ones(len(starts), int)
    for index, axis in enumerate(int(a) % len(axes) for a in where):
        whole = axes[axis]
        if whole is None:
            continue
        first, last = int(starts[index]), int(ends[index])
        if int(steps[index]) != 1 or first < 0 or last < 0:
            return None
        traced.counts.append(Count(number, 1, index, whole[:first]))
        if last <= len(whole):
            traced.counts.append(Count(number, 2, index, whole[:last]))
        axes[axis] = whole[first:last]
    return [axes]


def _transpose(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    order = attributes(graph.nodes[number]).get("perm", range(len(given[0]))[::-1])
    return [[given[0][int(axis)] for axis in order]]


def _reduced(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """What is summed up over, or normalised over, cannot shrink; other axes pass."""
    node, axes = graph.nodes[number], list(given[0])
    told = attributes(node)
    where = told.get("axes", told.get("axis"))
    if len(node.input) > 1 and node.op_type.startswith("Reduce"):
        constant = graph.values.get(node.input[1])
        where = None if constant is None else constant.tolist()
    if node.op_type == "LayerNormalization":
        where = list(range(int(told.get("axis", -1)) % len(axes), len(axes)))
    if node.op_type in ("Softmax", "LogSoftmax"):
        where = -1 if where is None else int(where)
        if where % len(axes) != len(axes) - 1:
            return None  # before opset 13 it runs over all that follows
    if node.op_type == "InstanceNormalization":
        return None
    if where is None:
        return None
    over = {int(a) % len(axes) for a in (where if isinstance(where, list | tuple) else [where])}
    for axis in over:
        traced.fix(axes[axis])
        axes[axis] = None
    if not int(told.get("keepdims", 1)) and node.op_type.startswith(("Reduce", "Arg")):
        axes = [atoms for axis, atoms in enumerate(axes) if axis not in over]
    return [axes] * len(node.output)


RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _same),
    **dict.fromkeys(BINARY, _elementwise),
    **dict.fromkeys(SPATIAL, _spatial),
    **dict.fromkeys(REDUCING, _reduced),
    "Conv": _conv,
    "ConvTranspose": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "BatchNormalization": _normalised,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Transpose": _transpose,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeezed,
    "Unsqueeze": squeezed,
}
