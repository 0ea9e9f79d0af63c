"""Weights of int8 that were widened for each run are multiplied as they lie; what is anything else stays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.backends import open_net
from edge_agent.errors import RefusedError
from edge_agent.graphs.dynamic import dynamic
from tests.nets import write_onnx

K, N = 32, 24


def network(path: Path, how: str, scale: tuple[int, ...], zero: int = 0, opset: int = 17) -> Path:
    """Two products of one input with int8 weights, added; they are widened by a Cast and a Mul, or dequantized."""
    rng = np.random.default_rng(5)
    constants: dict[str, npt.NDArray[Any]] = {}
    nodes = []
    for name in "ab":
        constants[f"{name}q"] = rng.integers(-60, 60, (K, N)).astype(np.int8)
        constants[f"{name}s"] = rng.uniform(0.005, 0.01, scale).astype(np.float32)
        if how == "cast":
            nodes.append(helper.make_node("Cast", [f"{name}q"], [f"{name}f"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [f"{name}f", f"{name}s"], [f"{name}w"]))
        else:
            constants[f"{name}z"] = np.full(scale, zero, np.int8)
            given = [f"{name}q", f"{name}s", f"{name}z"]
            nodes.append(helper.make_node("DequantizeLinear", given, [f"{name}w"], axis=1))
        nodes.append(helper.make_node("MatMul", ["x", f"{name}w"], [f"{name}y"]))
    nodes.append(helper.make_node("Add", ["ay", "by"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "two products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, None, K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, None, N])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.mark.parametrize(("how", "scale"), [("cast", (1, N)), ("cast", (N,)), ("cast", ()), ("dequantize", (N,))])
def test_products_are_done_in_int8_and_answer_alike(how: str, scale: tuple[int, ...], tmp_path: Path) -> None:
    source, out = network(tmp_path / "m.onnx", how, scale), tmp_path / "out.onnx"
    assert dynamic(source, out) == 2
    made = onnx.load(out)
    onnx.checker.check_model(made)
    operators = Counter(node.op_type for node in made.graph.node)
    # both take the same input, which is quantized once
    assert operators["DynamicQuantizeLinear"] == 1 and operators["MatMulInteger"] == 2
    assert not operators.keys() & {"MatMul", "DequantizeLinear"}
    given = {"x": np.random.default_rng(6).normal(0, 1, (1, 7, K)).astype(np.float32)}
    theirs, ours = (open_net(path, "onnx", 1).run(given)["y"] for path in (source, out))
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.999
    assert np.abs(theirs - ours).max() < 0.03 * np.abs(theirs).max()


@pytest.mark.parametrize("how", ["cast", "dequantize", "one scale"])
def test_of_a_table_only_the_rows_that_are_looked_up_are_widened(how: str, tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(7), 50
    size: tuple[int, ...] = {"cast": (rows, 1), "dequantize": (rows,), "one scale": ()}[how]
    constants: dict[str, npt.NDArray[Any]] = {
        "q": rng.integers(-60, 60, (rows, K)).astype(np.int8),
        "s": rng.uniform(0.005, 0.01, size).astype(np.float32),
        "w": rng.integers(-60, 60, (K, N)).astype(np.int8),
        "ws": rng.uniform(0.005, 0.01, N).astype(np.float32),
    }
    if how == "dequantize":
        nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["table"], axis=0)]
    else:
        nodes = [
            helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["f", "s"], ["table"]),
        ]
    nodes += [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wide"], axis=1),
        helper.make_node("MatMul", ["rows", "wide"], ["y"]),
    ]
    ends: dict[str, tuple[int, list[int | str]]] = {
        "rows": (TensorProto.FLOAT, [1, "l", K]),
        "y": (TensorProto.FLOAT, [1, "l", N]),
    }
    source = write_onnx(tmp_path / "m.onnx", nodes, {"ids": (TensorProto.INT64, [1, "l"])}, ends, constants)
    assert dynamic(source, tmp_path / "out.onnx") == 1
    (lookup, *_) = (node for node in onnx.load(tmp_path / "out.onnx").graph.node if node.op_type == "Gather")
    assert lookup.input[0] == "q", "the table stays as it lies"
    given = {"ids": np.array([[3, 49, 0, 3]])}
    theirs, ours = (open_net(path, "onnx", 1).run(given)["rows"] for path in (source, tmp_path / "out.onnx"))
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize(
    ("how", "scale", "zero", "opset"),
    [("dequantize", (N,), 3, 17), ("cast", (K, 1), 0, 17), ("cast", (1, N), 0, 10)],
    ids=["a zero point", "a scale for each row", "an opset without the operators"],
)
def test_what_does_not_fit_stays(how: str, scale: tuple[int, ...], zero: int, opset: int, tmp_path: Path) -> None:
    source, out = network(tmp_path / "m.onnx", how, scale, zero, opset), tmp_path / "out.onnx"
    assert dynamic(source, out) == 0
    assert not out.exists()


@pytest.mark.parametrize("damage", [b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0a\x7f"])
def test_a_broken_file_is_refused_in_one_line(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(damage)
    with pytest.raises(RefusedError, match=r"not a readable ONNX model"):
        dynamic(path, tmp_path / "out.onnx")
