"""What a device makes of an ONNX file to run it faster: it finds the same, or it is not made."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from edge_agent import paths
from edge_agent.backends import open_net
from edge_agent.errors import RefusedError
from edge_agent.gate import ask, verdicts
from edge_agent.gate.derive import derive
from edge_agent.gate.derive_detector import same
from edge_agent.gate.trial import Derive, Result, Variant
from edge_agent.graphs.cut import Cuttable
from edge_agent.graphs.rewrite import rewrite as rewriting
from edge_agent.manifest import File, Input, Manifest, Served
from edge_agent.registry import catalogue, store
from edge_agent.registry.files import file_path, parts_of
from edge_agent.samples.carried import pictures
from edge_agent.serving import forms
from edge_agent.serving.forms import with_derived
from edge_agent.serving.models import Models, try_all
from edge_agent.tasks import make_task
from edge_agent.tasks.detect.detect import Detector
from edge_agent.toml import toml
from edge_agent.types import Detections, Finding, ModelRef
from edge_agent.uri import Uri
from tests.nets import write_onnx

SIZE, CLASSES, STRIDES = 64, 3, (8, 16, 32)
CELLS = [(SIZE // s) ** 2 for s in STRIDES]
ANCHORS = np.array([[[9, 12], [20, 15]], [[31, 40], [50, 33]], [[60, 60], [45, 90]]], np.float32)

Tail = Callable[["Net"], None]


class Net:
    """A detector of three levels with random weights, up to its last convolutions."""

    def __init__(self, **maps: int) -> None:
        """`maps`: role -> channels of each level's map."""
        rng = np.random.default_rng(4)
        self.nodes: list[Any] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}
        before, channels = "images", 3
        for level, step in enumerate((8, 2, 2)):
            weight = rng.normal(0, 1 / (step * channels**0.5), (16, channels, step, step)).astype(np.float32)
            self.op(
                "Conv",
                [before, self.const(f"w{level}", weight)],
                f"c{level}",
                kernel_shape=[step] * 2,
                strides=[step] * 2,
            )
            self.op("Tanh", [f"c{level}"], f"f{level}")
            before, channels = f"f{level}", 16
            for role, count in maps.items():
                weight = rng.normal(0, 1, (count, 16, 1, 1)).astype(np.float32)
                self.op("Conv", [before, self.const(f"w.{role}{level}", weight)], f"{role}.{level}")

    def const(self, name: str, value: npt.ArrayLike) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def op(self, kind: str, inputs: list[str], output: str, **how: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **how))
        return output

    def rows(self, role: str, channels: int) -> str:
        """All levels' maps of a role as [1, channels, N]."""
        for level in range(3):
            self.op("Reshape", [f"{role}.{level}", self.const(f"{role}.flat", [1, channels, -1])], f"{role}.r{level}")
        return self.op("Concat", [f"{role}.r{level}" for level in range(3)], f"{role}.rows", axis=2)

    def grid(self) -> tuple[str, str]:
        """Cells' columns and rows [1, 2, N], and strides [1, 1, N]."""
        cells = [np.mgrid[: SIZE // s, : SIZE // s][::-1].reshape(2, -1) for s in STRIDES]
        steps = np.repeat(np.array(STRIDES, np.float32), CELLS).reshape(1, 1, -1)
        return self.const("cells", np.concatenate(cells, 1)[None].astype(np.float32)), self.const("steps", steps)

    def write(self, path: Path, outputs: dict[str, list[int | str]]) -> Path:
        given = {name: (TensorProto.FLOAT, shape) for name, shape in outputs.items()}
        return write_onnx(path, self.nodes, {"images": (TensorProto.FLOAT, [1, 3, SIZE, SIZE])}, given, self.constants)


def yolov8(path: Path, stretch: float = 1.0, last: str = "Sigmoid") -> Path:
    """Distances as distributions over 8 bins, decoded to centre and size; [1, 4 + C, N]."""
    net = Net(box=4 * 8, cls=CLASSES)
    cells, steps = net.grid()
    net.op("Reshape", [net.rows("box", 32), net.const("sides", [1, 4, 8, -1])], "bins")
    net.op("Transpose", ["bins"], "last", perm=[0, 2, 1, 3])
    net.op("Softmax", ["last"], "weights", axis=1)
    means = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1) * np.float32(stretch)
    net.op("Conv", ["weights", net.const("means", means)], "mean")
    net.op("Reshape", ["mean", net.const("four", [1, 4, -1])], "reach")
    net.nodes.append(helper.make_node("Split", ["reach"], ["lt", "rb"], axis=1))
    net.op("Add", [cells, net.const("half", np.float32(0.5))], "points")
    net.op("Sub", ["points", "lt"], "low")
    net.op("Add", ["points", "rb"], "high")
    net.op("Add", ["low", "high"], "twice")
    net.op("Div", ["twice", net.const("two", np.float32(2))], "centre")
    net.op("Sub", ["high", "low"], "size")
    net.op("Concat", ["centre", "size"], "cells.xywh", axis=1)
    net.op("Mul", ["cells.xywh", steps], "xywh")
    net.op(last, [net.rows("cls", CLASSES)], "scores")
    net.op("Concat", ["xywh", "scores"], "output0", axis=1)
    return net.write(path, {"output0": [1, 4 + CLASSES, sum(CELLS)]})


def yolox(path: Path) -> Path:
    """Raw boxes, objectness and classes behind sigmoids, joined level by level; [1, N, 5 + C]."""
    net = Net(reg=4, obj=1, cls=CLASSES)
    for level in range(3):
        for role in ("obj", "cls"):
            net.op("Sigmoid", [f"{role}.{level}"], f"{role}.s{level}")
        net.op("Concat", [f"reg.{level}", f"obj.s{level}", f"cls.s{level}"], f"all.{level}", axis=1)
    net.op("Transpose", [net.rows("all", 5 + CLASSES)], "output", perm=[0, 2, 1])
    return net.write(path, {"output": [1, sum(CELLS), 5 + CLASSES]})


def yolov5(path: Path) -> Path:
    """Two anchors a level, decoded to pixels; [1, N, 5 + C]."""
    net = Net(det=2 * (5 + CLASSES))
    for level, stride in enumerate(STRIDES):
        side = SIZE // stride
        shape = net.const(f"shape{level}", [1, 2, 5 + CLASSES, side, side])
        net.op("Reshape", [f"det.{level}", shape], f"five{level}")
        net.op("Transpose", [f"five{level}"], f"turned{level}", perm=[0, 1, 3, 4, 2])
        net.op("Sigmoid", [f"turned{level}"], f"y{level}")
        names = [f"xy{level}", f"wh{level}", f"rest{level}"]
        net.nodes.append(
            helper.make_node("Split", [f"y{level}", net.const("parts", [2, 2, 1 + CLASSES])], names, axis=4)
        )
        at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).astype(np.float32) - 0.5
        net.op("Mul", [names[0], net.const(f"double{level}", np.float32(2 * stride))], f"xy.s{level}")
        net.op("Add", [f"xy.s{level}", net.const(f"at{level}", at * stride)], f"centre{level}")
        net.op("Mul", [names[1], net.const("two", np.float32(2))], f"wh.t{level}")
        net.op("Pow", [f"wh.t{level}", "two"], f"wh.p{level}")
        net.op("Mul", [f"wh.p{level}", net.const(f"anchor{level}", ANCHORS[level][:, None, None])], f"size{level}")
        net.op("Concat", [f"centre{level}", f"size{level}", names[2]], f"joined{level}", axis=4)
        net.op("Reshape", [f"joined{level}", net.const("rows", [1, -1, 5 + CLASSES])], f"rows{level}")
    net.op("Concat", [f"rows{level}" for level in range(3)], "output", axis=1)
    return net.write(path, {"output": [1, 2 * sum(CELLS), 5 + CLASSES]})


