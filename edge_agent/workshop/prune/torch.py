"""An ONNX graph run by PyTorch, operator by operator, so that it can be differentiated: a trainable form of any float
network that is made of these operators (YOLOX, YOLOv5 to v11, edge-yolo, BERT among them), pruned or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_agent.errors import ModelError
from edge_agent.workshop.prune.graph import Array, PruneGraph, attributes
from edge_agent.workshop.prune.walk import Feeds, Say, pads

Op = Callable[[list[Any], dict[str, Any]], Any]
"""(inputs, None where one is left out; attributes) -> output, or a tuple of them"""


def forward(
    graph: PruneGraph, trained: Mapping[str, Tensor], feed: Mapping[str, Array], wanted: Iterable[str]
) -> list[Tensor]:
    """The tensors named `wanted` for one sample. `trained` replaces constants by name. ModelError: unknown operator."""
    live: dict[str, Any] = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in feed.items()}
    names = list(wanted)
    last = graph.last_reads()

    def value(name: str) -> Any:
        if not name:
            return None
        if name in trained:
            return trained[name]
        if name in live:
            return live[name]
        return torch.from_numpy(np.array(graph.values[name]))

    for number, node in enumerate(graph.nodes):
        given = [value(name) for name in node.input]
        for name, one in zip(node.output, _made(node, given), strict=False):
            live[name] = one
        for name in node.input:
            if last.get(name) == number and name not in names:
                live.pop(name, None)
    return [live[name] for name in names]


def _made(node: onnx.NodeProto, given: list[Any]) -> tuple[Any, ...]:
    """What an operator gives. ModelError for one that is not known."""
    if node.op_type not in OPS:
        raise ModelError(f"PyTorch has no form of {node.op_type} here; take --by magnitude or reconstruction")
    told = attributes(node)
    if node.op_type in ("Conv", "MaxPool", "AveragePool"):
        kernel = told.get("kernel_shape") or list(given[1].shape[2:])
        told["around"] = pads(node, given[0].shape[2:], kernel)
    if node.op_type == "Split":
        told["count"] = len(node.output)
    made = OPS[node.op_type](given, told)
    return made if isinstance(made, tuple) else (made,)


def ends(graph: PruneGraph) -> list[int]:
    """The last layers: those behind which no other layer comes. What they give is what the network says."""
    layers, behind = set(graph.layers()), set[str]()
    found = []
    for number in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[number]
        later = any(name in behind for name in node.output)
        if number in layers and not later:
            found.append(number)
        if later or number in layers:
            behind |= set(node.input)
    return found[::-1]


def sigmoided(graph: PruneGraph, number: int) -> bool:
    """Whether a layer's output goes into a sigmoid and nowhere else (SiLU reads it twice)."""
    (name,) = graph.nodes[number].output
    readers = [node.op_type for node in graph.nodes if name in node.input]
    return readers == ["Sigmoid"]


def weight_of_cells(y: Tensor, boxes: Array | None, outside: float = 0.1) -> Tensor:
    """(1, 1, h, w): 1 where a box touches a cell, `outside` elsewhere; 1 for what is no map."""
    if boxes is None or y.ndim != 4:
        return torch.ones(1)
    high, wide = y.shape[2:]
    weight = torch.full((1, 1, high, wide), outside)
    for left, top, right, bottom in boxes:
        rows = slice(max(0, int(top * high)), max(0, int(np.ceil(bottom * high))))
        weight[:, :, rows, max(0, int(left * wide)) : max(0, int(np.ceil(right * wide)))] = 1.0
    return weight


def gradients(graph: PruneGraph, feeds: Feeds, boxes: list[Array] | None, say: Say) -> Iterator[dict[str, Array]]:
    """For each sample the gradient of what the network says, in a random direction, by the name of each layer's weight.

    No labels are needed: for e normal and y the output, the mean of (e·∂y/∂w · w)² is the squared change of y, to first
    order, when w is taken out. A logit counts by the root of p (1 - p), as in Fisher's information (Theis et al.,
    "Faster gaze prediction with dense networks and Fisher pruning", arXiv 1801.05787); other outputs by their spread.
    """
    names = [graph.nodes[number].input[1] for number in graph.layers()]
    trained = {name: torch.from_numpy(graph.values[name].copy()).requires_grad_() for name in names}
    last = ends(graph)
    generator = torch.Generator().manual_seed(0)
    for index, feed in enumerate(feeds):
        outputs = forward(graph, trained, feed, [graph.nodes[number].output[0] for number in last])
        loss = torch.zeros(())
        for number, y in zip(last, outputs, strict=True):
            with torch.no_grad():
                p = y.sigmoid()
                scale = (p * (1 - p)).sqrt() if sigmoided(graph, number) else 1 / y.std().clamp(min=1e-6)
                scale = scale * weight_of_cells(y, None if boxes is None else boxes[index]).sqrt()
                direction = torch.randn(y.shape, generator=generator) * scale / y.numel() ** 0.5
            loss = loss + (direction * y).sum()
        found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        say("differentiating", index + 1, len(feeds))
        yield {name: g.numpy() for name, g in zip(trained, found, strict=True) if g is not None}


