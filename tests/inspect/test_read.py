"""What inspection reads out of real files: made ones of each head and way of input, and those of the data."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.backends import open_net
from edge_agent.errors import ManifestError, RefusedError
from edge_agent.families.table import FAMILIES, RUNS
from edge_agent.gate.worth import looker, served_as
from edge_agent.gate.worth_of_boxes import SIGHTINGS
from edge_agent.inspect.inspect import inspect
from edge_agent.inspect.ranges import describe
from edge_agent.inspect.text import HEADS, ROLES
from edge_agent.inspect.worth import TryReading, Worth, is_clear
from edge_agent.manifest import Input, Seen
from edge_agent.pictures.read import read_picture
from edge_agent.registry import add, catalogue
from edge_agent.samples.carried import scenes
from edge_agent.tasks.detect.detect import detect
from edge_agent.tasks.detect.places import OVERLAP, iou
from edge_agent.tasks.recognise import recognise
from edge_agent.tasks.text import encoder
from edge_agent.types import Detections, Finding
from edge_agent.uri import Uri
from tests.nets import write_onnx
from tests.registry import here
from tests.registry.heads import CORNERS, ORDERS, picture, squares
from tests.tasks.text_models import bert


@pytest.fixture(scope="session")
def look(tmp_path_factory: pytest.TempPathFactory) -> TryReading:
    return looker([picture(tmp_path_factory.mktemp("proof") / "squares.png")])


MICROSOFT = {"Image.NominalPixelRange": "NominalRange_0_255", "Image.BitmapPixelFormat": "Bgr8"}
"""metadata keys that ONNX documents for images"""


def read(path: Path, look: TryReading | None, **told: str) -> Seen:
    return inspect(path, open_net(path, path.suffix[1:], 1), look, told)


def said(seen: Seen, *words: str) -> bool:
    return any(all(word in reason for word in words) for reason in seen.reasons)


def test_what_can_be_added_is_what_the_tasks_decode() -> None:
    detectors = {family for family in FAMILIES if not family.endswith("-maps")}
    assert set(RUNS) == {*detectors, "bert", *HEADS, *recognise.CLASSIFIERS, "autoencoder", "vae"}
    assert set(ROLES) == {word for _, words in encoder.ROLES for word in words}


GREEN = [-0.456 / 0.224, (1 - 0.456) / 0.224]
"""no and full green in ImageNet's measure"""
LOGITS = {"edge-yolo": "0..255", "detr": "imagenet", "detr-sigmoid": "0..1"}
"""heads whose scores have no upper end that would betray a wrong scale, and what they are trained on"""


