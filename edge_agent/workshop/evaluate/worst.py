"""The worst cases: of a detector the truth beside what it found; of others the samples on one sheet, or as a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.figures.coco_map import Truth, f1_by_picture
from edge_agent.pictures.draw import draw, save_jpeg
from edge_agent.pictures.read import cv2, read_picture
from edge_agent.tasks.detect.compare import as_columns
from edge_agent.types import Detections, Pixels
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.imagine import tiled

MOST = 12
"""pictures that are drawn"""
WIDEST = 1280
"""pixels of one half of a drawn picture"""
WIDE, HIGH, LINE = 320, 240, 24
"""pixels of a picture on a sheet, and of the line under it"""


def draw_worst(
    where: Path,
    paths: Sequence[Path],
    found: Sequence[Detections],
    score: float,
    truth: Truth,
    ids: Mapping[int, int],
    names: Any,
) -> int:
    """Write the pictures of the least F1 at IoU 0.5, of the boxes from `score` on; returns how many.

    `ids`: class of the model -> of the truth, whose `names` these are.
    """
    served = [_above(one, score) for one in found]
    f1 = f1_by_picture(truth, as_columns(served, ids), sorted(set(ids.values())), len(paths))
    worst = [int(i) for i in np.argsort(f1, kind="stable")[:MOST] if f1[i] < 1]
    for place, i in enumerate(worst, 1):
        mine = np.flatnonzero((truth.image == i) & np.isin(truth.label, list(ids.values())))
        xywh = truth.xywh[mine]
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)
        label = truth.label[mine].astype(np.int32)
        left = Detections(corners, np.ones(len(mine), np.float32), label, names)
        of = np.flatnonzero(np.isin(served[i].label, list(ids)))
        # in the truth's ids, so that a class has one colour on both sides
        same = np.array([ids[int(key)] for key in served[i].label[of]], np.int32)
        right = Detections(served[i].xyxy[of], served[i].score[of], same, names)
        image = read_picture(paths[i]).image
        save_jpeg(_pair(image, left, right), where / f"{place:02d}_f1-{f1[i]:.2f}_{paths[i].stem}.jpg")
    return len(worst)


def _above(found: Detections, score: float) -> Detections:
    keep = found.score >= score
    return Detections(found.xyxy[keep], found.score[keep], found.label[keep], found.names)


def _pair(image: Pixels, left: Detections, right: Detections) -> Pixels:
    """The picture twice, side by side with a white line between; large ones at every second (third, …) pixel."""
    step = -(-image.shape[1] // WIDEST)
    small: Pixels = np.ascontiguousarray(image[::step, ::step])
    line = np.full((small.shape[0], 8, 3), 255, np.uint8)
    halves = [draw(small, Detections(d.xyxy / np.float32(step), d.score, d.label, d.names)) for d in (left, right)]
    return np.concatenate([halves[0], line, halves[1]], axis=1)


def save_worst(
    where: Path,
    name: str,
    shown: Sequence[tuple[LabelledSample, str]],
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> str:
    """Write samples with their captions, the worst first: the first pictures as FOLDER/worst.jpg, others as NAME.tsv of
    `rows`. A note on it. UsageError where that cannot be.
    """
    if shown and all(row.is_picture for row, _ in shown):
        save_jpeg(tiled([_tile(row, caption) for row, caption in shown[:MOST]]), where / "worst.jpg")
        return f"{name}: {len(shown)} in {where}, the worst first"
    try:
        with (where / f"{name}.tsv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\", lineterminator="\n")
            table.writerows([head, *rows])
    except OSError as error:
        raise UsageError(f"--save {where}: cannot be written ({error.strerror})") from None
    return f"{name}: {len(shown)} in {where}, the worst first"


def _tile(row: LabelledSample, caption: str) -> Pixels:
    assert isinstance(row.what, Path)
    image = read_picture(row.what).image
    share = min(WIDE / image.shape[1], HIGH / image.shape[0])
    small = cv2.resize(image, (max(1, int(image.shape[1] * share)), max(1, int(image.shape[0] * share))))
    tile: Pixels = np.full((HIGH + LINE, WIDE, 3), 255, np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    plain = caption.encode("ascii", "replace").decode()[:48]
    cv2.putText(tile, plain, (4, HIGH + LINE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return tile
