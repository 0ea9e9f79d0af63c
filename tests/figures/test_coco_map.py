"""Our mAP against pycocotools, on made-up boxes of every awkward kind."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edge_agent.figures.coco_map import FoundBoxes, Truth, average_precision, f1_by_picture

STATS = {"map": 0, "map50": 1, "map75": 2, "map_small": 3, "map_medium": 4, "map_large": 5, "recall": 8}


def truth_of(rows: list[dict[str, Any]]) -> Truth:
    return Truth(
        np.array([r["image_id"] for r in rows], np.int64),
        np.array([r["category_id"] for r in rows], np.int64),
        np.array([r["bbox"] for r in rows], np.float64).reshape(-1, 4),
        np.array([r["area"] for r in rows], np.float64),
        np.array([r["iscrowd"] for r in rows], bool),
    )


def found_of(rows: list[dict[str, Any]]) -> FoundBoxes:
    return FoundBoxes(
        np.array([r["image_id"] for r in rows], np.int64),
        np.array([r["category_id"] for r in rows], np.int64),
        np.array([r["bbox"] for r in rows], np.float64).reshape(-1, 4),
        np.array([r["score"] for r in rows], np.float64),
    )


def reference(
    truth: list[dict[str, Any]], found: list[dict[str, Any]], images: int, labels: list[int]
) -> tuple[list[float], Any]:
    """The stats of pycocotools and its precisions (thresholds, recalls, classes, areas, limits)."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(images)],
            "categories": [{"id": k, "name": str(k)} for k in labels],
            # its matching takes an annotation of id 0 for no match
            "annotations": [{"id": i + 1, **row} for i, row in enumerate(truth)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(r) for r in found]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats), evaluation.eval["precision"]


def world(seed: int, *, images: int = 12, labels: int = 4) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Boxes on a coarse grid, so that overlaps and scores tie; crowds; found boxes around the truth and astray.

    The last class has no truth, the one before is never found, and some pictures have neither.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([8, 16, 31, 32, 40, 96, 100, 200])
    truth, found = [], []
    for image in range(images):
        for _ in range(int(rng.integers(0, 9)) if image % 4 else 0):
            x, y = rng.integers(0, 10, 2) * 20
            w, h = rng.choice(sizes, 2)
            label = int(rng.integers(0, labels - 1))
            box = [float(x), float(y), float(w), float(h)]
            area = float(w * h) * float(rng.choice([1.0, 0.6]))
            crowd = int(rng.random() < 0.2)
            truth.append({"image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd})
            for _ in range(int(rng.integers(0, 5))):
                moved = [v + float(d) for v, d in zip(box, rng.integers(-3, 4, 4), strict=True)]
                moved = box if rng.random() < 0.3 else [*moved[:2], max(1.0, moved[2]), max(1.0, moved[3])]
                if label != labels - 2:
                    found.append(_found(image, label, moved, rng))
        for _ in range(int(rng.integers(0, 6)) if image % 5 else 0):
            box = [float(v) for v in (*rng.integers(0, 200, 2), *rng.choice(sizes, 2))]
            found.append(_found(image, int(rng.choice([0, labels - 1])), box, rng))
    order = rng.permutation(len(found))
    return truth, [found[i] for i in order]


def _found(image: int, label: int, box: list[float], rng: np.random.Generator) -> dict[str, Any]:
    return {"image_id": image, "category_id": label, "bbox": box, "score": float(rng.integers(1, 8)) / 8}


@pytest.mark.parametrize("seed", range(25))
def test_every_figure_is_pycocotools_own(seed: int) -> None:
    truth, found = world(seed)
    labels = list(range(4))
    stats, precision = reference(truth, found, 12, labels)
    ours = average_precision(truth_of(truth), found_of(found), labels)
    for name, value in ours.figures().items():
        assert np.nan_to_num(value, nan=-1.0) == pytest.approx(stats[STATS[name]], abs=1e-12), name
    theirs = precision[:, :, :, :, 2].mean(1).transpose(1, 2, 0)
    np.testing.assert_allclose(np.nan_to_num(ours.ap, nan=-1.0), theirs, atol=1e-12)
    assert np.isnan(ours.ap[3]).all() and ours.count[3] == 0, "a class without truth has no precision"
    assert (ours.ap[2, 0] == 0).all(), "a class that is never found has none of its boxes"


def test_more_than_a_hundred_boxes_of_a_class_in_a_picture() -> None:
    rng = np.random.default_rng(3)
    truth = [
        {"image_id": 0, "category_id": 1, "bbox": [x * 10.0, y * 10.0, 9.0, 9.0], "area": 81.0, "iscrowd": 0}
        for x in range(15)
        for y in range(15)
    ]
    found = [{**{k: r[k] for k in ("image_id", "category_id", "bbox")}, "score": float(rng.random())} for r in truth]
    stats, _ = reference(truth, found, 1, [1])
    ours = average_precision(truth_of(truth), found_of(found), [1]).figures()
    assert ours["recall"] == pytest.approx(100 / 225) and ours["map"] == pytest.approx(stats[0], abs=1e-12)


def test_nothing_found_and_nothing_there() -> None:
    truth, _ = world(1)
    none = found_of([])
    assert average_precision(truth_of(truth), none, [0, 1, 2]).figures()["map"] == 0
    assert np.isnan(average_precision(truth_of([]), none, [0, 1]).figures()["map"])
    assert np.isnan(average_precision(truth_of([]), none, []).figures()["map"])


def test_f1_of_each_picture() -> None:
    box = {"category_id": 0, "bbox": [0.0, 0.0, 10.0, 10.0], "area": 100.0, "iscrowd": 0}
    truth = [{**box, "image_id": 0}, {**box, "image_id": 1}, {**box, "image_id": 3}, {**box, "image_id": 4}]
    truth += [{**box, "image_id": 5, "iscrowd": 1}]
    hit = {"category_id": 0, "bbox": [0.0, 0.0, 10.0, 9.0], "score": 0.9}
    miss = {**hit, "bbox": [50.0, 0.0, 10.0, 9.0]}
    found = [{**hit, "image_id": 0}, {**hit, "image_id": 1}, {**miss, "image_id": 1}, {**miss, "image_id": 3}]
    found += [{**hit, "image_id": 5}, {**hit, "image_id": 5}, {**miss, "image_id": 6}]
    f1 = f1_by_picture(truth_of(truth), found_of(found), [0, 1], 7)
    np.testing.assert_allclose(f1, [1, 2 / 3, 1, 0, 0, 1, 0])
    wrong = [{**hit, "image_id": 0, "category_id": 1}]
    assert f1_by_picture(truth_of(truth), found_of(wrong), [0, 1], 7)[0] == 0, "the class counts"
