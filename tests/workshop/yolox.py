"""A small network of YOLOX-nano's exact shape, with random weights, written as its exporter writes it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.workshop.train.detector.graph import layers


def write_yolox(path: Path, classes: int, size: int, seed: int = 0) -> str:
    """Write the file for pictures (1, 3, size, size); returns its sha256. Output (1, N, 5 + classes), raw."""
    from edge_agent.workshop.train.detector.net import EdgeYolo, narrowed

    random = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for name, value in EdgeYolo(classes, narrowed(0.5)).state_dict().items():
        shape = tuple(value.shape)
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        tensors[name] = random.normal(0, spread, shape).astype(np.float32)
    stem = tensors["stem.conv.weight"].shape[0]
    tensors["stem.conv.weight"] = random.normal(0, 0.002, (stem, 12, 3, 3)).astype(np.float32)
    constants = dict(tensors)
    nodes: list[onnx.NodeProto] = []

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def conv(x: str, weight: str, output: str, stride: int, groups: int) -> str:
        kernel = constants[weight].shape[2]
        shape: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return node("Conv", [x, weight, weight.replace(".weight", ".bias")], output, group=groups, **shape)

    constants["two"] = np.array([1, 1, 2, 2], np.float32)
    for axis in (2, 3):
        for start in (0, 1):
            constants[f"from{axis}{start}"] = np.array([start], np.int64)
    constants |= {"end": np.array([2**31 - 1], np.int64), "step": np.array([2], np.int64)}
    constants |= {"axis2": np.array([2], np.int64), "axis3": np.array([3], np.int64)}
    parts = []
    for y, x in ((0, 0), (1, 0), (0, 1), (1, 1)):
        rows = node("Slice", ["images", f"from2{y}", "end", "axis2", "step"], f"rows{y}{x}")
        parts.append(node("Slice", [rows, f"from3{x}", "end", "axis3", "step"], f"part{y}{x}"))
    node("Concat", parts, "focus", axis=1)
    levels = []
    # the narrow stem of ours has 3 inputs and a kernel of 4: `layers` only reads the shapes
    shapes = tensors | {"stem.conv.weight": np.zeros((stem, 3, 4, 4), np.float32)}
    for layer in layers(shapes, (size, size)):
        inputs = list(layer.inputs)
        if layer.kind == "conv":
            first = layer.output == "stem"
            raw = conv(
                "focus" if first else inputs[0],
                layer.weight,
                f"{layer.output}.raw",
                1 if first else layer.stride,
                layer.groups,
            )
            if layer.act:
                node("Mul", [raw, node("Sigmoid", [raw], f"{layer.output}.gate")], layer.output)
            elif layer.output.endswith(".boxes"):
                head = layer.output.removesuffix(".boxes")
                weight = f"{head}.objectness.weight"
                constants[weight] = random.normal(0, 0.1, (1, constants[layer.weight].shape[1], 1, 1)).astype(
                    np.float32
                )
                constants[f"{head}.objectness.bias"] = np.zeros(1, np.float32)
                object_map = conv(inputs[0], weight, f"{head}.objectness.raw", 1, 1)
                sure = node("Sigmoid", [object_map], f"{head}.objectness")
                kinds = node("Sigmoid", [f"{head}.logits.raw"], f"{head}.classes")
                levels.append(node("Concat", [raw, sure, kinds], f"{head}.map", axis=1))
        elif layer.kind == "add":
            node("Add", inputs, layer.output)
        elif layer.kind == "concat":
            node("Concat", inputs, layer.output, axis=1)
        elif layer.kind == "pool":
            node("MaxPool", inputs, layer.output, kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2])
        elif layer.kind == "double":
            node(
                "Resize",
                [*inputs, "", "two"],
                layer.output,
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
    constants["flat"] = np.array([1, 5 + classes, -1], np.int64)
    flat = [node("Reshape", [name, "flat"], f"{name}.flat") for name in levels]
    node("Transpose", [node("Concat", flat, "all", axis=2)], "output", perm=[0, 2, 1])
    count = sum((size // stride) ** 2 for stride in (8, 16, 32))
    graph = helper.make_graph(
        nodes,
        "yolox",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, count, 5 + classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
