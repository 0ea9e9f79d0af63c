"""A network that is rewritten gives the same numbers, without the patterns; what does not fit them stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from edge_agent.backends import open_net
from edge_agent.errors import RefusedError
from edge_agent.gate.opened import input_of
from edge_agent.graphs.rewrite import rewrite
from edge_agent.manifest import File, Input, Manifest
from edge_agent.pictures.boxes import preparer
from tests.nets import write_onnx

Arrays = dict[str, npt.NDArray[Any]]
RNG = np.random.default_rng(7)


def weight(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.normal(0, 0.3, shape).astype(np.float32)


def conv(inputs: list[str], output: str, side: int = 3, **how: Any) -> Any:
    pads = [side // 2] * 4
    return helper.make_node("Conv", inputs, [output], kernel_shape=[side] * 2, pads=pads, **how)


def silu(name: str, output: str) -> list[Any]:
    return [helper.make_node("Sigmoid", [name], [f"{name}.s"]), helper.make_node("Mul", [name, f"{name}.s"], [output])]


def split(sizes: list[int] | None = None, users: int = 1) -> tuple[list[Any], Arrays]:
    """Convolution, SiLU, split in two (or as said), a convolution of the second part, all of it joined."""
    constants: Arrays = {"w": weight(16, 3, 3, 3), "b": weight(16), "v": weight(8, (sizes or [8, 8])[1], 3, 3)}
    parts = ["x.a", "x.b"]
    if sizes:
        constants["sizes"] = np.array(sizes, np.int64)
        cut = helper.make_node("Split", ["x", "sizes"], parts, axis=1)
    else:
        cut = helper.make_node("Split", ["x"], parts, axis=1)
    last = ["x.a", "y", *(["x"] if users > 1 else [])]
    end = helper.make_node("Concat", last, ["out"], axis=1)
    return [conv(["images", "w", "b"], "c"), *silu("c", "x"), cut, conv(["x.b", "v"], "y"), end], constants


def joined(readers: int = 1) -> tuple[list[Any], Arrays]:
    """Two convolutions joined, behind Relu and a pool, for as many convolutions of stride 2; their sum."""
    constants: Arrays = {"w": weight(8, 3, 3, 3), "v": weight(4, 3, 3, 3), "b": weight(6)}
    pool = helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    nodes = [conv(["images", "w"], "c"), helper.make_node("Relu", ["c"], ["r"]), pool, conv(["images", "v"], "d")]
    nodes.append(helper.make_node("Concat", ["p", "d", "r"], ["j"], axis=1))
    for number in range(readers):
        constants[f"u{number}"] = weight(6, 20, 3, 3)
        nodes.append(conv(["j", f"u{number}", "b"], f"o{number}", strides=[2, 2]))
    nodes.append(helper.make_node("Sum", [f"o{number}" for number in range(readers)], ["out"]))
    return nodes, constants


def focus(step: int = 2) -> tuple[list[Any], Arrays]:
    """YOLOX's: the four halves of the picture joined, a convolution."""
    constants: Arrays = {"w": weight(8, 12, 3, 3), "b": weight(8), "step": np.array([step])}
    constants |= {"0": np.array([0]), "1": np.array([1]), "end": np.array([1 << 62])}
    constants |= {"rows": np.array([2]), "columns": np.array([3])}
    nodes = []
    for y, x in ((0, 0), (1, 0), (0, 1), (1, 1)):
        nodes.append(helper.make_node("Slice", ["images", str(y), "end", "rows", "step"], [f"row{y}{x}"]))
        nodes.append(helper.make_node("Slice", [f"row{y}{x}", str(x), "end", "columns", "step"], [f"at{y}{x}"]))
    nodes.append(helper.make_node("Concat", [f"at{y}{x}" for y, x in ((0, 0), (1, 0), (0, 1), (1, 1))], ["f"], axis=1))
    return [*nodes, conv(["f", "w", "b"], "c"), helper.make_node("Relu", ["c"], ["out"])], constants


