"""The network that reads text, as PyTorch runs it, so that what it says of a line can be a loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from edge_agent.errors import ModelError
from edge_agent.workshop.quantize.prepare import prepare

Op = Callable[[list[Any], dict[str, Any]], Any]
"""(inputs, attributes) -> output"""


def _around(told: dict[str, Any]) -> list[int]:
    """Borders as PyTorch's `pad` takes them: left, right, top, bottom."""
    top, left, bottom, right = told.get("pads", [0, 0, 0, 0])
    return [left, right, top, bottom]


def _conv(x: list[Any], told: dict[str, Any]) -> Tensor:
    how = {"stride": told.get("strides", [1, 1]), "dilation": told.get("dilations", [1, 1])}
    bias = x[2] if len(x) > 2 else None
    return functional.conv2d(functional.pad(x[0], _around(told)), x[1], bias, groups=told.get("group", 1), **how)


def _axes(x: list[Any], told: dict[str, Any]) -> list[int]:
    return [int(axis) for axis in (told["axes"] if "axes" in told else x[1].tolist())]


def _mean(x: list[Any], told: dict[str, Any]) -> Tensor:
    axes = _axes(x, told) if "axes" in told or len(x) > 1 else list(range(x[0].ndim))
    return x[0].mean(axes, keepdim=bool(told.get("keepdims", 1)))


def _average(x: list[Any], told: dict[str, Any]) -> Tensor:
    return functional.avg_pool2d(functional.pad(x[0], _around(told)), told["kernel_shape"], told.get("strides", [1, 1]))


def _unsqueezed(x: list[Any], told: dict[str, Any]) -> Tensor:
    out = x[0]
    for axis in sorted(_axes(x, told)):
        out = out.unsqueeze(axis)
    return out


OPS: dict[str, Op] = {
    "Conv": _conv,
    "AveragePool": _average,
    "GlobalAveragePool": lambda x, _: x[0].mean((2, 3), keepdim=True),
    "ReduceMean": _mean,
    "Unsqueeze": _unsqueezed,
    "Squeeze": lambda x, told: x[0].squeeze(tuple(_axes(x, told))),
    "Transpose": lambda x, told: x[0].permute(*told["perm"]),
    "Reshape": lambda x, _: x[0].reshape([x[0].shape[i] if v == 0 else v for i, v in enumerate(x[1].tolist())]),
    "Concat": lambda x, told: torch.cat(x, told["axis"]),
    "BatchNormalization": lambda x, told: functional.batch_norm(
        x[0], x[3], x[4], x[1], x[2], eps=told.get("epsilon", 1e-5)
    ),
    "Identity": lambda x, _: x[0],
    "Cast": lambda x, _: x[0].float(),
    "MatMul": lambda x, _: x[0] @ x[1],
    "Gemm": lambda x, told: x[0] @ (x[1].T if told.get("transB") else x[1]) + (x[2] if len(x) > 2 else 0),
    "Add": lambda x, _: x[0] + x[1],
    "Sub": lambda x, _: x[0] - x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "Div": lambda x, _: x[0] / x[1],
    "Pow": lambda x, _: x[0] ** x[1],
    "Sqrt": lambda x, _: x[0].sqrt(),
    "Erf": lambda x, _: x[0].erf(),
    "Relu": lambda x, _: x[0].relu(),
    "Sigmoid": lambda x, _: x[0].sigmoid(),
    "HardSigmoid": lambda x, told: (x[0] * told.get("alpha", 0.2) + told.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda x, _: functional.hardswish(x[0]),
    "Clip": lambda x, _: x[0].clamp(*x[1:3]),
    "Softmax": lambda x, told: x[0].softmax(told.get("axis", -1)),
}


def _parted(graph: onnx.GraphProto, path: Path) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """Nodes that compute, and constants by name. ModelError for an operator that is not known here."""
    odd = sorted({node.op_type for node in graph.node} - OPS.keys() - {"Constant"})
    if odd:
        raise ModelError(f"{path}: PyTorch has no form of {', '.join(odd)} here")
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    constants = [node for node in graph.node if node.op_type == "Constant"]
    for node in constants:
        values[node.output[0]] = numpy_helper.to_array(onnx.helper.get_attribute_value(node.attribute[0]))
    return [node for node in graph.node if node.op_type != "Constant"], values


class OnnxNet(nn.Module):  # type: ignore[misc]
    """An ONNX network of one input and one output; its constants are buffers, so it goes to a device whole.

    ModelError for an operator that is not known here.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = ir.to_proto(prepare(path)).graph
        self.nodes, values = _parted(graph, path)
        self.names = {name: f"value{number}" for number, name in enumerate(values)}
        for name, own in self.names.items():
            self.register_buffer(own, torch.from_numpy(np.array(values[name])))
        (self.given,) = [one.name for one in graph.input if one.name not in values]
        (self.told,) = [one.name for one in graph.output]

    def forward(self, given: Tensor) -> Tensor:
        live: dict[str, Any] = {name: getattr(self, own) for name, own in self.names.items()}
        live[self.given] = given
        for node in self.nodes:
            told = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            live[node.output[0]] = OPS[node.op_type]([live[name] for name in node.input if name], told)
        told_last: Tensor = live[self.told]
        return told_last