# ── operators ────────────────────────────────────────────────────────────────────────────────────────────


def _ints(value: Any) -> list[int]:
    return [int(v) for v in (value.tolist() if isinstance(value, Tensor) else value)]


def _around(x: Tensor, around: tuple[int, int, int, int], value: float = 0.0) -> Tensor:
    top, left, bottom, right = around
    return F.pad(x, (left, right, top, bottom), value=value) if any(around) else x


def _conv(x: list[Any], told: dict[str, Any]) -> Tensor:
    bias = x[2] if len(x) > 2 else None
    how = {"stride": told.get("strides", [1, 1]), "dilation": told.get("dilations", [1, 1])}
    return F.conv2d(_around(x[0], told["around"]), x[1], bias, groups=told.get("group", 1), **how)


def _max_pool(x: list[Any], told: dict[str, Any]) -> Tensor:
    padded = _around(x[0], told["around"], float("-inf"))
    return F.max_pool2d(padded, told["kernel_shape"], told.get("strides", [1, 1]))


def _average_pool(x: list[Any], told: dict[str, Any]) -> Tensor:
    top, left, bottom, right = told["around"]
    if (top, left) != (bottom, right):
        raise ModelError("PyTorch has no form of an AveragePool with uneven borders here; take --by magnitude")
    counts = bool(told.get("count_include_pad", 0))
    return F.avg_pool2d(x[0], told["kernel_shape"], told.get("strides", [1, 1]), (top, left), count_include_pad=counts)


def _resize(x: list[Any], told: dict[str, Any]) -> Tensor:
    mode = told.get("mode", b"nearest").decode()
    if len(x) > 3 and x[3] is not None:
        size = _ints(x[3])[2:]
    else:
        factors = x[2] if len(x) > 2 else x[1]
        size = [int(s * f) for s, f in zip(x[0].shape[2:], factors.tolist()[2:], strict=True)]
    if mode == "nearest":
        return F.interpolate(x[0], size=size, mode="nearest")
    return F.interpolate(x[0], size=size, mode="bilinear", align_corners=False)


def _slice(x: list[Any], told: dict[str, Any]) -> Tensor:
    if len(x) < 3:
        starts, ends, axes = told["starts"], told["ends"], told.get("axes")
        steps = None
    else:
        starts, ends = _ints(x[1]), _ints(x[2])
        axes = _ints(x[3]) if len(x) > 3 and x[3] is not None else None
        steps = _ints(x[4]) if len(x) > 4 and x[4] is not None else None
    index: list[slice] = [slice(None)] * x[0].ndim
    for place, axis in enumerate(axes if axes is not None else range(len(starts))):
        index[axis] = slice(starts[place], ends[place], steps[place] if steps else 1)
    return x[0][tuple(index)]


