from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edge_agent.backends import onnx as backends_onnx
from edge_agent.backends import open_net, providers
from edge_agent.backends.onnx import EXACT, OTHERS, PROVIDERS, _options, optimise
from edge_agent.errors import RefusedError
from tests.nets import doubling_onnx, one, write_onnx


def test_dynamic_axes_are_none_and_take_any_length(tmp_path: Path) -> None:
    net = open_net(doubling_onnx(tmp_path / "m.onnx", shape=("batch", 3)), "onnx", 1)
    assert net.inputs[0].shape == (None, 3)
    for n in (1, 5, 2):
        assert one(net.run({"x": np.ones((n, 3), np.float32)})).shape == (n, 3)


def test_half_floats_are_cast_at_the_seam(tmp_path: Path) -> None:
    net = open_net(doubling_onnx(tmp_path / "m.onnx", TensorProto.FLOAT16), "onnx", 1)
    assert net.inputs[0].dtype == "float16"
    x = np.array([[0.5, 1, 2], [3, 4, 5]], np.float32)
    y = one(net.run({"x": x}))
    assert y.dtype == np.float32 and (y == 2 * x).all()


def test_other_element_types_keep_theirs(tmp_path: Path) -> None:
    net = open_net(doubling_onnx(tmp_path / "m.onnx", TensorProto.INT64), "onnx", 1)
    assert net.outputs[0].dtype == "int64"
    y = one(net.run({"x": np.ones((2, 3), np.int32)}))
    assert y.dtype == np.int64 and (y == 2).all()


def test_outputs_come_by_name(tmp_path: Path) -> None:
    spec = (TensorProto.FLOAT, [2])
    nodes = [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["x"], ["size"])]
    net = open_net(write_onnx(tmp_path / "m.onnx", nodes, {"x": spec}, {"size": spec, "minus": spec}), "onnx", 1)
    y = net.run({"x": np.array([-1, 2], np.float32)})
    assert y["minus"].tolist() == [1, -2] and y["size"].tolist() == [1, 2]


def test_what_is_no_tensor_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    graph = helper.make_graph(
        [node],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RefusedError, match='"y" is a seq'):
        open_net(tmp_path / "m.onnx", "onnx", 1)


def test_an_operator_the_runtime_lacks_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Nonsense", ["x"], ["y"], domain="my.own")
    spec = (TensorProto.FLOAT, [2])
    with pytest.raises(RefusedError, match=r"not a readable ONNX model .*my\.own"):
        open_net(write_onnx(tmp_path / "m.onnx", [node], {"x": spec}, {"y": spec}), "onnx", 1)


# ── session options ──────────────────────────────────────────────────────────────────────────────────────


def test_no_spinning_in_the_words_of_each_version() -> None:
    def entry(version: str, key: str) -> str:
        runtime = SimpleNamespace(SessionOptions=onnxruntime.SessionOptions, __version__=version)
        return str(_options(runtime, 3).get_session_config_entry(key))  # type: ignore[arg-type]

    assert entry("1.32.0", "session.intra_op.spin_duration_us") == "20"
    assert entry("1.26.0", "session.intra_op.spin_duration_us") == "20"
    assert entry("1.25.1", "session.intra_op.allow_spinning") == "0"
    options = _options(onnxruntime, 3)
    assert (options.intra_op_num_threads, options.enable_mem_pattern, options.enable_cpu_mem_arena) == (3, False, True)


def test_the_cpu_serves_unless_asked_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = doubling_onnx(tmp_path / "m.onnx")
    monkeypatch.delenv(PROVIDERS, raising=False)
    monkeypatch.setattr(backends_onnx, "saturates", lambda: False)
    assert open_net(path, "onnx", 1).reasons == ("CPUExecutionProvider: threads=1",)
    monkeypatch.setattr(backends_onnx, "saturates", lambda: True)
    assert "products of int8 exact" in open_net(path, "onnx", 1).reasons[0]
    absent = "NoSuchExecutionProvider"
    monkeypatch.setenv(PROVIDERS, f" {absent}, ")
    net = open_net(path, "onnx", 1)
    assert net.engine.endswith(" CPUExecutionProvider")
    assert net.reasons[0] == f"{absent}: this ONNX Runtime was built without it"