def edge_yolo(path: Path) -> Path:
    """Distances behind one Relu, and logits; [1, N, 4] and [1, N, C]."""
    net = Net(box=4, cls=CLASSES)
    net.op("Relu", [net.rows("box", 4)], "reach")
    net.op("Transpose", ["reach"], "boxes", perm=[0, 2, 1])
    net.op("Transpose", [net.rows("cls", CLASSES)], "logits", perm=[0, 2, 1])
    return net.write(path, {"boxes": [1, sum(CELLS), 4], "logits": [1, sum(CELLS), CLASSES]})


def nanodet(path: Path) -> Path:
    """Classes behind a sigmoid and 4 x 8 bins of each cell; [1, N, C + 32]."""
    net = Net(all=CLASSES + 32)
    parts = net.const("parts", [CLASSES, 32])
    net.nodes.append(helper.make_node("Split", [net.rows("all", CLASSES + 32), parts], ["cls", "bins"], axis=1))
    net.op("Sigmoid", ["cls"], "scores")
    net.op("Concat", ["scores", "bins"], "joined", axis=1)
    net.op("Transpose", ["joined"], "output", perm=[0, 2, 1])
    return net.write(path, {"output": [1, sum(CELLS), CLASSES + 32]})


BUILT: dict[str, Callable[[Path], Path]] = {
    "yolov8": yolov8,
    "yolox": yolox,
    "yolov5": yolov5,
    "edge-yolo": edge_yolo,
    "nanodet": nanodet,
}


