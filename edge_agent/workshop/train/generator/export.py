"""A trained generator as an ONNX file: input `z` (n, LATENT) float32, output `pictures` (n, 3, SIDE, SIDE) in 0..1.

Normalisation is folded into the layer before it; weights are stored as half floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.workshop.train.bert.onnx import stored_in_half
from edge_agent.workshop.train.generator.net import LATENT, SIDE, WIDTHS, Generator

Array = npt.NDArray[np.float32]


def to_onnx(net: Generator) -> onnx.ModelProto:
    """The network, checked by ONNX."""
    state = {name: value.detach().cpu().numpy().astype(np.float32) for name, value in net.state_dict().items()}
    nodes: list[onnx.NodeProto] = []
    values: list[onnx.TensorProto] = []

    def value(name: str, array: npt.NDArray[Any]) -> str:
        values.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(op: str, given: list[str], out: str, **told: Any) -> str:
        nodes.append(helper.make_node(op, given, [out], name=out, **told))
        return out

    weight, bias = _folded(state, "first", "norms.0", 16)
    x = node("MatMul", ["z", value("first.weight", weight.T)], "first.product")
    x = node("Add", [x, value("first.bias", bias)], "first.sum")
    x = node("Reshape", [x, value("start", np.array([-1, WIDTHS[0], 4, 4], np.int64))], "first.map")
    x = node("Relu", [x], "first.on")
    scales = value("twice", np.array([1, 1, 2, 2], np.float32))
    for number in range(len(WIDTHS) - 1):
        name = f"convs.{number}"
        weight, bias = _folded(state, name, f"norms.{number + 1}", 1)
        told = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        x = node("Resize", [x, "", scales], f"{name}.large", **told)
        given = [x, value(f"{name}.weight", weight), value(f"{name}.bias", bias)]
        x = node("Relu", [node("Conv", given, f"{name}.map", pads=[1] * 4)], f"{name}.on")
    given = [x, value("last.weight", state["last.weight"]), value("last.bias", state["last.bias"])]
    node("Sigmoid", [node("Conv", given, "last.map", pads=[1] * 4)], "pictures")
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])]
        for name, shape in (("z", [LATENT]), ("pictures", [3, SIDE, SIDE]))
    ]
    graph = helper.make_graph(nodes, "generator", *ends, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="edge-agent")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return stored_in_half(model)


def _folded(state: dict[str, Array], layer: str, norm: str, each: int) -> tuple[Array, Array]:
    """Weight and bias of a layer with the normalisation behind it; `each`: its outputs that are one channel."""
    scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
    shift = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    scale, shift = scale.repeat(each), shift.repeat(each)
    weight = state[f"{layer}.weight"]
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), state[f"{layer}.bias"] * scale + shift
