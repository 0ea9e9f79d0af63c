"""Files that want to harm whoever reads them, and what exporters pack into theirs."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.backends import open_net
from edge_agent.graphs import onnx_file, protobuf, tflite_file
from edge_agent.graphs.graph import MAX_NAME, MAX_WORDS, FileGraph, clean, leading
from edge_agent.inspect import names
from edge_agent.inspect.inspect import inspect, read_graph
from edge_agent.types import Net, TensorSpec
from tests.nets import absolute_tflite
from tests.registry.heads import squares


def detector_net(classes: int, size: tuple[int, ...] = (1, 64, 64, 3)) -> Net:
    """By its shapes alone."""
    out = TensorSpec("o", (1, 84, classes + 5), "float32")
    return Net(lambda tensors: {}, (TensorSpec("i", size, "float32"),), (out,), "none")


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_file_cut_or_scrambled_anywhere_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    if kind == "onnx":
        whole = squares(tmp_path / "a.onnx", "yolov8").read_bytes()
    else:
        whole = absolute_tflite(tmp_path / "a.tflite", [1, 64]).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / f"b.{kind}"
    read = 0
    for turn in range(300):
        body = bytearray(whole if turn % 2 else whole[: rng.integers(0, len(whole) + 1)])
        for at in rng.integers(0, max(1, len(body)), 4):
            if len(body) > at:
                body[at] = rng.integers(0, 256)
        path.write_bytes(bytes(body))
        graph, trouble = read_graph(path)
        assert "\n" not in trouble
        read += not trouble
        if trouble:
            assert graph == FileGraph()
    assert 0 < read < 300


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=st.binary(max_size=200))
def test_random_bytes(tmp_path: Path, body: bytes) -> None:
    for name, head in (("a.onnx", b""), ("a.tflite", b""), ("b.tflite", b"\x10\0\0\0TFL3")):
        path = tmp_path / name
        path.write_bytes(head + body)
        read_graph(path)


@pytest.mark.parametrize("body", [b"\x3a\xff\xff\xff\xff\x0f", b"\x0a" * 3, b"\xff" * 30, b"\x3a\x02\x0a\x7f"])
def test_lengths_that_lie(tmp_path: Path, body: bytes) -> None:
    """A message that promises more than is there, and one that never ends."""
    (tmp_path / "a.onnx").write_bytes(body)
    with pytest.raises(ValueError, match=r"byte|cut short|too long"):
        onnx_file.read(tmp_path / "a.onnx")


def test_fields_without_end_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "MAX_FIELDS", 1000)
    path = tmp_path / "many.onnx"
    path.write_bytes(b"\x08\x01" * 2000)
    with pytest.raises(ValueError, match="more than 1000 fields"):
        onnx_file.read(path)


def test_a_tflite_vector_longer_than_the_file(tmp_path: Path) -> None:
    body = bytearray(absolute_tflite(tmp_path / "a.tflite", [1, 64]).read_bytes())
    seen = set()
    for at in range(8, len(body) - 4, 4):
        harmed = bytearray(body)
        harmed[at : at + 4] = (0x7FFFFFFF).to_bytes(4, "little")
        (tmp_path / "b.tflite").write_bytes(bytes(harmed))
        seen.add(read_graph(tmp_path / "b.tflite")[1].partition("(")[2])
    assert any("longer than the file" in why for why in seen)
    assert any("out of the file" in why for why in seen)


def test_a_graph_that_runs_in_circles() -> None:
    from edge_agent.graphs.graph import FileNode, behind, embedding

    circle = (FileNode("Identity", ("a",), ("b",)), FileNode("Identity", ("b",), ("a",)))
    assert leading(FileGraph(circle), "a").layer == ""
    assert len(behind(FileGraph(circle), "a")) == 12
    assert embedding(FileGraph(circle), "a") is None


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────


def test_metadata_of_10_mb_is_left_out(tmp_path: Path) -> None:
    path = squares(tmp_path / "a.onnx", "yolov8", meta={"names": "['" + "a" * 10_000_000 + "', 'b', 'c']"})
    assert path.stat().st_size > 10_000_000
    graph = onnx_file.read(path)
    assert "names" not in graph.meta
    assert inspect(path, open_net(path, "onnx")).labels == ["class_0", "class_1", "class_2"]


@pytest.mark.parametrize(
    "value",
    [
        "[" * 100_000,
        "{0: __import__('os').system('true')}",
        "9" * 10_000,
        "{'a': 1}",
        "[[1, 2], [3]]" * 2,
        "\0",
        "{1: 2",
    ],
)
def test_names_that_are_none(value: str) -> None:
    assert names.table(value) == []


def test_names_with_control_characters(tmp_path: Path) -> None:
    odd = ["red\x1b[31m", "two\nlines", "\u202eturned", "x" * 500, ""]
    path = squares(tmp_path / "a.onnx", "yolov8", meta={"names": json.dumps(odd[:3])})
    seen = inspect(path, open_net(path, "onnx"))
    assert seen.labels == ["red [31m", "two lines", "turned"]
    assert all(reason.isprintable() for reason in seen.reasons)
    assert names.table(json.dumps(odd)) == [*seen.labels, "x" * MAX_NAME, "class_4"]
    assert clean("a\r\nb; c\x7f") == "a b, c"


def test_names_of_tensors_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = squares(tmp_path / "a.onnx", "yolov8", names=("in\x1b[2J\nput", "out\nput" + "x" * 9000), batch="n")
    seen = inspect(path, open_net(path, "onnx"))
    assert all(reason.isprintable() and len(reason) <= 500 for reason in seen.reasons)


# ── what is packed into TFLite files ─────────────────────────────────────────────────────────────────────


def zipped(path: Path, files: dict[str, bytes], base: bytes | None = None) -> Path:
    """A TFLite file with a zip behind it."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    start = base or absolute_tflite(path, [1, 64]).read_bytes()
    path.write_bytes(start + body.getvalue())
    return path


