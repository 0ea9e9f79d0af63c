"""Mean average precision of boxes as COCO defines it (Lin et al. 2014, arXiv 1405.0312).

Ten IoU thresholds, 0.50 to 0.95; precision at 101 recall points; at most 100 boxes of a class in a picture, best score
first. A crowd box takes any number of found boxes and, like truth outside the range of areas, counts neither for nor
against; so does a found box outside the range that meets nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]

THRESHOLDS: Doubles = np.linspace(0.5, 0.95, 10)
RECALLS: Doubles = np.linspace(0.0, 1.0, 101)
MOST = 100
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""square pixels, both ends within"""
EPS = float(np.spacing(1))
CLOSE = 1 - 1e-10
"""a box that lies exactly on its truth meets every threshold"""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in the pictures: m boxes, columns of one length."""

    image: Longs
    """(m,) number of the picture, 0, 1, ..."""
    label: Longs
    """(m,) class ids"""
    xywh: Doubles
    """(m, 4): left, top, width, height in pixels"""
    area: Doubles
    """(m,) square pixels: of the object's outline where that is known, else of the box"""
    crowd: Flags
    """(m,) a group of objects that nobody counted"""

    def of_pictures(self, places: Sequence[int]) -> Truth:
        """The boxes of the pictures with these numbers, which become 0, 1, 2, ..."""
        number = np.full(max([-1, *places, *self.image.tolist()]) + 1, -1, np.int64)
        number[list(places)] = np.arange(len(places))
        keep = number[self.image] >= 0
        return Truth(number[self.image[keep]], self.label[keep], self.xywh[keep], self.area[keep], self.crowd[keep])


@dataclass(frozen=True, slots=True)
class FoundBoxes:
    """What a detector found: n boxes, columns of one length."""

    image: Longs
    label: Longs
    xywh: Doubles
    score: Doubles

    def as_truth(self) -> Truth:
        """The same in place of boxes that people drew."""
        area = self.xywh[:, 2] * self.xywh[:, 3]
        return Truth(self.image, self.label, self.xywh, area, np.zeros(len(area), bool))


@dataclass(frozen=True, slots=True)
class Precision:
    """The result for K classes; NaN where a class has no truth within a range of areas."""

    ap: Doubles
    """(K, areas, thresholds): mean precision over RECALLS"""
    recall: Doubles
    """(K, areas, thresholds): the highest reached"""
    count: Longs
    """(K,): boxes of truth, crowds left out"""

    def figures(self) -> dict[str, float]:
        """The usual names; each is a mean over the classes that have truth, NaN where none has."""
        every, at50, at75 = slice(None), 0, 5
        small, medium, large = 1, 2, 3
        return {
            "map": _mean(self.ap[:, 0]),
            "map50": _mean(self.ap[:, 0, at50]),
            "map75": _mean(self.ap[:, 0, at75]),
            "map_small": _mean(self.ap[:, small, every]),
            "map_medium": _mean(self.ap[:, medium, every]),
            "map_large": _mean(self.ap[:, large, every]),
            "recall": _mean(self.recall[:, 0]),
        }

    def of_class(self, k: int) -> dict[str, float]:
        """The figures of the k-th class."""
        return {"map": _mean(self.ap[k, 0]), "map50": _mean(self.ap[k, 0, 0]), "boxes": int(self.count[k])}


def _mean(values: Doubles) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def average_precision(truth: Truth, found: FoundBoxes, labels: Sequence[int]) -> Precision:
    """Score `found` against `truth` for each class id of `labels`; boxes of other classes are not looked at.

    Equal scores rank by the number of the picture, then in the order given.
    """
    shape = (len(labels), len(AREAS), len(THRESHOLDS))
    ap, recall = np.full(shape, np.nan), np.full(shape, np.nan)
    count = np.zeros(len(labels), np.int64)
    limits = np.array(list(AREAS.values()))
    for k, label in enumerate(labels):
        some, boxes = _of_class(truth, found, label)
        count[k] = int((~some.crowd).sum())
        outside = _outside(some.area, limits) | some.crowd
        hit, ignored = _match(some, boxes, outside, _outside(boxes.xywh[:, 2] * boxes.xywh[:, 3], limits), THRESHOLDS)
        rank = np.argsort(-boxes.score, kind="stable")
        for area in range(len(AREAS)):
            total = int((~outside[area]).sum())
            if total:
                curve = hit[rank, area], ignored[rank, area]
                ap[k, area], recall[k, area] = _summed(*curve, total)
    return Precision(ap, recall, count)


def f1_by_picture(truth: Truth, found: FoundBoxes, labels: Sequence[int], pictures: int, iou: float = 0.5) -> Doubles:
    """(pictures,) F1 of the boxes of each picture at one IoU; 1 where there is nothing and nothing was found."""
    right, wanted, given = (np.zeros(pictures) for _ in range(3))
    for label in labels:
        some, boxes = _of_class(truth, found, label)
        nothing = np.zeros((1, len(boxes.score)), bool)
        hit, ignored = _match(some, boxes, some.crowd[None], nothing, np.array([iou]))
        counted = ~ignored[:, 0, 0]
        right += np.bincount(boxes.image[hit[:, 0, 0] & counted], minlength=pictures)
        given += np.bincount(boxes.image[counted], minlength=pictures)
        wanted += np.bincount(some.image[~some.crowd], minlength=pictures)
    boxes_in_all = wanted + given
    return np.where(boxes_in_all > 0, 2 * right / np.maximum(boxes_in_all, 1), 1.0)


