"""Heads that give all in one tensor: rows of cells, of queries, or of finished boxes."""

from __future__ import annotations

import re

from edge_agent.families.guess import MOST, Guess, counts, explained, shape
from edge_agent.families.levels import distances
from edge_agent.families.table import FAMILIES, ORDERS
from edge_agent.types import TensorSpec

QUERIES = (100, 300, 900)
"""of DETR and its descendants"""
MOST_POINTS = 133
"""of a pose: those of a whole body"""
MASKS = 32
"""columns of a segmentation head: what its masks are mixed with"""
COLUMNS = (("xyxy", "box, "), ("xywh", "centre and size, "), ("s", "score, "), ("c", "class, "), ("-", "picture, "))
"""columns of finished boxes, as a row of the table names them and as people do"""


def table(outputs: tuple[TensorSpec, ...]) -> list[Guess]:
    """Finished boxes, where just one of the outputs is a table of them."""
    tables = [spec for spec in outputs if _is_table(spec)]
    if len(tables) != 1:
        return []
    return _rows_of(tables[0].shape[-1] or 0, f"output {shape(tables[0])}: finished boxes")


def _is_table(spec: TensorSpec) -> bool:
    """Whether it is a table of finished boxes without a batch: [N, 6], [N, 7], [1, 1, N, 7], N left open or not."""
    dims = spec.shape
    wide = dims[-1] in (6, 7) if dims else False
    return wide and ((len(dims) == 2 and dims[0] != 1) or (len(dims) == 4 and dims[:2] == (1, 1)))


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


def single(spec: TensorSpec, width: int, height: int, names: int, task: str) -> list[Guess]:
    """Every head that a tensor of three axes may be; `task`: the exporter's word."""
    if len(spec.shape) != 3:
        return []
    plain = counts(width, height)
    n, m, turned = _rows_and_columns(spec, plain, names)
    seen = f"output {shape(spec)}"
    if m is None or m < 5:
        return []
    if task in ("segment", "pose", "obb"):
        return [Guess(f"yolov8-{task[:4].rstrip('m')}", names, f'{seen}, the file\'s task is "{task}"')]
    found = _other_rows(n, m, plain, seen)
    if n is None or n in plain:
        found = _cells(m, names, seen, turned) + found
    if task == "detect":
        found = [guess for guess in found if not guess.family.endswith(("-obb", "-seg", "-pose"))]
    return _with_classes(found, names, n in plain)


def _rows_and_columns(spec: TensorSpec, plain: set[int], names: int) -> tuple[int | None, int | None, bool]:
    """How many rows and columns it has, and whether the columns come first."""
    _, rows, columns = spec.shape
    grids = {*plain, *(3 * n for n in plain)}
    turned = rows is not None and (columns in grids or (columns is None and rows < 1000)) and rows not in grids
    # of finished boxes and of queries only where the rows are surely theirs: a reader of text gives steps and letters
    turned |= columns in QUERIES and rows in (6, 4 + (names or 80), 95)
    return (columns, rows, turned) if turned else (rows, columns, turned)


def _with_classes(found: list[Guess], names: int, grid: bool) -> list[Guess]:
    """Those that the file's names allow. Of heads that count their classes COCO's number is the likeliest on a grid, as
    that of an oriented box counts one less.
    """
    if names:
        fits = [guess for guess in found if guess.classes in (0, names)]
        return explained(fits, f", as the {names} names in the file say")
    counted = [guess for guess in found if guess.classes == 80]
    return explained(counted, ", COCO's number") if counted and grid else found


def _other_rows(n: int | None, m: int, plain: set[int], seen: str) -> list[Guess]:
    """Rows that are not one a cell: three anchors a cell, finished boxes, queries."""
    if n in plain:
        return []
    anchors = Guess("yolov5", m - 5, f"{seen}: three anchors a cell, each a box, objectness and {m - 5} classes")
    found = [anchors] if n in {3 * count for count in plain} else []
    return found + _few_rows(n, m, seen) if n is None or n <= MOST else found


def _few_rows(n: int | None, m: int, seen: str) -> list[Guess]:
    """Rows of finished boxes, or of queries."""
    most = f"at most {n}" if n else "some"
    found = _rows_of(m, f"{seen}: {most} finished boxes")
    if n is None or n in QUERIES:
        queries = Guess("rtdetr", m - 4, f"{seen}: {n or 'some'} queries, each a box and {m - 4} classes")
        found.insert(0 if m > 6 else len(found), queries)
    return found + _more_than_boxes(n, m, f"{seen}: {most} finished boxes with score, class and")


def _more_than_boxes(n: int | None, m: int, seen: str) -> list[Guess]:
    """Rows of finished boxes that also have an angle, a mask or a pose."""
    more = [Guess("end2end-obb", 0, f"{seen} an angle")] if m == 7 else []
    if m == 6 + MASKS:
        more.append(Guess("end2end-seg", 0, f"{seen} {MASKS} mask coefficients"))
    if 8 < m <= 6 + 3 * MOST_POINTS and m % 3 == 0 and n in QUERIES:
        more.append(Guess("end2end-pose", 0, f"{seen} {(m - 6) // 3} points"))
    return more


def _cells(m: int, names: int, seen: str, turned: bool) -> list[Guess]:
    """One row of `m` numbers a cell."""
    order = "transposed, columns are cells" if turned else "one row a cell"
    rows = [
        Guess(family, m - row.before, f"{seen}: {order}, {row.cell.format(m - row.before)}")
        for family, row in FAMILIES.items()
        if row.cell
    ]
    if turned:
        # columns are cells in exports of YOLOv8 and its descendants, rows in those of YOLOX
        rows.sort(key=lambda guess: FAMILIES[guess.family].before)
    bins = distances((m,), f"{seen}: {order}", names)
    oriented = [Guess("yolov8-obb", m - 5, f"{seen}: {order}, each a box, {m - 5} classes and an angle")]
    fits = [*rows, *bins, *(oriented if turned else [])]
    return [g for g in fits if g.classes > 0]