@pytest.mark.parametrize(
    "head",
    # YOLOv6 is what yolox-decoded is where the pixels go in as 0..1
    ["yolox", "yolox-decoded", "yolov5", "yolov8", "end2end", "rtdetr", "detr", "detr-sigmoid", "nanodet", "ssd",
     "edge-yolo"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("given", "span"),
    [
        ({}, "0..255"),
        ({"gain": 1.0}, "0..1"),
        ({"nhwc": True}, "0..255"),
        ({"batch": "n"}, "0..255"),
        ({"element": TensorProto.UINT8}, "0..255"),
        ({"element": TensorProto.UINT8, "nhwc": True, "batch": "n"}, "0..255"),
        ({"element": TensorProto.FLOAT16}, "0..255"),
        ({"element": TensorProto.FLOAT16, "gain": 1.0}, "0..1"),
        ({"lead": [("Div", 255.0)], "gain": 1.0}, "0..255"),
        ({"turned": True, "names": ("x", "y")}, "0..255"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else str(value),
)
def test_each_head_in_each_way(tmp_path: Path, look: TryReading, head: str, given: dict[str, Any], span: str) -> None:
    """`span`: what black and a full channel are to be as the network's input."""
    open_scale = given.get("element") != TensorProto.UINT8 and "lead" not in given
    if head in LOGITS and open_scale:
        span = LOGITS[head]
        given = {**given, "gain": 1 / 255 if span == "0..255" else 1.0}
    if head == "ssd" and "turned" in given:
        # nobody exports it so: what cannot be decoded is not read
        with pytest.raises(RefusedError, match="no head that is known at 64x64"):
            read(squares(tmp_path / "net.onnx", head, **given), look)
        return
    if head in ("detr", "detr-sigmoid") and "turned" in given:
        assert read(squares(tmp_path / "net.onnx", head, **given), look).refusal
        return
    path = squares(tmp_path / "net.onnx", head, **given)
    seen = read(path, look)
    if head in ("end2end", "detr", "detr-sigmoid", "ssd"):
        # these are trained in many ways, and this one sees as much in each of them
        assert "it is open how its pictures go in" in seen.refusal and "--channels" in seen.refusal
        seen = read(path, look, channels="RGB", **({"scale": span} if open_scale else {}))
    # decoded boxes behind an objectness of 1 are YOLOv6's where the pixels go in as its own do
    family = "yolov6" if head == "yolox-decoded" and span == "0..1" else head
    assert (seen.task, seen.family, seen.refusal) == ("detect", family, "")
    assert seen.input is not None
    assert (seen.input.width, seen.input.height) == (64, 64)
    assert seen.input.layout == ("NHWC" if given.get("nhwc") else "NCHW")
    ends = [(x * seen.input.scale - seen.input.mean[1]) / seen.input.std[1] for x in (0, 255)]
    assert ends == pytest.approx({"0..1": [0, 1], "0..255": [0, 255], "-1..1": [-1, 1], "imagenet": GREEN}[span])
    assert seen.labels == ["blue", "green", "red"]
    for subject in ("family ", "layout ", "size ", "labels: "):
        assert said(seen, subject), subject
    assert said(seen, "scale") or said(seen, "tried on the proof pictures", describe(seen.input))
    assert said(seen, "tried on the proof pictures")
    assert ("batch" in given) == said(seen, "dynamic axes")


FINISHED = sorted({*CORNERS, *ORDERS} - {"end2end", "oriented", "ssd"})


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("head", FINISHED)
def test_a_layout_of_another_exporter_is_found_by_its_places(
    tmp_path: Path, look: TryReading, head: str, batch: int | str
) -> None:
    path = squares(tmp_path / "net.onnx", head, batch=batch, gain=1.0)
    seen = read(path, look, channels="BGR", scale="0..1")
    assert (seen.family, seen.refusal) == (head, ""), seen.reasons
    # red is seen in red where it is, whatever was in the other columns
    model = served_as(open_net(path, "onnx", 1), seen, {})
    task = detect(Uri("detect", "it", {"score": "0.9"}), model, tmp_path)
    (found,) = task(read_picture(picture(tmp_path / "squares.png")))
    assert isinstance(found, Finding) and isinstance(found.what, Detections)
    for name, middle in (("blue", (64, 192)), ("red", (176, 80))):
        boxes = [box for box, key in zip(found.what.xyxy, found.what.label, strict=True) if seen.labels[key] == name]
        assert boxes and np.abs((boxes[0][:2] + boxes[0][2:]) / 2 - middle).max() <= 32


def by_level(path: Path, cut: bool, mapped: bool, logits: bool = False, fourth: bool = False) -> Path:
    """The same detector with NanoDet's head, each level as a tensor of its own, or `cut` into scores and distances.
    `fourth`: with a level of one cell in which nothing is, as PicoDet has it.
    """
    squares(path, "nanodet", gain=1.0, turned=True)
    model = onnx.load(str(path))
    whole, outs = model.graph.output.pop().name, []

    def const(*values: int) -> str:
        model.graph.initializer.append(
            numpy_helper.from_array(np.array(values, np.int64), f"n{len(model.graph.initializer)}")
        )
        return str(model.graph.initializer[-1].name)

    def step(op: str, *inputs: str, **attributes: Any) -> str:
        model.graph.node.append(helper.make_node(op, list(inputs), [f"level {len(model.graph.node)}"], **attributes))
        return str(model.graph.node[-1].output[0])

    if logits:
        # far below 0 and above 1, as before a sigmoid
        whole = step("Mul", step("Sub", whole, step("Constant", value_float=0.5)), step("Constant", value_float=9.0))
    for left, right, side in ((80, 84, 2), *([(83, 84, 1)] if fourth else []), (0, 64, 8), (64, 80, 4)):
        for low, high in ((0, 3), (3, 35)) if cut else ((0, 35),):
            part = step("Slice", whole, const(low, left), const(high, right), const(1, 2))
            if side == 1:
                part = step("Mul", part, step("Constant", value_float=0.0))
            shape = [1, high - low, side, side] if mapped else [1, side * side, high - low]
            part = step("Reshape", part, const(*shape)) if mapped else step("Transpose", part, perm=[0, 2, 1])
            outs.append(helper.make_tensor_value_info(part, TensorProto.FLOAT, shape))
    model.graph.output.extend(outs)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("mapped", [False, True], ids=["rows", "maps"])
@pytest.mark.parametrize("cut", [False, True], ids=["together", "apart"])
def test_levels_in_tensors_of_their_own_are_read(tmp_path: Path, look: TryReading, cut: bool, mapped: bool) -> None:
    assert_read(by_level(tmp_path / "net.onnx", cut, mapped), look, "nanodet")


@pytest.mark.parametrize("mapped", [False, True], ids=["rows", "maps"])
def test_four_levels_of_two_tensors_are_those_of_picodet(tmp_path: Path, look: TryReading, mapped: bool) -> None:
    assert_read(by_level(tmp_path / "net.onnx", True, mapped, fourth=True), look, "picodet")


def assert_read(path: Path, look: TryReading, family: str) -> None:
    """It is read as this family, and its boxes are where the squares are."""
    tmp_path = path.parent
    seen = read(path, look, channels="BGR", scale="0..1")
    assert (seen.family, seen.refusal) == (family, ""), seen.reasons
    model = served_as(open_net(path, "onnx", 1), seen, {})
    (found,) = detect(Uri("detect", "it", {"score": "0.9"}), model, tmp_path)(
        read_picture(picture(tmp_path / "squares.png"))
    )
    assert isinstance(found, Finding) and isinstance(found.what, Detections)
    for name, middle in (("blue", (64, 192)), ("red", (176, 80))):
        boxes = [box for box, key in zip(found.what.xyxy, found.what.label, strict=True) if seen.labels[key] == name]
        assert boxes and np.abs((boxes[0][:2] + boxes[0][2:]) / 2 - middle).max() <= 32


def test_levels_whose_scores_are_none_yet_are_refused(tmp_path: Path, look: TryReading) -> None:
    seen = read(by_level(tmp_path / "net.onnx", True, False, logits=True), look)
    assert "what should be scores runs from" in seen.refusal + str(seen.reasons) and seen.refusal


@pytest.mark.parametrize(("head", "says"), [("oriented", "an angle"), ("obb", "an angle")])
def test_a_head_that_is_not_run_is_not_taken_for_another(
    tmp_path: Path, look: TryReading, head: str, says: str
) -> None:
    seen = read(squares(tmp_path / "net.onnx", head, gain=1.0, turned=head == "obb"), look)
    assert seen.family.endswith("-obb") and says in seen.refusal and "its boxes are turned" in seen.refusal


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"nhwc": True},
        {"batch": "n"},
        {"element": TensorProto.UINT8},
        {"element": TensorProto.FLOAT16},
        {"names": ("x", "y")},
        {"turned": True},
    ],
    ids=str,
)
def test_a_head_that_is_only_named_is_named_in_each_way(
    tmp_path: Path, look: TryReading, given: dict[str, Any]
) -> None:
    seen = read(squares(tmp_path / "net.onnx", "rtmdet", **given), look)
    assert (seen.task, seen.family, len(seen.labels)) == ("detect", "rtmdet", 3)
    assert "cannot run this family" in seen.refusal and "3 class logits" in seen.refusal
    assert said(seen, "family rtmdet", "[1, 8, 8, 3]") == ("turned" in given)
    assert said(seen, "layout NHWC" if given.get("nhwc") else "layout NCHW")


