from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_agent.backends import bare, open_net
from edge_agent.errors import RefusedError
from edge_agent.gate.worth import looker
from edge_agent.graphs.graph import FileGraph, Leading
from edge_agent.inspect import names, picture
from edge_agent.inspect.inspect import inspect
from edge_agent.registry import catalogue, files
from edge_agent.types import Net, TensorSpec
from tests.nets import blob_finder_onnx, write_onnx
from tests.registry import here
from tests.registry.test_registry import detector

Dims = tuple[int | None, ...]


def net(inputs: dict[str, Dims], outputs: dict[str, Dims], dtype: str = "float32") -> Net:
    """A net by its shapes alone: inspection runs nothing."""
    ins, outs = (tuple(TensorSpec(n, s, t) for n, s in d.items()) for d, t in ((inputs, dtype), (outputs, "float32")))
    return Net(lambda tensors: {}, ins, outs, "none")


@pytest.mark.parametrize(
    ("picture", "outputs", "family", "layout", "classes"),
    [
        ((1, 3, 416, 416), {"o": (1, 3549, 85)}, "yolox", "NCHW", 80),
        ((1, 3, 320, 640), {"o": (1, 40 * 80 + 20 * 40 + 10 * 20, 6)}, "yolox", "NCHW", 1),
        ((1, 640, 640, 3), {"o": (1, 25200, 85)}, "yolov5", "NHWC", 80),
        ((1, 3, 640, 640), {"o": (1, 84, 8400)}, "yolov8", "NCHW", 80),
        ((1, 3, 64, 64), {"o": (1, 7, 84)}, "yolov8", "NCHW", 3),
        ((None, 3, None, None), {"o": (None, 84, None)}, "yolov8", "NCHW", 80),
        ((1, 3, 640, 640), {"o": (1, 300, 6)}, "end2end", "NCHW", 80),
        ((1, 3, 320, 320), {"boxes": (1, 2100, 4), "logits": (1, 2100, 7)}, "edge-yolo", "NCHW", 7),
    ],
)
def test_detectors_by_their_shapes(
    picture: Dims, outputs: dict[str, Dims], family: str, layout: str, classes: int
) -> None:
    seen = inspect(Path("bare.tflite"), net({"images": picture}, outputs))
    assert (seen.task, seen.family, len(seen.labels)) == ("detect", family, classes)
    assert seen.input is not None
    assert seen.input.layout == layout
    assert seen.input.channels == ("BGR" if family in ("yolox", "edge-yolo") else "RGB")
    assert seen.labels[0] == ("person" if classes == 80 else "class_0")
    assert any(family in reason for reason in seen.reasons)
    size = (seen.input.height, seen.input.width)
    assert size == ((640, 640) if picture[2] is None else picture[2:] if layout == "NCHW" else picture[1:3])


def test_ssd_counts_with_cocos_gaps() -> None:
    outputs: dict[str, Dims] = {"a": (1, 10, 4), "b": (1, 10), "c": (1, 10), "d": (1,)}
    seen = inspect(Path("bare.tflite"), net({"in": (1, 300, 300, 3)}, outputs, "uint8"))
    assert seen.class_ids is not None
    names = dict(zip(seen.class_ids, seen.labels, strict=True))
    assert len(names) == len(seen.labels) == 90
    # of the labelmap that is published with these models: 0 person, 16 cat is annotation id 17, 89 toothbrush
    assert (seen.labels[0], seen.labels[16], seen.labels[89]) == ("person", "cat", "toothbrush")
    assert (names[0], names[15], names[79]) == ("person", "cat", "toothbrush")


@pytest.mark.parametrize("stated", [["helmet", "vest"], []])
def test_the_detection_apis_classes_count_from_1(tmp_path: Path, stated: list[str]) -> None:
    """What the same network reports as TFLite, whose classes count from 0, and as ONNX."""
    called = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
    shapes: list[Dims] = [(1, 10, 4), (1, 10), (1, 10), (1,)]
    if stated:
        (tmp_path / "labels.txt").write_text("\n".join(["???", *stated]))
    given = net({"in": (1, 300, 300, 3)}, dict(zip(called, shapes, strict=True)), "uint8")
    zero, one = (inspect(tmp_path / name, given) for name in ("bare.tflite", "bare.onnx"))
    ids = zero.class_ids or list(range(len(zero.labels)))
    assert one.class_ids is not None and one.class_ids[1:] == ids and one.class_ids[0] not in ids
    assert one.labels == ["unused 0", *zero.labels] and "???" not in one.labels
    assert any("counts from 1" in reason for reason in one.reasons)


def test_a_background_that_is_named_in_the_metadata_is_not_counted_twice(tmp_path: Path) -> None:
    found = names.labels("ssd", 0, ["background", "helmet"], "2 names", first=1)
    assert found == (["background", "helmet"], None, "2 names")