def model(folder: Path, family: str, build: Callable[[Path], Path] | None = None) -> Path:
    """A folder with a manifest of such a network."""
    folder.mkdir(parents=True)
    path = (build or BUILT[family])(folder / "model.onnx")
    (folder / "manifest.toml").write_text(
        f'name = "made"\nversion = "1"\ntask = "detect"\nfamily = "{family}"\nlicence = "Apache-2.0"\n'
        f'trained_by = "nobody"\nlabels = ["red", "green", "blue"]\nscore = 0.3\n'
        f"[input]\nwidth = {SIZE}\nheight = {SIZE}\nscale = 0.01\n"
        f'[[file]]\nname = "model.onnx"\nformat = "onnx"\nsha256 = "{store.digest(path)}"\n'
        f"bytes = {path.stat().st_size}\n"
    )
    return folder


def derived(folder: Path, out: Path) -> Result:
    """What the child of such a trial says."""
    located = catalogue.locate(str(folder))
    (row,) = located.manifest.networks()
    path = str(folder / row.name)
    return derive(Derive(manifest=located.manifest, variants=[Variant(row, path)], threads=1, out=str(out)))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# ── the derivation ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", BUILT)
def test_each_family_is_stopped_before_its_tail_and_finds_the_same(family: str, tmp_path: Path) -> None:
    folder = model(tmp_path / "model", family)
    before = (folder / "model.onnx").read_bytes()
    result = derived(folder, tmp_path / "out")
    assert "is stopped before its tail: boxes within" in result.notes[0]
    assert result.figures["files"][0]["family"].endswith("-maps") and result.figures["files"][0]["format"] == "ort"
    assert (folder / "model.onnx").read_bytes() == before
    outputs = open_net(tmp_path / "out", "ort", 1).outputs
    assert all(len(spec.shape) == 4 or spec.name == "anchors" for spec in outputs), "maps come out"


def test_a_yolov5_s_anchors_are_found_in_what_it_answers(tmp_path: Path) -> None:
    derived(model(tmp_path / "model", "yolov5"), tmp_path / "out")
    net = open_net(tmp_path / "out", "ort", 1)
    (images,) = net.inputs
    anchors = net.run({"images": np.zeros([axis or 1 for axis in images.shape], images.dtype)})["anchors"]
    np.testing.assert_allclose(anchors, ANCHORS.ravel(), rtol=1e-4)