def test_evidence_in_the_file_needs_no_trial(tmp_path: Path) -> None:
    """No `look` is given, so that what comes out is what the file says."""
    cases: list[tuple[dict[str, Any], str, str, tuple[str, ...]]] = [
        ({"meta": {"stride": "32", "task": "detect", "author": "Ultralytics"}}, "RGB", "0..1", ("Ultralytics",)),
        ({"meta": MICROSOFT}, "BGR", "0..255",
         ("metadata says NominalRange_0_255",)),
        ({"meta": {"mean": "[123.675, 116.28, 103.53]", "std": "[58.395, 57.12, 57.375]", "color_space": "RGB"}}, "RGB",
         "-2.12..2.25", ("metadata states mean",)),
        ({"meta": {"mean": "[0.0, 0.0, 0.0]", "std": "[1.0, 0.0, -1.0]", **MICROSOFT}}, "BGR", "0..255",
         ("metadata says NominalRange_0_255",)),
        ({"lead": [("Sub", [123.675, 116.28, 103.53]), ("Div", [58.395, 57.12, 57.375])]}, "RGB", "0..255",
         ("begins with Sub 123.675",)),
        ({"lead": [("Sub", [103.53, 116.28, 123.675])]}, "BGR", "0..255", ("meant for 0..255",)),
        ({"lead": [("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])]}, "RGB", "0..1",
         ("meant for 0..1",)),
        ({"lead": [("Mul", 1 / 127.5), ("Sub", 1.0)]}, "RGB", "0..255", ("begins with Mul",)),
        ({"element": TensorProto.UINT8}, "RGB", "0..255", ("input is uint8",)),
    ]  # fmt: skip
    for given, channels, span, words in cases:
        seen = read(squares(tmp_path / "net.onnx", "yolov8", **given), None)
        assert seen.input is not None
        ends = [(x * seen.input.scale - seen.input.mean[0]) / seen.input.std[0] for x in (0, 255)]
        assert f"{ends[0]:.3g}..{ends[1]:.3g}" == span, given
        assert seen.input.channels == channels, given
        assert said(seen, *words), (given, seen.reasons)
        # where a file settles both, nothing is left to be tried
        assert said(seen, "not tried") == (not said(seen, f"channels {channels}")), given


def test_mean_and_std_follow_their_channels(tmp_path: Path, look: TryReading) -> None:
    meta = {"mean": "[123.675, 116.28, 103.53]", "std": "[58.395, 57.12, 57.375]", "color_space": "RGB"}
    seen = read(squares(tmp_path / "net.onnx", "yolov8", meta=meta), look)
    assert seen.input is not None and seen.input.mean == (123.675, 116.28, 103.53)


def test_what_makes_no_sense_in_any_way_is_refused(tmp_path: Path, look: TryReading) -> None:
    path = squares(tmp_path / "blind.onnx", "yolov8", gain=0.0)
    assert read(path, None).refusal == ""
    seen = read(path, look)
    assert "nothing makes sense on the proof pictures" in seen.refusal and "finds nothing" in seen.refusal
    assert "--proof" in seen.refusal and "\n" not in seen.refusal


@pytest.mark.parametrize(
    ("head", "tail", "words", "refused"),
    [
        ("yolox", (1 / 256, -128), "boxes clip", True),
        ("yolox", (6 / 255, -43), "boxes are exact to 0.024 pixels", False),
        ("yolov8", (64 / 255, -128), "scores are rounded away", True),
        ("yolov5", (64 / 255, -128), "scores are rounded away", True),
        ("end2end", (64 / 255, -128), "scores are rounded away", True),
        ("end2end", (1 / 256, -128), "class indices clip", True),
        ("rtdetr", (1 / 256, -128), "boxes are exact to 0.25 pixels", False),
        ("nanodet", (1 / 256, -128), "boxes clip", True),
        ("nanodet", (24 / 255, 84), "boxes are exact to", False),
        # SSD, DETR and edge-yolo have their boxes in a tensor of their own
    ],
)
def test_one_scale_for_boxes_and_scores(
    tmp_path: Path, look: TryReading, head: str, tail: tuple[float, int], words: str, refused: bool
) -> None:
    path = squares(tmp_path / "net.onnx", head, tail=tail, meta=MICROSOFT)
    for how in (None, look):
        seen = read(path, how)
        assert said(seen, "one scale for boxes and scores", words), seen.reasons
        assert bool(seen.refusal) == refused, seen.refusal
        assert not refused or words in seen.refusal


def test_sizes_that_the_file_leaves_open(tmp_path: Path) -> None:
    from edge_agent.types import Net, TensorSpec

    def net(rows: int | None) -> Net:
        return Net(
            lambda tensors: {},
            (TensorSpec("in", (None, 3, None, None), "float32"),),
            (TensorSpec("out", (None, 84, rows), "float32"),),
            "none",
        )

    for rows, side in ((3549, 416), (2100, 320), (8400, 640), (None, 640)):
        seen = inspect(tmp_path / "none.onnx", net(rows))
        assert seen.input is not None and (seen.input.width, seen.input.height) == (side, side)
    assert said(inspect(tmp_path / "none.onnx", net(3549)), "416x416", "rows of its output count these cells")


def test_the_pooling_that_makes_sense_is_kept(tmp_path: Path) -> None:
    bert(tmp_path)
    seen = read(tmp_path / "bert.onnx", looker())
    # of [CLS] alone, this one gives the same vector for every sentence
    assert seen.text is not None and (seen.text.pooling, seen.refusal) == ("mean", "")
    assert said(seen, "pooling mean: tried on the proof sentences", "cls 0.00")
    (tmp_path / "blind").mkdir()
    bert(tmp_path / "blind", poison=True)
    assert "no pooling makes sense on the proof sentences" in read(tmp_path / "blind" / "bert.onnx", looker()).refusal


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"batch": 1, "length": 16}, ""),
        ({"dtype": TensorProto.INT32, "batch": 1}, ""),
        ({"types": False}, ""),
        ({"half": True}, ""),
        ({"half": True, "batch": 1, "length": 16}, ""),
        ({"names": ["x:0"]}, ""),
        ({"names": ["text_ids", "text_mask", "segments"]}, ""),
        ({"names": ["x", "y", "z"]}, "nothing says what goes into x, y, z"),
        # layout, pixel scale and one scale for boxes and scores have no counterpart in text
    ],
    ids=str,
)
def test_an_encoder_in_each_way(tmp_path: Path, given: dict[str, Any], refused: str) -> None:
    """What is read has been run on the proof sentences."""
    bert(tmp_path, **given)
    seen = read(tmp_path / "bert.onnx", looker())
    assert (seen.task, seen.family) == ("encode", "bert")
    assert refused in seen.refusal and bool(refused) == bool(seen.refusal)
    assert bool(refused) != said(seen, "pooling mean: tried on the proof sentences", "cls 0.00")
    assert said(seen, f"max_length {given.get('length') or 512}")


