"""Which detector a network is, by the shapes of its outputs: every head that fits, the likeliest first.

A grid head has one row for each cell of its levels (three for the anchors of YOLOv5), so that the number of rows and
the size of the input confirm each other. Where several families share a shape, all are given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from edge_agent.families.table import FAMILIES, ORDERS
from edge_agent.types import TensorSpec

SIDES = (640, 416, 320, 512, 608, 256, 224, 384, 480, 768, 800, 960, 1024, 1280, 160, 192, 128)
"""pixels tried, in this order, for an input that leaves its size open"""
GRIDS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32), (8, 16, 32, 64, 128))
"""strides of the levels of a head, the usual ones first"""
MOST = 1000
"""rows of queries or finished boxes"""
QUERIES = (100, 300, 900)
"""of DETR and its descendants"""
BINS = 8
"""of NanoDet's distribution over a distance (reg_max 7)"""
DISTRIBUTIONS = (BINS, 11, 16, 17)
"""bins of NanoDet-Plus, NanoDet-g and others of its descent"""
MOST_POINTS = 133
"""of a pose: those of a whole body"""
MASKS = 32
"""columns of a segmentation head: what its masks are mixed with"""


@dataclass(frozen=True, slots=True)
class Guess:
    """A head that fits the outputs."""

    family: str
    classes: int
    """0: the shapes do not say"""
    why: str


