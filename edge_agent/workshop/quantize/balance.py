"""What is done to a float network before it is quantized, so that it loses less: equalisation and bias correction.

Both are of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721),
on data where there is some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edge_agent.workshop.quantize.graph import constants, layers, readers
from edge_agent.workshop.quantize.ranges import Interval, TensorRange, seeing

MOST = 16.0
"""by which a channel is scaled at most, either way"""
SCALES = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")
"""f(s·x) = s·f(x) for s > 0, channel by channel"""
Floats = npt.NDArray[np.float32]
Feeds = Callable[[], Iterable[Mapping[str, npt.NDArray[np.generic]]]]


def equalized(model: onnx.ModelProto, seen: Mapping[str, TensorRange]) -> tuple[onnx.ModelProto, int]:
    """The same network with channels of like size, so that one scale serves a tensor; and how many layers changed.

    Between a convolution and those that read it, with nothing but operators of SCALES, nearest Resize and Concat on the
    way, a channel may be divided by a positive number if the readers multiply by it. The number is the channel's
    greatest value on data, `seen`; where a full convolution reads it, the root of that value over the weights that read
    it, since their rows have one scale each as well; all over their geometric mean, and within MOST either way.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    values = {name: np.array(value) for name, value in constants(model).items()}
    nodes, by = {node.name: node for node in model.graph.node}, readers(model)
    shared = {name for name, reading in by.items() if len(reading) > 1}
    outputs = {one.name for one in model.graph.output}
    widths = _widths(model)
    count = 0
    for layer in layers(model):
        node = nodes[layer.name]
        sizes = _sizes(seen, node, by)
        weight, bias = node.input[1], node.input[2] if len(node.input) > 2 else ""
        if node.op_type != "Conv" or sizes is None or {weight, bias} & shared or not _constant(bias, values):
            continue
        reading = _reading(node.output[0], by, widths, outputs)
        if not reading or any(not _scalable(reader, values, shared, len(sizes)) for reader, _ in reading):
            continue
        count += 1
        _scale(values, weight, bias, [(reader.input[1], first, _groups(reader)) for reader, first in reading], sizes)
    _put(made, values, model)
    return made, count


def _sizes(
    seen: Mapping[str, TensorRange], node: onnx.NodeProto, by: Mapping[str, list[onnx.NodeProto]]
) -> Floats | None:
    """Greatest value of each channel behind the activation that follows `node`, which alone reads it."""
    name = node.output[0]
    after = by.get(name, [])
    if len(after) == 1 and after[0].op_type in ("Relu", "LeakyRelu"):
        name = after[0].output[0]
    found = seen[name].channel_high if name in seen else np.zeros(0)
    return np.maximum(found, 1e-6).astype(np.float32) if len(found) else None


def _constant(bias: str, values: Mapping[str, npt.NDArray[np.generic]]) -> bool:
    return not bias or bias in values


