"""How channels pass through each operator of ONNX; what has no rule here fixes all that goes into it.

Rules of layers are in layers.py, those of a change of shape in reshape.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from edge_agent.workshop.prune.axes import Atoms, Axes, Count, Traced, Use
from edge_agent.workshop.prune.graph import PruneGraph, attributes, input_at
from edge_agent.workshop.prune.layers import conv, gemm, matmul, normalised
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
    *("Softmax", "LogSoftmax", "ArgMax", "LayerNormalization", "LpNormalization"),
)

Rule = Callable[[PruneGraph, Traced, int, list[Axes]], list[Axes] | None]
"""(graph, what is known, number of the node, axes of its inputs) -> axes of its outputs; None: no rule fits"""


def follow(graph: PruneGraph, traced: Traced, number: int) -> None:
    """Give the outputs of one node their atoms."""
    node = graph.nodes[number]
    given = [traced.axes.get(name, _unknown(graph, name)) for name in node.input]
    rule = RULES.get(node.op_type) if _is_known(graph, number) else None
    found = rule(graph, traced, number, given) if rule else None
    if found is None:
        for axes in given:
            traced.fix_all(axes)
        found = [_unknown(graph, name) for name in node.output]
    for name, axes in zip(node.output, found, strict=False):
        traced.axes[name] = axes


def _unknown(graph: PruneGraph, name: str) -> Axes:
    return [None] * len(graph.shapes.get(name, ()))


def _is_known(graph: PruneGraph, number: int) -> bool:
    """Whether a node is of the standard operators, and all shapes around it are known."""
    node = graph.nodes[number]
    return node.domain in ("", "ai.onnx") and all(name in graph.shapes for name in [*node.input, *node.output] if name)


def _same(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    return [given[0]]


def _spatial(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Channels pass where an operator works on each map by itself."""
    node, axes = graph.nodes[number], given[0]
    out = graph.shapes[node.output[0]]
    if len(axes) < 3 or any(atoms is not None for atoms in axes[2:]) or len(out) != len(axes):
        return None
    channels = axes[1]
    if channels is not None and out[1] not in (None, len(channels)):
        return None
    if node.op_type == "Resize" and not _resized(graph, traced, number, channels):
        return None
    return [axes] * len(node.output)


def _resized(graph: PruneGraph, traced: Traced, number: int, channels: Atoms | None) -> bool:
    """Note that a Resize may write down how many channels there are; False where a node computes it."""
    size = input_at(graph.nodes[number], 3)
    if size in graph.values and channels is not None:
        traced.counts.append(Count(number, 3, 1, channels))
    return not size or size in graph.values