def test_several_labels_at_once_are_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Sigmoid", ["means"], ["y"]),
    ]
    ends = {"x": (TensorProto.FLOAT, [1, 3, 8, 8])}, {"y": (TensorProto.FLOAT, [1, 3])}
    seen = here.read(write_onnx(tmp_path / "m.onnx", nodes, *ends))
    assert seen.task == "recognise" and "ends in a Sigmoid, so several labels may hold at once" in seen.refusal


@pytest.mark.parametrize("first", ["Sub", "Gather"])
@pytest.mark.parametrize(("mean", "order"), [((103.53, 116.28, 123.675), "BGR"), ((123.675, 116.28, 103.53), "RGB")])
def test_a_flip_of_the_channels_turns_a_mean_only_when_it_comes_first(
    tmp_path: Path, first: str, mean: tuple[float, ...], order: str
) -> None:
    ops = {"Sub": {}, "Gather": {"axis": 1}}
    steps = ["Sub", "Gather"] if first == "Sub" else ["Gather", "Sub"]
    nodes = [
        helper.make_node(steps[0], ["x", f"by {steps[0]}"], ["a"], **ops[steps[0]]),
        helper.make_node(steps[1], ["a", f"by {steps[1]}"], ["b"], **ops[steps[1]]),
        helper.make_node("ReduceMean", ["b"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Softmax", ["means"], ["y"], axis=1),
    ]
    ends = {"x": (TensorProto.FLOAT, [1, 3, 8, 8])}, {"y": (TensorProto.FLOAT, [1, 3])}
    by: dict[str, Any] = {
        "by Sub": np.array(mean, np.float32).reshape(1, 3, 1, 1),
        "by Gather": np.array([2, 1, 0], np.int64),
    }
    seen = here.read(write_onnx(tmp_path / "m.onnx", nodes, *ends, by))
    other = {"BGR": "RGB", "RGB": "BGR"}
    assert seen.input is not None and seen.input.channels == (order if first == "Sub" else other[order])


@pytest.mark.parametrize(
    ("inputs", "outputs", "says"),
    [
        ({"x": (1, 3, 224, 224)}, {"o": (1, 99, 85)}, "no head that is known at 224x224"),
        # places of the points of a body, and no map
        ({"x": (1, 192, 192, 3)}, {"o": (1, 1, 17, 3)}, "no head that is known at 192x192"),
        ({"x": (1, 1, 96, 96)}, {"o": (1, 3, 5)}, "no axis of 3 colours"),
        ({"x": (1, 640)}, {"o": (1, 641)}, "neither one picture nor token ids"),
        ({"input_ids": (None, None)}, {"o": ()}, "no output is a vector"),
    ],
)
def test_no_known_family_says_what_was_seen(inputs: dict[str, Dims], outputs: dict[str, Dims], says: str) -> None:
    with pytest.raises(RefusedError) as error:
        inspect(Path("bare.onnx"), net(inputs, outputs))
    assert says in str(error.value)
    assert f"{next(iter(inputs))} [" in str(error.value)
    assert "\n" not in str(error.value)


def test_encoder_needs_its_words_beside_it(tmp_path: Path) -> None:
    shapes: dict[str, Dims] = {"input_ids": (None, None), "attention_mask": (None, None)}
    bert = net(shapes, {"last_hidden_state": (None, None, 384)}, "int64")
    assert "no tokenizer.json or vocab.txt beside it" in inspect(tmp_path / "bert.onnx", bert).refusal
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    seen = inspect(tmp_path / "bert.onnx", bert)
    assert seen.text is not None
    assert (seen.task, seen.family, seen.text.vocab, seen.text.pooling) == ("encode", "bert", "vocab.txt", "mean")
    assert seen.text.max_length == 512


def test_names_in_an_onnx_file(tmp_path: Path) -> None:
    path = detector(tmp_path / "a.onnx", names="{0: 'hat', 1: 'glove'}", stride="32")
    assert inspect(path, open_net(path, "onnx")).labels == ["hat", "glove"]
    for odd in ("{0: 'hat'", "__import__('os')", "{1: 'a', 2: 'b'}", "7", ""):
        path = detector(tmp_path / "b.onnx", names=odd)
        assert inspect(path, open_net(path, "onnx")).labels == ["class_0", "class_1"]


TWO = "cat\r\ndöner\r\n"


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (TWO.encode("utf-8-sig"), ["cat", "döner"]),
        (TWO.encode("utf-16"), ["cat", "döner"]),
        (b"\xfe\xff" + TWO.encode("utf-16-be"), ["cat", "döner"]),
        (TWO.encode("utf-16-le"), ["cat", "döner"]),
        (TWO.encode("utf-16-be"), ["cat", "döner"]),
        (TWO.encode("latin-1"), None),
        (b"0: cat\n1: dog\n", ["cat", "dog"]),
        (b"1 cat\n2 dog\n", ["cat", "dog"]),
        (b"0\tcat\n1\tdog\n", ["cat", "dog"]),
        (b"2 wheeler\n4 wheeler\n", ["2 wheeler", "4 wheeler"]),
        (b"cat\n\ndog\n", ["cat", "class_1", "dog"]),
        (
            b"".join(b"%d: n%d\n" % (i, i) for i in range(12) if i != 7),
            [f"n{i}" if i != 7 else "class_7" for i in range(12)],
        ),
    ],
    ids=repr,
)
def test_labels_as_editors_and_others_write_them(tmp_path: Path, raw: bytes, found: list[str] | None) -> None:
    (tmp_path / "labels.txt").write_bytes(raw)
    if found is None:
        with pytest.raises(RefusedError, match=r"labels\.txt: its encoding cannot be told; save it as UTF-8"):
            names.stated(FileGraph(), tmp_path / "m.onnx")
        return
    assert names.stated(FileGraph(), tmp_path / "m.onnx")[0] == found