def test_add_writes_what_was_concluded(tmp_path: Path, look: TryReading) -> None:
    meta = {"license": "MIT"}
    path = squares(tmp_path / "my net.onnx", "yolov8", gain=1.0, nhwc=True, meta=meta)
    located = add.add(path, "squares", partial(here.read, look=look))
    manifest = catalogue.locate("squares").manifest
    assert manifest == located.manifest
    assert (manifest.family, manifest.licence, manifest.labels) == ("yolov8", "MIT", ["blue", "green", "red"])
    assert manifest.input is not None and (manifest.input.layout, manifest.input.scale) == ("NHWC", 1 / 255)
    for refused in (
        squares(tmp_path / "blind.onnx", "yolov8", gain=0.0),
        squares(tmp_path / "b.onnx", "yolov8", batch=4),
    ):
        with pytest.raises(RefusedError):
            add.add(refused, "no", partial(here.read, look=look))
    with pytest.raises(ManifestError, match='no model "no"'):
        catalogue.locate("no")


def test_the_proof_pictures_show_three_things_apart_and_each_time_elsewhere() -> None:
    places: dict[str, list[Any]] = {}
    for scene in scenes():
        assert [name for name, _ in scene.things] == ["person", "cat", "cup"]
        size = np.array([scene.frame.width, scene.frame.height])
        for i, (name, a) in enumerate(scene.things):
            assert a.min() >= 0 and (a[2:] <= size).all()
            places.setdefault(name, []).append(a / np.tile(size, 2))
            for _, b in scene.things[i + 1 :]:
                assert (np.minimum(a[2:], b[2:]) <= np.maximum(a[:2], b[:2])).any()
    for found in places.values():
        # read as centre and size, or with its axes turned, a box is in none of these places or in one by chance
        for turned in ([box[[1, 0, 3, 2]] for box in found], [np.r_[box[:2], box[2:] - box[:2]] for box in found]):
            assert sum(iou(a, b) >= OVERLAP for a, b in zip(turned, found, strict=True)) < SIGHTINGS


