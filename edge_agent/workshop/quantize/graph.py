"""An ONNX network cut into the layers that are quantized or left alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""operators that hold the weights and cost the time"""


@dataclass(frozen=True, slots=True)
class QuantizableLayer:
    """An operator with weights and the operators without that work on its output, up to the next ones with weights."""

    name: str
    """of the operator with weights"""
    op: str
    weight: str
    """name of its constant"""
    nodes: tuple[str, ...]
    """names of all operators of the layer, its own first"""
    depthwise: bool = False
    """a convolution of one input channel a group"""


def opset(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators."""
    return max((int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1)


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    """The initialisers by name."""
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Tensor -> the node that makes it."""
    return {output: node for node in model.graph.node for output in node.output if output}


def readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Tensor -> the nodes that read it."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for given in set(node.input) - {""}:
            found.setdefault(given, []).append(node)
    return found


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute; `default` where the node has none of that name."""
    return next((onnx.helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def layers(model: onnx.ModelProto) -> list[QuantizableLayer]:
    """The layers, in the order of the graph. Operators before the first one belong to none."""
    weights = {one.name: one.dims for one in model.graph.initializer}
    found: dict[str, list[onnx.NodeProto]] = {}
    of: dict[str, str] = {}
    """tensor -> layer"""
    for node in model.graph.node:
        if node.op_type in WEIGHTED and node.input[1] in weights:
            of.update(dict.fromkeys(node.output, node.name))
            found[node.name] = [node]
            continue
        owner = next((of[given] for given in node.input if given in of), None)
        if owner is not None:
            of.update(dict.fromkeys(node.output, owner))
            found[owner].append(node)
    return [_layer(name, nodes, weights) for name, nodes in found.items()]


def _layer(name: str, nodes: list[onnx.NodeProto], weights: Mapping[str, Sequence[int]]) -> QuantizableLayer:
    """A layer of these nodes, the first of which has the weights; `weights`: name -> shape."""
    first = nodes[0]
    depthwise = first.op_type == "Conv" and attribute(first, "group", 1) > 1 and weights[first.input[1]][1] == 1
    return QuantizableLayer(name, first.op_type, first.input[1], tuple(node.name for node in nodes), depthwise)


def tail(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes behind the last layer with weights on every way: what joins boxes and scores, for one.

    They cost little, and one scale does not serve what they join.
    """
    before = _before(model, [layer.name for layer in layers(model)])
    own = {layer.name for layer in layers(model)}
    return {node.name for node in model.graph.node} - before - own


def head(model: onnx.ModelProto) -> list[QuantizableLayer]:
    """The layers that no other one reads: those that give boxes and scores."""
    made = layers(model)
    before = _before(model, [layer.name for layer in made])
    return [layer for layer in made if layer.name not in before]


def delicate(model: onnx.ModelProto) -> set[str]:
    """Names of nodes that eight bits do not serve: Softmax, and Pad with a value that is not finite."""
    known = constants(model)
    found = {node.name for node in model.graph.node if node.op_type in ("Softmax", "LogSoftmax", "LayerNormalization")}
    for node in model.graph.node:
        if node.op_type == "Pad" and len(node.input) > 2 and node.input[2] in known:
            value = np.asarray(known[node.input[2]], np.float64)
            if value.size and not np.isfinite(value).all():
                found.add(node.name)
    return found


def _before(model: onnx.ModelProto, names: Iterable[str]) -> set[str]:
    """Names of all nodes whose output reaches one of these nodes."""
    made, nodes = makers(model), {node.name: node for node in model.graph.node}
    seen: set[str] = set()
    stack = [given for name in names for given in nodes[name].input]
    while stack:
        node = made.get(stack.pop())
        if node is not None and node.name not in seen:
            seen.add(node.name)
            stack += node.input
    return seen
