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

from edge_agent.figures.interval import Figure, ratio

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
        return {
            name: _mean((self.recall if recall else self.ap)[:, area, steps.start : steps.stop])
            for name, (area, steps, recall) in FIGURES.items()
        }

    def of_class(self, k: int) -> dict[str, float]:
        """The figures of the k-th class."""
        return {"map": _mean(self.ap[k, 0]), "map50": _mean(self.ap[k, 0, 0]), "boxes": int(self.count[k])}


def _mean(values: Doubles) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


@dataclass(frozen=True, slots=True)
class _Class:
    """What the n found boxes of a class meet, best score first."""

    image: Longs
    """(n,)"""
    hit: Flags
    """(n, areas, thresholds)"""
    ignored: Flags
    """(n, areas, thresholds): neither right nor wrong"""
    wanted: tuple[Longs, ...]
    """for each range of areas: the picture of each box to find"""
    count: int
    """boxes of truth, crowds left out"""


@dataclass(frozen=True, slots=True)
class Matched:
    """Found boxes, each with what it meets: that does not depend on other pictures, so these may be drawn anew."""

    classes: list[_Class]

    def precision(self) -> Precision:
        """The whole result."""
        shape = (len(self.classes), len(AREAS), len(THRESHOLDS))
        ap, recall = np.full(shape, np.nan), np.full(shape, np.nan)
        for k, one in enumerate(self.classes):
            each = np.ones((1, len(one.image)), np.int64)
            for area, step in np.ndindex(shape[1:]):
                total = np.array([len(one.wanted[area])])
                if total[0]:
                    curve = each, np.cumsum(each, axis=1), one.hit[:, area, step], one.ignored[:, area, step], total
                    ap[k, area, step], recall[k, area, step] = (_at_hits(*curve, which)[0] for which in (False, True))
        return Precision(ap, recall, np.array([one.count for one in self.classes], np.int64))

    def figure(self, pictures: int, name: str) -> Figure:
        """One of `Precision.figures` of so many pictures."""
        area, steps, recall = FIGURES[name]

        def drawn(rounds: Longs) -> Doubles:
            means = [_drawn(rounds, one, area, steps, recall) for one in self.classes]
            every = np.stack(means) if means else np.full((1, len(rounds)), np.nan)
            known = ~np.isnan(every)
            return ratio(np.where(known, every, 0.0).sum(0), known.sum(0))

        return Figure(drawn, pictures)


FIGURES = {
    "map": (0, range(10), False),
    "map50": (0, range(1), False),
    "map75": (0, range(5, 6), False),
    "map_small": (1, range(10), False),
    "map_medium": (2, range(10), False),
    "map_large": (3, range(10), False),
    "recall": (0, range(10), True),
}
"""name -> number of the range of areas, of the thresholds, and whether it is the recall"""


def match(truth: Truth, found: FoundBoxes, labels: Sequence[int]) -> Matched:
    """What each found box of these classes meets; boxes of other classes are not looked at.

    Equal scores rank by the number of the picture, then in the order given.
    """
    limits, classes = np.array(list(AREAS.values())), []
    for label in labels:
        some, boxes = _of_class(truth, found, label)
        outside = _outside(some.area, limits) | some.crowd
        hit, ignored = _match(some, boxes, outside, _outside(boxes.xywh[:, 2] * boxes.xywh[:, 3], limits), THRESHOLDS)
        rank = np.argsort(-boxes.score, kind="stable")
        wanted = tuple(some.image[~out] for out in outside)
        classes.append(_Class(boxes.image[rank], hit[rank], ignored[rank], wanted, int((~some.crowd).sum())))
    return Matched(classes)


def average_precision(truth: Truth, found: FoundBoxes, labels: Sequence[int]) -> Precision:
    """Score `found` against `truth` for each class id of `labels`."""
    return match(truth, found, labels).precision()


def _drawn(times: Longs, one: _Class, area: int, steps: range, recall: bool) -> Doubles:
    """Mean over thresholds of the precision at RECALLS (or of the recall) of a class, each picture counting so many
    `times`: (rounds, pictures) -> (rounds,), NaN where there is nothing to find.
    """
    total = times[:, one.wanted[area]].sum(1)
    if not total.any():
        return np.full(len(times), np.nan)
    each = times[:, one.image]
    every = np.cumsum(each, axis=1)
    means = [_at_hits(each, every, one.hit[:, area, step], one.ignored[:, area, step], total, recall) for step in steps]
    return np.where(total > 0, np.mean(means, axis=0), np.nan)


def _at_hits(each: Longs, every: Longs, hit: Flags, ignored: Flags, total: Longs, recall: bool) -> Doubles:
    """At one threshold. Precision falls between two hits, so that they alone count; `every`: boxes so far."""
    aside, at = np.flatnonzero(ignored), np.flatnonzero(hit & ~ignored)
    if not len(at):
        return np.zeros(len(each))
    right = np.cumsum(each[:, at], axis=1)
    reached = right / np.maximum(total, 1)[:, None]
    if recall:
        last: Doubles = reached[:, -1]
        return last
    before = np.concatenate([np.zeros((len(each), 1), np.int64), np.cumsum(each[:, aside], axis=1)], axis=1)
    precision = right / (every[:, at] - before[:, np.searchsorted(aside, at)] + EPS)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # how many of RECALLS are first reached by each hit
    new = np.diff(np.searchsorted(RECALLS, reached, side="right"), axis=1, prepend=0)
    mean: Doubles = (precision * new).sum(1) / len(RECALLS)
    return mean


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
