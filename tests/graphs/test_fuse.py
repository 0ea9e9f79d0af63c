"""Attention in int8 becomes one operator that answers the same, of padded texts too; what is anything else stays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from edge_agent.backends import open_net
from edge_agent.errors import RefusedError
from edge_agent.graphs.fuse import fuse
from tests.conftest import ROOT
from tests.nets import write_onnx

HIDDEN, HEADS, FEATURES = 32, 4, 8


def layer(path: Path, how: str = "plain", zero: int = 0) -> Path:
    """The attention of one layer as exporters write it; `how`: in which way."""
    rng = np.random.default_rng(2)
    constants: dict[str, npt.NDArray[Any]] = {
        "four": np.array([0, 0, HEADS, FEATURES]),
        "three": np.array([0, 0, HIDDEN]),
        "heads": np.array([-1]),
        "features": np.array([FEATURES]),
        "root": np.array(FEATURES**0.5, np.float32),
        "half": np.array(FEATURES**-0.25, np.float32),
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.float32),
        "far": np.array(-10000, np.float32),
        "axes": np.array([1, 2]),
    }
    nodes: list[Any] = []

    def op(kind: str, inputs: list[str], output: str, **given: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, output.split(), **given))
        return output

    sides = {"q": "x", "k": "y" if how == "crossed" else "x", "v": "y" if how == "crossed" else "x"}
    for given in sorted(set(sides.values())):
        op("DynamicQuantizeLinear", [given], f"{given}8 {given}s {given}z")
    op("Shape", ["x"], "batch", start=0, end=1)
    op("Shape", ["x"], "tokens", start=1, end=2)
    op("Concat", ["batch", "tokens", "heads", "features"], "asked", axis=0)
    shape = "asked" if how == "asked" else "four"
    for part, given in sides.items():
        constants[f"{part}w"] = rng.integers(-80, 80, (HIDDEN, HIDDEN)).astype(np.int8)
        constants[f"{part}b"] = rng.normal(0, 0.1, HIDDEN).astype(np.float32)
        size = () if how == "one scale" else (HIDDEN,)
        constants[f"{part}s"] = rng.uniform(0.004, 0.008, size).astype(np.float32)
        constants[f"{part}z"] = np.full(size, zero, np.int8)
        op("MatMulInteger", [f"{given}8", f"{part}w", f"{given}z", f"{part}z"], f"{part}i")
        op("Cast", [f"{part}i"], f"{part}f", to=TensorProto.FLOAT)
        op("Mul", [f"{given}s", f"{part}s"], f"{part}m")
        op("Mul", [f"{part}f", f"{part}m"], f"{part}p")
        op("Add", [f"{part}b", f"{part}p"] if how == "one scale" else [f"{part}p", f"{part}b"], f"{part}a")
        op("Reshape", [f"{part}a", shape], f"{part}r")
        op("Transpose", [f"{part}r"], f"{part}t", perm=[0, 2, 3, 1] if part == "k" else [0, 2, 1, 3])
    op("Cast", ["attention_mask"], "seen", to=TensorProto.FLOAT)
    if how == "asked":
        # as torch's exporter of 2025 does: half of the scale on each side, a choice for the mask, a net under NaN
        op("MatMul", [op("Mul", ["qt", "half"], "qh"), op("Mul", ["kt", "half"], "kh")], "scores")
        op("Cast", [op("Unsqueeze", ["seen", "axes"], "seen4")], "allowed", to=TensorProto.BOOL)
        op("Add", ["scores", op("Where", ["allowed", "zero", "far"], "mask4")], "masked")
        op("Softmax", ["masked"], "share", axis=-1)
        op("Where", [op("IsNaN", ["share"], "lost"), "zero", "share"], "weights")
    else:
        op("Div", [op("MatMul", ["qt", "kt"], "raw"), "root"], "scores")
        op("Unsqueeze", [op("Mul", [op("Sub", ["one", "seen"], "hidden"), "far"], "added"), "axes"], "mask4")
        op("Softmax", [op("Add", ["scores", "mask4"], "masked")], "weights", axis=-1)
    op("Transpose", [op("MatMul", ["weights", "vt"], "mixed")], "back", perm=[0, 2, 1, 3])
    op("Reshape", ["back", "three"], "out")
    kept: set[str] = {name for node in nodes for name in node.input}
    x: tuple[int, list[int | str]] = (TensorProto.FLOAT, ["n", "l", HIDDEN])
    inputs: dict[str, tuple[int, list[int | str]]] = {"x": x, "attention_mask": (TensorProto.INT64, ["n", "l"])}
    return write_onnx(
        path,
        nodes,
        inputs | ({"y": x} if how == "crossed" else {}),
        {"out": x},
        {name: value for name, value in constants.items() if name in kept},
    )


@pytest.mark.parametrize("how", ["plain", "one scale", "asked"])
def test_an_attention_becomes_one_operator_and_answers_the_same(how: str, tmp_path: Path) -> None:
    source, out = layer(tmp_path / "m.onnx", how), tmp_path / "out.onnx"
    assert fuse(source, out) == "1 of attention"
    operators = Counter(node.op_type for node in onnx.load(out).graph.node)
    assert operators["QAttention"] == 1 and not operators.keys() & {"Softmax", "MatMul", "MatMulInteger", "Reshape"}
    mask = np.ones((2, 9), np.int64)
    mask[1, 4:] = 0
    given: dict[str, npt.NDArray[Any]] = {
        "x": np.random.default_rng(3).normal(0, 1, (2, 9, HIDDEN)).astype(np.float32),
        "attention_mask": mask,
    }
    theirs, ours = (open_net(path, "onnx", 1).run(given)["out"] for path in (source, out))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(theirs[0, 0] - theirs[0, 1]).max() > 0.01, "tokens are told apart"


@pytest.mark.parametrize(("how", "zero"), [("crossed", 0), ("plain", 3)], ids=["two inputs", "a zero point"])
def test_what_does_not_fit_stays(how: str, zero: int, tmp_path: Path) -> None:
    assert fuse(layer(tmp_path / "m.onnx", how, zero), tmp_path / "out.onnx") == ""
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("how", "fused"),
    [
        ([("Div", "x", "root"), ("Erf", "0"), ("Add", "1", "one"), ("Mul", "half", "2"), ("Mul", "x", "3")], True),
        ([("Mul", "inverse", "x"), ("Erf", "0"), ("Add", "one", "1"), ("Mul", "2", "x"), ("Mul", "3", "half")], True),
        ([("Div", "x", "root"), ("Erf", "0"), ("Add", "1", "one"), ("Mul", "half", "2"), ("Mul", "one", "3")], False),
        ([("Div", "root", "x"), ("Erf", "0"), ("Add", "1", "one"), ("Mul", "half", "2"), ("Mul", "x", "3")], False),
        ([("Div", "x", "root"), ("Erf", "0"), ("Add", "1", "half"), ("Mul", "half", "2"), ("Mul", "x", "3")], False),
        ([("Div", "x", "half"), ("Erf", "0"), ("Add", "1", "one"), ("Mul", "half", "2"), ("Mul", "x", "3")], False),
    ],
    ids=["half first", "half last", "not times x", "one over x", "one and a half", "another scale"],
)
def test_a_gelu_becomes_one_operator_and_what_is_none_stays(
    how: list[tuple[str, ...]], fused: bool, tmp_path: Path
) -> None:
    numbers = {"root": 2**0.5, "inverse": 0.5**0.5, "half": 0.5, "one": 1}
    constants = {name: np.array(value, np.float32) for name, value in numbers.items()}
    nodes = [helper.make_node(op, list(inputs), [str(number)]) for number, (op, *inputs) in enumerate(how)]
    spec: dict[str, tuple[int, list[int | str]]] = {name: (TensorProto.FLOAT, ["n"]) for name in ("x", "4")}
    source = write_onnx(tmp_path / "m.onnx", nodes, {"x": spec["x"]}, {"4": spec["4"]}, constants)
    assert fuse(source, tmp_path / "out.onnx") == ("1 of GELU" if fused else "")
    if fused:
        given = {"x": np.linspace(-6, 6, 101, dtype=np.float32)}
        theirs, ours = (open_net(path, "onnx", 1).run(given)["4"] for path in (source, tmp_path / "out.onnx"))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_network_of_pictures_has_none(tmp_path: Path) -> None:
    assert fuse(ROOT / "models" / "edge-yolo" / "model.onnx", tmp_path / "out.onnx") == ""


@pytest.mark.parametrize("damage", [b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0a\x7f"])
def test_a_broken_file_is_refused_in_one_line(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(damage)
    with pytest.raises(RefusedError, match="not a readable ONNX model"):
        fuse(path, tmp_path / "out.onnx")