# ── the files of the data ────────────────────────────────────────────────────────────────────────────────

RGB1 = Input(1, 1, channels="RGB", scale=1 / 255)
BGR255 = Input(1, 1, channels="BGR")
SSD = Input(1, 1, channels="RGB", mean=(128.0,) * 3, std=(128.0,) * 3)


@pytest.mark.parametrize(
    ("name", "family", "size", "layout", "classes", "how", "licence"),
    [
        ("yolox_nano.onnx", "yolox", 416, "NCHW", 80, BGR255, "unknown"),
        ("yolox_nano_float16.tflite", "yolox", 416, "NCHW", 80, BGR255, "unknown"),
        ("yolox_nano_dynamic_int8.tflite", "yolox", 416, "NCHW", 80, BGR255, "unknown"),
        ("test-only/yolov5n-fp16.tflite", "yolov5", 640, "NHWC", 80, RGB1, "unknown"),
        ("test-only/yolov8n_int8.tflite", "yolov8", 640, "NHWC", 80, RGB1, "AGPL-3.0"),
        ("coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite", "ssd", 300, "NHWC", 90, SSD, "Apache License"),
    ],
)
def test_published_detectors(
    data: Path, name: str, family: str, size: int, layout: str, classes: int, how: Input, licence: str
) -> None:
    seen = read(data / "models" / name, looker())
    assert (seen.task, seen.family, seen.refusal, len(seen.labels)) == ("detect", family, "", classes)
    assert seen.input is not None and (seen.input.width, seen.input.height) == (size, size)
    assert seen.input.layout == layout and seen.input.channels == how.channels
    assert (seen.input.scale, seen.input.mean, seen.input.std) == (how.scale, how.mean, how.std)
    assert seen.labels[0] == "person" and licence in seen.licence
    assert said(seen, "tried on the proof pictures", "person 0.", "cat 0.", "cup 0.") or said(seen, "metadata")


