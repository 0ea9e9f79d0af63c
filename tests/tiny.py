"""A detector of a few bytes, for tests of what stands around a model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tiny_detector(
    folder: Path,
    version: str = "1",
    box: tuple[int, int, int, int] = (16, 16, 48, 48),
    size: int = 64,
    least: float = 0.0,
) -> Path:
    """An end-to-end detector [1, N, 6], `size` pixels square, that sees one person in the middle of what it is shown.

    It is a real network all the same: the box depends on nothing, the score on the picture's brightness, from `least`
    for black to 1 for white.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = np.array([[[*box, least, 0]]], np.float32)
    weight = np.array([0, 0, 0, 0, (1 - least) / 255, 0], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Reshape", ["mean", "shape"], ["one"]),
            helper.make_node("Mul", ["one", "weight"], ["score"]),
            helper.make_node("Add", ["score", "box"], ["output0"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 1, 6])],
        [
            numpy_helper.from_array(place, "box"),
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([1, 1, 1], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    raw = model.SerializeToString()
    onnx.checker.check_model(model)
    (folder / "model.onnx").write_bytes(raw)
    (folder / "manifest.toml").write_text(
        f'name = "tiny"\nversion = "{version}"\n'
        'task = "detect"\nfamily = "end2end"\nlicence = "Apache-2.0"\n'
        'trained_by = "nobody"\nlabels = ["person"]\nscore = 0.05\n'
        f"[input]\nwidth = {size}\nheight = {size}\n"
        f'[[file]]\nname = "model.onnx"\nformat = "onnx"\nsha256 = "{hashlib.sha256(raw).hexdigest()}"\n'
        f"bytes = {len(raw)}\n"
    )
    return folder
