"""COCO JSON as it is found in the wild, made what cocodataset.org says; what was done to it is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edge_agent.errors import InputError

Row = dict[str, Any]


def mended(raw: Any) -> tuple[Any, list[str]]:
    """The table with plain ids, boxes and one entry a picture, and notes. InputError for what is something else."""
    if isinstance(raw, list):
        kind = "results of a detector" if any("score" in row for row in _rows(raw)) else "a list"
        raise InputError(f"{kind}, not labels: COCO's are one object of images, annotations and categories")
    if not isinstance(raw, dict) or not all(isinstance(raw.get(key), list) for key in KEYS[:2]):
        return raw, []
    table = {key: _rows(raw.get(key)) for key in KEYS}
    return table, [*filter(None, [step(table) for step in STEPS])]


def _rows(value: Any) -> list[Row]:
    return [row for row in value or [] if isinstance(row, dict)]


KEYS = ("images", "annotations", "categories")


def _numbers(table: Row) -> str:
    """Category ids that are written as texts become numbers; of two with one id the first counts."""
    ids = [(one, "id") for one in table["categories"]]
    for row, key in [*ids, *((one, "category_id") for one in table["annotations"])]:
        if isinstance(row.get(key), str) and row[key].isdigit():
            row[key] = int(row[key])
    known: dict[Any, Row] = {}
    for row in table["categories"]:
        known.setdefault(row.get("id"), row)
    twice = len(table["categories"]) - len(known)
    table["categories"] = [*known.values()]
    return f"{twice} categories have the id of another one, and their names do not count" if twice else ""


def _once(table: Row) -> str:
    """A picture that is listed several times counts once, with the boxes of each entry."""
    first: dict[Any, Row] = {}
    became: dict[Any, Any] = {}
    for row in table["images"]:
        own = first.setdefault(row.get("file_name", row.get("id")), row)
        became[row.get("id")] = own.get("id")
    twice = len(table["images"]) - len(first)
    if not twice:
        return ""
    table["images"] = [*first.values()]
    seen: dict[str, Row] = {}
    for row in table["annotations"]:
        row["image_id"] = became.get(row.get("image_id"), row.get("image_id"))
        seen.setdefault(repr((row["image_id"], row.get("category_id"), row.get("bbox"))), row)
    table["annotations"] = [*seen.values()]
    return f"{twice} pictures are listed twice and count once"


def _boxes(table: Row) -> str:
    """A box that is missing is taken around the outline; one of no numbers is left out."""
    kept, drawn = [], 0
    for row in table["annotations"]:
        if not row.get("bbox") and (around := _around(row.get("segmentation"))):
            row["bbox"], drawn = around, drawn + 1
        if _is_box(row.get("bbox")):
            kept.append(row)
        if row.get("area") is not None and not _is_number(row["area"]):
            row["area"] = None
    lost = len(table["annotations"]) - len(kept)
    table["annotations"] = kept
    told = [f"{drawn} boxes are taken from outlines"] if drawn else []
    return "; ".join([*told, *([f"{lost} boxes have no four numbers and are left out"] if lost else [])])


def _shares(table: Row) -> str:
    """Boxes that are all within 0 to 1 are shares of the picture: they become pixels. InputError without sizes."""
    boxes = _sized(table)
    if not boxes or not all(x + w <= 1.01 and y + h <= 1.01 and min(x, y) >= -0.01 for _, (x, y, w, h), _, _ in boxes):
        return ""
    for row, (x, y, w, h), wide, high in boxes:
        if not wide or not high:
            raise InputError("its boxes are shares from 0 to 1, and the images have no width and height; add these")
        row["bbox"], row["area"] = [x * wide, y * high, w * wide, h * high], None
    return "its boxes are shares from 0 to 1, and are taken times width and height; COCO's are pixels"


def _sized(table: Row) -> list[tuple[Row, list[float], float, float]]:
    """Each box of a listed picture, its numbers, and the picture's width and height; 0 where these are not said."""
    sizes = {row.get("id"): (row.get("width") or 0, row.get("height") or 0) for row in table["images"]}
    rows = [row for row in table["annotations"] if row.get("image_id") in sizes]
    return [(row, row["bbox"], *sizes[row["image_id"]]) for row in rows]


def _corners(table: Row) -> str:
    """InputError where most boxes only make sense as two corners: outside as COCO writes them, inside as corners."""
    boxes = [(*box, wide, high) for _, box, wide, high in _sized(table) if wide and high]
    outside = [
        (x + w > wide + 1 or y + h > high + 1) and x < w <= wide + 1 and y < h <= high + 1
        for x, y, w, h, wide, high in boxes
    ]
    if sum(outside) > len(boxes) / 4:
        raise InputError(
            f"{sum(outside)} of {len(boxes)} boxes look like corners (x1, y1, x2, y2); COCO's are x, y, width, height: "
            "write x2 - x1 and y2 - y1 in the place of x2 and y2"
        )
    return ""


def _crowds(table: Row) -> str:
    """Of crowds it is said how they count. InputError where there is nothing else."""
    crowds = sum(bool(row.get("iscrowd")) for row in table["annotations"])
    if crowds and crowds == len(table["annotations"]):
        raise InputError(f"all of its {crowds} boxes are crowds (iscrowd), which count neither for nor against")
    return f"{crowds} boxes are crowds: they count neither for nor against" if crowds else ""


STEPS: tuple[Callable[[Row], str], ...] = (_numbers, _once, _boxes, _shares, _corners, _crowds)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _around(outline: Any) -> list[float] | None:
    """Left, top, width and height of COCO's polygons; None for anything else."""
    parts = outline if isinstance(outline, list) else []
    numbers = [one for part in parts if isinstance(part, list) and not len(part) % 2 for one in part]
    if not numbers or not all(map(_is_number, numbers)):
        return None
    xs, ys = numbers[::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
