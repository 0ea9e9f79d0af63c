"""TFLite files of trained networks, against ONNX Runtime: small ones of their operators, and edge-yolo's weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_agent.backends import open_net
from edge_agent.types import Tensors
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.quantize.contents import of_tflite
from edge_agent.workshop.train.exported import small_tflite
from edge_agent.workshop.train.tflite import to_tflite
from tests.conftest import ROOT

PICTURES = """<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 3, 16, 24] images) => (float[1, 24, 12] cells) {
    a = Conv<kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1], group=1>(images, stem, stem_bias)
    b = Relu(a)
    c = Conv<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], group=6>(b, depth, depth_bias)
    d = Conv<kernel_shape=[1, 1], strides=[1, 1], pads=[0, 0, 0, 0], group=1>(c, point, point_bias)
    e = Sigmoid(d)
    f = Mul(d, e)
    g = MaxPool<kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2]>(f)
    h = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(f)
    i = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(h, , two)
    j = Add(g, i)
    k = Concat<axis=1>(j, f)
    l = Transpose<perm=[0, 2, 3, 1]>(k)
    m = Reshape(l, flat)
    cells = Relu(m)
}"""
TEXT = """<ir_version: 9, opset_import: ["" : 20]>
net (int64[1, L] ids, int64[1, L] mask) => (float[1, L, 8] hidden, float[1, 1] long) {
    at = CumSum(mask, one)
    from = Sub(at, one)
    places = Gather(positions, from)
    words = Gather(table, ids)
    a = Add(words, places)
    b = LayerNormalization<axis=-1, epsilon=1e-5>(a, scale, bias)
    c = MatMul(b, up)
    d = Add(c, up_bias)
    e = Gelu<approximate="tanh">(d)
    f = Reshape(e, split)
    g = Transpose<perm=[0, 2, 1, 3]>(f)
    h = Transpose<perm=[0, 2, 3, 1]>(f)
    i = MatMul(g, h)
    seen = Cast<to=1>(mask)
    other = Unsqueeze(seen, axes)
    blocked = Mul(other, away)
    j = Add(i, blocked)
    k = Softmax<axis=-1>(j)
    m = MatMul(k, g)
    n = Transpose<perm=[0, 2, 1, 3]>(m)
    hidden = Reshape(n, join)
    o = MatMul(hidden, last)
    p = ReduceSum<keepdims=0>(o, axis)
    q = Max(p, least)
    r = Sqrt(q)
    long = Div(r, away)
}"""


def network(text: str, **constants: object) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    onnx.checker.check_model(model, full_check=True)
    return model


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 0.4, shape).astype(np.float32)


def alike(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def answers(folder: Path, data: bytes, kind: str, feed: Tensors) -> Tensors:
    (folder / f"net.{kind}").write_bytes(data)
    return open_net(folder / f"net.{kind}", kind, 1).run(feed)


def test_a_network_of_pictures_answers_as_its_onnx_form_does(tmp_path: Path) -> None:
    weights = {"stem": drawn(6, 3, 4, 4), "depth": drawn(6, 1, 3, 3), "point": drawn(6, 6, 1, 1)}
    biases = {f"{name}_bias": drawn(6) for name in weights}
    shapes = {"two": np.array([1, 1, 2, 2], np.float32), "flat": np.array([1, -1, 12])}
    model = network(PICTURES, **weights, **biases, **shapes)
    picture = drawn(1, 3, 16, 24)
    wanted = answers(tmp_path, model.SerializeToString(), "onnx", {"images": picture})["cells"]
    data = to_tflite(model)
    turned = {"images": picture.transpose(0, 2, 3, 1).copy()}
    assert np.allclose(answers(tmp_path, data, "tflite", turned)["cells"], wanted, atol=1e-5)
    for plan, held in ((QuantizePlan(form="float16"), "fp16"), (QuantizePlan(ops="all"), "int8")):
        small = small_tflite(data, plan, [turned] if held == "int8" else [])
        assert of_tflite(small).precision == held
        assert alike(answers(tmp_path, small, "tflite", turned)["cells"], wanted) > 0.99


def test_a_network_of_text_takes_one_of_any_length(tmp_path: Path) -> None:
    numbers = {"one": np.int64(1), "split": np.array([0, 0, 2, 4]), "join": np.array([0, 0, 8])}
    numbers |= {"axes": np.array([1, 2]), "axis": np.array([1])}
    floats = {"away": np.float32(0.3), "least": np.float32(1e-9), "scale": drawn(8), "bias": drawn(8)}
    weights = {"table": drawn(30, 8), "positions": drawn(12, 8), "up": drawn(8, 8), "up_bias": drawn(8)}
    model = network(TEXT, **numbers, **floats, **weights, last=drawn(8, 1))
    data = to_tflite(model)
    for size in (3, 12):
        feed = {"ids": np.arange(size)[None] * 2, "mask": np.ones((1, size), np.int64)}
        narrow = {name: value.astype(np.int32) for name, value in feed.items()}
        wanted = answers(tmp_path, model.SerializeToString(), "onnx", feed)
        got = answers(tmp_path, data, "tflite", narrow)
        small = answers(tmp_path, small_tflite(data, QuantizePlan(form="dynamic")), "tflite", narrow)
        for name in ("hidden", "long"):
            assert np.allclose(got[name], wanted[name], atol=1e-5) and got[name].shape == wanted[name].shape
        assert alike(small["hidden"], wanted["hidden"]) > 0.99


def test_edge_yolo_is_written_in_every_form(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    from edge_agent.workshop.train.detector import export
    from edge_agent.workshop.train.detector.augment import Picture
    from edge_agent.workshop.train.detector.net import folded_copy, from_folded

    carried = export.tensors_of(ROOT / "models" / "edge-yolo" / "model.onnx")
    net = folded_copy(from_folded(carried, 20))
    random = np.random.default_rng(0)
    pictures = [
        Picture("", random.integers(0, 256, (4, 6, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1), np.zeros((0, 6)))
        for _ in range(6)
    ]
    said: list[str] = []
    manifest = export.write_model(net, tuple("abcdefghijklmnopqrst"), (96, 64), pictures, tmp_path, said.append)
    assert float(said[0].split()[-1]) < 1e-3
    written = export.tensors_of(tmp_path / "model.onnx")
    assert written.keys() == carried.keys() == net.state_dict().keys()
    image = pictures[0].pixels[None].astype(np.float32)
    wanted: Tensors = {}
    for row in manifest.networks():
        feed = {"images": image if row.format == "tflite" else image.transpose(0, 3, 1, 2).copy()}
        got = open_net(tmp_path / row.name, row.format, 1).run(feed)
        with torch.no_grad():
            wanted = wanted or {
                k: v.numpy()
                for k, v in zip(export.OUTPUTS, net(torch.from_numpy(image.transpose(0, 3, 1, 2).copy())), strict=False)
            }
        for name in export.OUTPUTS:
            assert got[name].shape == wanted[name].shape
            assert alike(wanted[name], got[name]) > (0.94 if row.precision == "int8" else 0.999), row.name
    small = onnx.load(str(tmp_path / "model.int8.onnx"))
    kinds = {one.name: one.data_type for one in small.graph.initializer}
    for output in export.OUTPUTS:
        assert kinds[f"heads.0.{output}.weight"] == onnx.TensorProto.FLOAT
    assert not any(name.endswith("join.conv.weight") for name in kinds), "all others are int8 by another name"
    weights = [tmp_path / row.name for row in manifest.networks()]
    sizes = [path.stat().st_size for path in weights]
    assert sizes[1] < 0.45 * sizes[0] and sizes[2] < 0.6 * sizes[0] and sizes[3] < 0.45 * sizes[0]
