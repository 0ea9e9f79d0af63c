"""Equalisation: what is done to a float network that was trained here, so that it loses less once it is quantized.

Of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721), on data.
Each constant has one reader here (`net.one_each`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, is_computed, numbers, shape
from edge_agent.workshop.quantize.ranges import TensorRange

MOST = 16.0
"""by which a channel is scaled at most, either way"""
SCALES = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")
"""f(s·x) = s·f(x) for s > 0, channel by channel"""
Reading = list[tuple[ir.Node, int]]
"""convolutions that read a tensor, and the place of its first channel among their inputs"""


def equalized(model: ir.Model, seen: Mapping[str, TensorRange]) -> tuple[ir.Model, int]:
    """The same network with channels of like size, so that one scale serves a tensor; and how many layers changed.

    Between a convolution and those that read it, with nothing but operators of SCALES, nearest Resize and Concat on the
    way, a channel may be divided by a positive number if the readers multiply by it. The number is the channel's
    greatest value on data, `seen`; where a full convolution reads it, the root of that value over the weights that read
    it, since their rows have one scale each as well; all over their geometric mean, and within MOST either way.
    """
    made, count = model.clone(), 0
    for node in _convolutions(made):
        top = _sizes(seen, node)
        reading = _reading(node.outputs[0])
        if len(top) and reading and all(_scalable(reader) for reader, _ in reading):
            count += 1
            _scale(node, reading, top)
    return made, count


def _convolutions(model: ir.Model) -> list[ir.Node]:
    """Those whose weights, and biases, are constants."""
    nodes = [node for node in net.layers(model) if node.op_type == "Conv"]
    return [node for node in nodes if not any(is_computed(value) for value in node.inputs[1:])]


def _sizes(seen: Mapping[str, TensorRange], node: ir.Node) -> Array:
    """Greatest value of each channel behind the activation that follows `node`, which alone reads it."""
    value = node.outputs[0]
    after = list(value.consumers())
    if len(after) == 1 and after[0].op_type in ("Relu", "LeakyRelu"):
        value = after[0].outputs[0]
    found = seen[value.name].channel_high if value.name in seen else np.zeros(0)
    return np.maximum(found, 1e-6).astype(np.float32)


def _reading(value: ir.Value, first: int = 0) -> Reading | None:
    """The convolutions that read the tensor; None where something else reads it as well."""
    if value.is_graph_output():
        return None
    found: Reading = []
    for use in value.uses():
        if use.node.op_type == "Conv" and use.idx == 0:
            found.append((use.node, first))
            continue
        before = _before(use.node, use.idx)
        further = None if before is None else _reading(use.node.outputs[0], first + before)
        if further is None:
            return None
        found += further
    return found


def _before(node: ir.Node, place: int) -> int | None:
    """How many channels stand before those of its input `place` in what a node makes; None where they are not scaled as
    they come.
    """
    if node.op_type == "Concat":
        return _joined_before(node, place)
    nearest = node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") == "nearest"
    return 0 if place == 0 and (nearest or node.op_type in SCALES) else None


def _joined_before(node: ir.Node, place: int) -> int | None:
    widths = [(shape(value) or (None, None))[1] for value in node.inputs[:place]]
    once = list(node.inputs).count(node.inputs[place]) == 1
    known = [width for width in widths if width is not None]
    return sum(known) if once and len(known) == place and node.attributes.get_int("axis") == 1 else None


def _scalable(node: ir.Node) -> bool:
    """Whether a reading convolution is a full or a plain depthwise one, of constant weights."""
    weight, groups = net.constant(node, 1), node.attributes.get_int("group", 1)
    return weight is not None and (groups == 1 or (weight.shape[0] == groups and weight.shape[1] == 1))


def _scale(node: ir.Node, reading: Reading, top: Array) -> None:
    """Divide the channels that `node` gives by their factors, and multiply where they are read."""
    read = np.zeros(len(top), np.float32)
    for reader, first in reading:
        if reader.attributes.get_int("group", 1) == 1:
            rows = numbers(reader.inputs[1])[:, first : first + len(top)]
            read = np.maximum(read, np.abs(rows).max(axis=tuple(i for i in range(rows.ndim) if i != 1)))
    factor = np.sqrt(top / np.maximum(read, 1e-6)) if read.any() else top
    factor = np.clip(factor / np.exp(np.log(factor).mean()), 1 / MOST, MOST).astype(np.float32)
    for value in node.inputs[1:]:
        if value is not None:
            net.put(value, np.asarray((numbers(value).T / factor).T, np.float32))
    for reader, first in reading:
        part, rows = slice(first, first + len(top)), np.array(numbers(reader.inputs[1]), np.float32)
        depthwise = reader.attributes.get_int("group", 1) > 1
        turned = rows if depthwise else rows.swapaxes(0, 1)
        turned[part] = (turned[part].T * factor).T
        net.put(reader.inputs[1], rows)