def _widths(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor -> its channels, where axis 1 is known."""
    found = {}
    for one in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        dims = one.type.tensor_type.shape.dim
        if len(dims) == 4 and dims[1].dim_value:
            found[one.name] = int(dims[1].dim_value)
    return found


def _reading(
    name: str, by: Mapping[str, list[onnx.NodeProto]], widths: Mapping[str, int], outputs: set[str], first: int = 0
) -> list[tuple[onnx.NodeProto, int]] | None:
    """The convolutions that read the tensor, and the place of its first channel among their inputs; None where
    something else reads it as well.
    """
    if name in outputs:
        return None
    found: list[tuple[onnx.NodeProto, int]] = []
    for node in by.get(name, []):
        if node.op_type == "Conv" and list(node.input).index(name) == 0 and list(node.input).count(name) == 1:
            found.append((node, first))
            continue
        before = _before(node, name, widths)
        further = None if before is None else _reading(node.output[0], by, widths, outputs, first + before)
        if further is None:
            return None
        found += further
    return found


def _before(node: onnx.NodeProto, name: str, widths: Mapping[str, int]) -> int | None:
    """How many channels stand before those of tensor `name` in what a node makes of it; None where these do not pass
    scaled as they come.
    """
    given = list(node.input)
    if node.op_type == "Concat" and _attribute(node, "axis") == 1 and given.count(name) == 1:
        others = given[: given.index(name)]
        return sum(widths[other] for other in others) if all(other in widths for other in others) else None
    if node.op_type == "Resize":
        return 0 if _attribute(node, "mode") in (None, b"nearest") else None
    return 0 if node.op_type in SCALES and given[0] == name else None


def _attribute(node: onnx.NodeProto, name: str) -> object:
    return next((onnx.helper.get_attribute_value(one) for one in node.attribute if one.name == name), None)


def _groups(node: onnx.NodeProto) -> int:
    groups = _attribute(node, "group")
    return groups if isinstance(groups, int) else 1


def _scalable(
    node: onnx.NodeProto, values: Mapping[str, npt.NDArray[np.generic]], shared: set[str], width: int
) -> bool:
    """Whether the weights of a reading convolution are its own, and it is a full or a plain depthwise one."""
    weight = values.get(node.input[1])
    if weight is None or node.input[1] in shared:
        return False
    groups = _groups(node)
    return groups == 1 or (weight.shape[0] == groups and weight.shape[1] == 1)


def _scale(
    values: dict[str, npt.NDArray[np.generic]], weight: str, bias: str, reading: list[tuple[str, int, int]], top: Floats
) -> None:
    """Divide the channels that `weight` gives by their factors, and multiply where they are read."""
    read = np.zeros(len(top), np.float32)
    for name, first, groups in reading:
        if groups == 1:
            rows = np.asarray(values[name], np.float32)[:, first : first + len(top)]
            read = np.maximum(read, np.abs(rows).max(axis=tuple(i for i in range(rows.ndim) if i != 1)))
    factor = np.sqrt(top / np.maximum(read, 1e-6)) if read.any() else top
    factor = np.clip(factor / np.exp(np.log(factor).mean()), 1 / MOST, MOST).astype(np.float32)
    shape = (-1,) + (1,) * (values[weight].ndim - 1)
    values[weight] = np.asarray(values[weight] / factor.reshape(shape), np.float32)
    if bias:
        values[bias] = np.asarray(values[bias] / factor, np.float32)
    for name, first, groups in reading:
        part, rows = slice(first, first + len(top)), np.array(values[name], np.float32)
        if groups > 1:
            rows[part] *= factor.reshape(shape)
        else:
            rows[:, part] *= factor.reshape((1, -1) + (1,) * (rows.ndim - 2))
        values[name] = rows


# ── bias correction ──────────────────────────────────────────────────────────────────────────────────────


def corrected(
    model: onnx.ModelProto, nodes: Iterable[str], ranges: Mapping[str, Interval], per: str, bits: int, feeds: Feeds
) -> onnx.ModelProto:
    """The network whose convolutions `nodes` are right on average once quantized: b' = b - (Σ W_q·E[Q(x)] - Σ W·E[x]).

    E is the mean of each input channel over data, Q(x) the input clipped and rounded as it will be, W_q the rounded
    weights. The borders of the picture are taken to be like its inside.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    values = dict(constants(model))
    wanted = set(nodes)
    shared = {name for name, reading in readers(model).items() if len(reading) > 1}
    convs = [
        node
        for node in model.graph.node
        if node.name in wanted
        and node.op_type == "Conv"
        and node.input[0] in ranges
        and len(node.input) > 2
        and node.input[1] in values
        and node.input[2] in values
        and not {node.input[1], node.input[2]} & shared
    ]
    means = _means(model, sorted({node.input[0] for node in convs}), ranges, bits, feeds)
    for node in convs:
        weight = np.asarray(values[node.input[1]], np.float64)
        real, rounded = means[node.input[0]]
        wrong = _sums(rounded_weight(weight, per), rounded, _groups(node)) - _sums(weight, real, _groups(node))
        values[node.input[2]] = np.asarray(np.asarray(values[node.input[2]], np.float64) - wrong, np.float32)
    _put(made, values, model)
    return made


def rounded_weight(weight: npt.NDArray[np.float64], per: str) -> npt.NDArray[np.float64]:
    """Convolution weights as eight bits keep them: step = max|w| / 127 of an output channel or of the tensor."""
    axes = tuple(range(1, weight.ndim)) if per == "channel" else None
    step = np.maximum(np.abs(weight).max(axis=axes, keepdims=True), 1e-12) / 127
    rounded: npt.NDArray[np.float64] = np.rint(weight / step) * step
    return rounded


def _sums(weight: npt.NDArray[np.float64], mean: npt.NDArray[np.float64], groups: int) -> npt.NDArray[np.float64]:
    """Σ over a kernel of weight (cout, cin / groups, ...) times the mean of its input channel -> (cout,)."""
    flat = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    given = np.repeat(mean.reshape(groups, -1), len(flat) // groups, axis=0)
    summed: npt.NDArray[np.float64] = (flat * given).sum(axis=1)
    return summed


def _means(
    model: onnx.ModelProto, names: list[str], ranges: Mapping[str, Interval], bits: int, feeds: Feeds
) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Mean of each channel of the named tensors, as they are and as they will be rounded."""
    inside = [name for name in names if name not in {one.name for one in model.graph.input}]
    session = seeing(model, inside) if inside else None
    sums: dict[str, list[npt.NDArray[np.float64]]] = {}
    count = 0
    for feed in feeds():
        values = dict(feed)
        if session is not None:
            values |= dict(zip(inside, session.run(inside, dict(feed)), strict=True))
        for name in names:
            x = np.asarray(values[name], np.float32)
            low, high = ranges[name]
            step = max(high - low, 1e-12) / (2**bits - 1)
            rounded = np.rint(np.clip(x, low, high) / np.float32(step)) * np.float32(step)
            axes = (0, *range(2, x.ndim))
            both = [x.mean(axis=axes, dtype=np.float64), rounded.mean(axis=axes, dtype=np.float64)]
            sums[name] = [old + new for old, new in zip(sums[name], both, strict=True)] if name in sums else both
        count += 1
    return {name: (real / count, rounded / count) for name, (real, rounded) in sums.items()}


def _put(made: onnx.ModelProto, values: Mapping[str, npt.NDArray[np.generic]], model: onnx.ModelProto) -> None:
    """The changed initialisers into the copy."""
    before = constants(model)
    for one in made.graph.initializer:
        if values[one.name] is not before[one.name] and not np.array_equal(values[one.name], before[one.name]):
            one.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[one.name]), one.name))
