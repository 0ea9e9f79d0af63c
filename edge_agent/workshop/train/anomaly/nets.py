"""The networks that need no training: principal components, and how far features are from normal ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_agent.types import Floats
from edge_agent.workshop.train.nodes import Nodes

Weights = dict[str, Floats]
OPSET, IR = 17, 8


def principal(data: Floats, code: int) -> Weights:
    """The mean of the samples, and the directions in which they vary the most (PCA), as an encoder and a decoder."""
    flat = data.reshape(len(data), -1)
    mean = flat.mean(0)
    _, _, axes = np.linalg.svd(flat - mean, full_matrices=False)
    axes = axes[: min(code, len(axes))].astype(np.float32)
    return {"axes": axes, "axes.bias": -axes @ mean, "back": axes.T.copy(), "back.bias": mean}


def linear(weights: Weights, shape: Sequence[int]) -> onnx.ModelProto:
    """PCA as an autoencoder (x -> y)."""
    graph = Nodes()
    flat = graph.op("Flatten", ["x"])
    for name in ("axes", "back"):
        given = [graph.constant(f"w.{part}", weights[part]) for part in (name, f"{name}.bias")]
        flat = graph.op("Gemm", [flat, *given], transB=1)
    graph.op("Reshape", [flat, graph.constant("size", np.array([-1, *shape], np.int64))], "y")
    return graph.model("anomaly", {"x": [1, *shape]}, {"y": [1, *shape]}, OPSET, IR)


def patches(detector: onnx.ModelProto, bank: Floats | None) -> onnx.ModelProto:
    """The detector's features of each cell (features (cells, d)), or, with a bank (n, d) of normal ones, how far each
    cell is from the nearest of them (heat (1, rows, columns)), as PatchCore (Roth et al. 2021, arXiv:2106.08265) does.
    """
    fine, coarse = FEATURES
    part = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(detector)).extract_model(["images"], [fine, coarse])
    graph = Nodes()
    pooled = graph.op("AveragePool", [fine], kernel_shape=[2, 2], strides=[2, 2])
    both = graph.op("Concat", [pooled, coarse], axis=1)
    flat = graph.op("Transpose", [both], perm=[0, 2, 3, 1])
    rows = graph.op("Reshape", [flat, graph.constant("rows", np.array([-1, WIDTH], np.int64))], "features")
    if bank is not None:
        own = graph.op("ReduceSumSquare", [rows], axes=[1], keepdims=1)
        cross = graph.op("MatMul", [rows, graph.constant("bank", bank.T.copy())])
        graph.constant("minus", np.float32(-2))
        theirs = graph.constant("squares", np.square(bank).sum(1)[None].astype(np.float32))
        total = graph.op("Add", [graph.op("Add", [graph.op("Mul", [cross, "minus"]), own]), theirs])
        least = graph.op("ReduceMin", [total], axes=[1], keepdims=0)
        root = graph.op("Sqrt", [graph.op("Relu", [least])])
        graph.op("Reshape", [root, graph.constant("cells", np.array([1, *CELLS], np.int64))], "heat")
    part.graph.node.extend(graph.nodes)
    part.graph.initializer.extend(graph.tensors())
    output, size = ("features", (CELLS[0] * CELLS[1], WIDTH)) if bank is None else ("heat", (1, *CELLS))
    del part.graph.output[:]
    part.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, size))
    part.producer_name = "edge-agent"
    onnx.checker.check_model(part)
    return part


FEATURES, WIDTH, CELLS = ("stage8.1.joined", "stage16.1.joined"), 192, (14, 18)
"""tensors of an edge-yolo whose channels are features, how many these are together, and their cells"""