def _of_class(truth: Truth, found: FoundBoxes, label: int) -> tuple[Truth, FoundBoxes]:
    """The boxes of one class: truth by picture, found by picture and falling score, at most MOST a picture."""
    own = np.flatnonzero(truth.label == label)
    own = own[np.argsort(truth.image[own], kind="stable")]
    some = Truth(truth.image[own], truth.label[own], truth.xywh[own], truth.area[own], truth.crowd[own])
    of = np.flatnonzero(found.label == label)
    of = of[np.lexsort((-found.score[of], found.image[of]))]
    images = found.image[of]
    of = of[np.arange(len(of)) - np.searchsorted(images, images) < MOST]
    return some, FoundBoxes(found.image[of], found.label[of], found.xywh[of], found.score[of])


def _outside(area: Doubles, limits: Doubles) -> Flags:
    """(areas, n): whether each area lies outside each range."""
    flags: Flags = (area < limits[:, :1]) | (area > limits[:, 1:])
    return flags


def _match(some: Truth, boxes: FoundBoxes, aside: Flags, apart: Flags, thresholds: Doubles) -> tuple[Flags, Flags]:
    """Give each found box the truth that it meets best, in the order of scores, in every range of areas at once.

    `aside` (areas, m): truth that does not count, taken only where none that counts is met. `apart` (areas, n): found
    boxes that do not count when they meet nothing. Returns (n, areas, thresholds) twice: met something, does not count.
    """
    shape = (len(boxes.score), len(aside), len(thresholds))
    hit, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    least = np.minimum(thresholds, CLOSE)[None, :, None]
    for theirs, mine in _by_picture(some.image, boxes.image):
        overlap = iou(boxes.xywh[theirs], some.xywh[mine], some.crowd[mine])
        crowd, off = some.crowd[mine], aside[:, None, mine]
        taken = np.zeros((len(aside), len(thresholds), overlap.shape[1]), bool)
        last = overlap.shape[1] - 1
        # most boxes of a low score meet nothing: only those that could are looked at one by one
        for d in np.flatnonzero(overlap.max(1) >= least.min()):
            free = (overlap[d] >= least) & (~taken | crowd)
            counts = free & ~off
            choice = np.where(counts.any(2, keepdims=True), counts, free)
            # of equals the last, as the reference does
            best = last - np.where(choice, overlap[d], -1.0)[:, :, ::-1].argmax(2)
            met = free.any(2)
            areas, steps = np.nonzero(met)
            taken[areas, steps, best[met]] = True
            hit[theirs.start + d] = met
            ignored[theirs.start + d, areas, steps] = off[areas, 0, best[met]]
    return hit, ignored | (~hit & apart.T[:, :, None])


def _by_picture(truth: Longs, found: Longs) -> Iterator[tuple[slice, slice]]:
    """Slices of the found boxes and of the truth of each picture that has both; both are sorted by picture."""
    both = np.intersect1d(truth, found)
    edges = [np.searchsorted(column, both, side) for column in (found, truth) for side in ("left", "right")]
    for a, b, c, d in np.stack(edges, 1).tolist() if len(both) else ():
        yield slice(a, b), slice(c, d)


def iou(found: Doubles, truth: Doubles, crowd: Flags) -> Doubles:
    """(n, 4), (m, 4) xywh -> (n, m) intersection over union; over the found box alone for a crowd."""
    ends_f, ends_t = found[:, :2] + found[:, 2:], truth[:, :2] + truth[:, 2:]
    sides = np.minimum(ends_f[:, None], ends_t[None]) - np.maximum(found[:, None, :2], truth[None, :, :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=2)
    own = (found[:, 2] * found[:, 3])[:, None]
    whole = np.where(crowd[None], own, own + (truth[:, 2] * truth[:, 3])[None] - shared)
    overlap: Doubles = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return overlap


def _summed(hit: Flags, ignored: Flags, total: int) -> tuple[Doubles, Doubles]:
    """(n, thresholds) twice, best score first, and the boxes to find -> mean precision and recall, (thresholds,)."""
    right = np.cumsum(hit & ~ignored, axis=0, dtype=np.float64)
    wrong = np.cumsum(~hit & ~ignored, axis=0, dtype=np.float64)
    precision = right / (right + wrong + EPS)
    # what a lower threshold still reaches counts at every lower recall
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    means, highest = np.zeros(hit.shape[1]), np.zeros(hit.shape[1])
    for step in range(hit.shape[1] if len(hit) else 0):
        recall = right[:, step] / total
        at = np.searchsorted(recall, RECALLS, side="left")
        means[step] = np.append(precision[:, step], 0.0)[at].mean()
        highest[step] = recall[-1]
    return means, highest