@pytest.mark.parametrize("outputs", [{"o": (1, 84, 8400)}, {"o": (1, 5)}])
def test_more_names_than_classes_are_refused(tmp_path: Path, outputs: dict[str, Dims]) -> None:
    (tmp_path / "labels.txt").write_text("".join(f"name {i}\n" for i in range(90)))
    seen = inspect(tmp_path / "bare.tflite", net({"x": (1, 3, 640, 640)}, outputs))
    assert "there are 90 names in labels.txt beside the file, and its output has" in seen.refusal
    assert "correct labels.txt, or take it away" in seen.refusal


def test_axes_that_a_file_leaves_open_are_found_by_a_run(tmp_path: Path) -> None:
    model = onnx.load(str(blob_finder_onnx(tmp_path / "m.onnx")))
    model.graph.node[-1].output[0] = "whole"
    # a shape that is computed from the picture, so that no runtime foresees it
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
            helper.make_node("Mul", ["most", "nothing"], ["zero"]),
            helper.make_node("Add", ["zero", "dims"], ["real"]),
            helper.make_node("Cast", ["real"], ["shape"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["whole", "shape"], ["output"]),
        ]
    )
    for name, value in (("nothing", np.float32(0)), ("dims", np.array([1, 84, 8], np.float32))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, ["a", "b", "c"]))
    onnx.save(model, str(tmp_path / "m.onnx"))
    seen = here.read(tmp_path / "m.onnx", looker())
    assert (seen.family, seen.refusal, len(seen.labels)) == ("yolox", "", 3)
    assert "outputs: the file leaves axes open, a run gives [?, 84, 8]" in seen.reasons


def test_the_size_of_the_canvas_is_filled_in_beside_the_picture(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["sizes"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["sizes", "mean"], ["scores"]),
    ]
    ends = {"images": (TensorProto.FLOAT, [1, 3, 32, 64]), "orig_target_sizes": (TensorProto.INT64, [1, 2])}
    path = write_onnx(tmp_path / "m.onnx", nodes, ends, {"scores": (TensorProto.FLOAT, [1, 2])})
    opened = open_net(path, "onnx", 1)
    assert [spec.name for spec in opened.inputs] == ["images"] and "orig_target_sizes is filled" in opened.reasons[-1]
    given = {"images": np.ones((1, 3, 32, 64), np.float32)}
    assert opened.run(given)["scores"].tolist() == [[64, 32]]
    assert np.asarray(bare(path, "onnx", 1)(given)).ravel().tolist() == [64, 32]


def test_real_files(data: Path) -> None:
    families = {
        "yolox_nano.onnx": "yolox",
        "yolox_nano_float16.tflite": "yolox",
        "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite": "ssd",
        "test-only/yolov5n-fp16.tflite": "yolov5",
        "test-only/yolov8n_int8.tflite": "yolov8",
        "ad01_fp32.tflite": "autoencoder",
        "ad01_int8.tflite": "autoencoder",
        "vww_96_float.tflite": "image-classifier",
        "vww_96_int8.tflite": "image-classifier",
    }
    for name, family in families.items():
        located = catalogue.locate(str(data / "models" / name), read=here.read)
        assert located.manifest.family == family
        assert located.manifest.file[0].sha256[:12] == located.manifest.version
        assert files.file_path(located, located.manifest.file[0]) == data / "models" / name


def test_an_input_that_the_graph_multiplies_by_zero_tells_no_order() -> None:
    assert picture._order_of_mean(Leading(gain=(0.0,), offset=(-1.0, -2.0, -3.0))) == (None, "")
