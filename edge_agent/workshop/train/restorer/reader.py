"""The network that reads text, as PyTorch runs it, so that what it says of a line can be a loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_agent.errors import ModelError
from edge_agent.workshop.graph.net import numbers
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
    "ReduceMean": lambda x, told: x[0].mean(_axes(x, told), keepdim=bool(told.get("keepdims", 1))),
    "Unsqueeze": _unsqueezed,
    "Squeeze": lambda x, told: x[0].squeeze(tuple(_axes(x, told))),
    "Transpose": lambda x, told: x[0].permute(*told["perm"]),
    "BatchNormalization": lambda x, told: functional.batch_norm(
        x[0], x[3], x[4], x[1], x[2], eps=told.get("epsilon", 1e-5)
    ),
    "MatMul": lambda x, _: x[0] @ x[1],
    "Add": lambda x, _: x[0] + x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "Div": lambda x, _: x[0] / x[1],
    "Erf": lambda x, _: x[0].erf(),
    "Relu": lambda x, _: x[0].relu(),
    "HardSigmoid": lambda x, told: (x[0] * told.get("alpha", 0.2) + told.get("beta", 0.5)).clamp(0, 1),
    "Softmax": lambda x, told: x[0].softmax(told.get("axis", -1)),
}
"""of the reader `ocr`"""


class OnnxNet(nn.Module):  # type: ignore[misc]
    """An ONNX network of one input and one output; its constants are buffers, so it goes to a device whole.

    ModelError for an operator that is not known here.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = prepare(path).graph
        if odd := sorted({node.op_type for node in graph} - OPS.keys()):
            raise ModelError(f"{path}: PyTorch has no form of {', '.join(odd)} here")
        self.nodes = [(node, {key: one.value for key, one in node.attributes.items()}) for node in graph]
        self.names = {name: f"value{number}" for number, name in enumerate(graph.initializers)}
        for name, own in self.names.items():
            self.register_buffer(own, torch.from_numpy(np.array(numbers(graph.initializers[name]))))
        (self.given,), (self.told,) = ([str(one.name) for one in ends] for ends in (graph.inputs, graph.outputs))

    def forward(self, given: Tensor) -> Tensor:
        live: dict[str | None, Any] = {name: getattr(self, own) for name, own in self.names.items()}
        live[self.given] = given
        for node, told in self.nodes:
            x = [live[one.name] for one in node.inputs if one is not None]
            live[node.outputs[0].name] = OPS[node.op_type](x, told)
        told_last: Tensor = live[self.told]
        return told_last