def test_the_broken_int8_yolox_is_refused_for_its_scale(data: Path) -> None:
    for look in (None, looker()):
        seen = read(data / "models" / "yolox_nano_int8_broken.tflite", look)
        assert seen.family == "yolox"
        assert "one scale for boxes and scores" in seen.refusal and "boxes clip" in seen.refusal


@pytest.mark.parametrize(
    ("name", "task", "family", "words"),
    [
        ("ad01_fp32.tflite", "anomaly", "autoencoder", "640] goes in and [?, 640] comes back"),
        ("ad01_int8.tflite", "anomaly", "autoencoder", "input_1 is int8: -84.85..14.86"),
        ("vww_96_int8.tflite", "recognise", "image-classifier", "scale 0..1: the input is int8"),
    ],
)
def test_published_models_of_other_kinds(data: Path, name: str, task: str, family: str, words: str) -> None:
    seen = read(data / "models" / name, looker())
    assert (seen.task, seen.family) == (task, family)
    assert said(seen, words), seen.reasons
    assert seen.refusal == ""


def test_a_classifier_that_sees_as_much_in_several_ways_is_asked_for(data: Path) -> None:
    path = data / "models" / "vww_96_float.tflite"
    assert "it is open how its pictures go in" in read(path, looker()).refusal
    seen = read(path, looker(), scale="0..1", channels="RGB")
    assert (seen.refusal, seen.input) == (
        "",
        Input(96, 96, layout="NHWC", scale=1 / 255, letterbox="stretch", resize="area"),
    )
    assert said(seen, "scale 0..1: --scale 0..1") and said(seen, "channels RGB: --channels")


def test_a_classifier_that_says_the_same_of_every_picture_tells_nothing_of_its_input(tmp_path: Path) -> None:
    """Of a network whose classes are in none of the pictures: its shares move with them, its answer does not."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["means", "w", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=1),
    ]
    given: dict[str, Any] = {
        "w": np.array([[1, -1], [-3, 3], [2, -2]], np.float32) / 1000,
        "b": np.array([2, 0], np.float32),
    }
    ends = {"x": (TensorProto.FLOAT, [1, 3, 8, 8])}, {"y": (TensorProto.FLOAT, [1, 2])}
    path = write_onnx(tmp_path / "m.onnx", nodes, *ends, given)
    told = read(path, looker(), channels="RGB", scale="0..1")
    assert told.refusal == "" and looker()(open_net(path, "onnx", 1), told, {}).alike

    def one_way(alike: bool) -> TryReading:
        return lambda net, seen, parts: Worth(0.9 if seen.input == told.input else 0.2, "", alike=alike)

    seen = read(path, one_way(alike=True), channels="RGB")
    assert "all answers are the same on the proof pictures" in seen.refusal and "--scale" in seen.refusal
    assert read(path, one_way(alike=False), channels="RGB").refusal == ""


def test_a_preparation_that_does_worse_by_one_thing_has_to_do_much_better() -> None:
    """What a published CenterNet (0..255) finds with its own preparation, and with Caffe's mean."""
    own = Worth(1.35, "", True, each={"person": 1.4, "cat": 2.04, "cup": 0.6})
    caffe = Worth(1.5, "", True, each={"person": 2.01, "cat": 1.86, "cup": 0.63})
    assert not is_clear(caffe, own)
    assert is_clear(caffe._replace(each={**caffe.each, "cat": 2.1}), own)
    assert is_clear(caffe._replace(value=1.6), own)
    assert is_clear(own, caffe._replace(placed=False)) and not is_clear(own._replace(placed=False), caffe)


def test_a_detector_takes_its_pictures_as_it_was_trained(data: Path) -> None:
    picture = read(data / "models" / "yolox_nano.onnx", looker()).input
    assert picture is not None and picture.resize == "linear"
