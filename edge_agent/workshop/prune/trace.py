"""Which channels of a network go together, so that one can be taken out and the rest still fits.

Each layer's output channels are new atoms. They are followed through the network, axis by axis, to every constant that
has an entry for them; where two tensors meet (a sum, a product) their atoms are made one. Atoms that reach an output, a
normalisation over channels, or an operator that is not known here, are fixed. What is left are groups of atoms that can
go together (Fang et al., "DepGraph: Towards Any Structural Pruning", arXiv 2301.12900, has the idea).

Operators that only move, pool or resize are in moving.py.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

import numpy as np
import onnx_ir as ir

from edge_agent.workshop.graph.net import held, is_layer, numbers, shape
from edge_agent.workshop.prune.channels import Atoms, Axes, Count, Traced, Use
from edge_agent.workshop.prune.moving import MOVING, moved

UNARY = (
    *("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid", "HardSwish", "Gelu", "Erf", "Exp", "Log", "Sqrt"),
    *("Abs", "Neg", "Reciprocal", "Softplus", "Elu", "Selu", "Celu", "Mish", "Identity", "Cast", "Dropout", "Floor"),
    *("Ceil", "Round", "ThresholdedRelu", "Softsign", "Swish"),
)
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu", "Sum", "Mean")
NORMALISING = ("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "LpNormalization")
Rule = Callable[[Traced, ir.Node, list[Axes]], "list[Axes] | None"]
"""(what is known, node, axes of its inputs) -> axes of its outputs; None: no rule fits"""


def trace(model: ir.Model) -> Traced:
    """Follow all channels."""
    traced = Traced(opsets=dict(model.opset_imports))
    for node in model.graph:
        given = [traced.of(value) for value in node.inputs]
        found = _followed(traced, node, given) if _is_known(node) else None
        if found is None:
            traced.fix([atoms for axes in given for atoms in axes])
        traced.axes.update(zip(node.outputs, found or [], strict=False))
    for value in model.graph.outputs:
        traced.fix(traced.of(value))
    return traced


def _is_known(node: ir.Node) -> bool:
    """Whether a node is of the standard operators, and the ranks of all tensors around it are known."""
    around = [value for value in (*node.inputs, *node.outputs[:1]) if value is not None]
    return node.domain in ("", "ai.onnx") and all(shape(value) is not None for value in around)


def _followed(traced: Traced, node: ir.Node, given: list[Axes]) -> list[Axes] | None:
    """The atoms of what a node gives; None: no rule fits."""
    if is_layer(node):
        made = LAYERS[node.op_type](traced, node, given[0])
        return None if made is None else [made]
    if all(atoms is None for axes in given for atoms in axes):
        return []
    rule = RULES.get(node.op_type)
    return None if rule is None else rule(traced, node, given)


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────


def _layer(traced: Traced, node: ir.Node, came: Atoms | None, inner: int, outer: int) -> Atoms | None:
    """New channels along the axis `outer` of a weight that is multiplied by those that `came` along `inner`."""
    made = traced.fresh(numbers(node.inputs[1]).shape[outer])
    if came is not None:
        traced.uses.append(Use(node, 1, inner, came, "in"))
    traced.uses.append(Use(node, 1, outer, made, "out"))
    return made if _bias(traced, node, made) else None


def _bias(traced: Traced, node: ir.Node, made: Atoms) -> bool:
    """Note that the third input has a number for each channel; False where it is no constant."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    bias = held(node.inputs[2])
    if bias is None or bias.shape[-1:] != (len(made),):
        return bias is not None and bias.size == 1
    traced.uses.append(Use(node, 2, bias.ndim - 1, made, "own"))
    return True


def _conv(traced: Traced, node: ir.Node, axes: Axes) -> Axes | None:
    """Full convolutions make new channels; depthwise ones keep each where it is; other groups cannot shrink."""
    turned = node.op_type == "ConvTranspose"
    if any(atoms is not None for atoms in axes[2:]):
        return None
    if node.attributes.get_int("group", 1) == 1:
        made = _layer(traced, node, axes[1], 0 if turned else 1, 1 if turned else 0)
    else:
        made = None if turned else _depthwise(traced, node, axes[1])
    return None if made is None else [None, made, *[None] * (len(axes) - 2)]


