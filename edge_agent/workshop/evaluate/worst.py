"""The worst pictures of a detector, the truth beside what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_agent.figures.coco_map import f1_by_picture
from edge_agent.pictures.draw import draw, save_jpeg
from edge_agent.pictures.read import read_picture
from edge_agent.types import Detections, Pixels
from edge_agent.workshop.evaluate.boxes import Answers, Judge

WORST = 12
"""pictures that are drawn"""
WIDEST = 1280
"""pixels of one half of a drawn picture"""


def draw_worst(where: Path, paths: Sequence[Path], judge: Judge, answers: Answers) -> int:
    """Write the pictures of the least F1 at IoU 0.5, of the boxes that would be reported; returns how many."""
    truth, ids, names = judge.truth, judge.ids, judge.names
    served = [_above(found, answers.model.manifest.score) for found in answers.found]
    boxes = replace(answers, found=served).boxes(ids)
    f1 = f1_by_picture(truth, boxes, sorted(set(ids.values())), len(paths))
    worst = [int(i) for i in np.argsort(f1, kind="stable")[:WORST] if f1[i] < 1]
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