def test_where_weights_multiplied_ahead_find_something_else_the_pixels_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network of a few layers rounds so badly: here it is off by half."""
    real = rewriting

    def rewrite(path: Path, out: Path, prepared: Input | None = None) -> str:
        spoilt = prepared and msgspec.structs.replace(prepared, scale=prepared.scale * 1.5)
        return real(path, out, spoilt)

    folder = model(tmp_path / "model", "yolov8")
    takes = []
    for function in (real, rewrite):
        monkeypatch.setattr("edge_agent.gate.derive_detector.rewrite", function)
        monkeypatch.setattr("edge_agent.gate.timed.share", lambda before, after: 0.5)
        row = derived(folder, tmp_path / "out").figures["files"][0]
        takes.append((row["layout"], row["pixels"]))
        assert open_net(tmp_path / "out", "ort", 1).inputs[0].dtype == ("uint8" if row["pixels"] else "float32")
    assert takes == [("NHWC", True), ("NHWC", False)]


@pytest.mark.parametrize("saves", [True, False])
def test_products_that_saturate_are_a_form_of_an_int8_file_where_they_save_time(
    saves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a processor without VNNI; the edge-yolo that is carried."""
    monkeypatch.setattr("edge_agent.gate.derive.saturates", lambda: True)
    monkeypatch.setattr("edge_agent.gate.timed.share", lambda before, after: 0.8 if saves else 0.99)
    located = catalogue.locate("edge-yolo")
    rows = {row.precision: row for row in located.manifest.networks() if row.format == "onnx"}

    def made(row: File) -> tuple[Derive, Result]:
        path = str(file_path(located, row))
        out = str(tmp_path / row.precision)
        question = Derive(manifest=located.manifest, variants=[Variant(row, path)], threads=1, out=out)
        return question, derive(question)

    question, result = made(rows["int8"])
    assert any("has exact products of int8; with those that saturate" in note for note in result.notes)
    files = [msgspec.convert(file, File) for file in result.figures["files"]]
    assert [(file.name, file.precision) for file in files] == [
        ("model.int8.cut", "int8"),
        ("model.int8.cut.saturating", "saturating-int8"),
    ][: 1 + saves]
    for file, place in zip(files, question.places, strict=False):
        assert (file.sha256, file.bytes) == (store.digest(place), place.stat().st_size)
        net = open_net(place, "ort", 1)
        (images,) = net.inputs
        assert net.run({"images": np.zeros([axis or 1 for axis in images.shape], images.dtype)})
    if saves:
        _, result = made(rows["fp32"])
        assert len(result.figures["files"]) == 1 and not any("int8" in note for note in result.notes)


def test_weights_that_only_the_tail_needs_are_left_out(tmp_path: Path) -> None:
    whole = Cuttable(yolov8(tmp_path / "m.onnx"))
    maps = whole.maps()
    assert maps == [f"{role}.{level}" for role in ("box", "cls") for level in range(3)]
    whole.write(tmp_path / "cut.onnx", {name: f"out {name}" for name in maps})
    assert b"means" not in (tmp_path / "cut.onnx").read_bytes() and b"means" in (tmp_path / "m.onnx").read_bytes()
    x = {"images": np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)}
    assert open_net(tmp_path / "cut.onnx", "onnx", 1).run(x)["out cls.0"].shape == (1, CLASSES, 8, 8)


def gained(path: Path) -> Path:
    """edge-yolo's head with a gain that no decoder knows of."""
    net = Net(box=4, cls=CLASSES)
    net.op("Mul", [net.rows("box", 4), net.const("gain", np.float32(1.1))], "far")
    net.op("Relu", ["far"], "reach")
    net.op("Transpose", ["reach"], "boxes", perm=[0, 2, 1])
    net.op("Transpose", [net.rows("cls", CLASSES)], "logits", perm=[0, 2, 1])
    return net.write(path, {"boxes": [1, sum(CELLS), 4], "logits": [1, sum(CELLS), CLASSES]})


def test_one_that_finds_nothing_is_compared_with_nothing(tmp_path: Path) -> None:
    shapes = {"boxes": [1, 9, 4], "scores": [1, 9], "classes": [1, 9], "num_detections": [1]}
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0)]
    nodes += [helper.make_node("Mul", ["mean", f"no {name}"], [name]) for name in shapes]
    ends = {"images": (TensorProto.FLOAT, [1, 3, 64, 64])}, {n: (TensorProto.FLOAT, dims) for n, dims in shapes.items()}
    constants: dict[str, Any] = {f"no {name}": np.zeros(dims, np.float32) for name, dims in shapes.items()}
    path = write_onnx(tmp_path / "m.onnx", nodes, *ends, constants)
    row = File("m.onnx", "onnx", "0" * 64, 0)
    made = Manifest("m", "1", "detect", "finished", "", "", [row], labels=["a"], input=Input(64, 64))
    served = Served(made, ModelRef("m", "1", "0" * 64), open_net(path, "onnx", 1), {}, made.input, "")
    task = make_task(Uri("detect", "m"), lambda _: served, tmp_path)
    assert isinstance(task, Detector)
    with pytest.raises(RefusedError, match="it finds nothing at all in the pictures"):
        same(task, task)


