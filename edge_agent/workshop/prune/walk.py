"""Two networks of the same nodes, run side by side, node by node, on the same samples.

So a layer of the pruned one can be fitted to what its parent's layer gives before the next one is reached, and nothing
has to be kept but the tensors that are still to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from edge_agent.errors import ModelError
from edge_agent.workshop.prune.graph import Array, PruneGraph, attributes

Feeds: TypeAlias = "list[dict[str, Array]]"
"""input tensors by name, one dict a sample"""
Live: TypeAlias = "dict[str, list[Array]]"
"""tensor -> its value for each sample"""
Visit: TypeAlias = "Callable[[int, list[Live]], None]"
"""(number of the node that comes, what is live in each network); all but the last network have run it already"""
Say: TypeAlias = "Callable[[str, int, int], None]"
"""(what is being done, steps done, steps in all)"""
OUTSIDE = 0.1
"""weight of a cell that no object touches, where those that one touches have 1"""


def walk(graphs: Sequence[PruneGraph], feeds: Feeds, visit: Visit, say: Say, what: str) -> list[Live]:
    """Run all nodes; returns the outputs of each network.

    `visit` is called before the last network runs a node, and may change that network's constants of it.
    """
    count = len(graphs[0].nodes)
    last = {**graphs[0].last_reads(), **dict.fromkeys(graphs[0].outputs, count)}
    live: list[Live] = [{name: [feed[name] for feed in feeds] for name in graph.inputs} for graph in graphs]
    for number in range(count):
        for graph, tensors in zip(graphs[:-1], live, strict=False):
            tensors.update(_run(graph, number, tensors, len(feeds)))
        visit(number, live)
        live[-1].update(_run(graphs[-1], number, live[-1], len(feeds)))
        around = {*graphs[0].nodes[number].input, *graphs[0].nodes[number].output}
        _forget(live, [name for name in around if last.get(name, -1) <= number])
        say(what, number + 1, count)
    return [{name: tensors[name] for name in graph.outputs} for graph, tensors in zip(graphs, live, strict=True)]


def _forget(live: list[Live], names: list[str]) -> None:
    """Let go of tensors that nothing reads any more."""
    for tensors in live:
        for name in names:
            tensors.pop(name, None)


def _run(graph: PruneGraph, number: int, live: Live, samples: int) -> Live:
    """One node on every sample."""
    node = graph.nodes[number]
    fed = graph.fed(node)
    outputs = [name for name in node.output if name]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = _alone(graph, node, {name: live[name][0] for name in fed})
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        runs = [session.run(outputs, {name: live[name][i] for name in fed}) for i in range(samples)]
    except Exception as error:  # ONNX Runtime's own errors have no common parent but this
        raise ModelError(
            f"{node.op_type} {node.output[0]} does not run: {' '.join(str(error).split())[:160]}"
        ) from None
    return {name: [run[at] for run in runs] for at, name in enumerate(outputs)}


def _alone(graph: PruneGraph, node: onnx.NodeProto, fed: dict[str, Array]) -> onnx.ModelProto:
    """A model of one node, into which tensors like those of `fed` go."""
    names = [name for name in dict.fromkeys(node.input) if name in graph.values]
    constants = [numpy_helper.from_array(np.ascontiguousarray(graph.values[name]), name) for name in names]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
        for name, value in fed.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    shell = helper.make_graph([node], "node", inputs, outputs, constants)
    return helper.make_model(shell, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version)


def cells(height: int, width: int, most: int) -> tuple[Array, Array]:
    """Rows and columns of `most` cells of a map, chosen at random but the same for every map of this size."""
    order = np.random.default_rng(height * 8192 + width).permutation(height * width)[: max(1, most)]
    order.sort()
    return order // width, order % width


def touched(where: tuple[Array, Array], size: tuple[int, ...], boxes: Array) -> Array:
    """1 for each cell that a box touches, OUTSIDE for the others."""
    weight = np.full(len(where[0]), OUTSIDE, np.float32)
    for left, top, right, bottom in boxes:
        high, wide = size
        across = (where[1] + 1 > left * wide) & (where[1] < right * wide)
        weight[across & (where[0] + 1 > top * high) & (where[0] < bottom * high)] = 1.0
    return weight


def columns(node: onnx.NodeProto, weight: Array, x: Array, where: tuple[Array, Array] | None, most: int) -> Array:
    """What a layer multiplies its weights by: (groups, rows, numbers), rows being cells of a map, or tokens.

    `x`: the layer's input for one sample; `where`: the cells of the output, for a convolution.
    """
    if where is None:
        flat = x.reshape(-1, x.shape[-1])
        if len(flat) > most:
            flat = flat[cells(len(flat), 1, most)[0]]
        return flat[None]
    told = attributes(node)
    groups, kernel = int(told.get("group", 1)), weight.shape[2:]
    strides, dilations = told.get("strides", [1, 1]), told.get("dilations", [1, 1])
    top, left, bottom, right = pads(node, x.shape[2:], kernel)
    padded = np.pad(x[0], ((0, 0), (top, bottom), (left, right)))
    parts = []
    for dy in range(kernel[0]):
        for dx in range(kernel[1]):
            ys, xs = where[0] * strides[0] + dy * dilations[0], where[1] * strides[1] + dx * dilations[1]
            parts.append(padded[:, ys, xs])
    window = np.stack(parts, axis=1)  # (channels, kernel cells, rows)
    rows: Array = window.reshape(groups, -1, window.shape[2]).swapaxes(1, 2)
    return np.asarray(rows)


def pads(node: onnx.NodeProto, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of a convolution, auto_pad included."""
    told = attributes(node)
    auto = told.get("auto_pad", b"NOTSET").decode()
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        both = []
        for axis in range(2):
            stride, reach = told.get("strides", [1, 1])[axis], (kernel[axis] - 1) * told.get("dilations", [1, 1])[axis]
            need = max(0, (-(-size[axis] // stride) - 1) * stride + reach + 1 - size[axis])
            small, large = need // 2, need - need // 2
            both.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return both[0][0], both[1][0], both[0][1], both[1][1]
    given = [0, 0, 0, 0] if auto == "VALID" else [int(v) for v in told.get("pads", [0, 0, 0, 0])]
    return given[0], given[1], given[2], given[3]
