"""Families that are told from each other by what goes in and comes out; those that cannot be run are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.backends import open_net
from edge_agent.errors import RefusedError
from edge_agent.families.table import RUNS
from edge_agent.inspect.inspect import inspect
from edge_agent.manifest import Seen
from edge_agent.registry import catalogue
from edge_agent.types import Net, TensorSpec
from tests.registry import here

Dims = tuple[int | None, ...]

PICTURE: dict[str, Dims] = {"x": (1, 3, 416, 416)}
BATCH = (None, None)


def shapes(inputs: dict[str, Dims], outputs: dict[str, Dims], dtype: str = "float32") -> Seen:
    """What is concluded from shapes and names alone."""
    ins = tuple(TensorSpec(n, s, "int64" if n == "sr" else dtype) for n, s in inputs.items())
    outs = tuple(TensorSpec(n, s, "float32") for n, s in outputs.items())
    return inspect(Path("none.tflite"), Net(lambda tensors: {}, ins, outs, "none"))


@pytest.mark.parametrize(
    ("inputs", "outputs", "task", "family"),
    [
        (PICTURE, {"o": (1, 3598, 112)}, "detect", "nanodet"),
        (PICTURE, {"o": (1, 112, 3549)}, "detect", "nanodet"),
        (PICTURE, {"o": (1, 3549, 80 + 4 * 11)}, "detect", "nanodet"),
        (PICTURE, {"o": (1, 84, 14365)}, "detect", "yolov8"),
        (PICTURE, {"o": (1, 300, 5)}, "detect", "end2end-one"),
        (PICTURE, {"o": (1, 5, 3549)}, "detect", "yolov8"),
        (PICTURE, {"o": (None, 7)}, "detect", "end2end-yolov7"),
        (PICTURE, {"o": (1, 1, 200, 7)}, "detect", "end2end-yolov7"),
        (PICTURE, {"o": (None, 6), "n": (1,)}, "detect", "end2end"),
        (PICTURE, {"logits": (1, 300, 1), "pred_boxes": (1, 300, 4)}, "detect", "detr-sigmoid"),
        (PICTURE, {"boxes": (1, 3549, 1, 4), "confs": (1, 3549, 80)}, "detect", "box-scores"),
        (PICTURE, {"a": (1, 3549, 4), "b": (1, 80, 3549)}, "detect", "box-scores"),
        (PICTURE, {"boxes": (1, 4420, 4), "scores": (1, 4420, 2)}, "detect", "ssd-decoded"),
        (PICTURE, {"boxes": (1, 3549, 4), "scores": (1, 3549), "class_idx": (1, 3549)}, "detect", "cells-finished"),
        (PICTURE, {"boxes": (None, 4), "scores": (None,), "labels": (None,)}, "detect", "finished"),
        (PICTURE, {"o": (1, 300, 84)}, "detect", "rtdetr"),
        (PICTURE, {"o": (1, 300, 6)}, "detect", "end2end"),
        (PICTURE, {"o": (1, 85, 3549)}, "detect", "yolox"),
        (PICTURE, {"o": (1, 85, 10647)}, "detect", "yolov5"),
        (PICTURE, {"o": (1, 3549, 84)}, "detect", "yolov8"),
        (PICTURE, {"b": (1, 10, 4), "s": (1, 10), "c": (1, 10)}, "detect", "ssd"),
        (PICTURE, {"p": (1, 3549, 4), "q": (1, 3549, 7)}, "detect", "edge-yolo"),
        (PICTURE, {"a": (1, 100, 4), "b": (1, 100, 92)}, "detect", "detr"),
        (PICTURE, {"dets": (1, 300, 4), "labels": (1, 300, 91)}, "detect", "detr-sigmoid"),
        (PICTURE, {"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}, "detect", "detr-sigmoid"),
        (PICTURE, {"boxes": (1, 300, 4), "labels": (1, 300), "scores": (1, 300)}, "detect", "finished"),
        (PICTURE, {"a": (1, 1917, 4), "b": (1, 1917, 81)}, "detect", "ssd-decoded"),
        (PICTURE, {"dets": (1, 100, 5), "labels": (1, 100)}, "detect", "finished"),
        (PICTURE, {"o": (1, 116, 3549), "m": (1, 32, 104, 104)}, "detect", "yolov8-seg"),
        (PICTURE, {f"{n}": (1, 3, n, n, 85) for n in (52, 26, 13)}, "detect", "yolov5-raw"),
        (PICTURE, {f"{n}": (1, 255, n, n) for n in (52, 26, 13)}, "detect", "yolo-levels"),
        (PICTURE, {f"{k}{n}": (1, k, n, n) for k in (80, 4) for n in (52, 26, 13)}, "detect", "rtmdet"),
        (PICTURE, {f"{k}{n}": (1, k, n, n) for k in (80, 32) for n in (52, 26, 13)}, "detect", "nanodet"),
        (PICTURE, {f"{n}": (1, n, n, 112) for n in (52, 26, 13, 7)}, "detect", "nanodet"),
        (PICTURE, {f"{n}": (1, n, n, 255) for n in (52, 26, 13)}, "detect", "yolo-levels"),
        (PICTURE, {f"{k}{n}": (1, k, None, None) for k in (80, 4) for n in (52, 26, 13)}, "detect", "rtmdet"),
        # steps of a reader of text, which count no boxes
        ({"x": (1, 3, 48, 320)}, {"o": (1, 25, 300)}, "read", "ocr-recogniser"),
        ({"image": (1, 3, 640, 640), "size": (1, 2)}, {"o": (1, 300, 6)}, "detect", "two-inputs"),
        (PICTURE, {f"{k}{n}": (1, n * n, k) for k in (80, 4) for n in (52, 26, 13)}, "detect", "rtmdet"),
        (PICTURE, {f"{k}{n}": (1, k, n * n) for k in (80, 32) for n in (52, 26, 13)}, "detect", "nanodet"),
        (PICTURE, {f"{k}{n}": (1, n * n, k) for n in (13, 52, 26) for k in (44, 80)}, "detect", "nanodet"),
        (PICTURE, {f"{n}": (1, n * n, 112) for n in (52, 26, 13, 7)}, "detect", "nanodet"),
        (PICTURE, {"o": (1, 1000)}, "recognise", "image-classifier-logits"),
        ({"x": (None, 224, 224, 3)}, {"o": (None, 1, 1, 1001)}, "recognise", "image-classifier-logits"),
        (PICTURE, {"o": (1, 21, 416, 416)}, "segment", "segmentation"),
        ({"x": (1, 3, 736, 736)}, {"o": (1, 1, 736, 736)}, "segment", "pixel-map"),
        ({"x": (1, 3, None, None)}, {"o": (1, 1, None, None)}, "segment", "pixel-map"),
        ({"x": (1, 256, 256, 3)}, {"o": (1, 256, 256, 1)}, "segment", "pixel-map"),
        ({"x": (1, 256, 256, 3)}, {"o": (1, 64, 64, 39)}, "segment", "cell-maps"),
        ({"x": (1, 3, 256, 192)}, {"o": (1, 17, 64, 48)}, "segment", "cell-maps"),
        ({"x": (None, 3, 48, None)}, {"o": (None, None, 6625)}, "read", "ocr-recogniser"),
        ({"x": (1, 1, 32, 128)}, {"o": (1, 26, 95)}, "read", "ocr-recogniser"),
        (PICTURE, {"o": (1, 3, 416, 416)}, "anomaly", "autoencoder"),
        (PICTURE, {"o": (1, 3, 416, 416), "mu": (1, 16), "v": (1, 16)}, "anomaly", "vae"),
        ({"x": (None, 640)}, {"o": (None, 640)}, "anomaly", "autoencoder"),
        ({"x": (None, 640)}, {"o": (None, 640), "mu": (None, 8), "logvar": (None, 8)}, "anomaly", "vae"),
        (
            {"input": (None, None), "state": (2, None, 128), "sr": ()},
            {"output": (None, 1), "stateN": (None, None, None)},
            "hear",
            "vad",
        ),
        (
            {"input": (1, 512), "h": (2, 1, 64), "c": (2, 1, 64), "sr": ()},
            {"output": (1, 1), "hn": (2, 1, 64), "cn": (2, 1, 64)},
            "hear",
            "vad",
        ),
        ({"hidden": (None, None, 256)}, {"logits": (None, None, 8192)}, "fill", "bert-mlm"),
        ({"hidden": (None, None, 256)}, {"logits": (None, 2)}, "follows", "bert-nsp"),
    ],
)
def test_a_family_is_named(inputs: dict[str, Dims], outputs: dict[str, Dims], task: str, family: str) -> None:
    seen = shapes(inputs, outputs)
    assert (seen.task, seen.family) == (task, family), seen.reasons
    assert any(reason.startswith(f"family {family}: ") for reason in seen.reasons)
    # a head alone has no encoder to run behind
    runs = family in RUNS and "hidden" not in inputs
    assert runs == (seen.refusal == "")
    assert runs or "cannot run this family" in seen.refusal


@pytest.mark.parametrize(
    ("inputs", "outputs", "what", "mend"),
    [
        ({"x": (1, 3, 736, 736)}, {"o": (1, 1, 736, 736)}, "every place in a picture", "a task of your own"),
        ({"x": (None, 3, 48, None)}, {"o": (None, None, 6625)}, "reads a line of text in a picture", "models/ocr"),
        ({"input": BATCH, "state": (2, None, 128), "sr": ()}, {"output": (None, 1)}, "tells speech", "of your own"),
        (
            {"hidden": (None, None, 256)},
            {"logits": (None, None, 8192)},
            "guesses masked words",
            "together with its encoder",
        ),
        (PICTURE, {f"{n}": (1, 255, n, n) for n in (52, 26, 13)}, "a detector", "with its decoding in the graph"),
    ],
)
def test_what_cannot_be_run_is_named_with_what_to_do(
    inputs: dict[str, Dims], outputs: dict[str, Dims], what: str, mend: str
) -> None:
    refusal = shapes(inputs, outputs, "int64" if "input_ids" in inputs else "float32").refusal
    assert what in refusal and mend in refusal and "YOLOX" in refusal and "\n" not in refusal


@pytest.mark.parametrize(
    ("inputs", "outputs", "family", "says"),
    [
        (PICTURE, {"o": (1, 1024)}, "vector", "a vector that stands for the picture, or 512 points such as landmarks"),
        ({"x": (1, 3, 112, 112)}, {"o": (1, 136)}, "vector", "or 68 points such as landmarks"),
        ({"x": (None, 3, 48, 192)}, {"o": (None, 2)}, "vector", "a picture of 192x48 is a line of text"),
        ({"x": (1, 64, 64, 3)}, {"o": (1, 1, 1, 228)}, "vector", "228 numbers for each picture; nothing says what"),
        ({"x": (1, 64, 64, 3)}, {"o": (1, 1)}, "vector", "one number for each picture; it tells no classes apart"),
        ({"x": (1, 49, 10, 1)}, {"o": (1, 12)}, "one-channel", "a sound's spectrum (keyword spotting)"),
    ],
)
def test_numbers_for_a_picture_are_classes_only_where_something_says_so(
    tmp_path: Path, inputs: dict[str, Dims], outputs: dict[str, Dims], family: str, says: str
) -> None:
    seen = shapes(inputs, outputs)
    assert (seen.task, seen.family) == ("recognise", family) and says in seen.refusal, seen.refusal
    assert "classes for each" not in " ".join([seen.refusal, *seen.reasons])
    if family == "vector" and outputs["o"][-1] != 1:
        (tmp_path / "labels.txt").write_text("".join(f"name {i}\n" for i in range(outputs["o"][-1] or 0)))
        specs = [tuple(TensorSpec(n, s, "float32") for n, s in some.items()) for some in (inputs, outputs)]
        named = inspect(tmp_path / "m.tflite", Net(lambda tensors: {}, specs[0], specs[1], "none"))
        assert (named.family, named.refusal, named.labels[1]) == ("image-classifier-logits", "", "name 1")


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_the_exporters_task_is_believed(tmp_path: Path, task: str) -> None:
    from tests.registry.test_registry import detector

    path = detector(tmp_path / "a.onnx", (1, 56, 3549), task=task, names="{0: 'person'}", stride="32")
    seen = inspect(path, open_net(path, "onnx"))
    assert seen.family.startswith("yolov8-") and f'the file\'s task is "{task}"' in seen.reasons[0]
    with pytest.raises(RefusedError, match="cannot run this family"):
        catalogue.locate(str(path), read=here.read)


# ── text: the table of words in the graph tells what the last axis counts ────────────────────────────────

WORDS, WIDTH = 900, 24


def bert(
    path: Path,
    out: tuple[int, ...],
    *,
    name: str = "y",
    first: str = "a",
    cast: bool = False,
    half: bool = False,
    fixed: int = 0,
) -> Path:
    """Token ids are looked up and multiplied with a matrix; `out`: axes behind the batch, L for the tokens is -1.

    `cast`: the table is float16 and widened; `half`: all is float16; `fixed`: one text of so many tokens.
    """
    nodes = []
    table = "table"
    if cast:
        nodes.append(helper.make_node("Cast", ["table"], ["wide"], to=TensorProto.FLOAT))
        table = "wide"
    nodes.append(helper.make_node("Gather", [table, first], ["looked"]))
    if out[0] != -1:
        nodes.append(helper.make_node("ReduceMean", ["looked"], ["pooled"], axes=[1], keepdims=0))
    nodes.append(helper.make_node("MatMul", ["looked" if out[0] == -1 else "pooled", "w"], [name]))
    wide = np.float16 if half else np.float32
    kind = np.float16 if cast else wide
    constants = [
        numpy_helper.from_array(np.zeros((WORDS, WIDTH), kind), "table"),
        numpy_helper.from_array(np.zeros((WIDTH, out[-1]), wide), "w"),
    ]
    batch, tokens = (1, fixed) if fixed else ("batch", "tokens")
    dims = [batch, *(tokens if n == -1 else n for n in out)]
    graph = helper.make_graph(
        nodes,
        "bert",
        [helper.make_tensor_value_info(first, TensorProto.INT64, [batch, tokens])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT16 if half else TensorProto.FLOAT, dims)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize(
    "given", [{}, {"cast": True}, {"half": True}, {"fixed": 16}, {"half": True, "fixed": 16}], ids=str
)
@pytest.mark.parametrize(
    ("out", "name", "task", "family"),
    [
        ((-1, WORDS), "y", "fill", "bert-mlm"),
        ((-1, WIDTH), "y", "encode", "bert"),
        ((-1, 9), "y", "tag", "bert-tagger"),
        ((-1, 2), "y", "answer", "bert-qa"),
        ((5,), "y", "classify", "bert-classifier"),
        ((2,), "seq_relationship", "follows", "bert-nsp"),
        ((WIDTH,), "y", "encode", "bert"),
    ],
)
def test_text_heads(
    tmp_path: Path, out: tuple[int, ...], name: str, task: str, family: str, given: dict[str, Any]
) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    for first in ("input_ids", "renamed"):
        path = bert(tmp_path / "net.onnx", out, name=name, first=first, **given)
        seen = inspect(path, open_net(path, "onnx"))
        assert (seen.task, seen.family) == (task, family), seen.reasons
        assert f"{WORDS} words by {WIDTH}" in seen.reasons[0]
        assert (seen.refusal == "") == (family != "bert-tagger")


def test_two_outputs_of_a_score_a_token_answer_questions() -> None:
    for names in (("start_logits", "end_logits"), ("a", "b")):
        outputs: dict[str, Dims] = dict.fromkeys(names, (None, 128))
        assert shapes({"input_ids": (None, 128)}, outputs, "int64").family == "bert-qa"


def test_what_stands_beside_an_encoder_is_read(tmp_path: Path) -> None:
    path = bert(tmp_path / "net.onnx", (-1, WIDTH))
    assert "no tokenizer.json or vocab.txt" in inspect(path, open_net(path, "onnx")).refusal
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nThe\n")
    seen = inspect(path, open_net(path, "onnx"))
    assert seen.text is not None and not seen.text.lowercase and seen.text.pooling == "mean"
    assert any("not tried" in reason for reason in seen.reasons)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    seen = inspect(path, open_net(path, "onnx"))
    assert seen.text is not None and seen.text.pooling == "cls"
    assert any("1_Pooling/config.json" in reason for reason in seen.reasons)


def test_a_few_capitals_make_no_cased_vocabulary(tmp_path: Path) -> None:
    path = bert(tmp_path / "net.onnx", (-1, WIDTH))

    def lowercase(*strays: str) -> bool | None:
        (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", *strays, *(f"w{i}" for i in range(400))]))
        seen = inspect(path, open_net(path, "onnx"))
        return seen.text.lowercase if seen.text else None

    assert lowercase("[CLS]", "<URL>", "<USER>", "Ab", "Cd") is True
    assert lowercase("Ab", "Cd", "Ef", "Gh", "Ij") is False
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert lowercase() is False
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": null}')
    assert lowercase() is True
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": null')
    assert "tokenizer_config.json beside it is no JSON" in inspect(path, open_net(path, "onnx")).refusal


def test_a_text_may_be_about_the_background(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    (tmp_path / "labels.txt").write_text("BACKGROUND\nMETHODS\nRESULTS\n")
    path = bert(tmp_path / "net.onnx", (3,))
    seen = inspect(path, open_net(path, "onnx"))
    assert (seen.refusal, seen.labels) == ("", ["BACKGROUND", "METHODS", "RESULTS"])


def test_a_head_whose_inputs_have_no_telling_names_is_refused(tmp_path: Path) -> None:
    path = bert(tmp_path / "net.onnx", (5,), first="ids")
    model = onnx.load(str(path))
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.INT64, ["batch", "tokens"]))
    onnx.save(model, str(path))
    seen = inspect(path, open_net(path, "onnx"))
    assert seen.family == "bert-classifier" and "nothing says what goes into b; export it" in seen.refusal