def cells(width: int, height: int, strides: tuple[int, ...] = (8, 16, 32)) -> int:
    """Grid cells of all levels of a detector's input; a padded convolution keeps a cell that is cut off."""
    return sum(-(-width // s) * -(-height // s) for s in strides)


def counts(width: int, height: int) -> set[int]:
    """Rows that a head of cells may have."""
    return {cells(width, height, strides) for strides in GRIDS}


def side(outputs: tuple[TensorSpec, ...]) -> int:
    """Side in pixels of the square input whose cells the outputs count; 0 when they say nothing."""
    axes = {axis for spec in outputs for axis in spec.shape if axis}
    for pixels in SIDES:
        plain = {cells(pixels, pixels, strides) for strides in GRIDS[:2]}
        if axes & (plain | {3 * n for n in plain}):
            return pixels
    return 0


def shape(spec: TensorSpec) -> str:
    """[1, ?, 85]: None is an axis that the file leaves open."""
    return "[" + ", ".join("?" if n is None else str(n) for n in spec.shape) + "]"


def heads(outputs: tuple[TensorSpec, ...], width: int, height: int, names: int = 0, task: str = "") -> list[Guess]:
    """Every head that fits, of families that are only named too; [] when none does. `names`: classes that the file
    names; `task`: the exporter's word.
    """
    if len(outputs) == 1 and _is_table(outputs[0]):
        return _rows_of(outputs[0].shape[-1] or 0, f"output {shape(outputs[0])}: finished boxes")
    if len(outputs) == 1 and len(outputs[0].shape) == 3:
        return _single(outputs[0], width, height, names, task)
    flat = [spec for spec in outputs if len(spec.shape) == 3]
    maps = [spec for spec in outputs if len(spec.shape) in (4, 5)]
    thin = [spec for spec in maps if spec.shape[2:] == (1, 4)]
    if len(outputs) == 2 and len(flat) + len(thin) == 2:
        found = _pair([_thick(s) if s in thin else s for s in outputs], width, height, names)
        return [guess for guess in found if not thin or guess.family in ("box-scores", "ssd-decoded")]
    if len(outputs) == 2 and len(flat) == 1 and len(maps) == 1:
        return [Guess("yolov8-seg", 0, f"output {shape(flat[0])} and masks {shape(maps[0])}")]
    if len(outputs) in (2, 3, 4):
        found = _finished(outputs, width, height)
        if found:
            return found
    if len(outputs) == 2 and sum(_is_table(spec) for spec in outputs) == 1:
        # a count of the rows stands beside them
        table = next(spec for spec in outputs if _is_table(spec))
        return _rows_of(table.shape[-1] or 0, f"output {shape(table)}: finished boxes")
    if len(maps) == len(outputs) and len(outputs) in (3, 4, 6, 8):
        return _maps(maps, names)
    if len(flat) == len(outputs) and len(outputs) in (3, 4, 6, 8):
        return _rows_by_level(flat, width, height, names)
    return []


def _thick(spec: TensorSpec) -> TensorSpec:
    """Boxes [1, N, 1, 4] as [1, N, 4]."""
    return TensorSpec(spec.name, (*spec.shape[:2], 4), spec.dtype, spec.scale, spec.zero_point)


def _is_table(spec: TensorSpec) -> bool:
    """Whether it is a table of finished boxes without a batch: [N, 6], [N, 7], [1, 1, N, 7], N left open or not."""
    dims = spec.shape
    wide = dims[-1] in (6, 7) if dims else False
    return wide and ((len(dims) == 2 and dims[0] != 1) or (len(dims) == 4 and dims[:2] == (1, 1)))


COLUMNS = (("xyxy", "box, "), ("xywh", "centre and size, "), ("s", "score, "), ("c", "class, "), ("-", "picture, "))
"""columns of finished boxes, as a row of the table names them and as people do"""


def _rows_of(width: int, seen: str) -> list[Guess]:
    """What finished boxes of so many columns may be; of these guesses the run tells which."""
    found = []
    for family, order in ORDERS.items():
        if len(order) == width:
            words = "".join(next(word for letters, word in COLUMNS if part == letters) for part in _parts(order))
            found.append(Guess(family, 0 if "c" in order else 1, f"{seen}, {words.removesuffix(', ')}"))
    return found


def _parts(order: str) -> list[str]:
    return re.findall("xyxy|xywh|.", order)


def _single(spec: TensorSpec, width: int, height: int, names: int, task: str) -> list[Guess]:
    _, rows, columns = spec.shape
    plain = counts(width, height)
    grids = {*plain, *(3 * n for n in plain)}
    turned = rows is not None and (columns in grids or (columns is None and rows < 1000)) and rows not in grids
    # of finished boxes and of queries only where the rows are surely theirs: a reader of text gives steps and letters
    turned |= columns in QUERIES and rows in (6, 4 + (names or 80), 95)
    n, m = (columns, rows) if turned else (rows, columns)
    seen = f"output {shape(spec)}"
    if m is None or m < 5:
        return []
    if task in ("segment", "pose", "obb"):
        return [Guess(f"yolov8-{task[:4].rstrip('m')}", names, f'{seen}, the file\'s task is "{task}"')]
    few = n is None or n <= MOST
    found = _few_rows(n, m, names, seen) if few and n not in plain else []
    if n is None or n in grids:
        found = [*_cells(n, m, names, seen, turned, n in plain or n is None), *found]
    if task == "detect":
        found = [g for g in found if not g.family.endswith(("-obb", "-seg", "-pose"))]
    exact = [g for g in found if g.classes in (0, names or 80)]
    counted = [g for g in exact if g.classes]
    if names:
        said = f", as the {names} names in the file say"
        return [replace(g, why=g.why + said) if g.classes else g for g in exact]
    # of heads that count their classes, COCO's number is the likeliest; that of an oriented box counts one less
    if counted and n in plain:
        return [replace(g, why=f"{g.why}, COCO's number") for g in counted]
    return found


def _few_rows(n: int | None, m: int, names: int, seen: str) -> list[Guess]:
    """Rows of finished boxes, or of queries."""
    most = f"at most {n}" if n else "some"
    found = _rows_of(m, f"{seen}: {most} finished boxes")
    if n is None or n in QUERIES:
        queries = Guess("rtdetr", m - 4, f"{seen}: {n or 'some'} queries, each a box and {m - 4} classes")
        found.insert(0 if m > 6 else len(found), queries)
    for extra, family, what in ((1, "end2end-obb", "an angle"), (MASKS, "end2end-seg", f"{MASKS} mask coefficients")):
        if m == 6 + extra:
            found.append(Guess(family, 0, f"{seen}: {most} finished boxes with score, class and {what}"))
    if 8 < m <= 6 + 3 * MOST_POINTS and (m - 6) % 3 == 0 and n in QUERIES:
        points = (m - 6) // 3
        found.append(Guess("end2end-pose", 0, f"{seen}: {most} finished boxes with score, class and {points} points"))
    return found


def _cells(n: int | None, m: int, names: int, seen: str, turned: bool, plain: bool) -> list[Guess]:
    """Rows of cells; `plain`: one a cell, not one for each of three anchors."""
    if not plain:
        return [Guess("yolov5", m - 5, f"{seen}: three anchors a cell, each a box, objectness and {m - 5} classes")]
    order = "transposed, columns are cells" if turned else "one row a cell"
    rows = [
        Guess(family, m - row.before, f"{seen}: {order}, {row.cell.format(m - row.before)}")
        for family, row in FAMILIES.items()
        if row.cell
    ]
    if turned:
        # columns are cells in exports of YOLOv8 and its descendants, rows in those of YOLOX
        rows.sort(key=lambda guess: FAMILIES[guess.family].before)
    bins = _distances((m,), f"{seen}: {order}", names)
    oriented = [Guess("yolov8-obb", m - 5, f"{seen}: {order}, each a box, {m - 5} classes and an angle")]
    fits = [*rows, *bins, *(oriented if turned else [])]
    return [g for g in fits if g.classes > 0]


def _pair(flat: list[TensorSpec], width: int, height: int, names: int) -> list[Guess]:
    """Boxes [1, N, 4] and scores [1, N, C], each of them also with its last axes turned."""
    named = next((spec for spec in flat if "box" in spec.name.lower() and 4 in spec.shape[1:]), None)
    boxes = named or next((s for axis in (2, 1) for s in flat if s.shape[axis] == 4), None)
    if boxes is None:
        return []
    scores = next(spec for spec in flat if spec is not boxes)
    n = boxes.shape[1] if boxes.shape[2] == 4 else boxes.shape[2]
    if n not in scores.shape[1:]:
        return []
    classes = scores.shape[2] if scores.shape[1] == n else scores.shape[1]
    if not classes:
        return []
    seen = f"outputs {boxes.name} {shape(boxes)} and {scores.name} {shape(scores)}"
    plain = counts(width, height)
    own = Guess("edge-yolo", classes, f"{seen}: four distances and {classes} class logits a cell")
    done = Guess("box-scores", classes, f"{seen}: {n} boxes with {classes} class scores, overlaps not yet suppressed")
    zero = Guess("ssd-decoded", classes - 1, f"{seen}: {n} boxes with scores of {classes - 1} classes and of none")
    queries = Guess("detr-sigmoid", classes, f"{seen}: {n} queries, {classes} classes")
    none = Guess("detr", classes - 1, f"{seen}: {n} queries, {classes - 1} classes and no object")
    raw = Guess("ssd-raw", classes - 1, f"{seen}: {n} anchors whose places are not in the file")
    straight = boxes.shape[2] == 4
    if n in plain and boxes.shape[1:].index(n) == scores.shape[1:].index(n):
        found = [own, done, zero]
    elif n is None or n in plain or n in {3 * count for count in plain}:
        found = [done, zero]
    elif n <= MOST and straight and scores.shape[1] == n:
        # the first DETR has 100 queries, COCO's 91 ids and one more for no object
        found = [none, queries] if n == 100 or classes == 92 else [queries, none]
        found += [done, zero]
    else:
        found = [zero, done, raw]
    found = [guess for guess in found if guess.classes > 0]
    said = f", as the {names} names in the file say" if names else ", COCO's number"
    # COCO's ids go up to 90, and DETR counts the 0 too
    fits = [guess for guess in found if guess.classes in ((names,) if names else (80, 91))]
    return [replace(guess, why=guess.why + said) for guess in fits] or found


def _finished(outputs: tuple[TensorSpec, ...], width: int, height: int) -> list[Guess]:
    """Boxes [1, N, 4] (or [1, N, 5] with the score), and columns of N; all of them also without the 1."""
    seen = ", ".join(f"{spec.name} {shape(spec)}" for spec in outputs)
    boxes = [s for s in outputs if len(s.shape) in (2, 3) and s.shape[-1] in (4, 5)]
    if not boxes and len(outputs) == 4 and all(len(s.shape) < 2 for s in outputs[1:]):
        return [Guess("ssd", 0, f"four outputs without shapes, {seen}, as the detection post-process gives them")]
    if len(boxes) != 1:
        return []
    columns = [s for s in outputs if s is not boxes[0] and s.shape == boxes[0].shape[:-1]]
    if len(columns) != (2 if boxes[0].shape[-1] == 4 else 1):
        return []
    corners = Guess("finished", 0, f"{seen}: finished boxes left, top, right, bottom, classes and scores")
    if boxes[0].shape[-2] in counts(width, height):
        return [Guess("cells-finished", 0, f"{seen}: a box, the best class and its score for each cell")]
    if boxes[0].shape[-1] == 5:
        return [corners]
    usual = Guess("ssd", 0, f"{seen}: boxes top, left, bottom, right, classes and scores of the detection post-process")
    words = " ".join(spec.name.lower() for spec in outputs)
    theirs = any(word in words for word in ("label", "num_dets", "num_predictions", "det_boxes"))
    return [corners, usual] if theirs else [usual, corners]


def _distances(widths: tuple[int, ...], seen: str, names: int, levels: int = 0) -> list[Guess]:
    """Classes and distributions over distances, in one tensor or in two of these widths; `levels`: how many of them
    have tensors of their own.
    """
    if len(widths) == 1:
        found = [(widths[0] - 4 * b, b) for b in DISTRIBUTIONS if b == BINS or widths[0] - 4 * b in (names, 80)]
    else:
        found = [(n, b) for n, other in (widths, widths[::-1]) for b in DISTRIBUTIONS if other == 4 * b]
    apart = [family for family, row in FAMILIES.items() if levels in row.levels and len(widths) == 2]
    return [
        Guess(family, n, f"{seen}, {n} classes and 4 distances of {b} bins")
        for n, b in sorted(found, key=lambda pair: pair[0] not in (names, 80))
        for family in apart or ["nanodet"]
        if n > 0
    ]


def _maps(maps: list[TensorSpec], names: int) -> list[Guess]:
    """One tensor a level, or two."""
    seen = ", ".join(shape(spec) for spec in maps[:6])
    flat = [spec.shape[1:] for spec in maps if len(spec.shape) == 4]
    # the levels differ in their sides and not in their channels, which TFLite puts last
    ends = {dims[2] for dims in flat}
    last = None not in ends and len(ends) < len({dims[0] for dims in flat})
    widths = {dims[2 if last else 0] for dims in flat}
    if all(len(spec.shape) == 5 for spec in maps):
        classes = (maps[0].shape[-1] or 5) - 5
        return [Guess("yolov5-raw", classes, f"{seen}: feature maps of three anchors, exported without decoding")]
    if len(widths) == 2 and 4 in widths and len(maps) in (6, 8) and None not in widths:
        (classes,) = [w for w in widths if w is not None and w != 4]
        return [Guess("rtmdet", classes, f"{seen}: a map of {classes} class logits and one of 4 distances a level")]
    if None in widths or len(widths) not in (1, 2) or len(maps) not in ((3, 4), (6, 8))[len(widths) - 1]:
        return []
    found = _distances(tuple(w for w in widths if w), f"{seen}: maps of each level", names, len(maps) // len(widths))
    if len(widths) == 1 and len(set(flat)) == len(maps):
        found = [guess for guess in found if guess.classes in (names, 80)]
        found.append(Guess("yolo-levels", 0, f"{seen}: feature maps, exported without decoding"))
    return found


def _rows_by_level(flat: list[TensorSpec], width: int, height: int, names: int) -> list[Guess]:
    """Levels as rows [1, cells, C] (or [1, C, cells]): one tensor each, or one of classes and one of distances."""
    counts = [cells(width, height, (stride,)) for stride in (8, 16, 32, 64)]
    found: tuple[int, ...] = ()
    for rows, columns in ((1, 2), (2, 1)):
        levels: dict[int, list[int]] = {}
        for spec in flat:
            levels.setdefault(spec.shape[rows] or 0, []).append(spec.shape[columns] or 0)
        kinds = {tuple(sorted(widths)) for widths in levels.values()}
        if len(kinds) == 1 and sorted(levels, reverse=True) == counts[: len(levels)]:
            (found,) = kinds
    if len(found) not in (1, 2):
        return []
    seen = ", ".join(shape(spec) for spec in flat[:6])
    if len(found) == 2 and 4 in found:
        return [Guess("rtmdet", sum(found) - 4, f"{seen}: rows of {sum(found) - 4} classes and of 4 distances a level")]
    return _distances(found, f"{seen}: rows of each level", names, len(flat) // len(found))