def test_associated_labels(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "a.tflite", {"labelmap.txt": b"???\nhat\nglove\n\n", "weights.bin": b"1", "readme.txt": b"x"}
    )
    seen = inspect(path, detector_net(2))
    assert seen.labels == ["hat", "glove"]
    assert any("2 names in labelmap.txt, which is packed into the file" in reason for reason in seen.reasons)


@pytest.mark.parametrize("form", [json.dumps, repr])
@pytest.mark.parametrize("name", ["temp_meta.txt", "metadata.json"])
def test_the_dict_that_ultralytics_packs(tmp_path: Path, form: Any, name: str) -> None:
    table = {"stride": 32, "task": "detect", "imgsz": [64, 64], "names": {0: "hat", 1: "glove"}, "license": "AGPL-3.0"}
    path = zipped(tmp_path / "a.tflite", {name: form(table).encode()})
    seen = inspect(path, detector_net(2))
    assert (seen.labels, seen.licence) == (["hat", "glove"], "AGPL-3.0")
    assert seen.input is not None and seen.input.channels == "RGB"
    assert seen.input.scale == pytest.approx(1 / 255)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.tflite", {"labels.txt": b"a\n" * 40_000_000, "names.txt": b"hat\nglove"})
    assert path.stat().st_size < 1_000_000
    assert set(tflite_file.packed(path)) == {"names.txt"}
    # a header that lies: 5 bytes are promised, 80 MB come
    body = path.read_bytes().replace((80_000_000).to_bytes(4, "little"), (5).to_bytes(4, "little"))
    (tmp_path / "b.tflite").write_bytes(body)
    assert all(len(text) <= MAX_WORDS for text in tflite_file.packed(tmp_path / "b.tflite").values())