def _split(x: list[Any], told: dict[str, Any]) -> tuple[Tensor, ...]:
    axis = told.get("axis", 0)
    sizes = _ints(x[1]) if len(x) > 1 and x[1] is not None else told.get("split")
    return tuple(x[0].split(sizes or x[0].shape[axis] // told["count"], axis))


def _reshape(x: list[Any], told: dict[str, Any]) -> Tensor:
    return x[0].reshape([x[0].shape[i] if v == 0 else v for i, v in enumerate(_ints(x[1]))])


def _unsqueeze(x: list[Any], told: dict[str, Any]) -> Tensor:
    out = x[0]
    axes = _ints(x[1]) if len(x) > 1 else told["axes"]
    for axis in sorted(a % (out.ndim + len(axes)) for a in axes):
        out = out.unsqueeze(axis)
    return out


def _squeeze(x: list[Any], told: dict[str, Any]) -> Tensor:
    axes = _ints(x[1]) if len(x) > 1 else told.get("axes")
    return x[0].squeeze() if axes is None else x[0].squeeze(tuple(axes))


def _gemm(x: list[Any], told: dict[str, Any]) -> Tensor:
    a, b = (v.T if told.get(key, 0) else v for v, key in zip(x[:2], ("transA", "transB"), strict=True))
    out = a @ b * told.get("alpha", 1.0)
    return out if len(x) < 3 else out + x[2] * told.get("beta", 1.0)


def _layer_norm(x: list[Any], told: dict[str, Any]) -> Tensor:
    axis = told.get("axis", -1) % x[0].ndim
    return F.layer_norm(x[0], x[0].shape[axis:], x[1], x[2] if len(x) > 2 else None, told.get("epsilon", 1e-5))


def _reduced(name: str) -> Op:
    def run(x: list[Any], told: dict[str, Any]) -> Tensor:
        axes = _ints(x[1]) if len(x) > 1 and x[1] is not None else told.get("axes")
        keep = bool(told.get("keepdims", 1))
        over = tuple(axes) if axes is not None else tuple(range(x[0].ndim))
        made: Tensor = getattr(torch, name)(x[0], over, keepdim=keep)
        return made

    return run


def _shape(x: list[Any], told: dict[str, Any]) -> Tensor:
    return torch.tensor(list(x[0].shape)[told.get("start", 0) : told.get("end")], dtype=torch.int64)


def _gather(x: list[Any], told: dict[str, Any]) -> Tensor:
    axis = told.get("axis", 0) % x[0].ndim
    index = x[1].long()
    flat = x[0].index_select(axis, (index % x[0].shape[axis]).reshape(-1))
    return flat.reshape([*x[0].shape[:axis], *index.shape, *x[0].shape[axis + 1 :]])


def _gelu(x: list[Any], told: dict[str, Any]) -> Tensor:
    return F.gelu(x[0], approximate=told.get("approximate", b"none").decode())


def _clip(x: list[Any], told: dict[str, Any]) -> Tensor:
    low = x[1] if len(x) > 1 else told.get("min")
    high = x[2] if len(x) > 2 else told.get("max")
    return torch.clamp(x[0], low, high)


def _batch_norm(x: list[Any], told: dict[str, Any]) -> Tensor:
    return F.batch_norm(x[0], x[3], x[4], x[1], x[2], False, 0.0, told.get("epsilon", 1e-5))


TORCH_TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64}
"""ONNX's TensorProto.DataType"""

OPS: dict[str, Op] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda x, _: x[0].mean((2, 3), keepdim=True),
    "Resize": _resize,
    "Upsample": _resize,
    "Slice": _slice,
    "Split": _split,
    "Concat": lambda x, told: torch.cat(x, told["axis"]),
    "Reshape": _reshape,
    "Flatten": lambda x, told: (
        x[0].flatten(0, told.get("axis", 1) - 1).flatten(1) if told.get("axis", 1) else x[0][None]
    ),
    "Transpose": lambda x, told: x[0].permute(*told.get("perm", range(x[0].ndim)[::-1])),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Gather": _gather,
    "Shape": _shape,
    "Cast": lambda x, told: x[0].to(TORCH_TYPES[told["to"]]),
    "Identity": lambda x, _: x[0],
    "Gemm": _gemm,
    "MatMul": lambda x, _: x[0] @ x[1],
    "Add": lambda x, _: x[0] + x[1],
    "Sub": lambda x, _: x[0] - x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "Div": lambda x, _: x[0] / x[1],
    "Pow": lambda x, _: x[0] ** x[1],
    "Max": lambda x, _: torch.maximum(x[0], x[1]),
    "Min": lambda x, _: torch.minimum(x[0], x[1]),
    "Sqrt": lambda x, _: x[0].sqrt(),
    "Exp": lambda x, _: x[0].exp(),
    "Erf": lambda x, _: x[0].erf(),
    "Tanh": lambda x, _: x[0].tanh(),
    "Relu": lambda x, _: x[0].relu(),
    "LeakyRelu": lambda x, told: F.leaky_relu(x[0], told.get("alpha", 0.01)),
    "Sigmoid": lambda x, _: x[0].sigmoid(),
    "HardSigmoid": lambda x, told: (x[0] * told.get("alpha", 0.2) + told.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda x, _: F.hardswish(x[0]),
    "Gelu": _gelu,
    "Clip": _clip,
    "Softmax": lambda x, told: x[0].softmax(told.get("axis", -1)),
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    "ReduceSum": _reduced("sum"),
    "ReduceMean": _reduced("mean"),
}