def _depthwise(traced: Traced, node: ir.Node, came: Atoms | None) -> Atoms | None:
    """The channels behind a convolution of each by itself; None where it takes several together."""
    weight = numbers(node.inputs[1])
    if came is None or node.attributes.get_int("group", 1) != len(came) or weight.shape[1] != 1:
        return None
    made: Atoms = np.repeat(came, len(weight) // len(came))
    traced.counts.append(Count(node, "group", -1, came))
    traced.uses.append(Use(node, 1, 0, made, "own"))
    return made if _bias(traced, node, made) else None


def _dense(traced: Traced, node: ir.Node, axes: Axes) -> Axes | None:
    """MatMul by a matrix, and Gemm, which `net.plain` has turned."""
    if numbers(node.inputs[1]).ndim != 2:
        return None
    made = _layer(traced, node, axes[-1], 0, 1)
    return None if made is None else [*axes[:-1], made]


LAYERS = {"Conv": _conv, "ConvTranspose": _conv, "MatMul": _dense, "Gemm": _dense}


# ── what is between them ─────────────────────────────────────────────────────────────────────────────────


def _product(traced: Traced, node: ir.Node, given: list[Axes]) -> list[Axes] | None:
    """Of two computed tensors: their inner axes meet, and so do those that count products."""
    one, other = given
    if any(held(value) is not None for value in node.inputs) or min(len(one), len(other)) < 2:
        return None
    pairs = list(zip_longest(reversed(one[:-2]), reversed(other[:-2])))[::-1]
    if not all([traced.meet(one[-1], other[-2]), *(traced.meet(a, b) for a, b in pairs)]):
        return None
    return [[*(a for a, _ in pairs), one[-2], other[-1]]]


def _normalised(traced: Traced, node: ir.Node, given: list[Axes]) -> list[Axes] | None:
    """Batch normalisation: four numbers a channel."""
    if any(held(value) is None for value in node.inputs[1:5]):
        return None
    if given[0][1] is not None:
        traced.uses += [Use(node, place, 0, given[0][1], "own") for place in range(1, 5)]
    return [given[0]]


def _over(traced: Traced, node: ir.Node, given: list[Axes]) -> list[Axes] | None:
    """What is normalised over cannot shrink; other axes pass."""
    axes, rank = list(given[0]), len(given[0])
    old = traced.opsets.get("", 1) < 13 and node.op_type.endswith("Softmax")
    axis = node.attributes.get_int("axis", 1 if old else -1) % rank
    if old and axis != rank - 1:
        return None  # before opset 13 it runs over all that follows
    for at in range(axis, rank if node.op_type in ("LayerNormalization", "RMSNormalization") else axis + 1):
        traced.fix([axes[at]])
        axes[at] = None
    return [axes]


def _elementwise(traced: Traced, node: ir.Node, given: list[Axes]) -> list[Axes] | None:
    """Tensors of one shape, or spread to one (numpy's rule): what meets goes together."""
    rank = max(len(axes) for axes in given)
    result: Axes = []
    for back in range(-rank, 0):
        wide = [(i, len(axes) + back) for i, axes in enumerate(given) if _is_wide(node.inputs[i], len(axes) + back)]
        named = next((atoms for i, at in wide if (atoms := given[i][at]) is not None), None)
        if named is not None and not _meet(traced, [Use(node, i, at, named, "own") for i, at in wide], given):
            return None
        result.append(named)
    return [result]


def _is_wide(value: ir.Value, at: int) -> bool:
    """Whether a tensor has that axis, and it is not of length 1."""
    return at >= 0 and (shape(value) or ())[at] != 1


def _meet(traced: Traced, uses: list[Use], given: list[Axes]) -> bool:
    """Make the atoms of an axis of several tensors, or what it holds of a constant, one; False where their numbers
    differ.
    """
    for use in uses:
        array, own = held(use.node.inputs[use.place]), given[use.place][use.axis]
        if array is not None:
            traced.uses.append(use)
            same = int(array.shape[use.axis]) == len(use.atoms)
        elif own is None:
            traced.fix([use.atoms])
            same = True
        else:
            same = traced.meet(use.atoms, own)
        if not same:
            return False
    return True


RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, lambda traced, node, given: given[:1]),
    **dict.fromkeys(BINARY, _elementwise),
    **dict.fromkeys(NORMALISING, _over),
    **dict.fromkeys(MOVING, moved),
    "MatMul": _product,
    "BatchNormalization": _normalised,
}