def test_a_damaged_zip_is_no_zip(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.tflite", {"labels.txt": b"hat\nglove\n" * 50}).read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(100):
        body = bytearray(whole)
        body[rng.integers(len(whole) - 200, len(whole))] = rng.integers(0, 256)
        (tmp_path / "b.tflite").write_bytes(bytes(body))
        tflite_file.packed(tmp_path / "b.tflite")


def model_metadata(licence: str, mean: float, std: float) -> bytes:
    """ModelMetadata (M001) of one RGB picture as input, written field by field."""
    b = flatbuffers.Builder(256)

    def floats(value: float) -> int:
        b.StartVector(4, 1, 4)
        b.PrependFloat32(value)
        return int(b.EndVector())

    def table(*fields: tuple[int, str, Any]) -> int:
        b.StartObject(8)
        for slot, kind, value in fields:
            if kind == "offset":
                b.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                b.PrependInt8Slot(slot, value, 0)
        return int(b.EndObject())

    def tables(offset: int) -> int:
        b.StartVector(4, 1, 4)
        b.PrependUOffsetTRelative(offset)
        return int(b.EndVector())

    options = table((0, "offset", floats(mean)), (1, "offset", floats(std)))
    unit = table((0, "byte", 1), (1, "offset", options))
    content = table((0, "byte", 2), (1, "offset", table((0, "byte", 1))))
    tensor = table((3, "offset", content), (4, "offset", tables(unit)))
    graph = table((2, "offset", tables(tensor)))
    b.Finish(table((3, "offset", tables(graph)), (5, "offset", b.CreateString(licence))), b"M001")
    return bytes(b.Output())


def with_metadata(path: Path, body: bytes) -> Path:
    """`path`, a TFLite file, with `body` as its TFLITE_METADATA."""
    from ai_edge_litert import schema_py_generated as fb

    model = fb.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    buffer, entry = fb.BufferT(), fb.MetadataT()
    buffer.data, entry.name, entry.buffer = list(body), "TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def test_tflite_metadata(tmp_path: Path) -> None:
    body = model_metadata("MIT\n\x1b[0m", 127.5, 128.0)
    path = with_metadata(absolute_tflite(tmp_path / "a.tflite", [1, 64]), body)
    seen = inspect(path, detector_net(3))
    assert seen.licence == "MIT [0m" and seen.input is not None
    assert (seen.input.channels, seen.input.mean, seen.input.std) == ("RGB", (127.5,) * 3, (128.0,) * 3)
    rng = np.random.default_rng(2)
    for _ in range(100):
        harmed = bytearray(body)
        for at in rng.integers(0, len(body), 3):
            harmed[at] = rng.integers(0, 256)
        inspect(with_metadata(absolute_tflite(tmp_path / "b.tflite", [1, 64]), bytes(harmed)), detector_net(3))


def test_a_quantized_input_says_its_range() -> None:
    for dtype, scale, zero, span in (
        ("uint8", 1 / 255, 0, (0, 1)),
        ("int8", 1 / 255, -128, (0, 1)),
        ("int8", 1.0, -128, (0, 255)),
        ("uint8", 1 / 128, 128, (-1, 127 / 128)),
        ("int8", 2 / 255, 0, (-1, 1)),
    ):
        net = Net(
            lambda tensors: {},
            (TensorSpec("i", (1, 64, 64, 3), dtype, scale, zero),),
            (TensorSpec("o", (1, 84, 7), "float32"),),
            "none",
        )
        seen = inspect(Path("none.tflite"), net)
        assert seen.input is not None
        ends = [(x * seen.input.scale - seen.input.mean[0]) / seen.input.std[0] for x in (0, 255)]
        assert ends == pytest.approx(span)
        assert any(f"the input is {dtype} and stands for" in reason for reason in seen.reasons)


def test_a_float_input_that_is_quantized_at_once(tmp_path: Path) -> None:
    """As ONNX Runtime's QDQ models begin."""
    path = squares(tmp_path / "a.onnx", "yolov8")
    model = onnx.load(str(path))
    (name,) = (spec.name for spec in model.graph.input)
    for node in model.graph.node:
        for i, source in enumerate(node.input):
            if source == name:
                node.input[i] = "real"
    for i, (op, source, out) in enumerate((("QuantizeLinear", name, "q"), ("DequantizeLinear", "q", "real"))):
        model.graph.node.insert(i, onnx.helper.make_node(op, [source, "scale", "zero"], [out]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.0), "scale"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.uint8(0), "zero"))
    onnx.save(model, str(path))
    seen = inspect(path, open_net(path, "onnx"))
    assert seen.input is not None and seen.input.scale == 1.0
    assert any("quantized at once and stands for 0..255" in reason for reason in seen.reasons)
