"""Plans become ONNX networks: what each form makes, and the traps."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.backends import open_net
from edge_agent.errors import RefusedError
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.layers import groups
from edge_agent.workshop.quantize import build as quantize_build
from edge_agent.workshop.quantize.build import QuantizePlan, check_scales, chosen
from edge_agent.workshop.quantize.contents import of_onnx
from edge_agent.workshop.quantize.prepare import delicate, head, operators, prepare, tail
from edge_agent.workshop.quantize.ranges import METHODS, Interval, ranges, watch
from tests.nets import write_onnx
from tests.workshop.quantizable import detector

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def build(model: ir.Model, plan: QuantizePlan, found: Mapping[str, Interval]) -> onnx.ModelProto:
    return onnx.load_from_string(quantize_build.build(model, plan, found))


def constants(model: ir.Model | onnx.ModelProto) -> dict[str, Array]:
    if isinstance(model, onnx.ModelProto):
        return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    return {str(name): net.numbers(value) for name, value in model.graph.initializers.items()}


def weight_steps(model: onnx.ModelProto) -> Array:
    """Of the weights of the first convolution."""
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    before = next(node for node in model.graph.node if node.output[0] == conv.input[1])
    return constants(model)[before.input[1]]


def run(model: ir.Model | onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.onnx"
        path.write_bytes(model.SerializeToString() if isinstance(model, onnx.ModelProto) else net.data(model))
        # through the agent's door, as products of int8 are the same there on every processor
        return list(open_net(path, "onnx", 1).run(feed).values())


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Each test draws the same ones, whatever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def real(shape: tuple[int, ...]) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


def conv_net(path: Path, extra: bool = False) -> Path:
    """Two convolutions and a sum; `extra`: a Pad with -inf and a Softmax between them."""
    nodes = [helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="one", kernel_shape=[3, 3], pads=[1] * 4)]
    middle = "a"
    if extra:
        nodes += [
            helper.make_node("Pad", ["a", "pads", "least"], ["p"], name="pad"),
            helper.make_node("MaxPool", ["p"], ["q"], name="pool", kernel_shape=[3, 3]),
            helper.make_node("Softmax", ["q"], ["soft"], name="soft", axis=1),
        ]
        middle = "soft"
    nodes += [
        helper.make_node("Conv", [middle, "w2", "b2"], ["c"], name="two", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["c"], ["d"], name="relu"),
        helper.make_node("GlobalAveragePool", ["d"], ["y"], name="mean"),
    ]
    fixed: dict[str, Array] = {"w1": real((4, 3, 3, 3)), "b1": real((4,)), "w2": real((5, 4, 1, 1)), "b2": real((5,))}
    if extra:
        fixed |= {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "least": np.array(-np.inf, np.float32)}
    spec = {"x": (TensorProto.FLOAT, [1, 3, 8, 8])}
    return write_onnx(path, nodes, spec, {"y": (TensorProto.FLOAT, [1, 5, 1, 1])}, fixed)


def text_net(path: Path) -> Path:
    """ids -> rows of a table -> MatMul -> MatMul."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="look"),
        helper.make_node("MatMul", ["e", "w1"], ["h"], name="one"),
        helper.make_node("Tanh", ["h"], ["t"], name="tanh"),
        helper.make_node("MatMul", ["t", "w2"], ["y"], name="two"),
    ]
    fixed: dict[str, Array] = {"table": real((50, 64)), "w1": real((64, 64)) / 8, "w2": real((64, 16)) / 8}
    ids = {"ids": (TensorProto.INT64, ["b", "l"])}
    return write_onnx(path, nodes, ids, {"y": (TensorProto.FLOAT, ["b", "l", 16])}, fixed)


def calibrated(model: ir.Model, feeds: list[dict[str, Array]], method: str = "full") -> dict[str, Any]:
    return ranges(watch(model, lambda: feeds, lambda step: None), method)