def _elementwise(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Tensors of one shape, or spread to one (numpy's rule): what meets goes together."""
    rank = max(len(axes) for axes in given)
    result: Axes = [None] * rank
    for back in range(-rank, 0):
        wide = _wide(graph, number, given, back)
        named = next((atoms for i, at in wide if (atoms := given[i][at]) is not None), None)
        if named is None:
            continue
        if not all(_meets(graph, traced, Use(number, i, at, named, "own"), given[i][at]) for i, at in wide):
            return None
        result[back] = named
    return [result]


def _wide(graph: PruneGraph, number: int, given: list[Axes], back: int) -> list[tuple[int, int]]:
    """(input, its axis) where the axis `back`, counted from the last, is not of length 1."""
    places = [(i, len(axes) + back) for i, axes in enumerate(given) if len(axes) + back >= 0]
    return [(i, at) for i, at in places if graph.shapes[graph.nodes[number].input[i]][at] != 1]


def _meets(graph: PruneGraph, traced: Traced, use: Use, own: Atoms | None) -> bool:
    """Make the atoms of an axis, or what it holds where it is a constant, one with those of `use`; False where their
    numbers differ.
    """
    name = graph.nodes[use.node].input[use.place]
    if own is not None and len(own) != len(use.atoms):
        return False
    if name in graph.values:
        traced.uses.append(use)
        return graph.shapes[name][use.axis] == len(use.atoms)
    if own is None:
        traced.fix(use.atoms)
    else:
        traced.unite(use.atoms, own)
    return True


def _concat(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    at = int(attributes(graph.nodes[number])["axis"]) % len(given[0])
    result: Axes = []
    for axis in range(len(given[0])):
        parts = [axes[axis] for axes in given]
        first = parts[0]
        if axis == at and any(part is not None for part in parts):
            first = _joined(graph, traced, number, parts, at)
            if first is None:
                return None
        elif axis != at and not all(traced.meet(first, part) for part in parts[1:]):
            return None
        result.append(first)
    return [result]


def _joined(graph: PruneGraph, traced: Traced, number: int, parts: Axes, axis: int) -> Atoms | None:
    """The atoms of an axis along which tensors are joined; what has none gets some that are fixed."""
    joined = []
    for name, part in zip(graph.nodes[number].input, parts, strict=True):
        length = graph.shapes[name][axis]
        if part is None and (length is None or name in graph.values):
            return None
        if part is None:
            part = traced.fresh(length or 0)
            traced.fix(part)
        joined.append(part)
    return np.concatenate(joined)


def _split(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Pieces of an axis; their sizes, an attribute before opset 13, become what is left of each."""
    node, axes = graph.nodes[number], given[0]
    told = attributes(node)
    at = int(told.get("axis", 0)) % len(axes)
    whole = axes[at]
    if whole is None:
        return [axes] * len(node.output)
    name = input_at(graph.nodes[number], 1)
    place: int | str = 1 if name else "split"
    if name not in graph.values if name else "split" not in told:
        return None
    lengths = [int(v) for v in (graph.values[name] if name else told["split"])]
    pieces, begin = [], 0
    for index, length in enumerate(lengths):
        piece = whole[begin : begin + length]
        traced.counts.append(Count(number, place, index, piece))
        pieces.append([*axes[:at], piece, *axes[at + 1 :]])
        begin += length
    return pieces


def _slice(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    axes, bounds = list(given[0]), _bounds(graph, number)
    if bounds is None:
        return None if any(atoms is not None for atoms in axes) else [axes]
    for index, (first, last, axis, step) in enumerate(bounds):
        whole = axes[axis]
        if whole is None:
            continue
        if step != 1 or first < 0 or last < 0:
            return None
        traced.counts.append(Count(number, 1, index, whole[:first]))
        if last <= len(whole):
            traced.counts.append(Count(number, 2, index, whole[:last]))
        axes[axis] = whole[first:last]
    return [axes]


def _bounds(graph: PruneGraph, number: int) -> list[tuple[int, ...]] | None:
    """Start, end, axis and step of each axis that a Slice cuts; None where one is computed."""
    given = graph.nodes[number].input[1:]
    constants = [graph.values[name] for name in given if name in graph.values]
    if len(constants) < max(2, len(given)):
        return None
    usual = [np.arange(len(constants[0])), np.ones(len(constants[0]))]
    columns = [values.astype(int).tolist() for values in constants + usual[len(constants) - 2 :]]
    return list(zip(*columns, strict=True))


def _transpose(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    order = attributes(graph.nodes[number]).get("perm", range(len(given[0]))[::-1])
    return [[given[0][int(axis)] for axis in order]]


def _reduced(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """What is summed up over, or normalised over, cannot shrink; other axes pass."""
    node, axes = graph.nodes[number], list(given[0])
    over = _over(graph, number, len(axes))
    if over is None:
        return None
    for axis in over:
        traced.fix(axes[axis])
        axes[axis] = None
    if not int(attributes(node).get("keepdims", 1)) and node.op_type.startswith(("Reduce", "Arg")):
        axes = [atoms for axis, atoms in enumerate(axes) if axis not in over]
    return [axes] * len(node.output)


def _over(graph: PruneGraph, number: int, rank: int) -> set[int] | None:
    """The axes that an operator runs over, of a tensor of `rank`; None where that is not known."""
    node = graph.nodes[number]
    if node.op_type == "LayerNormalization":
        return set(range(int(attributes(node).get("axis", -1)) % rank, rank))
    where = _stated_axes(graph, node)
    if node.op_type in ("Softmax", "LogSoftmax"):
        last = where is None or where[0] % rank == rank - 1
        return {rank - 1} if last else None  # before opset 13 it runs over all that follows
    return None if where is None else {axis % rank for axis in where}


def _stated_axes(graph: PruneGraph, node: onnx.NodeProto) -> list[int] | None:
    """The axes that an attribute or a constant names; None where neither does."""
    told = attributes(node)
    where = told.get("axes", told.get("axis"))
    if len(node.input) > 1 and node.op_type.startswith("Reduce"):
        constant = graph.values.get(node.input[1])
        where = None if constant is None else constant.tolist()
    if where is None:
        return None
    return [int(axis) for axis in (where if isinstance(where, list | tuple) else [where])]


RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _same),
    **dict.fromkeys(BINARY, _elementwise),
    **dict.fromkeys(SPATIAL, _spatial),
    **dict.fromkeys(REDUCING, _reduced),
    "Conv": conv,
    "ConvTranspose": conv,
    "MatMul": matmul,
    "Gemm": gemm,
    "BatchNormalization": normalised,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Transpose": _transpose,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeezed,
    "Unsqueeze": squeezed,
}
