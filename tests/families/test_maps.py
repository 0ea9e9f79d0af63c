"""A network stopped before its tail gives the same candidates as the whole one: tails are put on in numpy here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_agent.errors import InputError
from edge_agent.families.candidates import HeadLayout, grid
from edge_agent.families.table import FAMILIES

Array = npt.NDArray[Any]
STRIDES = (8, 16, 32)
HEAD = HeadLayout(96, 64, 3)
CELLS = [(64 // s, 96 // s) for s in STRIDES]
ANCHORS = np.arange(1, 19, dtype=np.float32).reshape(3, 3, 2) * 7


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def noise(channels: int, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 2, (1, channels, h, w)).astype(np.float32) for h, w in CELLS]


def flat(maps: list[Array]) -> Array:
    """Maps -> one row a cell, level by level."""
    return np.concatenate([m.reshape(m.shape[1], -1).T for m in maps])


def mean(boxes: Array) -> Array:
    """(N, 4 * B) logits -> (N, 4)."""
    bins = np.exp(boxes.reshape(len(boxes), 4, -1))
    means: Array = (bins / bins.sum(2, keepdims=True)) @ np.arange(bins.shape[2])
    return means


def centred(reach: Array, points: Array, stride: Array) -> Array:
    """Distances -> centre and size, as a graph gives them."""
    low, high = (points - reach[:, :2]) * stride, (points + reach[:, 2:]) * stride
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def named(**roles: list[Array]) -> dict[str, Array]:
    return {f"{role}{level}": m for role, maps in roles.items() for level, m in enumerate(maps)}


def both(family: str) -> tuple[dict[str, Array], str, dict[str, Array]]:
    """Outputs cut short; and the whole network's family and outputs."""
    cells, stride = grid(96, 64, STRIDES)
    classes = noise(3, 1)
    if family == "yolov8-maps":
        boxes = noise(64, 2)
        rows = np.concatenate([centred(mean(flat(boxes)), cells + 0.5, stride), sigmoid(flat(classes))], axis=1)
        return named(classes=classes, boxes=boxes), "yolov8", {"o": rows.T[None]}
    if family == "edge-yolo-maps":
        boxes = noise(4, 2)
        whole = {"boxes": np.maximum(flat(boxes), 0)[None], "logits": flat(classes)[None]}
        return named(classes=classes, boxes=boxes), "edge-yolo", whole
    if family == "yolox-maps":
        boxes, objects = noise(4, 2), noise(1, 3)
        rows = np.concatenate([flat(boxes), sigmoid(flat(objects)), sigmoid(flat(classes))], axis=1)
        return named(classes=classes, boxes=boxes, objects=objects), "yolox", {"o": rows[None]}
    if family == "nanodet-maps":
        maps = noise(3 + 4 * 8, 2)
        rows = flat(maps)
        return named(all=maps), "nanodet", {"o": np.concatenate([sigmoid(rows[:, :3]), rows[:, 3:]], axis=1)[None]}
    assert family == "yolov5-maps"
    maps, levels = noise(3 * 8, 2), []
    for m, level, (h, w), s in zip(maps, ANCHORS, CELLS, STRIDES, strict=True):
        # Detect.forward of YOLOv5: [1, A, h, w, 5 + C], anchors first
        y = sigmoid(m.reshape(3, 8, h, w).transpose(0, 2, 3, 1))
        at = np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=-1)
        y[..., :2] = (y[..., :2] * 2 - 0.5 + at) * s
        y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * level[:, None, None]
        levels.append(y.reshape(-1, 8))
    return {**named(all=maps), "anchors": ANCHORS.ravel()}, "yolov5", {"o": np.concatenate(levels)[None]}


MAPS = [family for family in FAMILIES if family.endswith("-maps")]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("family", MAPS)
def test_what_a_tail_would_have_said(family: str, threshold: float) -> None:
    outputs, parent, whole = both(family)
    got, want = FAMILIES[family].decode(outputs, HEAD, threshold), FAMILIES[parent].decode(whole, HEAD, threshold)
    assert len(got.score) == len(want.score) and (threshold in (0.9, 1.0) or len(got.score) > 20)
    np.testing.assert_array_equal(got.label, want.label)
    np.testing.assert_allclose(got.score, want.score, atol=1e-6)
    np.testing.assert_allclose(got.xyxy, want.xyxy, rtol=1e-5, atol=1e-4)
    assert FAMILIES[family].nms and got.xyxy.dtype == np.float32 and got.label.dtype == np.int32


@pytest.mark.parametrize("family", MAPS)
def test_numbers_that_are_none_are_refused(family: str) -> None:
    outputs, _, _ = both(family)
    name = next(name for name in outputs if name.startswith(("classes", "all")))
    outputs[name][:] = np.nan
    with pytest.raises(InputError, match="not finite"):
        FAMILIES[family].decode(outputs, HEAD, 0.3)
