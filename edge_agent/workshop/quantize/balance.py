"""What is done to a float network before it is quantized, so that it loses less: equalisation and bias correction.

Both are of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721),
on data where there is some. Each constant has one reader here (`net.one_each`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, is_computed, numbers, shape
from edge_agent.workshop.quantize.ranges import Interval, TensorRange, seeing

MOST = 16.0
"""by which a channel is scaled at most, either way"""
SCALES = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")
"""f(s·x) = s·f(x) for s > 0, channel by channel"""
Feeds = Callable[[], Iterable[Mapping[str, npt.NDArray[np.generic]]]]
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


# ── bias correction ──────────────────────────────────────────────────────────────────────────────────────


def corrected(
    model: ir.Model, nodes: Iterable[str], ranges: Mapping[str, Interval], per: str, bits: str, feeds: Feeds
) -> ir.Model:
    """The network whose convolutions `nodes` are right on average once quantized: b' = b - (Σ W_q·E[Q(x)] - Σ W·E[x]).

    E is the mean of each input channel over data, Q(x) the input clipped and rounded as it will be, W_q the rounded
    weights. The borders of the picture are taken to be like its inside.
    """
    made, wanted = model.clone(), set(nodes)
    convs = [node for node in _convolutions(made) if node.name in wanted and node.inputs[0].name in ranges]
    convs = [node for node in convs if net.constant(node, 2) is not None]
    names = sorted({str(node.inputs[0].name) for node in convs})
    means = _means(model, names, ranges, 16 if bits == "16" else 8, feeds)
    for node in convs:
        weight, groups = numbers(node.inputs[1]).astype(np.float64), node.attributes.get_int("group", 1)
        real, rounded = means[str(node.inputs[0].name)]
        wrong = _sums(rounded_weight(weight, per, bits), rounded, groups) - _sums(weight, real, groups)
        net.put(node.inputs[2], np.asarray(numbers(node.inputs[2]).astype(np.float64) - wrong, np.float32))
    return made


def rounded_weight(weight: npt.NDArray[np.float64], per: str, bits: str = "8") -> npt.NDArray[np.float64]:
    """Convolution weights as eight bits keep them: step = max|w| / 127 of an output channel or of the tensor; of seven
    bits it is max|w| / 64.
    """
    axes = tuple(range(1, weight.ndim)) if per == "channel" else None
    step = np.maximum(np.abs(weight).max(axis=axes, keepdims=True), 1e-12) / (64 if bits == "7w" else 127)
    rounded: npt.NDArray[np.float64] = np.rint(weight / step) * step
    return rounded


def _sums(weight: npt.NDArray[np.float64], mean: npt.NDArray[np.float64], groups: int) -> npt.NDArray[np.float64]:
    """Σ over a kernel of weight (cout, cin / groups, ...) times the mean of its input channel -> (cout,)."""
    flat = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    given = np.repeat(mean.reshape(groups, -1), len(flat) // groups, axis=0)
    summed: npt.NDArray[np.float64] = (flat * given).sum(axis=1)
    return summed


def _means(
    model: ir.Model, names: list[str], ranges: Mapping[str, Interval], bits: int, feeds: Feeds
) -> dict[str, npt.NDArray[np.float64]]:
    """Mean of each channel of the named tensors, as they are and as they will be rounded: (2, channels)."""
    inside = [name for name in names if name not in {one.name for one in model.graph.inputs}]
    session = seeing(model, inside) if inside else None
    sums: dict[str, npt.NDArray[np.float64]] = {}
    count = 0
    for feed in feeds():
        values = dict(feed) | (dict(zip(inside, session.run(inside, dict(feed)), strict=True)) if session else {})
        for name in names:
            x = np.asarray(values[name], np.float32)
            low, high = ranges[name]
            step = max(high - low, 1e-12) / (2**bits - 1)
            rounded = np.rint(np.clip(x, low, high) / np.float32(step)) * np.float32(step)
            axes = (0, *range(2, x.ndim))
            both = np.stack([one.mean(axis=axes, dtype=np.float64) for one in (x, rounded)])
            sums[name] = sums.get(name, 0.0) + both
        count += 1
    return {name: both / count for name, both in sums.items()}