def pools(*sides: int) -> tuple[list[Any], Arrays]:
    """A convolution, maxima over windows of these sides, all of it added up."""
    nodes = [conv(["images", "w"], "c")]
    for side in sides:
        how = {"kernel_shape": [side] * 2, "pads": [side // 2] * 4, "strides": [1, 1]}
        nodes.append(helper.make_node("MaxPool", ["c"], [f"p{side}"], **how))
    return [*nodes, helper.make_node("Sum", ["c", *(f"p{side}" for side in sides)], ["out"])], {"w": weight(8, 3, 3, 3)}


def written(path: Path, made: tuple[list[Any], Arrays]) -> Path:
    nodes, constants = made
    given = {"images": (TensorProto.FLOAT, [1, 3, 24, 32])}
    return write_onnx(path, nodes, given, {"out": (TensorProto.FLOAT, ["n", "c", "h", "w"])}, constants)


def run(path: Path) -> npt.NDArray[Any]:
    """What comes out for one picture, whichever way its channels go in."""
    net, picture = open_net(path, "onnx", 1), np.random.default_rng(0).normal(0, 1, (1, 3, 24, 32)).astype(np.float32)
    last = net.inputs[0].shape[3] == 3
    return net.run({"images": np.ascontiguousarray(picture.transpose(0, 2, 3, 1)) if last else picture})["out"]


def operators(path: Path) -> Counter[str]:
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    ("make", "told", "gone"),
    [
        (split, "1 of split channels", "Split"),
        (lambda: split([4, 12]), "1 of split channels", "Split"),
        (joined, "1 of joined channels", "Concat"),
        (lambda: joined(2), "1 of joined channels", "Concat"),
        (focus, "1 of focus, 1 of planes", "Slice"),
    ],
)
def test_the_pattern_is_gone_and_the_numbers_are_the_same(
    make: Callable[[], tuple[list[Any], Arrays]], told: str, gone: str, tmp_path: Path
) -> None:
    path, out = written(tmp_path / "m.onnx", make()), tmp_path / "out.onnx"
    assert rewrite(path, out) == told
    assert operators(path)[gone] and not operators(out)[gone]
    np.testing.assert_allclose(run(out), run(path), rtol=1e-4, atol=1e-4)
    assert out.stat().st_size < 1.5 * path.stat().st_size + 2000, "weights that nobody takes any more are left out"


@pytest.mark.parametrize(("sides", "left"), [((5, 9, 13), [5, 5, 5]), ((3, 9), [3, 7]), ((13, 5), [13, 5])])
def test_larger_pools_go_on_from_smaller_ones(sides: tuple[int, ...], left: list[int], tmp_path: Path) -> None:
    path, out = written(tmp_path / "m.onnx", pools(*sides)), tmp_path / "out.onnx"
    rewrite(path, out)
    kept = [node for node in onnx.load(str(out)).graph.node if node.op_type == "MaxPool"]
    assert [one.ints[0] for node in kept for one in node.attribute if one.name == "kernel_shape"] == left
    np.testing.assert_allclose(run(out), run(path), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", [{}, {"strides": [2, 1]}, {"strides": [2, 2], "pads": [0, 1, 2, 3], "side": (4, 2)}])
def test_a_picture_whose_channels_are_last_takes_the_same_steps(how: dict[str, Any], tmp_path: Path) -> None:
    constants: Arrays = {"w": weight(8, 3, *how.pop("side", (3, 3))), "b": weight(8)}
    node = helper.make_node("Conv", ["images", "w", "b"], ["c"], **how)
    path = written(tmp_path / "m.onnx", ([node, helper.make_node("Relu", ["c"], ["out"])], constants))
    assert rewrite(path, tmp_path / "out.onnx") == "1 of planes"
    (images,) = open_net(tmp_path / "out.onnx", "onnx", 1).inputs
    assert images.shape == (1, 24, 32, 3)
    np.testing.assert_allclose(run(tmp_path / "out.onnx"), run(path), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("prepared", "told"),
    [
        (Input(32, 24, channels="RGB", scale=1 / 255), "1 of planes, 1 of pixels"),
        (Input(32, 24, channels="BGR", std=(2.0, 3.0, 4.0)), "1 of planes, 1 of pixels"),
        (Input(32, 24, channels="RGB", std=(2.0, 3.0, 4.0)), "1 of planes, 1 of pixels"),
        (Input(32, 24, mean=(0.0, 0.5, 0.0)), "1 of planes"),
    ],
)
def test_pixels_go_in_as_they_lie_where_they_are_only_multiplied(prepared: Input, told: str, tmp_path: Path) -> None:
    nodes = [conv(["images", "w", "b"], "c", strides=[2, 2]), helper.make_node("Relu", ["c"], ["out"])]
    path, out = written(tmp_path / "m.onnx", (nodes, {"w": weight(8, 3, 3, 3), "b": weight(8)})), tmp_path / "out.onnx"
    assert rewrite(path, out, prepared) == told
    onnx.checker.check_model(str(out))
    nets = [open_net(each, "onnx", 1) for each in (path, out)]
    row = File("m", "onnx", "0" * 64, 0, layout="NHWC", pixels="pixels" in told)
    manifest = Manifest("m", "1", "detect", "yolox", "MIT", "nobody", [row], input=prepared)
    image = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)
    said = []
    for net, spec in zip(nets, (prepared, input_of(manifest, row)), strict=True):
        assert spec is not None
        tensor, _ = preparer(spec, net.inputs[0])(image)
        said.append(net.run({"images": tensor})["out"])
    assert nets[1].inputs[0].dtype == ("uint8" if "pixels" in told else "float32")
    np.testing.assert_allclose(said[1], said[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("make", "told"), [(lambda: split(users=2), "1 of planes"), (lambda: focus(step=3), "")])
def test_what_does_not_fit_is_left_alone(
    make: Callable[[], tuple[list[Any], Arrays]], told: str, tmp_path: Path
) -> None:
    assert rewrite(written(tmp_path / "m.onnx", make()), tmp_path / "out.onnx") == told
    assert (tmp_path / "out.onnx").exists() == bool(told)


def test_a_picture_that_more_than_one_convolution_takes_keeps_its_planes(tmp_path: Path) -> None:
    nodes = [conv(["images", "w"], "a"), conv(["images", "w"], "b"), helper.make_node("Add", ["a", "b"], ["out"])]
    assert rewrite(written(tmp_path / "m.onnx", (nodes, {"w": weight(8, 3, 3, 3)})), tmp_path / "out.onnx") == ""


@pytest.mark.parametrize("damage", [b"", b"\x0a", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0a\x7f", b"\x07"])
def test_a_broken_file_is_refused_in_one_line(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(damage)
    with pytest.raises(RefusedError, match=r"m\.onnx: not a readable ONNX model"):
        rewrite(tmp_path / "m.onnx", tmp_path / "out.onnx")
