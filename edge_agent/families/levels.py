"""Heads that give each level in tensors of its own: maps, or rows of cells."""

from __future__ import annotations

from edge_agent.families.guess import Guess, cells, shape
from edge_agent.families.table import FAMILIES
from edge_agent.types import TensorSpec

BINS = 8
"""of NanoDet's distribution over a distance (reg_max 7)"""
DISTRIBUTIONS = (BINS, 11, 16, 17)
"""bins of NanoDet-Plus, NanoDet-g and others of its descent"""


def distances(widths: tuple[int, ...], seen: str, names: int, levels: int = 0) -> list[Guess]:
    """Classes and distributions over distances, in one tensor or in two of these widths; `levels`: how many of them
    have tensors of their own.
    """
    apart = [family for family, row in FAMILIES.items() if levels in row.levels and len(widths) == 2]
    return [
        Guess(family, n, f"{seen}, {n} classes and 4 distances of {b} bins")
        for n, b in _classes_and_bins(widths, names)
        for family in apart or ["nanodet"]
        if n > 0
    ]


def _classes_and_bins(widths: tuple[int, ...], names: int) -> list[tuple[int, int]]:
    """How many classes there may be, with distributions of how many bins, in tensors of these widths; the likeliest
    first.
    """
    if len(widths) == 1:
        found = [(widths[0] - 4 * b, b) for b in DISTRIBUTIONS if b == BINS or widths[0] - 4 * b in (names, 80)]
    else:
        found = [(n, b) for n, other in (widths, widths[::-1]) for b in DISTRIBUTIONS if other == 4 * b]
    return sorted(found, key=lambda pair: pair[0] not in (names, 80))


def maps_by_level(maps: tuple[TensorSpec, ...], names: int) -> list[Guess]:
    """One map a level, or two: of classes and of distances."""
    seen = ", ".join(shape(spec) for spec in maps[:6])
    if all(len(spec.shape) == 5 for spec in maps):
        classes = (maps[0].shape[-1] or 5) - 5
        return [Guess("yolov5-raw", classes, f"{seen}: feature maps of three anchors, exported without decoding")]
    sides, widths = _maps(maps)
    if len(maps) not in {1: (3, 4), 2: (6, 8)}.get(len(widths), ()):
        return []
    if 4 in widths and len(widths) == 2:
        classes = sum(widths) - 4
        return [Guess("rtmdet", classes, f"{seen}: a map of {classes} class logits and one of 4 distances a level")]
    found = distances(widths, f"{seen}: maps of each level", names, len(maps) // len(widths))
    return _undecoded(found, names, seen) if len(widths) == 1 and sides == len(maps) else found


def _undecoded(found: list[Guess], names: int, seen: str) -> list[Guess]:
    """Of one map a level: the guesses whose classes are likely, and a head that was not decoded."""
    likely = [guess for guess in found if guess.classes in (names, 80)]
    return [*likely, Guess("yolo-levels", 0, f"{seen}: feature maps, exported without decoding")]


def _maps(maps: tuple[TensorSpec, ...]) -> tuple[int, tuple[int, ...]]:
    """How many different maps there are, and the numbers of channels; () where one is left open.

    The levels differ in their sides and not in their channels, which TFLite puts last.
    """
    dims = [spec.shape[1:] for spec in maps if len(spec.shape) == 4]
    firsts, _, ends = (set(axis) for axis in zip(*dims, strict=True))
    widths = ends if None not in ends and len(ends) < len(firsts) else firsts
    return len(set(dims)), () if None in widths else tuple(width for width in widths if width is not None)


def rows_by_level(flat: tuple[TensorSpec, ...], width: int, height: int, names: int) -> list[Guess]:
    """Levels as rows [1, cells, C] (or [1, C, cells]): one tensor each, or one of classes and one of distances."""
    found = _widths(flat, (2, 1), width, height) or _widths(flat, (1, 2), width, height)
    if len(found) not in (1, 2):
        return []
    seen = ", ".join(shape(spec) for spec in flat[:6])
    if len(found) == 2 and 4 in found:
        return [Guess("rtmdet", sum(found) - 4, f"{seen}: rows of {sum(found) - 4} classes and of 4 distances a level")]
    return distances(found, f"{seen}: rows of each level", names, len(flat) // len(found))


def _widths(flat: tuple[TensorSpec, ...], axes: tuple[int, int], width: int, height: int) -> tuple[int, ...]:
    """Numbers a cell in each of the tensors of a level, where the first of these axes counts the cells of the levels,
    and all levels are alike; else ().
    """
    levels: dict[int, list[int]] = {}
    for spec in flat:
        rows, columns = (spec.shape[axis] or 0 for axis in axes)
        levels.setdefault(rows, []).append(columns)
    alike = {tuple(sorted(widths)) for widths in levels.values()}
    counts = [cells(width, height, (stride,)) for stride in (8, 16, 32, 64)]
    return alike.pop() if len(alike) == 1 and sorted(levels, reverse=True) == counts[: len(levels)] else ()