@pytest.mark.parametrize(
    ("family", "build", "why"),
    [
        ("yolov8", lambda path: yolov8(path, last="HardSigmoid"), "HardSigmoid stands in its tail"),
        ("yolov8", lambda path: yolov8(path, stretch=1.5), "without it boxes are "),
        ("edge-yolo", gained, "without it boxes are "),
        ("yolox", lambda path: nanodet(path), "it has [1, 1, 1] maps a level, 3 are known"),
        ("rtdetr", yolov8, "nobody has written how rtdetr is cut"),
    ],
)
def test_what_is_not_understood_keeps_its_tail(
    family: str, build: Callable[[Path], Path], why: str, tmp_path: Path
) -> None:
    result = derived(model(tmp_path / "model", family, build), tmp_path / "out")
    assert result.passed and result.notes[0].startswith("the tail of model.onnx stays: ") and why in result.notes[0]
    assert result.figures["files"][0]["family"] is None and result.figures["files"][0]["name"] == "model.optimised"


@pytest.mark.parametrize("damage", [b"", b"\x0a", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0a\x7f", b"\x07"])
def test_a_broken_file_is_refused_in_one_line(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(damage)
    with pytest.raises(RefusedError, match=r"m\.onnx: not a readable ONNX model"):
        Cuttable(tmp_path / "m.onnx")


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────


def text_model(folder: Path, reversed_mask: bool = False) -> Path:
    """edge-bert's int8 file alone; `reversed_mask`: it reads padding, and only that."""
    located = catalogue.locate("edge-bert")
    rows = [row for row in located.manifest.file if row.name in ("encoder.int8.onnx", "vocab.txt")]
    folder.mkdir(parents=True)
    for row in rows:
        shutil.copy(file_path(located, row), folder)
    network = onnx.load(folder / rows[0].name)
    if reversed_mask:
        (node,) = (node for node in network.graph.node if node.op_type == "Sub")
        node.input[0], node.input[1] = node.input[1], node.input[0]
        onnx.save(network, folder / rows[0].name)
    rows[0] = msgspec.structs.replace(
        rows[0],
        sha256=store.digest(folder / rows[0].name),
        bytes=(folder / rows[0].name).stat().st_size,
    )
    made = msgspec.structs.replace(located.manifest, name="alone", file=rows, card=None)
    (folder / "manifest.toml").write_text(toml(msgspec.to_builtins(made)))
    return folder


def derived_text(folder: Path, out: Path) -> Result:
    located = catalogue.locate(str(folder))
    (row,) = located.manifest.networks()
    parts = {role: str(path) for role, path in parts_of(located).items()}
    variants = [Variant(row, str(folder / row.name))]
    return derive(Derive(manifest=located.manifest, variants=variants, threads=1, parts=parts, out=str(out)))


def test_a_text_network_is_fused_where_that_is_faster_and_answers_the_same(tmp_path: Path) -> None:
    folder = text_model(tmp_path / "model")
    note = derived_text(folder, tmp_path / "out").notes[0]
    assert note.startswith("encoder.int8.onnx fused (4 of attention) takes ")
    ids = np.array([[2, *range(40, 60), 3], [2, *range(70, 75), 3, *[0] * 15]])
    feed = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}
    theirs = open_net(folder / "encoder.int8.onnx", "onnx", 1).run(feed)["embedding"]
    ours = open_net(tmp_path / "out", "ort", 1).run(feed)["embedding"]
    assert (theirs * ours).sum(1).min() > 0.9999


def test_one_that_reads_its_mask_in_another_way_is_not_fused(tmp_path: Path) -> None:
    folder = text_model(tmp_path / "model", reversed_mask=True)
    note = derived_text(folder, tmp_path / "out").notes[0]
    assert note.startswith("encoder.int8.onnx is not fused: fused, ")
    ids = np.array([[2, 40, 41, 3, 0, 0]])
    feed = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}
    theirs, ours = (
        open_net(path, kind, 1).run(feed)["embedding"]
        for path, kind in ((folder / "encoder.int8.onnx", "onnx"), (tmp_path / "out", "ort"))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


# ── as a variant ─────────────────────────────────────────────────────────────────────────────────────────


def boxes(served: Any) -> list[Detections]:
    task = make_task(Uri("detect", "m"), lambda _: served, paths.home())
    found = [finding for frame in pictures() for finding in task(frame)]
    return [f.what for f in found if isinstance(f, Finding) and isinstance(f.what, Detections)]


def test_it_is_tried_raced_remembered_and_finds_what_its_parent_finds(tmp_path: Path, own_home: Path) -> None:
    folder = model(tmp_path / "model", "yolov8")
    alone = Models(threads=1).serve(str(folder))
    assert "model.cut" not in alone.why and not (own_home / "derived").exists(), "nobody asked for it"
    first, second = try_all(catalogue.locate(str(folder)), 1)
    assert any("is stopped before its tail" in note for note in first.notes) and not second.refused
    assert second.name == "model.cut" and any("mAP50 1.000 against model.onnx" in note for note in second.notes)
    raced = Models(threads=1, race=True).serve(str(folder))
    assert "; raced: " in raced.why and "model.cut" in raced.why and "model.onnx" in raced.why
    located = with_derived(catalogue.locate(str(folder)), {}, 1)
    (cut,) = [row for row in located.manifest.networks() if row.family]
    served = Models(threads=1)
    served.open(str(folder))
    made = open_net(file_path(located, cut), cut.format, 1)
    assert {spec.name for spec in made.outputs} == {f"{role}{n}" for role in ("boxes", "classes") for n in range(3)}
    one, other = boxes(alone), boxes(raced)
    assert sum(map(len, one)) > 20
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.label, b.label)
        np.testing.assert_allclose(a.xyxy, b.xyxy, atol=1e-3 * 8)
        np.testing.assert_allclose(a.score, b.score, atol=1e-5)


def test_a_damaged_one_is_passed_over_and_made_anew(tmp_path: Path, own_home: Path) -> None:
    folder = str(model(tmp_path / "model", "yolox"))
    located = with_derived(catalogue.locate(folder), {}, 1, make=True)
    blob = store.blob(own_home, located.manifest.networks()[1].sha256)
    right = blob.read_bytes()
    blob.write_bytes(right[:100] + b"\0" + right[101:])
    served = Models(threads=1).serve(folder)
    assert served.manifest.family == "yolox", "the file that was given goes on serving"
    assert len(boxes(served)) == 12
    blob.write_bytes(b"")
    located = with_derived(catalogue.locate(folder), parts_of(located), 1, make=True)
    assert (
        store.digest(store.blob(own_home, located.manifest.networks()[1].sha256))
        == located.manifest.networks()[1].sha256
    )


def test_one_of_another_runtime_or_processor_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    located = catalogue.locate(str(model(tmp_path / "model", "yolox")))
    assert len(with_derived(located, {}, 1, make=True).manifest.networks()) == 2
    assert len(with_derived(located, {}, 1).manifest.networks()) == 2
    monkeypatch.setattr(verdicts, "cpu", lambda: "another one")
    assert len(with_derived(located, {}, 1).manifest.networks()) == 1
    monkeypatch.undo()
    monkeypatch.setattr(verdicts, "runtimes", lambda: {"onnxruntime": "0.0"})
    assert len(with_derived(located, {}, 1).manifest.networks()) == 1


def test_a_child_that_dies_leaves_the_file_as_it_was(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = catalogue.locate(str(model(tmp_path / "model", "yolox")))
    Models(threads=1).serve(str(tmp_path / "model"))
    monkeypatch.setattr(ask, "CHILD", ["/bin/false"])
    assert with_derived(located, {}, 1, make=True).manifest == located.manifest
    (kept,) = (own_home / "derived").iterdir()
    assert "ended with 1" in json.loads(kept.read_text())["result"]["reason"]


@pytest.mark.parametrize("large", [False, True], ids=["as large", "four times as large"])
def test_one_that_is_no_faster_is_deleted_and_not_made_again(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr(forms, "WORTH", 1)
    folder = str(model(tmp_path / "model", "yolox"))
    located = with_derived(catalogue.locate(folder), {}, 1, make=True)
    whole, cut = located.manifest.networks()

    def rows(*took: tuple[float, float], size: int = 1, cpu: float = 0.5) -> list[dict[str, object]]:
        """`took`: milliseconds of the file and of the form; `size`: times the bytes of the file, `cpu`: its time."""
        return [
            {"key": row.key(), "threads": threads, "median_ms": ms[place], "bytes": n, "cpu_ms": (1.0, cpu)[place]}
            for threads, ms in enumerate(took, 1)
            for place, (row, n) in enumerate(((whole, 1), (cut, size)))
        ]

    assert forms.drop_slower(located, {}, rows((2.0, 2.1), (1.5, 1.4))) == [], "with two threads it is faster"
    assert forms.drop_slower(located, {}, rows((2.0, 1.9), size=1, cpu=1.1)) == []
    assert forms.drop_slower(located, {}, rows((2.0, 1.8), size=4)) == [], "it is large, and clearly faster"
    monkeypatch.setattr(forms, "WORTH", cut.bytes + 1)
    assert forms.drop_slower(located, {}, rows((2.0, 2.1))) == [], "too small to be worth it"
    monkeypatch.setattr(forms, "WORTH", cut.bytes)
    slower = rows((2.0, 1.8), size=4, cpu=0.99) if large else rows((2.0, 2.1), (1.5, 1.5))
    assert forms.drop_slower(located, {}, slower) == [(cut, whole)]
    assert not store.blob(own_home, cut.sha256).exists()
    located = with_derived(catalogue.locate(folder), {}, 1, make=True)
    assert located.manifest.networks() == [whole]
    assert "model.cut was no faster than model.onnx here, and was deleted" in forms.derived_notes(located, whole, {})


def test_all_of_them_together_have_a_bound(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(family: str) -> File:
        folder = tmp_path / family
        found = catalogue.locate(str(folder if folder.exists() else model(folder, family)))
        return with_derived(found, {}, 1, make=True).manifest.networks()[1]

    def here(one: File) -> bool:
        return store.blob(own_home, one.sha256).is_file()

    first = made("yolox")
    for place in (own_home / "derived").iterdir():
        os.utime(place, (1, 1))
    monkeypatch.setattr(forms, "MOST_BYTES", first.bytes * 3 // 2)
    second = made("yolov8")
    assert here(second) and not here(first), "that which was not used for the longest goes"
    first = made("yolox")
    assert here(first), "and is made again when it is asked for"
    monkeypatch.setattr(forms, "MOST_BYTES", 1)
    (own_home / "derived").joinpath("x.json").write_text("{}")
    forms._make_room()
    assert not here(first) and not here(second)


def test_what_other_code_made_goes(tmp_path: Path, own_home: Path) -> None:
    located = catalogue.locate(str(model(tmp_path / "model", "yolox")))
    (_, form) = with_derived(located, {}, 1, make=True).manifest.networks()
    (kept,) = (own_home / "derived").iterdir()
    verdict = json.loads(kept.read_text())
    old, old_form = kept.with_name("old.json"), store.blob(own_home, "1" * 64)
    verdict["code"] = "another"
    same = verdict["result"]["figures"]["files"]
    verdict["result"]["figures"]["files"] = [*same, {**same[0], "sha256": "1" * 64}]
    old.write_text(json.dumps(verdict))
    old_form.parent.mkdir()
    old_form.write_bytes(b"old")
    forms._make_room()
    assert not old.exists() and not old_form.exists()
    assert kept.exists() and store.blob(own_home, form.sha256).is_file(), "this code made it as well"
