"""The task from frame to boxes: on a tiny network that finds coloured cells, and on the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.backends import open_net
from edge_agent.errors import ConfigError, InputError, ManifestError, ModelError, RefusedError
from edge_agent.manifest import Input, Served
from edge_agent.pictures.draw import draw
from edge_agent.tasks.detect.detect import nearest_class
from edge_agent.types import Detections, Frame, Net, Pixels, TensorSpec
from tests.coco import coco80, frame, make, mean_average_precision, only, read, real, serve_net
from tests.nets import blob_finder_onnx

RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)
NAMES = ["blue", "green", "red"]
SPEC = Input(64, 64, channels="BGR", letterbox="top-left")


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Net:
    return open_net(blob_finder_onnx(tmp_path_factory.mktemp("finder") / "m.onnx"), "onnx", 1)


def serve(net: Net, spec: Input = SPEC, labels: list[str] | None = None, family: str = "yolox", **more: Any) -> Served:
    return serve_net(net, spec, family, labels or NAMES, **{"score": 0.9, "iou": 0.5, **more})


def painted(height: int, width: int, *marks: tuple[int, int, int, int, tuple[int, int, int]]) -> Pixels:
    """A black picture with rectangles (left, top, right, bottom, colour); it may not be written to."""
    image = np.zeros((height, width, 3), np.uint8)
    for left, top, right, bottom, paint in marks:
        image[top:bottom, left:right] = paint
    image.flags.writeable = False
    return image


def union(found: Detections) -> list[float]:
    return [*found.xyxy[:, :2].min(axis=0).tolist(), *found.xyxy[:, 2:].max(axis=0).tolist()]


# ── right boxes ──────────────────────────────────────────────────────────────────────────────────────────


def test_each_colour_is_found_where_it_is(finder: Net) -> None:
    task = make(serve(finder, class_ids=[7, 3, 11]))
    found, finding = only(task, frame(painted(64, 64, (8, 16, 16, 24, RED), (40, 40, 48, 48, BLUE)), "a.png"))
    assert sorted(zip(found.label.tolist(), found.xyxy.tolist(), strict=True)) == [
        (7, [40, 40, 48, 48]),
        (11, [8, 16, 16, 24]),
    ]
    assert found.names == {7: "blue", 3: "green", 11: "red"} and (found.score > 0.99).all()
    assert finding.model.name == "model" and finding.of is not None and task.takes == (Frame,)
    assert list(finding.spent_ms) == ["decode", "prepare", "infer", "finish"]


@pytest.mark.parametrize("scale", [2, 7])
@pytest.mark.parametrize("how", ["top-left", "center", "stretch"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 32), (32, 64), (64, 16)])
def test_boxes_are_right_to_the_pixel_at_any_aspect_ratio(
    finder: Net, how: Any, width: int, height: int, scale: int
) -> None:
    """The frame is a whole multiple of the canvas, so that painted cells stay whole cells."""
    spec = msgspec.structs.replace(SPEC, letterbox=how, pad=0)
    task = make(serve(finder, spec))
    box = (8 * scale, 0, 24 * scale, 8 * scale)
    found, _ = only(task, frame(painted(height * scale, width * scale, (*box, GREEN))))
    assert len(found) and set(found.label.tolist()) == {1}
    if how != "stretch":
        assert union(found) == list(box)
    assert (
        (found.xyxy >= 0).all()
        and (found.xyxy[:, 2] <= width * scale).all()
        and (found.xyxy[:, 3] <= height * scale).all()
    )


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 5000), (5000, 3), (8000, 6000), (1, 100), (65, 63)])
@pytest.mark.parametrize("how", ["top-left", "center", "stretch"])
def test_frames_of_any_size_give_boxes_inside_them(finder: Net, how: Any, width: int, height: int) -> None:
    task = make(serve(finder, msgspec.structs.replace(SPEC, letterbox=how, pad=0)), score="0.1")
    found, _ = only(task, frame(painted(height, width, (0, 0, width, height, RED))))
    assert len(found) and set(found.label.tolist()) == {2}
    assert union(found) == [0, 0, width, height]
    assert (found.xyxy[:, 2] > found.xyxy[:, 0]).all() and (found.xyxy[:, 3] > found.xyxy[:, 1]).all()


def test_what_lies_on_the_border_alone_is_dropped(finder: Net) -> None:
    """A canvas padded with white is full of finds below the picture, none of which is in the frame."""
    task = make(serve(finder, msgspec.structs.replace(SPEC, pad=255)))
    found, _ = only(task, frame(painted(32, 64)))
    assert len(found) == 0 and found.xyxy.shape == (0, 4)


def test_one_task_serves_frames_of_changing_size(finder: Net) -> None:
    task = make(serve(finder))
    for width, height in ((64, 64), (128, 64), (64, 128), (1, 1), (64, 64)):
        image = painted(height, width, (0, 0, 8, 8, RED))
        again, _ = only(make(serve(finder)), frame(image))
        found, _ = only(task, frame(image))
        assert found.xyxy.tolist() == again.xyxy.tolist()


def test_results_do_not_change_when_the_next_frame_comes(finder: Net) -> None:
    task = make(serve(finder))
    first, _ = only(task, frame(painted(64, 64, (8, 8, 16, 16, RED))))
    kept = first.xyxy.copy()
    only(task, frame(painted(64, 64, (40, 40, 48, 48, BLUE))))
    assert (first.xyxy == kept).all()


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────

TWO = painted(64, 64, (8, 16, 16, 24, RED), (40, 40, 48, 48, BLUE), (24, 0, 32, 8, (0, 128, 0)))


def labels(task: Any) -> list[int]:
    return sorted(only(task, frame(TWO))[0].label.tolist())


def test_score_and_classes_and_max(finder: Net) -> None:
    assert labels(make(serve(finder))) == [0, 2]
    assert labels(make(serve(finder), score="0.4")) == [0, 1, 2]
    assert labels(make(serve(finder), score="0.4", classes="Green, red")) == [1, 2]
    assert labels(make(serve(finder), score="0.4", classes="blue")) == [0]
    task = make(serve(finder), score="0.4", max="2")
    found, _ = only(task, frame(TWO))
    assert len(found) == 2 and (found.score > 0.9).all() and (np.diff(found.score) <= 0).all()
    assert labels(make(serve(finder), max="0")) == []


def test_classes_that_share_a_name_are_all_meant(finder: Net) -> None:
    assert labels(make(serve(finder, labels=["paint", "green", "paint"]), classes="paint")) == [0, 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": ""}, "classes names nothing, or ends in a comma; write e.g. classes="),
        ({"classes": "green,"}, "classes names nothing, or ends in a comma"),
        ({"max": "2.5"}, "max=2.5 is no whole number from 0 to 10000; write one"),
        ({"classes": "gren"}, 'no class "gren"; did you mean "green"'),
        ({"classes": "zebra"}, 'no class "zebra"; known are blue, green, red'),
        ({"score": "high"}, "score=high is no number from 0 to 1"),
        ({"score": "nan"}, "score=nan is no number"),
        ({"iou": "1.5"}, "iou=1.5 is no number from 0 to 1"),
        ({"max": "-1"}, "max=-1 is no number from 0 to 10000"),
        ({"scor": "1"}, 'unknown option "scor"; did you mean "score"'),
    ],
)
def test_a_wrong_option_is_one_line(finder: Net, options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(serve(finder), **options)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_iou_is_refused_where_the_network_suppresses_itself(finder: Net) -> None:
    with pytest.raises(ConfigError, match="iou does nothing, as end2end"):
        make(serve(finder, family="end2end"), iou="0.5")


# ── models that cannot serve, results that must not pass ─────────────────────────────────────────────────


def lambda_net(output: Any, name: str = "output", inputs: int = 1) -> Net:
    """A network that gives one array whatever it sees."""
    spec = TensorSpec("images", (1, 3, 64, 64), "float32")
    return Net(lambda tensors: {name: output}, (spec,) * inputs, (), "a lambda")


@pytest.mark.parametrize(
    ("served", "kind", "said"),
    [
        (serve(lambda_net(None), family="yolo99"), ManifestError, r'unknown family "yolo99"; did you mean "yolo'),
        (
            serve(lambda_net(None, inputs=2)),
            ManifestError,
            "takes one picture, but this network has inputs images, images",
        ),
        (serve(lambda_net(None), Input(32, 32)), RefusedError, r"model: input .* correct width, height or layout"),
    ],
)
def test_a_model_that_cannot_detect_is_one_line(served: Served, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        make(served)


def test_a_detector_needs_labels_and_an_encoder_is_none() -> None:
    served = serve_net(lambda_net(None), SPEC, "yolox", [])
    with pytest.raises(ManifestError, match="needs labels"):
        make(served)
    manifest = msgspec.structs.replace(served.manifest, task="encode")
    with pytest.raises(ConfigError, match="is no detector"):
        make(Served(manifest, served.ref, served.net, {}, SPEC, ""))


def test_numbers_that_are_not_finite_are_bad_input_that_names_model_and_frame() -> None:
    output = np.full((1, 84, 8), np.nan, np.float32)
    with pytest.raises(InputError, match=r"^model: cat\.jpg: the network gave numbers that are not finite"):
        list(make(serve(lambda_net(output)))(frame(painted(64, 64), "cat.jpg")))


def test_a_head_that_is_not_its_family_names_the_model() -> None:
    with pytest.raises(RefusedError, match=r"^model: the head gives \[1, 84, 9\]"):
        list(make(serve(lambda_net(np.zeros((1, 84, 9), np.float32))))(frame(painted(64, 64))))


def test_what_the_backend_raises_comes_through(finder: Net) -> None:
    broken = Net(finder.run, (TensorSpec("other", (1, 3, 64, 64), "float32"),), (), "")
    with pytest.raises(ModelError, match="the run failed"):
        list(make(serve(broken))(frame(painted(64, 64))))


# ── the real ones ────────────────────────────────────────────────────────────────────────────────────────

SEEN = {
    "dog.jpg": {"dog": (133, 207, 326, 543), "bicycle": (52, 137, 572, 424)},
    "person.jpg": {"person": (189, 97, 277, 373), "horse": (403, 138, 603, 344), "dog": (61, 264, 201, 350)},
    "bus.jpg": {"bus": (14, 231, 801, 733), "person": (50, 395, 216, 898)},
}
"""Where YOLOX-nano, which every other model here is measured against, sees them; by eye they are right."""


def iou(a: Any, b: Any) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return float(common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("yolox_nano.onnx", 0),
        ("yolox_nano_float16.tflite", 0),
        ("yolox_nano_dynamic_int8.tflite", 0),
        ("yolov5n-fp16.tflite", 1),
        ("yolov8n_int8.tflite", 0),
        ("coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite", 3),
    ],
)
def test_every_real_model_sees_the_same_things(data: Path, name: str, allowed: int) -> None:
    """Six files, four head families, float, half and integer, both layouts and runtimes.

    YOLOv5n takes the bicycle for two; SSD, the weakest by far, calls horse, dog and bus sheep, cow and airplane.
    """
    task = make(real(data, name))
    missed = []
    for file, things in SEEN.items():
        found, _ = only(task, read(data / "images" / file))
        for thing, box in things.items():
            boxes = [b for b, i in zip(found.xyxy, found.label, strict=True) if found.names[int(i)] == thing]
            if not any(iou(b, box) > 0.7 for b in boxes):
                missed.append((file, thing))
    assert len(missed) <= allowed, missed


def test_yolox_in_onnx_and_in_tflite_agree(data: Path) -> None:
    """Same boxes within a pixel of the canvas and 0.01 of score, on pictures of several sizes."""
    one, other = (make(real(data, name), score="0.3") for name in ("yolox_nano.onnx", "yolox_nano_float16.tflite"))
    compared = 0
    for path in sorted((data / "images").glob("*.jpg")):
        picture = read(path)
        a, b = only(one, picture)[0], only(other, picture)[0]
        pixel = max(picture.width, picture.height) / 416
        for box, score, label in zip(a.xyxy, a.score, a.label, strict=True):
            if score > 0.32:
                distance = [abs(box - c).max() for c in b.xyxy[b.label == label]]
                assert distance and min(distance) <= pixel
                twin = b.score[b.label == label][int(np.argmin(distance))]
                assert abs(float(twin) - float(score)) <= 0.01
                compared += 1
    assert compared >= 12


def test_the_carried_pictures_with_the_stock_model(data: Path, demo_pictures: Path) -> None:
    task = make(real(data, "yolox_nano.onnx"))
    for file, thing in (("astronaut.png", "person"), ("chelsea.png", "cat"), ("coffee.png", "cup")):
        picture = read(demo_pictures / file)
        found, _ = only(task, picture)
        assert found.names[int(found.label[0])] == thing and found.score[0] > 0.5
        assert (draw(picture.image, found) != picture.image).any()


def test_yolox_scores_what_is_published(data: Path) -> None:
    """0.280 on the whole set of 188 pictures; 0.291 on this half of it."""
    precision, at_half = mean_average_precision(real(data, "yolox_nano.onnx"), data / "coco_val94")
    assert 0.286 < precision < 0.296 and 0.45 < at_half < 0.47


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("yolox_nano_float16.tflite", 0.286, 0.296),
        ("yolox_nano_dynamic_int8.tflite", 0.283, 0.295),
        ("yolox_nano_int8_broken.tflite", 0.01, 0.05),
        ("coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite", 0.185, 0.200),
        ("yolov5n-fp16.tflite", 0.305, 0.320),
        ("yolov8n_int8.tflite", 0.380, 0.395),
    ],
)
def test_the_other_models_score_what_is_published(data: Path, name: str, low: float, high: float) -> None:
    """Published on the whole set: 0.280, 0.279, 0.022, 0.179, 0.292, 0.380; this half is the easier one."""
    precision, _ = mean_average_precision(real(data, name), data / "coco_val94")
    assert low < precision < high


def test_the_labels_are_cocos(data: Path) -> None:
    assert len(coco80(data)) == 80


def test_the_class_that_is_meant_is_named() -> None:
    labels = ["person", "apple", "car", "cell phone", "couch", "bicycle", "knife", "bus", "dining table", "dog"]
    for given, meant in (
        ("people", "person"),
        ("persons", "person"),
        ("cars", "car"),
        ("cra", "car"),
        ("automobile", "car"),
        ("smartphone", "cell phone"),
        ("sofas", "couch"),
        ("bycicle", "bicycle"),
        ("bikes", "bicycle"),
        ("knives", "knife"),
        ("puppies", "dog"),
        ("aple", "apple"),
        ("dining-table", "dining table"),
    ):
        assert nearest_class(given, labels) == f'; did you mean "{meant}"?'
    for given in ("drone", "lion", "peple's", ""):
        assert nearest_class(given, labels).startswith(("; known are person, apple", '; did you mean "person"'))
    assert "… (80 in all)" in nearest_class("drone", [f"thing {number}" for number in range(80)])
