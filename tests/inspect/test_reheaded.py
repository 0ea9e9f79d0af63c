"""YOLOX-nano's real weights behind the outputs of other exporters: what it finds has to stay what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.backends import open_net
from edge_agent.gate.worth import looker, served_as
from edge_agent.graphs.graph import IMAGENET_MEAN
from edge_agent.inspect.names import coco80
from edge_agent.inspect.ranges import IMAGENET_STD, describe
from edge_agent.manifest import Seen
from edge_agent.pictures.read import read_picture
from edge_agent.tasks.detect.detect import detect
from edge_agent.types import Detections, Finding
from edge_agent.uri import Uri
from tests.registry import here

SIDE = 416
DOG = (128, 205, 344, 531)
"""where the dog of dog.jpg is, as YOLOX-nano itself finds it"""
ANIMALS = [15, 16]


class Rehead:
    """The network with RGB in 0..1 going in, and its detections as tensors to put together anew."""

    def __init__(self, data: Path, first: list[tuple[str, npt.NDArray[Any]]] | None = None) -> None:
        self.model = onnx.load(str(data / "models" / "yolox_nano.onnx"))
        self.graph, self.count = self.model.graph, 0
        own, source = list(self.graph.node), self.graph.input[0].name
        del self.graph.node[:]
        for node in own:
            node.input[:] = ["pixels" if name == source else name for name in node.input]
            node.output[:] = ["raw" if name == self.graph.output[0].name else name for name in node.output]
        at = source
        for op, value in first or []:
            at = self.step(op, at, self.const(value))
        at = self.step("Gather", at, self.const(np.array([2, 1, 0])), axis=1)
        self.graph.node.append(helper.make_node("Mul", [at, self.const(np.float32(255))], ["pixels"]))
        self.graph.node.extend(own)
        del self.graph.output[:]
        cells, steps = [], []
        for stride in (8, 16, 32):
            rows, columns = np.mgrid[: SIDE // stride, : SIDE // stride].astype(np.float32)
            cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
            steps.append(np.full((rows.size, 1), stride, np.float32))
        step = self.const(np.concatenate(steps)[None])
        self.centre = self.step("Mul", self.step("Add", self.part(0, 2), self.const(np.concatenate(cells)[None])), step)
        self.size = self.step("Mul", self.step("Exp", self.part(2, 4)), step)
        self.scores = self.step("Mul", self.part(4, 5), self.part(5, 85))

    def const(self, value: Any) -> str:
        self.count += 1
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"const{self.count}"))
        return f"const{self.count}"

    def step(self, op: str, *inputs: str, many: int = 1, **attributes: Any) -> str:
        self.count += 1
        names = [f"new{self.count}_{i}" for i in range(many)]
        self.graph.node.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0]

    def part(self, start: int, end: int) -> str:
        return self.step("Slice", "raw", *(self.const(np.array([n])) for n in (start, end, 2)))

    def corners(self) -> str:
        half = self.step("Mul", self.size, self.const(np.float32(0.5)))
        return self.step("Concat", self.step("Sub", self.centre, half), self.step("Add", self.centre, half), axis=2)

    def unit(self, boxes: str) -> str:
        return self.step("Div", boxes, self.const(np.float32(SIDE)))

    def chosen(self, classes: list[int]) -> str:
        return self.step("Gather", self.scores, self.const(np.array(classes)), axis=2)

    def best(self, most: int, boxes: str, scores: str) -> tuple[str, str, str]:
        """Of the best cells: boxes (1, n, 4), scores (1, n, 1), classes (1, n, 1)."""
        top = self.step("ReduceMax", scores, axes=[2], keepdims=0)
        value = self.step("TopK", top, self.const(np.array([most])), axis=1, many=2)
        index = self.step("Unsqueeze", value.replace("_0", "_1"), axes=[2])
        four = self.step("Expand", index, self.const(np.array([1, most, 4])))
        label = self.step("ArgMax", scores, axis=2, keepdims=1)
        label = self.step("Cast", self.step("GatherElements", label, index, axis=1), to=TensorProto.FLOAT)
        return (
            self.step("GatherElements", boxes, four, axis=1),
            self.step("Unsqueeze", value, axes=[2]),
            label,
        )

    def write(self, path: Path, outputs: dict[str, tuple[str, list[int]]], **meta: str) -> Path:
        for name, (tensor, dims) in outputs.items():
            self.graph.node.append(helper.make_node("Identity", [tensor], [name]))
            self.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        del self.graph.value_info[:]
        helper.set_model_props(self.model, meta)
        onnx.save(self.model, str(path))
        return path


def dog(data: Path, path: Path, seen: Seen) -> list[tuple[str, float]]:
    """Names and scores of the boxes that are where the dog is."""
    model = served_as(open_net(path, "onnx", 2), seen, {})
    task = detect(Uri("detect", "it", {"score": "0.5"}), model, path.parent)
    (found,) = task(read_picture(data / "images" / "dog.jpg"))
    assert isinstance(found, Finding) and isinstance(found.what, Detections)
    what = found.what
    there = [np.abs(box - DOG).max() < 25 for box in what.xyxy]
    return [
        (what.names[int(key)], float(score))
        for key, score, met in zip(what.label, what.score, there, strict=True)
        if met
    ]


def test_centre_and_size_of_classes_that_nobody_knows(data: Path, tmp_path: Path) -> None:
    net = Rehead(data)
    boxes = net.unit(net.step("Concat", net.centre, net.size, axis=2))
    rows = net.step("Concat", *net.best(300, boxes, net.chosen(ANIMALS)), axis=2)
    meta = {"author": "Ultralytics", "task": "detect", "stride": "32", "names": "{0: 'feline', 1: 'canine'}"}
    path = net.write(tmp_path / "m.onnx", {"output0": (rows, [1, 300, 6])}, **meta)
    seen = here.read(path, looker())
    assert (seen.family, seen.refusal) == ("end2end-xywh", "")
    assert dog(data, path, seen)[0][0] == "canine"


def test_a_normalisation_that_no_arithmetic_shows(data: Path, tmp_path: Path) -> None:
    # of the picture as ImageNet's networks take it, back to 0..1
    std, mean = (np.array(v, np.float32).reshape(1, 3, 1, 1) / 255 for v in (IMAGENET_STD, IMAGENET_MEAN))
    net = Rehead(data, [("PRelu", np.ones((3, 1, 1), np.float32)), ("Mul", std), ("Add", mean)])
    outputs = {"boxes": (net.corners(), [1, 3549, 4]), "scores": (net.scores, [1, 3549, 80])}
    path = net.write(tmp_path / "m.onnx", outputs)
    seen = here.read(path, looker())
    assert (seen.family, seen.refusal, seen.labels) == ("box-scores", "", coco80())
    assert seen.input is not None and describe(seen.input) == "RGB -2.12..2.25"
    name, score = dog(data, path, seen)[0]
    assert name == "dog" and score > 0.75


@pytest.mark.parametrize("turned", [True, False])
def test_corners_across_or_not_of_classes_that_nobody_knows(data: Path, tmp_path: Path, turned: bool) -> None:
    net = Rehead(data)
    boxes, scores, labels = net.best(100, net.unit(net.corners()), net.chosen(ANIMALS))
    if turned:
        boxes = net.step("Gather", boxes, net.const(np.array([1, 0, 3, 2])), axis=2)
    flat = [net.step("Squeeze", each, axes=[2]) for each in (scores, labels)]
    outputs = {"boxes": (boxes, [1, 100, 4]), "scores": (flat[0], [1, 100]), "classes": (flat[1], [1, 100])}
    path = net.write(tmp_path / "m.onnx", outputs)
    (tmp_path / "labels.txt").write_text("feline\ncanine\n")
    seen = here.read(path, looker())
    assert (seen.family, seen.refusal) == ("ssd" if turned else "finished", "")
    assert dog(data, path, seen)[0][0] == "canine"
    (tmp_path / "labels.txt").unlink()
    assert "its classes are not COCO's: put labels.txt beside it" in here.read(path, looker()).refusal


def test_an_angle_is_not_taken_for_a_class(data: Path, tmp_path: Path) -> None:
    net = Rehead(data)
    # an angle of 0 to 1.5, nearly the range of scores
    angle = net.step("Mul", net.step("Slice", net.centre, *(net.const(np.array([n])) for n in (0, 1, 2))),
                     net.const(np.float32(1.5 / SIDE)))  # fmt: skip
    rows = net.step("Concat", net.centre, net.size, net.chosen(ANIMALS), angle, axis=2)
    path = net.write(tmp_path / "m.onnx", {"output0": (net.step("Transpose", rows, perm=[0, 2, 1]), [1, 7, 3549])})
    for names in ("", "plane\nship\n"):
        (tmp_path / "labels.txt").write_text(names) if names else None
        seen = here.read(path, looker())
        assert seen.family == "yolov8-obb" and "an angle" in seen.refusal and "its boxes are turned" in seen.refusal
