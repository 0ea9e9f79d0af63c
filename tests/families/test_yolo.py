"""Each decoder against the same head decoded slowly: one anchor, one number at a time, in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_agent.errors import InputError, RefusedError
from edge_agent.families.candidates import HeadLayout, grid
from edge_agent.families.table import FAMILIES, ORDERS

Row = tuple[list[float], float, int]
"""box, score, class"""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cells(width: int, height: int, strides: tuple[int, ...] = (8, 16, 32)) -> Iterator[tuple[int, int, int]]:
    """(column, row, stride) of each point."""
    for s in strides:
        for row in range(math.ceil(height / s)):
            for column in range(math.ceil(width / s)):
                yield column, row, s


def check(
    family: str, outputs: dict[str, npt.NDArray[Any]], head: HeadLayout, want: list[Row], threshold: float
) -> None:
    got = FAMILIES[family].decode(outputs, head, threshold)
    assert got.xyxy.dtype == got.score.dtype == np.float32 and got.label.dtype == np.int32
    rows = sorted(zip(got.score.tolist(), got.label.tolist(), got.xyxy.tolist(), strict=True))
    expected = sorted((score, label, box) for box, score, label in want if score >= threshold)
    assert len(expected) > 3, "the test's own threshold lets too little through"
    assert [label for _, label, _ in rows] == [label for _, label, _ in expected]
    assert np.allclose([s for s, _, _ in rows], [s for s, _, _ in expected], atol=1e-6)
    assert np.allclose([b for _, _, b in rows], [b for _, _, b in expected], rtol=1e-5, atol=1e-3)


def centred(x: float, y: float, w: float, h: float) -> list[float]:
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def best(scores: npt.NDArray[Any]) -> tuple[float, int]:
    label = max(range(len(scores)), key=lambda c: float(scores[c]))
    return float(scores[label]), label


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("width", "height", "strides"), [(96, 64, (8, 16, 32)), (128, 64, (8, 16, 32, 64))])
def test_yolox(width: int, height: int, strides: tuple[int, ...], transposed: bool) -> None:
    points = list(cells(width, height, strides))
    head = HeadLayout(width, height, 4)
    raw = rng().normal(0, 1, (len(points), 9)).astype(np.float32)
    raw[:, 4:] = rng(1).random((len(points), 5))
    want: list[Row] = []
    for row, (i, j, s) in zip(raw.astype(float), points, strict=True):
        score, label = best(row[5:])
        want.append(
            (
                centred((row[0] + i) * s, (row[1] + j) * s, math.exp(row[2]) * s, math.exp(row[3]) * s),
                row[4] * score,
                label,
            )
        )
    output = raw.T[None] if transposed else raw[None]
    check("yolox", {"output": output}, head, want, 0.4)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_yolov5(transposed: bool, normalised: bool) -> None:
    head = HeadLayout(320, 160, 6)
    raw = rng().random((500, 11)).astype(np.float32)
    size = [320, 160, 320, 160]
    want: list[Row] = []
    for row in raw.astype(float):
        score, label = best(row[5:])
        want.append((centred(*(v * k for v, k in zip(row[:4], size, strict=True))), row[4] * score, label))
    if not normalised:
        raw[:, :4] *= np.array(size, np.float32)
    # exports may carry the raw feature maps beside the decoded head
    outputs = {"maps": np.zeros((1, 3, 20, 40, 11), np.float32), "output": raw.T[None] if transposed else raw[None]}
    check("yolov5", outputs, head, want, 0.5)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_yolov8(transposed: bool, normalised: bool) -> None:
    head = HeadLayout(320, 160, 6)
    raw = rng().random((500, 10)).astype(np.float32)
    raw[:, 4:] **= 4
    size = [320, 160, 320, 160]
    want: list[Row] = []
    for row in raw.astype(float):
        want.append((centred(*(v * k for v, k in zip(row[:4], size, strict=True))), *best(row[4:])))
    if not normalised:
        raw[:, :4] *= np.array(size, np.float32)
    check("yolov8", {"output": raw[None] if transposed else raw.T[None]}, head, want, 0.7)


@pytest.mark.parametrize("normalised", [False, True])
def test_end2end(normalised: bool) -> None:
    head = HeadLayout(320, 160, 6)
    raw = np.zeros((300, 6), np.float32)
    raw[:40, :2] = rng().random((40, 2)) * 0.5
    raw[:40, 2:4] = raw[:40, :2] + rng(1).random((40, 2)) * 0.5
    raw[:40, 4] = np.sort(rng(2).random(40))[::-1]
    raw[:40, 5] = rng(3).integers(0, 6, 40)
    size = [320, 160, 320, 160]
    want = [
        ([v * k for v, k in zip(row[:4], size, strict=True)], row[4], int(row[5])) for row in raw.astype(float).tolist()
    ]
    if not normalised:
        raw[:, :4] *= np.array(size, np.float32)
    check("end2end", {"output0": raw[None]}, head, want, 0.25)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("strides", [(8, 16, 32), (8, 16, 32, 64)])
@pytest.mark.parametrize(("width", "bins"), [(128, 8), (128, 16), (104, 8)])
@pytest.mark.parametrize("family", ["nanodet", "picodet"])
def test_distributions(family: str, width: int, bins: int, strides: tuple[int, ...], transposed: bool) -> None:
    points = list(cells(width, 64, strides))
    raw = rng().normal(0, 2, (len(points), 5 + 4 * bins)).astype(np.float32)
    raw[:, :5] = rng(1).random((len(points), 5)) ** 3
    want: list[Row] = []
    for row, (i, j, s) in zip(raw.astype(float), points, strict=True):
        reach = []
        for side in range(4):
            weights = [math.exp(v) for v in row[5 + side * bins : 5 + (side + 1) * bins]]
            reach.append(s * sum(k * w for k, w in enumerate(weights)) / sum(weights))
        shift = 0.0 if family == "nanodet" and 64 in strides else 0.5
        x, y = (i + shift) * s, (j + shift) * s
        want.append(([x - reach[0], y - reach[1], x + reach[2], y + reach[3]], *best(row[:5])))
    head = HeadLayout(width, 64, 5)
    check(family, {"output": raw.T[None] if transposed else raw[None]}, head, want, 0.6)
    # the same with each level in a tensor of its own, or in two, in whatever order
    for cut in ((0, None), (0, 5, None)):
        rows, maps, at = {}, {}, 0
        for s in strides:
            high, wide = -(-64 // s), -(-width // s)
            level, at = raw[at : at + high * wide], at + high * wide
            for left, right in pairwise(cut):
                part = level[:, left:right]
                rows[f"{-s} {left}"] = part.T[None] if transposed else part[None]
                plane = part.reshape(1, high, wide, -1)
                maps[f"{s} {left}"] = plane.transpose(0, 3, 1, 2) if transposed else plane
        for outputs in (rows, maps):
            check(family, dict(sorted(outputs.items(), reverse=True)), head, want, 0.6)


@pytest.mark.parametrize("normalised", [False, True])
def test_rtdetr_needs_no_suppression(normalised: bool) -> None:
    raw = rng().random((300, 10)).astype(np.float32)
    size = [320, 160, 320, 160]
    want: list[Row] = []
    for row in raw.astype(float):
        want.append((centred(*(v * k for v, k in zip(row[:4], size, strict=True))), *best(row[4:])))
    if not normalised:
        raw[:, :4] *= np.array(size, np.float32)
    check("rtdetr", {"output": raw[None]}, HeadLayout(320, 160, 6), want, 0.9)
    assert not FAMILIES["rtdetr"].nms


def ssd_tensors(n: int = 20, count: int = 12) -> tuple[dict[str, npt.NDArray[Any]], list[Row]]:
    corner = rng().random((n, 2)) * 0.5
    boxes = np.concatenate([corner, corner + rng(1).random((n, 2)) * 0.5], axis=1).astype(np.float32)
    classes = rng(2).integers(0, 6, n).astype(np.float32)
    scores = np.sort(rng(3).random(n).astype(np.float32))[::-1].copy()
    want = []
    for (top, left, bottom, right), label, score in list(zip(boxes.astype(float), classes, scores, strict=True))[
        :count
    ]:
        want.append(([left * 320, top * 160, right * 320, bottom * 160], float(score), int(label)))
    tensors = {
        "boxes": boxes[None],
        "classes": classes[None],
        "scores": scores[None],
        "count": np.array([count], np.float32),
    }
    return tensors, want


@pytest.mark.parametrize(
    "names",
    [
        {"boxes": "P", "classes": "P:1", "scores": "P:2", "count": "P:3"},
        {"count": "S:0", "scores": "S:1", "classes": "S:2", "boxes": "S:3"},
        {
            "scores": "detection_scores",
            "boxes": "detection_boxes",
            "count": "num_detections",
            "classes": "detection_classes",
        },
        {"classes": "a_classes", "scores": "a_scores", "boxes": "a_boxes"},
    ],
)
def test_ssd_in_any_order(names: dict[str, str]) -> None:
    tensors, want = ssd_tensors(count=12 if "count" in names else 20)
    check("ssd", {name: tensors[kind] for kind, name in names.items()}, HeadLayout(320, 160, 6), want, 0.3)


def test_ssd_of_whole_scores_goes_by_the_ops_order() -> None:
    tensors, _ = ssd_tensors()
    outputs = {"P": tensors["boxes"], "P:1": np.full((1, 20), 3.0), "P:2": np.ones((1, 20)), "P:3": tensors["count"]}
    got = FAMILIES["ssd"].decode(outputs, HeadLayout(320, 160, 6), 0.5)
    assert got.label.tolist() == [3] * 12 and got.score.tolist() == [1.0] * 12


@pytest.mark.parametrize("threshold", [0.2, 0.6, 0.95])
def test_edge_yolo(threshold: float) -> None:
    points = list(cells(96, 64))
    logits = rng().normal(0, 2, (len(points), 5)).astype(np.float32)
    boxes = rng(1).exponential(2, (len(points), 4)).astype(np.float32)
    want: list[Row] = []
    for row, scores, (i, j, s) in zip(boxes.astype(float), logits.astype(float), points, strict=True):
        logit, label = best(scores)
        x, y = (i + 0.5) * s, (j + 0.5) * s
        box = [x - row[0] * s, y - row[1] * s, x + row[2] * s, y + row[3] * s]
        want.append((box, 1 / (1 + math.exp(-logit)), label))
    check("edge-yolo", {"boxes": boxes[None], "logits": logits[None]}, HeadLayout(96, 64, 5), want, threshold)


def test_edge_yolo_at_the_ends_of_the_scale() -> None:
    n = len(list(cells(32, 32)))
    outputs = {"boxes": np.ones((1, n, 4), np.float32), "logits": np.full((1, n, 2), -50, np.float32)}
    outputs["logits"][0, 0] = 200
    decode = FAMILIES["edge-yolo"].decode
    assert len(decode(outputs, HeadLayout(32, 32, 2), 0.0).score) == n
    assert decode(outputs, HeadLayout(32, 32, 2), 0.5).score.tolist() == [1.0]
    assert len(decode(outputs, HeadLayout(32, 32, 2), 1.0).score) == 0


def test_the_grid_is_row_major_and_levels_follow_each_other() -> None:
    at, stride = grid(96, 64, (8, 16, 32))
    assert [(int(x), int(y), int(s)) for (x, y), (s,) in zip(at, stride, strict=True)] == list(cells(96, 64))


# ── nothing found, nothing sensible ──────────────────────────────────────────────────────────────────────


BOXES = np.array([[10, 20, 110, 60], [200, 5, 300, 145], [0, 0, 0, 0]], np.float32)
SCORES, CLASSES = np.array([0.9, 0.4, 0], np.float32), np.array([2, 1, 0], np.float32)


def finished(order: str, scale: float) -> npt.NDArray[np.float32]:
    """BOXES in pixels, or in 0..1 of a canvas of 320x160 (`scale` 0), as a table of these columns."""
    size = np.array([320, 160, 320, 160], np.float32) if not scale else 1
    corners = BOXES / size
    middles = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    boxes = corners if "xyxy" in order else middles
    columns = {"x": boxes, "s": SCORES[:, None], "c": CLASSES[:, None], "-": np.zeros((3, 1))}
    letters = order.replace("xyxy", "x").replace("xywh", "x")
    return np.concatenate([columns[letter] for letter in letters], axis=1).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 0.0], ids=["pixels", "unit"])
@pytest.mark.parametrize("family", ORDERS)
def test_finished_boxes_in_any_order_of_columns(family: str, scale: float) -> None:
    head = HeadLayout(320, 160, 3)
    want = [(*BOXES[i], SCORES[i], 0 if family == "end2end-one" else CLASSES[i]) for i in (0, 1)]
    rows = finished(ORDERS[family], scale)
    for tensor in (rows[None], rows, rows[None, None], rows.T[None]):
        got = FAMILIES[family].decode({"o": tensor, "count": np.array([2])}, head, 0.3)
        assert np.allclose(np.column_stack([got.xyxy, got.score, got.label]), want, atol=1e-3)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("five", [True, False])
def test_boxes_classes_and_scores_in_tensors_of_their_own(five: bool, flat: bool) -> None:
    """EfficientNMS and torchvision; mmdeploy, whose boxes have their score behind them."""
    boxes = np.concatenate([BOXES, SCORES[:, None]], axis=1) if five else BOXES
    given = {"boxes": boxes, "labels": CLASSES.astype(np.int64), **({} if five else {"scores": SCORES})}
    outputs: dict[str, npt.NDArray[Any]] = dict(given if flat else {name: array[None] for name, array in given.items()})
    for count in ({}, {"num_dets": np.array([[1]], np.int32)}):
        got = FAMILIES["finished"].decode({**outputs, **count}, HeadLayout(320, 160, 3), 0.3)
        n = 1 if count else 2
        assert np.allclose(got.xyxy, BOXES[:n]) and got.label.tolist() == CLASSES[:n].tolist()
        assert np.allclose(got.score, SCORES[:n])


@pytest.mark.parametrize("turned", [(), ("b",), ("s",), ("b", "s")], ids=str)
@pytest.mark.parametrize("background", [True, False])
def test_boxes_and_scores_whose_overlaps_are_not_suppressed(background: bool, turned: tuple[str, ...]) -> None:
    rows = np.zeros((5, 3 + background), np.float32)
    rows[[0, 1, 2], CLASSES.astype(int) + background] = SCORES
    rows[:, 0] += background * (1 - rows.sum(axis=1))
    boxes = np.concatenate([BOXES, BOXES[:2]])
    given = {"b": boxes, "s": rows}
    outputs = {name: (array.T if name in turned else array)[None] for name, array in given.items()}
    thin = {**outputs, "b": boxes[None, :, None]}
    for each in (outputs, thin):
        got = FAMILIES["ssd-decoded" if background else "box-scores"].decode(each, HeadLayout(320, 160, 3), 0.3)
        assert np.allclose(got.xyxy, BOXES[:2]) and np.allclose(got.score, SCORES[:2])
        assert got.label.tolist() == [2, 1]


def silent(family: str) -> dict[str, npt.NDArray[Any]]:
    """Outputs of a 32x32 input with two classes in which nothing is found."""
    n = len(list(cells(32, 32)))
    far = np.full((1, n, 1), 20, np.float32)
    if family.endswith("-maps"):
        channels = {"yolov5-maps": 3 * 7, "nanodet-maps": 2 + 4 * 8}.get(family, 4)
        low = {f"all{i}": np.full((1, channels, 4 >> i, 4 >> i), -9, np.float32) for i in range(3)}
        if family in ("yolov5-maps", "nanodet-maps"):
            return {**low, "anchors": np.ones(18, np.float32)}
        roles = {"boxes": 4, "classes": 2, "objects": 1}
        return {f"{role}{i}": low[f"all{i}"][:, :size] for role, size in roles.items() for i in range(3)}
    return {
        "yolox": {"o": np.zeros((1, n, 7), np.float32)},
        "yolov5": {"o": np.concatenate([far, np.zeros((1, n, 6), np.float32)], axis=2)},
        "yolov8": {"o": np.concatenate([far, np.zeros((1, n, 5), np.float32)], axis=2)},
        "yolox-decoded": {"o": np.concatenate([far, np.zeros((1, n, 6), np.float32)], axis=2)},
        "yolov6": {"o": np.concatenate([far, np.zeros((1, n, 6), np.float32)], axis=2)},
        **{name: {"o": np.zeros((1, n, 2 + 4 * 8), np.float32)} for name in ("nanodet", "picodet")},
        "rtdetr": {"o": np.zeros((1, 300, 6), np.float32)},
        **{name: {"o": np.zeros((1, 10, len(order)), np.float32)} for name, order in ORDERS.items()},
        **{
            name: {"b": np.zeros((1, 9, 4)), "c": np.zeros((1, 9)), "s": np.zeros((1, 9)), "n": np.zeros((1, 1))}
            for name in ("finished", "cells-finished")
        },
        "box-scores": {"b": np.zeros((1, n, 4)), "s": np.zeros((1, n, 2))},
        "ssd-decoded": {"b": np.zeros((1, n, 4)), "s": np.tile([1.0, 0, 0], (1, n, 1))},
        "ssd": {"b": np.zeros((1, 9, 4)), "c": np.zeros((1, 9)), "s": np.zeros((1, 9)), "n": np.zeros(1)},
        "edge-yolo": {"boxes": np.zeros((1, n, 4), np.float32), "logits": np.full((1, n, 2), -9, np.float32)},
        "detr": {"boxes": np.zeros((1, 9, 4)), "logits": np.array([[[-9.0, -9, 9]] * 9])},
        "detr-sigmoid": {"boxes": np.zeros((1, 9, 4)), "logits": np.full((1, 9, 2), -9.0)},
    }[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_picture_gives_empty_columns(family: str) -> None:
    got = FAMILIES[family].decode(silent(family), HeadLayout(32, 32, 2), 0.3)
    assert got.xyxy.shape == (0, 4) and got.score.shape == (0,) and got.label.shape == (0,)


SPOTS = {
    "yolox": [("o", 4), ("o", 0), ("o", 6)],
    "yolov5": [("o", 4), ("o", 0), ("o", 6)],
    "yolov8": [("o", 5), ("o", 0)],
    "end2end": [("o", 4), ("o", 0)],
    "ssd": [("b", 0)],
    "edge-yolo": [("logits", 0), ("boxes", 1)],
}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("family", "name", "column"), [(f, n, c) for f, spots in SPOTS.items() for n, c in spots])
def test_what_is_not_finite_is_never_passed_on(family: str, name: str, column: int, bad: float) -> None:
    """One bad number in a row that would be found (or in a score, which could hide a row) refuses the result."""
    outputs = silent(family)
    if family in ("yolox", "yolov5", "yolov8"):
        outputs["o"][0, 3, 4:] = 0.9
    elif family == "end2end":
        outputs["o"][0, 3, 4] = 0.9
    elif family == "ssd":
        outputs["s"][0, 3], outputs["n"][0] = 0.9, 9
    else:
        outputs["logits"][0, 3] = 5
    outputs[name][0, 3, column] = bad
    with pytest.raises(InputError, match="not finite"):
        FAMILIES[family].decode(outputs, HeadLayout(32, 32, 2), 0.3)


@pytest.mark.parametrize("name", ["b", "c", "s", "n"])
def test_every_output_of_an_ssd_is_watched(name: str) -> None:
    outputs = silent("ssd")
    outputs[name].reshape(-1)[-1] = math.nan
    with pytest.raises(InputError, match="not finite"):
        FAMILIES["ssd"].decode(outputs, HeadLayout(32, 32, 2), 0.3)


def test_a_size_that_overflows_is_not_passed_on() -> None:
    outputs = silent("yolox")
    outputs["o"][0, 3] = [0, 0, 1000, 0, 0.9, 0.9, 0]
    with pytest.raises(InputError, match="not finite"):
        FAMILIES["yolox"].decode(outputs, HeadLayout(32, 32, 2), 0.3)


def test_a_quantized_score_a_step_above_one_is_one() -> None:
    outputs = silent("yolov8")
    outputs["o"][0, 3, 4] = 1.004
    assert FAMILIES["yolov8"].decode(outputs, HeadLayout(32, 32, 2), 0.3).score.tolist() == [1.0]


@pytest.mark.parametrize(
    ("family", "outputs", "said"),
    [
        ("yolox", {"o": np.zeros((1, 21, 8))}, r"\[1, 21, 8\], but its family and its labels ask for \[1, N, 7\]"),
        ("yolox", {"o": np.zeros((1, 20, 7))}, "20 points, which a 32x32 input with strides 8, 16, 32 does not give"),
        ("yolov5", {"o": np.zeros((2, 21, 7))}, r"ask for \[1, N, 7\]"),
        ("yolov8", {"o": np.zeros((21, 6))}, r"needs one output \[1, N, M\], but there is o \[21, 6\]"),
        ("yolov8", {"o": np.zeros((1, 21, 6)), "p": np.zeros((1, 21, 6))}, "needs one output"),
        ("end2end", {"o": np.zeros((1, 300, 7))}, "ask for rows of 6 numbers"),
        ("end2end", {"o": np.array([[[0, 0, 1, 1, 0.9, 0.4]]])}, "no whole numbers"),
        ("end2end", {"o": np.array([[[0, 0, 1, 1, 0.9, 2]]])}, "gives class 2, but there are 2 labels"),
        ("ssd", {"o": np.zeros((1, 9, 5))}, "classes and scores"),
        ("ssd", {"b": np.zeros((1, 9, 4)), "c": np.zeros((1, 9))}, "classes and scores"),
        ("edge-yolo", {"o": np.zeros((1, 21, 4))}, r"edge-yolo has boxes \[1, N, 4\] and logits \[1, N, C\]"),
        ("nanodet", {"o": np.zeros((1, 23, 34))}, "no axis of it counts the cells"),
        ("nanodet", {"o": np.zeros((1, 21, 35))}, "not 2 classes and 4 times some bins"),
        ("yolov8", {"o": np.full((1, 21, 6), 7.0)}, "scores up to 7 where 0..1 is meant"),
    ],
)
def test_a_head_of_another_family_is_refused(family: str, outputs: dict[str, npt.NDArray[Any]], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        FAMILIES[family].decode(outputs, HeadLayout(32, 32, 2), 0.3)
