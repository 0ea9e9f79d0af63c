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

from edge_agent.workshop.quantize.graph import attribute, constants, layers, readers
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
    shared, widths = _shared(by), _widths(model)
    outputs = {one.name for one in model.graph.output}
    count = 0
    for layer in layers(model):
        node = nodes[layer.name]
        sizes = _sizes(seen, node, by)
        if sizes is None or not _own(node, values, shared):
            continue
        reading = _reading(node.output[0], by, widths, outputs)
        if reading and all(_scalable(reader, values, shared) for reader, _ in reading):
            count += 1
            _scale(values, node, reading, sizes)
    _put(made, values, model)
    return made, count


def _shared(by: Mapping[str, list[onnx.NodeProto]]) -> set[str]:
    """The tensors that more than one node reads."""
    return {name for name, reading in by.items() if len(reading) > 1}


def _own(node: onnx.NodeProto, values: Mapping[str, npt.NDArray[np.generic]], shared: set[str]) -> bool:
    """Whether it is a convolution whose weights are its own, and its bias, a constant, too."""
    given = {name for name in node.input[1:] if name}
    return node.op_type == "Conv" and not given & shared and given <= values.keys()


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
    if node.op_type == "Concat":
        others = given[: given.index(name)]
        passes = attribute(node, "axis") == 1 and given.count(name) == 1 and widths.keys() >= set(others)
        return sum(widths[other] for other in others) if passes else None
    if node.op_type == "Resize":
        return 0 if attribute(node, "mode") in (None, b"nearest") else None
    return 0 if node.op_type in SCALES and given[0] == name else None


def _scalable(node: onnx.NodeProto, values: Mapping[str, npt.NDArray[np.generic]], shared: set[str]) -> bool:
    """Whether the weights of a reading convolution are its own, and it is a full or a plain depthwise one."""
    weight = values.get(node.input[1])
    if weight is None or node.input[1] in shared:
        return False
    groups: int = attribute(node, "group", 1)
    return groups == 1 or (weight.shape[0] == groups and weight.shape[1] == 1)


def _scale(
    values: dict[str, npt.NDArray[np.generic]],
    node: onnx.NodeProto,
    reading: list[tuple[onnx.NodeProto, int]],
    top: Floats,
) -> None:
    """Divide the channels that `node` gives by their factors, and multiply where they are read."""
    read = np.zeros(len(top), np.float32)
    for reader, first in reading:
        if attribute(reader, "group", 1) == 1:
            rows = np.asarray(values[reader.input[1]], np.float32)[:, first : first + len(top)]
            read = np.maximum(read, np.abs(rows).max(axis=tuple(i for i in range(rows.ndim) if i != 1)))
    factor = np.sqrt(top / np.maximum(read, 1e-6)) if read.any() else top
    factor = np.clip(factor / np.exp(np.log(factor).mean()), 1 / MOST, MOST).astype(np.float32)
    weight = node.input[1]
    shape = (-1,) + (1,) * (values[weight].ndim - 1)
    values[weight] = np.asarray(values[weight] / factor.reshape(shape), np.float32)
    for bias in filter(None, node.input[2:]):
        values[bias] = np.asarray(values[bias] / factor, np.float32)
    for reader, first in reading:
        name = reader.input[1]
        part, rows = slice(first, first + len(top)), np.array(values[name], np.float32)
        if attribute(reader, "group", 1) > 1:
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
    values, wanted, shared = dict(constants(model)), set(nodes), _shared(readers(model))
    convs = [
        node
        for node in model.graph.node
        if node.name in wanted and node.input[0] in ranges and any(node.input[2:]) and _own(node, values, shared)
    ]
    means = _means(model, sorted({node.input[0] for node in convs}), ranges, bits, feeds)
    for node in convs:
        weight = np.asarray(values[node.input[1]], np.float64)
        real, rounded = means[node.input[0]]
        wrong = _sums(rounded_weight(weight, per), rounded, attribute(node, "group", 1)) - _sums(
            weight, real, attribute(node, "group", 1)
        )
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
    sums: dict[str, npt.NDArray[np.float64]] = {}
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
            both = np.stack([one.mean(axis=axes, dtype=np.float64) for one in (x, rounded)])
            sums[name] = sums.get(name, 0.0) + both
        count += 1
    return {name: (real / count, rounded / count) for name, (real, rounded) in sums.items()}


def _put(made: onnx.ModelProto, values: Mapping[str, npt.NDArray[np.generic]], model: onnx.ModelProto) -> None:
    """The changed initialisers into the copy."""
    before = constants(model)
    for one in made.graph.initializer:
        if values[one.name] is not before[one.name] and not np.array_equal(values[one.name], before[one.name]):
            one.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[one.name]), one.name))
