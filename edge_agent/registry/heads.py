"""Which detector a network is, by the shapes of its outputs: every head that fits, the likeliest first.

A grid head has one row for each cell of its levels (three for the anchors of YOLOv5), so that the number of rows and
the size of the input confirm each other. Where several families share a shape, all are given.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.types import TensorSpec

SIDES = (640, 416, 320, 512, 608, 256, 224, 384, 480, 768, 800, 960, 1024, 1280, 160, 192, 128)
"""pixels tried, in this order, for an input that leaves its size open"""
QUERIES = (100, 300, 900)
"""of DETR and its descendants"""
BINS = 8
"""of NanoDet's distribution over a distance (reg_max 7)"""
POINTS = 51
"""columns of YOLOv8's pose head: 17 points of x, y, visibility"""


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


def side(outputs: tuple[TensorSpec, ...]) -> int:
    """Side in pixels of the square input whose cells the outputs count; 0 when they say nothing."""
    axes = {axis for spec in outputs for axis in spec.shape if axis}
    for pixels in SIDES:
        plain = {cells(pixels, pixels), cells(pixels, pixels, (8, 16, 32, 64))}
        if axes & (plain | {3 * n for n in plain}):
            return pixels
    return 0


def shape(spec: TensorSpec) -> str:
    """[1, ?, 85]: None is an axis that the file leaves open."""
    return "[" + ", ".join("?" if n is None else str(n) for n in spec.shape) + "]"


def heads(outputs: tuple[TensorSpec, ...], width: int, height: int, names: int = 0, task: str = "") -> list[Guess]:
    """Every head that fits; [] when none does. `names`: classes that the file names; `task`: the exporter's word."""
    if len(outputs) == 1 and len(outputs[0].shape) == 3:
        return _single(outputs[0], width, height, names, task)
    flat = [spec for spec in outputs if len(spec.shape) == 3]
    maps = [spec for spec in outputs if len(spec.shape) in (4, 5)]
    if len(outputs) == 2 and len(flat) == 2:
        return _pair(flat, width, height, names)
    if len(outputs) == 2 and len(flat) == 1 and len(maps) == 1:
        return [Guess("yolov8-seg", 0, f"output {shape(flat[0])} and masks {shape(maps[0])}")]
    if len(outputs) in (2, 3, 4):
        found = _finished(outputs)
        if found:
            return found
    if len(maps) == len(outputs) and len(outputs) in (3, 4, 6, 8):
        return _maps(maps)
    if len(flat) == len(outputs) and len(outputs) in (3, 4, 6, 8):
        return _rows_by_level(flat, width, height)
    return []


def _single(spec: TensorSpec, width: int, height: int, names: int, task: str) -> list[Guess]:
    _, rows, columns = spec.shape
    plain = {cells(width, height), cells(width, height, (8, 16, 32, 64))}
    grids = {*plain, *(3 * n for n in plain)}
    turned = rows is not None and (columns in grids or (columns is None and rows < 1000))
    # of finished boxes and of queries only where the rows are surely theirs: a reader of text gives steps and letters
    turned |= columns in QUERIES and rows in (6, 4 + (names or 80), 95)
    n, m = (columns, rows) if turned else (rows, columns)
    seen = f"output {shape(spec)}"
    if m is None or m < 5:
        return []
    if task in ("segment", "pose", "obb"):
        return [Guess(f"yolov8-{task[:4].rstrip('m')}", names, f'{seen}, the file\'s task is "{task}"')]
    if n in {3 * k for k in plain}:
        return [Guess("yolov5", m - 5, f"{seen}: three anchors a cell, each a box, objectness and {m - 5} classes")]
    if n is not None and n not in plain:
        if m == 6 and n <= 1000:
            return [Guess("end2end", 0, f"{seen}: at most {n} finished boxes with score and class")]
        if n in QUERIES and m > 5:
            return [Guess("rtdetr", m - 4, f"{seen}: {n} queries, each a box and {m - 4} classes")]
        return []
    order = "transposed, columns are cells" if turned else "one row a cell"
    grid = [
        Guess("yolox", m - 5, f"{seen}: {order}, each a raw box, objectness and {m - 5} classes"),
        Guess("yolox-decoded", m - 5, f"{seen}: {order}, each a box in pixels, objectness and {m - 5} classes"),
        Guess("yolov6", m - 5, f"{seen}: {order}, each a box in pixels, an objectness of 1 and {m - 5} classes"),
    ]
    plainly = [Guess("yolov8", m - 4, f"{seen}: {order}, each a box and {m - 4} classes")]
    bins = [Guess("nanodet", m - 4 * BINS, f"{seen}: {order}, {m - 32} classes and 4 distances of {BINS} bins")]
    fits = [*plainly, *grid, *bins] if turned else [*grid, *plainly, *bins]
    fits = [g for g in fits if g.classes > 0]
    wanted = [g for g in fits if g.classes == (names or 80)]
    if wanted or names:
        said = f", as the {names} names in the file say" if names else ", COCO's number"
        return [Guess(g.family, g.classes, g.why + said) for g in wanted]
    return fits