def test_a_provider_that_works_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [p for p in onnxruntime.get_available_providers() if p == "AzureExecutionProvider"]
    if not others:
        pytest.skip("this onnxruntime lists no provider but the CPU")
    monkeypatch.setenv(PROVIDERS, others[0])
    net = open_net(doubling_onnx(tmp_path / "m.onnx"), "onnx", 1)
    assert net.engine.endswith(others[0]) and net.reasons == (f"{others[0]}: asked for, and its run works",)


def test_a_provider_whose_run_fails_is_fallen_back_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that fails on an axis of length 1, whoever runs it: no provider's own device is at hand to fail."""
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime lists no provider but the CPU")
    spec = (TensorProto.FLOAT, ["n"])
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    path = write_onnx(tmp_path / "m.onnx", [node], {"x": spec}, {"y": spec}, {"shape": np.array([7], np.int64)})
    monkeypatch.setenv(PROVIDERS, "AzureExecutionProvider")
    net = open_net(path, "onnx", 1)
    assert net.engine.endswith(" CPUExecutionProvider")
    assert net.reasons[0].startswith("AzureExecutionProvider: the run failed (")
    assert one(net.run({"x": np.ones(7, np.float32)})).shape == (7,)


def test_each_provider_is_listed_with_what_became_of_trying_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the runtime claims to have (as where its driver is missing) and that then takes no session."""
    path = doubling_onnx(tmp_path / "m.onnx")
    really = onnxruntime.get_available_providers()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", *really])
    found = providers(path, "onnx")
    assert set(found) == set(OTHERS) and all("\n" not in why for why in found.values())
    claimed = [name for name in found if name in really]
    assert found["CUDAExecutionProvider"] or "CUDAExecutionProvider" in claimed
    assert all(
        "built without it" in why for name, why in found.items() if name not in ("CUDAExecutionProvider", *claimed)
    )
    monkeypatch.setenv(PROVIDERS, "CUDAExecutionProvider")
    net = open_net(path, "onnx", 1)
    if "CUDAExecutionProvider" not in claimed:
        assert net.engine.endswith(" CPUExecutionProvider")
        assert net.reasons[0] == f"CUDAExecutionProvider: {found['CUDAExecutionProvider']}"
    np.testing.assert_array_equal(one(net.run({"x": np.ones((2, 3), np.float32)})), 2 * np.ones((2, 3)))


# ── external data ────────────────────────────────────────────────────────────────────────────────────────


def with_external(path: Path, location: str, where: str = "initializer") -> Path:
    """y = x + w with w in a file of its own, named by an initializer, or by a Constant node inside an If."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    add = helper.make_node("Add", ["x", "w"], ["y"])
    if where == "initializer":
        graph = helper.make_graph([add], "g", [x], [y], [tensor])
    else:
        constant = helper.make_node("Constant", [], ["w"], value=tensor)
        branch = helper.make_graph([constant, add], "then", [], [y])
        c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
        graph = helper.make_graph(
            [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)], "g", [x, c], [y]
        )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder with weights inside, and the same file outside it."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder, folder / "sub"):
        (place / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    return folder


@pytest.mark.parametrize("where", ["initializer", "nested node"])
@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin", "../w.bin", "ABSOLUTE", "link.bin", "gone.bin"])
def test_weights_in_another_file_are_refused(weights: Path, location: str, where: str) -> None:
    location = str(weights.parent / "w.bin") if location == "ABSOLUTE" else location
    path = with_external(weights / "m.onnx", location, where)
    with pytest.raises(RefusedError, match=r"m\.onnx: its weights lie in another file; save it in one: onnx\.save"):
        open_net(path, "onnx", 1)


def test_saved_in_one_file_it_is_read(weights: Path) -> None:
    onnx.save(onnx.load(with_external(weights / "m.onnx", "w.bin")), weights / "one-file.onnx")
    net = open_net(weights / "one-file.onnx", "onnx", 1)
    assert one(net.run({"x": np.ones(4, np.float32)})).tolist() == [1, 2, 3, 4]


def test_a_model_that_only_speaks_of_locations_is_read(tmp_path: Path) -> None:
    spec = (TensorProto.FLOAT, [2])
    node = helper.make_node("Neg", ["location"], ["y"])
    net = open_net(write_onnx(tmp_path / "m.onnx", [node], {"location": spec}, {"y": spec}), "onnx", 1)
    assert net.inputs[0].name == "location"


# ── the real one ─────────────────────────────────────────────────────────────────────────────────────────


def test_yolox_truncated_anywhere_is_refused(data: Path, tmp_path: Path) -> None:
    good = (data / "models/yolox_nano.onnx").read_bytes()
    for size in (1000, len(good) // 2, len(good) - 1):
        (tmp_path / "m.onnx").write_bytes(good[:size])
        with pytest.raises(RefusedError, match=r"m\.onnx: not a readable ONNX model \(Protobuf parsing failed\)"):
            open_net(tmp_path / "m.onnx", "onnx", 1)


@pytest.mark.parametrize("form", ["integers", "matrices", "kernels"])
def test_products_of_int8_are_exact_on_every_processor(tmp_path: Path, form: str) -> None:
    """Pairs of the largest numbers, which processors without VNNI saturate unless they are told not to."""
    count = 64
    weight = np.full((count, 8), 127, np.int8)
    step, zero = np.float32(1 / 255), np.uint8(0)
    pairs = [helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["small"])]
    if form == "integers":
        pairs += [helper.make_node("MatMulInteger", ["small", "weight"], ["y"])]
        expected, element, shape = count * 255 * 127, TensorProto.INT32, [4, 8]
    else:
        pairs += [
            helper.make_node("DequantizeLinear", ["small", "step", "zero"], ["wide"]),
            helper.make_node("DequantizeLinear", ["weight", "one"], ["kernel"]),
            helper.make_node("MatMul" if form == "matrices" else "Conv", ["wide", "kernel"], ["sums"]),
            helper.make_node("QuantizeLinear", ["sums", "most", "zero"], ["rounded"]),
            helper.make_node("DequantizeLinear", ["rounded", "most", "zero"], ["y"]),
        ]
        expected, element, shape = count * 127, TensorProto.FLOAT, [4, 8]
    if form == "kernels":
        weight, shape = weight.T.reshape(8, count, 1, 1), [1, 8, 2, 2]
    given = [1, count, 2, 2] if form == "kernels" else [4, count]
    fixed = {
        "weight": weight,
        "step": np.asarray(step),
        "zero": np.asarray(zero),
        "one": np.asarray(np.float32(1)),
        "most": np.asarray(np.float32(count * 127 / 255)),
    }
    spec, x = {"x": (TensorProto.FLOAT, given)}, np.ones(given, np.float32)
    net = open_net(write_onnx(tmp_path / "m.onnx", pairs, spec, {"y": (element, shape)}, fixed), "onnx", 1)
    np.testing.assert_allclose(one(net.run({"x": x})), expected, rtol=1e-6)
    optimise(tmp_path / "m.onnx", tmp_path / "m.ort")
    np.testing.assert_allclose(one(open_net(tmp_path / "m.ort", "ort", 1).run({"x": x})), expected, rtol=1e-6)


def test_exact_products_are_asked_for_where_the_fast_ones_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    for saturating in (True, False):
        monkeypatch.setattr(backends_onnx, "saturates", lambda it=saturating: it)
        for exact in (True, False):
            options = _options(onnxruntime, 1, exact)
            try:
                asked = options.get_session_config_entry(EXACT) == "1"
            except RuntimeError:
                asked = False
            assert asked == (saturating and exact), "elsewhere it costs time"


def test_weights_with_a_scale_for_each_channel_and_no_zero_points_run_with_exact_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends_onnx, "saturates", lambda: True)
    nodes = [
        helper.make_node("DequantizeLinear", ["small", "steps"], ["weight"], axis=1),
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
    ]
    small = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    steps = np.array([1, 2, 3], np.float32)
    ends = {"x": (TensorProto.FLOAT, [1, 4])}, {"y": (TensorProto.FLOAT, [1, 3])}
    path = write_onnx(tmp_path / "m.onnx", nodes, *ends, {"small": small, "steps": steps})
    optimise(path, tmp_path / "m.ort")
    for net in (open_net(path, "onnx", 1), open_net(tmp_path / "m.ort", "ort", 1)):
        answer = one(net.run({"x": np.ones((1, 4), np.float32)}))
        np.testing.assert_allclose(answer[0], small.sum(axis=0) * steps)
