"""Heads that give boxes in one tensor, and scores or classes in others."""

from __future__ import annotations

from edge_agent.families.guess import MOST, Guess, counts, explained, shape
from edge_agent.types import TensorSpec


def pair(flat: list[TensorSpec], width: int, height: int, names: int) -> list[Guess]:
    """Boxes [1, N, 4] and scores [1, N, C], each of them also with its last axes turned."""
    boxes = _boxes(flat)
    if boxes is None:
        return []
    scores = next(spec for spec in flat if spec is not boxes)
    n = boxes.shape[1] if boxes.shape[2] == 4 else boxes.shape[2]
    classes = scores.shape[2] if scores.shape[1] == n else scores.shape[1]
    if n not in scores.shape[1:] or not classes:
        return []
    seen = f"outputs {boxes.name} {shape(boxes)} and {scores.name} {shape(scores)}"
    done = f"{seen}: {n} boxes with {classes} class scores, overlaps not yet suppressed"
    none = f"{seen}: {n} boxes with scores of {classes - 1} classes and of none"
    every = {
        "edge-yolo": Guess("edge-yolo", classes, f"{seen}: four distances and {classes} class logits a cell"),
        "box-scores": Guess("box-scores", classes, done),
        "ssd-decoded": Guess("ssd-decoded", classes - 1, none),
        "detr-sigmoid": Guess("detr-sigmoid", classes, f"{seen}: {n} queries, {classes} classes"),
        "detr": Guess("detr", classes - 1, f"{seen}: {n} queries, {classes - 1} classes and no object"),
        "ssd-raw": Guess("ssd-raw", classes - 1, f"{seen}: {n} anchors whose places are not in the file"),
    }
    found = [every[family] for family in _paired(boxes, scores, n, classes, counts(width, height))]
    return _with_classes(found, names)


def _with_classes(found: list[Guess], names: int) -> list[Guess]:
    """Those with as many classes as the file names, or as COCO has: its ids go up to 90, and DETR counts the 0 too.
    Where there are none, all that have classes.
    """
    said = f", as the {names} names in the file say" if names else ", COCO's number"
    fits = [guess for guess in found if guess.classes in ((names,) if names else (80, 91))]
    return explained(fits, said) or [guess for guess in found if guess.classes > 0]


def _boxes(flat: list[TensorSpec]) -> TensorSpec | None:
    """Which of two tensors holds the boxes: by its name, else by an axis of 4."""
    named = next((spec for spec in flat if "box" in spec.name.lower() and 4 in spec.shape[1:]), None)
    return named or next((spec for axis in (2, 1) for spec in flat if spec.shape[axis] == 4), None)


def _paired(boxes: TensorSpec, scores: TensorSpec, n: int | None, classes: int, plain: set[int]) -> tuple[str, ...]:
    """The families that have such boxes and scores, the likeliest first. `plain`: rows that heads of cells have."""
    if n in plain and boxes.shape[1:].index(n) == scores.shape[1:].index(n):
        return "edge-yolo", "box-scores", "ssd-decoded"
    if n is None or n in plain or n in {3 * count for count in plain}:
        return "box-scores", "ssd-decoded"
    if n <= MOST and boxes.shape[2] == 4 and scores.shape[1] == n:
        return *_queries(n, classes), "box-scores", "ssd-decoded"
    return "ssd-decoded", "box-scores", "ssd-raw"


def _queries(n: int, classes: int) -> tuple[str, str]:
    """The first DETR has 100 queries, COCO's 91 ids and one more for no object."""
    return ("detr", "detr-sigmoid") if n == 100 or classes == 92 else ("detr-sigmoid", "detr")


def finished(outputs: tuple[TensorSpec, ...], width: int, height: int) -> list[Guess]:
    """Boxes [1, N, 4] (or [1, N, 5] with the score), and columns of N; all of them also without the 1."""
    seen = ", ".join(f"{spec.name} {shape(spec)}" for spec in outputs)
    found = [spec for spec in outputs if len(spec.shape) in (2, 3) and spec.shape[-1] in (4, 5)]
    if not found and _shapeless(outputs):
        return [Guess("ssd", 0, f"four outputs without shapes, {seen}, as the detection post-process gives them")]
    if len(found) != 1 or not _has_columns(found[0], outputs):
        return []
    if found[0].shape[-2] in counts(width, height):
        return [Guess("cells-finished", 0, f"{seen}: a box, the best class and its score for each cell")]
    return _by_corners(found[0], outputs, seen)


def _shapeless(outputs: tuple[TensorSpec, ...]) -> bool:
    """Whether there are four, and all but the first leave their shapes open."""
    return len(outputs) == 4 and all(len(spec.shape) < 2 for spec in outputs[1:])


def _by_corners(boxes: TensorSpec, outputs: tuple[TensorSpec, ...], seen: str) -> list[Guess]:
    """The two orders of a box's corners, the likelier first; a score among the boxes comes with one of them only."""
    corners = Guess("finished", 0, f"{seen}: finished boxes left, top, right, bottom, classes and scores")
    usual = Guess("ssd", 0, f"{seen}: boxes top, left, bottom, right, classes and scores of the detection post-process")
    if boxes.shape[-1] == 5:
        return [corners]
    words = " ".join(spec.name.lower() for spec in outputs)
    return [corners, usual] if any(word in words for word in CORNERS) else [usual, corners]


CORNERS = ("label", "num_dets", "num_predictions", "det_boxes")
"""words in the names of outputs that give left, top, right, bottom"""


def _has_columns(boxes: TensorSpec, outputs: tuple[TensorSpec, ...]) -> bool:
    """Whether classes and scores stand beside the boxes, or classes alone where the score is in the boxes."""
    columns = [spec for spec in outputs if spec is not boxes and spec.shape == boxes.shape[:-1]]
    return len(columns) == (2 if boxes.shape[-1] == 4 else 1)
