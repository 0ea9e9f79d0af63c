"""The networks that need no training: principal components, and how far features are from normal ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edge_agent.types import Floats

Weights = dict[str, Floats]
OPSET, IR = 17, 8
FEATURES, WIDTH, CELLS = ("stage8.1.joined", "stage16.1.joined"), 192, (14, 18)
"""tensors of an edge-yolo whose channels are features, how many these are together, and their cells"""


def principal(data: Floats, code: int) -> Weights:
    """The mean of the samples, and the directions in which they vary the most (PCA), as an encoder and a decoder."""
    flat = data.reshape(len(data), -1)
    mean = flat.mean(0)
    _, _, axes = np.linalg.svd(flat - mean, full_matrices=False)
    axes = axes[: min(code, len(axes))].astype(np.float32)
    return {"axes": axes, "axes.bias": -axes @ mean, "back": axes.T.copy(), "back.bias": mean}


def linear(weights: Weights, shape: Sequence[int]) -> onnx.ModelProto:
    """PCA as an autoencoder (x -> y)."""
    size = ", ".join(map(str, shape))
    graph = _graph(
        f"""anomaly (float[1, {size}] x) => (float[1, {size}] y) {{
            flat = Flatten(x)
            code = Gemm<transB = 1>(flat, axes, axes_bias)
            rebuilt = Gemm<transB = 1>(code, back, back_bias)
            y = Reshape(rebuilt, size)
        }}""",
        {"size": np.array([-1, *shape]), **{name.replace(".", "_"): value for name, value in weights.items()}},
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(graph, producer_name="edge-agent", ir_version=IR, opset_imports=opset)
    onnx.checker.check_model(model, full_check=True)
    return model


def patches(detector: onnx.ModelProto, bank: Floats | None) -> onnx.ModelProto:
    """The detector's features of each cell (features (cells, d)), or, with a bank (n, d) of normal ones, how far each
    cell is from the nearest of them (heat (1, rows, columns)), as PatchCore (Roth et al. 2021, arXiv:2106.08265) does.
    """
    part = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(detector)).extract_model(["images"], [*FEATURES])
    rows, columns = CELLS
    if bank is None:
        end, more, constants = f"float[{rows * columns}, {WIDTH}] features", "", {}
    else:
        end = f"float[1, {rows}, {columns}] heat"
        more = """own = ReduceSumSquare<axes = [1], keepdims = 1>(features)
            cross = MatMul(features, bank)
            twice = Mul(cross, minus)
            mine = Add(twice, own)
            total = Add(mine, squares)
            least = ReduceMin<axes = [1], keepdims = 0>(total)
            above = Relu(least)
            root = Sqrt(above)
            heat = Reshape(root, cells)"""
        squares = np.square(bank).sum(1)[None].astype(np.float32)
        constants = {"bank": bank.T, "minus": np.float32(-2), "squares": squares, "cells": np.array([1, *CELLS])}
    graph = _graph(
        f"""anomaly (float[1, 1, 1, 1] fine, float[1, 1, 1, 1] coarse) => ({end}) {{
            pooled = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(fine)
            both = Concat<axis = 1>(pooled, coarse)
            flat = Transpose<perm = [0, 2, 3, 1]>(both)
            features = Reshape(flat, rows)
            {more}
        }}""",
        {"rows": np.array([-1, WIDTH]), **constants},
    )
    named = dict(zip(("fine", "coarse"), FEATURES, strict=True))
    for node in graph.node:
        node.input[:] = [named.get(name, name) for name in node.input]
    part.graph.node.extend(graph.node)
    part.graph.initializer.extend(graph.initializer)
    del part.graph.output[:]
    part.graph.output.extend(graph.output)
    part.producer_name = "edge-agent"
    onnx.checker.check_model(part)
    return part


def _graph(text: str, constants: Mapping[str, Any]) -> onnx.GraphProto:
    """A graph in ONNX's own words, and its constants."""
    graph = onnx.parser.parse_graph(text)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        for name, value in constants.items()
    )
    return graph