def product_net(path: Path, *, alpha: float = 1.0, beta: float = 1.0, turned: int = 1, row: bool = False) -> Path:
    """x (8, 64) -> Gemm -> Relu -> Gemm -> y (8, 16); a tensor is called as the quantizer would call its own."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "w1_scale"], ["a"], name="one", alpha=alpha, beta=beta, transB=turned),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2"], ["y"], name="two"),
    ]
    bias = real((1, 32)) if row else real((32,))
    fixed: dict[str, Array] = {
        "w1": real((32, 64) if turned else (64, 32)) / 8,
        "w1_scale": bias,
        "w2": real((32, 16)) / 4,
    }
    spec = {"x": (TensorProto.FLOAT, [8, 64])}
    return write_onnx(path, nodes, spec, {"y": (TensorProto.FLOAT, [8, 16])}, fixed)


@pytest.mark.parametrize(
    "of", [{}, {"turned": 0}, {"alpha": 0.5, "beta": 2.0}, {"beta": 0.0, "turned": 0}, {"row": True}], ids=str
)
@pytest.mark.parametrize("form", ["dynamic", "static", "weights", "float16"])
def test_a_gemm_is_quantized_in_every_form(
    tmp_path: Path, of: dict[str, Any], form: Literal["dynamic", "static", "weights", "float16"]
) -> None:
    model = prepare(product_net(tmp_path / "m.onnx", **of))
    feeds = [{"x": real((8, 64))} for _ in range(6)]
    whole = onnx.load(tmp_path / "m.onnx")
    made = build(model, QuantizePlan(form), calibrated(model, feeds) if form == "static" else {})
    for feed in feeds:
        (want,), (got,) = run(whole, feed), run(made, feed)
        assert np.abs(got - want).max() < 0.15 * want.std()
    held = of_onnx(made.SerializeToString())
    kinds = {"dynamic": "dynamic-int8", "static": "int8", "weights": "int8-weights", "float16": "fp16"}
    assert held.precision == kinds[form]
    assert [kind for _, kind in held.layers.values()] == [kinds[form]] * 2, held.text()


def test_what_a_file_holds_is_read_off_it(tmp_path: Path) -> None:
    text = prepare(text_net(tmp_path / "t.onnx"))
    maps = prepare(conv_net(tmp_path / "c.onnx"))
    known = calibrated(maps, PICTURES)
    for made, precision, says in (
        (net.proto(text), "fp32", "float: 2 MatMul"),
        (build(text, QuantizePlan("dynamic"), {}), "dynamic-int8", "dynamic-int8: 2 MatMul"),
        (build(text, QuantizePlan("dynamic", keep=("one",)), {}), "dynamic-int8", "float: 1 MatMul"),
        (build(maps, QuantizePlan(ops="all"), known), "int8", "int8: 2 Conv"),
        (build(maps, QuantizePlan(ops="all", keep=("two",)), known), "int8", "int8: 1 Conv; float: 1 Conv"),
    ):
        held = of_onnx(made.SerializeToString())
        assert (held.precision, says in held.text()) == (precision, True), held.text()
    assert of_onnx(product_net(tmp_path / "g.onnx").read_bytes()).quantized == 0


def test_constants_among_the_inputs_and_branches(tmp_path: Path) -> None:
    model = onnx.load(conv_net(tmp_path / "m.onnx"))
    model.graph.input.extend(
        helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in model.graph.initializer
    )
    onnx.save(model, tmp_path / "old.onnx")
    made = build(prepare(tmp_path / "old.onnx"), QuantizePlan("weights"), {})
    assert [one.name for one in made.graph.input] == ["x"]
    bodies = [
        helper.make_graph(
            [helper.make_node("Mul", ["a", factor], [out])],
            out,
            [],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        )
        for factor, out in (("big", "then"), ("small", "else"))
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], name="one"),
        helper.make_node("ReduceMean", ["x"], ["m"], name="mean", keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["high"], name="high"),
        helper.make_node("If", ["high"], ["y"], name="if", then_branch=bodies[0], else_branch=bodies[1]),
    ]
    fixed = {"w": real((64, 16)), "big": np.float32(2), "small": np.float32(0.5), "zero": np.float32(0)}
    spec = {"x": (TensorProto.FLOAT, [8, 64])}
    path = write_onnx(
        tmp_path / "if.onnx",
        nodes,
        spec,
        {"y": (TensorProto.FLOAT, [8, 16])},
        {k: np.array(v) for k, v in fixed.items()},
    )
    branching = prepare(path)
    feed = {"x": real((8, 64))}
    (want,) = run(onnx.load(path), feed)
    assert np.abs(run(build(branching, QuantizePlan("weights"), {}), feed)[0] - want).max() < 0.1 * want.std()
    for form in ("static", "dynamic"):
        with pytest.raises(RefusedError, match="branches or loops"):
            build(branching, QuantizePlan(form), {})


PICTURES = [{"x": real((1, 3, 8, 8))} for _ in range(6)]
WORDS = [{"ids": RNG.integers(0, 50, (1, 9))} for _ in range(6)]


def error(model: ir.Model | onnx.ModelProto, made: ir.Model | onnx.ModelProto, feeds: list[dict[str, Array]]) -> float:
    """Root of the mean squared error over the spread of the outputs."""
    theirs = np.concatenate([run(model, feed)[0].ravel() for feed in feeds])
    mine = np.concatenate([run(made, feed)[0].ravel() for feed in feeds])
    return float(np.sqrt(((mine - theirs) ** 2).mean()) / theirs.std())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_static_networks_answer_as_the_parent(tmp_path: Path, method: str) -> None:
    model = prepare(conv_net(tmp_path / "n.onnx"))
    made = build(model, QuantizePlan(method=method, ops="all"), calibrated(model, PICTURES, method))
    assert error(model, made, PICTURES) < 0.1
    scale = weight_steps(made)
    assert scale.shape == (4,)
    whole = np.abs(np.asarray(constants(model)["w1"], np.float64)).max()
    assert np.asarray(scale, np.float64).max() == pytest.approx(whole / 127, rel=1e-5)


@pytest.mark.parametrize("plan", [QuantizePlan("dynamic"), QuantizePlan("weights"), QuantizePlan("float16")])
def test_forms_without_calibration(tmp_path: Path, plan: QuantizePlan) -> None:
    path = text_net(tmp_path / "n.onnx")
    model = prepare(path)
    made = build(model, plan, {})
    assert error(model, made, WORDS) < 0.03
    size = len(made.SerializeToString()) / path.stat().st_size
    assert size < (0.55 if plan.form == "float16" else 0.45)


def test_weights_that_alone_are_int8_become_float_first(tmp_path: Path) -> None:
    packed = build(prepare(text_net(tmp_path / "n.onnx")), QuantizePlan("weights"), {})
    assert any(node.op_type == "DequantizeLinear" for node in packed.graph.node)
    onnx.save(packed, str(tmp_path / "packed.onnx"))
    again = prepare(tmp_path / "packed.onnx")
    have = constants(packed)
    for name, node in zip(("w1", "w2"), net.layers(again), strict=True):
        weight = np.asarray(have[f"{name}_q"], np.float32) * np.asarray(have[f"{name}_scale"], np.float32)
        np.testing.assert_array_equal(net.numbers(node.inputs[1]), weight)
    made = build(again, QuantizePlan("dynamic"), {})
    assert any(node.op_type == "MatMulInteger" for node in made.graph.node)
    assert error(packed, made, WORDS) < 0.03


def test_a_network_below_opset_13_is_converted_first(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "n.onnx")
    model = onnx.load(str(path))
    model.opset_import[0].version = 11
    onnx.save(model, str(path))
    ready = prepare(path)
    made = build(ready, QuantizePlan(ops="all"), calibrated(ready, PICTURES))
    assert net.opset(ready) >= 13 and weight_steps(made).shape == (4,)
    assert error(ready, made, PICTURES) < 0.1


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf])
def test_a_scale_that_is_none_is_refused(tmp_path: Path, scale: float) -> None:
    model = prepare(conv_net(tmp_path / "n.onnx"))
    made = net.of(build(model, QuantizePlan(ops="all"), calibrated(model, PICTURES)))
    first = next(node for node in made.graph if node.op_type == "QuantizeLinear")
    net.put(first.inputs[1], np.array(scale, np.float32))
    with pytest.raises(RefusedError, match='the scale of "x" is'):
        check_scales(made)


def test_pads_of_minus_infinity_and_softmax_stay_float(tmp_path: Path) -> None:
    model = prepare(conv_net(tmp_path / "n.onnx", extra=True))
    found = calibrated(model, PICTURES)
    assert delicate(model) == {"pad", "soft"} and "p" not in found
    nodes = chosen(model, QuantizePlan(ops="all"), found)
    assert {"one", "two"} <= set(nodes) and not {"pad", "soft"} & set(nodes)
    made = build(model, QuantizePlan(ops="all"), found)
    assert error(model, made, PICTURES) < 0.1
    assert not any("p_" in name or name.startswith("p_") for name in constants(made) if name.endswith("p_scale"))


def test_what_joins_boxes_and_scores_has_no_scale(tmp_path: Path) -> None:
    model = prepare(detector(tmp_path / "d", uneven=False) / "model.onnx")
    assert [*groups(operators(model))] == ["stem", "undo", "mix"]
    assert head(model)[0] == "mix" and not {"stem", "undo"} & set(head(model))
    assert {"classes", "output"} <= tail(model) and not {"stem", "mix"} & tail(model)
    feeds = [{"images": RNG.uniform(0, 255, (1, 3, 64, 64)).astype(np.float32)} for _ in range(3)]
    made = build(model, QuantizePlan(ops="all"), calibrated(model, feeds))
    makers = {output: node.op_type for node in made.graph.node for output in node.output}
    assert makers["output"] == "Concat"
    joined = next(node for node in made.graph.node if node.output[0] == "output")
    assert not any(makers.get(given) == "DequantizeLinear" for given in joined.input)


def test_kept_nodes_stay_float(tmp_path: Path) -> None:
    model = prepare(conv_net(tmp_path / "n.onnx"))
    made = build(model, QuantizePlan(ops="all", keep=("one",)), calibrated(model, PICTURES))
    by = {node.name: node for node in made.graph.node}
    makers = {output: node.op_type for node in made.graph.node for output in node.output}
    assert makers.get(by["one"].input[1]) is None and makers[by["two"].input[1]] == "DequantizeLinear"


def test_a_quantized_network_and_no_network_are_refused(tmp_path: Path) -> None:
    model = prepare(conv_net(tmp_path / "n.onnx"))
    onnx.save(build(model, QuantizePlan(ops="all"), calibrated(model, PICTURES)), str(tmp_path / "q.onnx"))
    with pytest.raises(RefusedError, match="quantized already"):
        prepare(tmp_path / "q.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(RefusedError, match="not a readable ONNX model"):
        prepare(tmp_path / "text.onnx")


def test_seven_bits_leave_room_for_the_sum_of_two_products(tmp_path: Path) -> None:
    """The greatest sum of two products of U8 and such a weight is below 2^15, so nothing saturates without VNNI."""
    model = prepare(conv_net(tmp_path / "n.onnx"))
    found = calibrated(model, PICTURES)
    made = build(model, QuantizePlan(bits="7w", ops="all"), found)
    small = [value for value in constants(made).values() if value.dtype == np.int8 and value.ndim > 1]
    assert small and all(2 * 255 * int(np.abs(value.astype(int)).max()) < 2**15 for value in small)
    assert error(model, made, PICTURES) < 0.1
    assert of_onnx(made.SerializeToString()).precision == "int8"