def _pair(flat: list[TensorSpec], width: int, height: int, names: int) -> list[Guess]:
    """Boxes [1, N, 4] and scores [1, N, C], or [1, 4, N] and [1, C, N] of a head of cells."""
    named = {spec.name.split(":")[0]: spec for spec in flat}
    boxes = named.get("boxes") or next((s for axis in (2, 1) for s in flat if s.shape[axis] == 4), None)
    if boxes is None:
        dets = next((s for s in flat if s.shape[2] == 5), None)
        return [Guess("mmdeploy", 0, f"outputs {shape(dets)} and labels")] if dets and len(flat) == 1 else []
    scores = next(spec for spec in flat if spec is not boxes)
    n, classes = scores.shape[1:]
    grids = (cells(width, height), cells(width, height, (8, 16, 32, 64)))
    if boxes.shape[1] == 4 and boxes.shape[2] == classes and classes in grids:
        n, classes = classes, n
    elif boxes.shape[1] != n or boxes.shape[2] != 4:
        return []
    if not classes:
        return []
    seen = f"outputs {boxes.name} {shape(boxes)} and {scores.name} {shape(scores)}"
    if n in grids:
        return [Guess("edge-yolo", classes, f"{seen}: four distances and {classes} class logits a cell")]
    if n is not None and n <= 1000:
        own = Guess("detr-sigmoid", classes, f"{seen}: {n} queries, {classes} classes")
        none = Guess("detr", classes - 1, f"{seen}: {n} queries, {classes - 1} classes and no object")
        fits = [guess for guess in (none, own) if guess.classes == names]
        if fits:
            return [Guess(g.family, g.classes, f"{g.why}, as the {names} names in the file say") for g in fits]
        # the first DETR has 100 queries, COCO's 91 ids and one more for no object
        return [none, own] if n == 100 or classes == 92 else [own, none]
    return [Guess("ssd-raw", classes - 1, f"{seen}: {n} anchors whose places are not in the file")] if n else []


def _finished(outputs: tuple[TensorSpec, ...]) -> list[Guess]:
    """Boxes [1, N, 4] (or [1, N, 5] with the score), and columns of N."""
    seen = ", ".join(f"{spec.name} {shape(spec)}" for spec in outputs)
    boxes = [s for s in outputs if len(s.shape) == 3 and s.shape[2] in (4, 5)]
    if not boxes and len(outputs) == 4 and all(len(s.shape) < 2 for s in outputs[1:]):
        return [Guess("ssd", 0, f"four outputs without shapes, {seen}, as the detection post-process gives them")]
    if len(boxes) != 1:
        return []
    columns = [s for s in outputs if s is not boxes[0] and s.shape[:2] == boxes[0].shape[:2] and len(s.shape) == 2]
    if boxes[0].shape[2] == 5:
        return (
            [Guess("mmdeploy", 0, f"{seen}: finished boxes with score, and their labels")] if len(columns) == 1 else []
        )
    if len(columns) != 2:
        return []
    if len(outputs) == 3 and any("label" in s.name.lower() for s in outputs):
        return [Guess("detr-finished", 0, f"{seen}: finished boxes, labels and scores")]
    return [Guess("ssd", 0, f"{seen}: boxes, classes, scores and count of the detection post-process")]


def _maps(maps: list[TensorSpec]) -> list[Guess]:
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
    if len(widths) == 2 and 4 * BINS in widths and len(maps) in (6, 8):
        return [Guess("nanodet-levels", 0, f"{seen}: a map of classes and one of 4 x {BINS} bins a level")]
    if len(widths) == 1 and len(maps) in (3, 4) and len(set(flat)) == len(maps):
        return [Guess("yolo-levels", 0, f"{seen}: feature maps, exported without decoding")]
    return []


def _rows_by_level(flat: list[TensorSpec], width: int, height: int) -> list[Guess]:
    """Levels as rows [1, cells, C] (or [1, C, cells]): one tensor each, or one of classes and one of distances."""
    counts = [cells(width, height, (stride,)) for stride in (8, 16, 32, 64)]
    widths: dict[int, list[int | None]] = {}
    for spec in flat:
        n = next((n for n in counts if n in spec.shape[1:]), 0)
        widths.setdefault(n, []).append(spec.shape[2] if spec.shape[1] == n else spec.shape[1])
    kinds = {tuple(sorted(w or 0 for w in found)) for found in widths.values()}
    if 0 in widths or sorted(widths, reverse=True) != counts[: len(widths)] or len(kinds) != 1:
        return []
    (found,) = kinds
    seen = ", ".join(shape(spec) for spec in flat[:6])
    if len(found) == 2 and 4 in found:
        return [Guess("rtmdet", sum(found) - 4, f"{seen}: rows of {sum(found) - 4} classes and of 4 distances a level")]
    if len(found) == 2 and 4 * BINS in found:
        classes = sum(found) - 4 * BINS
        return [Guess("nanodet-levels", classes, f"{seen}: rows of {classes} classes and of 4 x {BINS} bins a level")]
    if len(found) == 1 and found[0] > 4 * BINS:
        classes = found[0] - 4 * BINS
        return [Guess("nanodet-levels", classes, f"{seen}: rows of {classes} classes and 4 x {BINS} bins a level")]
    return []
