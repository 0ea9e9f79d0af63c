"""Answers of a detector at four sizes, recorded from a film and from what was made of it: fewer people, nobody, night.

People are taken out of a frame by the film's own background (the median of its frames) in their boxes of the truth;
night is a fifth of the light, noise and JPEG. Unlabelled passers-by far off and half out of the picture are left out.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.serving.models import Models
from edge_agent.serving.smaller import smaller
from edge_agent.tasks import make_task
from edge_agent.tasks.track.tracker import Rules, Tracker
from edge_agent.types import Detections, Frame
from edge_agent.uri import parse_task

Array = npt.NDArray[Any]
SIDES = (1.0, 0.77, 0.62, 0.46)
LOOKS = (1, 2 / 3, 1 / 2, 1 / 3, 1 / 4, 1 / 8)
ARMS = [(side, often) for side in SIDES for often in LOOKS]
CONDITIONS = ("busy", "sparse", "night", "nightsparse", "empty")
DARK = (0, 0, 1, 1, 0)
KEPT = {7, 8, 10, 15, 17}
"""who stays in the sparse scenes: at most two at once"""
SURE, FPS, WINDOW = 0.3, 10, 10
MS, TRACK_MS = dict(zip(SIDES, (14.4, 8.78, 6.0, 3.66), strict=True)), 0.4
"""processor milliseconds of a look and of the tracker, as measured while recording"""
COST = np.array([(MS[side] * often + TRACK_MS) / (MS[1.0] + TRACK_MS) for side, often in ARMS])
"""of the first arm's processor time, which stands for a whole core of a small board"""


def _film(path: Path) -> list[Array]:
    film, frames = cv2.VideoCapture(str(path)), list[Array]()
    while (got := film.read())[0]:
        frames.append(got[1])
    return frames


def truth_of(path: Path, count: int) -> list[list[tuple[int, Array]]]:
    """Identity and box of each person, frame by frame."""
    rows: list[list[tuple[int, Array]]] = [[] for _ in range(count)]
    for line in path.read_text().splitlines():
        frame, who, x, y, w, h = (float(value) for value in line.split(",")[:6])
        rows[int(frame) - 1].append((int(who), np.array([x, y, x + w, y + h])))
    return rows


def _stays(condition: str, who: int) -> bool:
    return condition != "empty" and ("sparse" not in condition or who in KEPT)


def _made(frame: Array, people: list[tuple[int, Array]], behind: Array, condition: str, rng: Any) -> Array:
    """A frame as it looks under a condition."""
    gone = np.zeros(frame.shape[:2], np.uint8)
    for stays in (False, True):
        for who, box in people:
            if _stays(condition, who) == stays:
                wide, high = (0.0, 0.0) if stays else ((box[2] - box[0]) * 0.35, (box[3] - box[1]) * 0.15)
                left, top = max(0, int(box[0] - wide)), max(0, int(box[1] - high))
                gone[top : int(box[3] + high), left : int(box[2] + wide)] = 0 if stays else 255
    share = cv2.GaussianBlur(gone, (9, 9), 0)[..., None] / 255
    made = (frame * (1 - share) + behind * share).astype(np.uint8)
    if not condition.startswith("night"):
        return made
    dark = np.clip(made * 0.22 + rng.normal(0, 5, made.shape), 0, 255).astype(np.uint8)
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", dark, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 1))


def record(data: Path, model: str, out: Path, say: Callable[[str], None]) -> dict[tuple[str, float], list[Any]]:
    """(condition, side) -> boxes and scores of each frame; kept in `out`."""
    if out.is_file():
        return pickle.loads(out.read_bytes())  # type: ignore[no-any-return]
    frames = _film(data / "video" / "vtest.avi")
    people = truth_of(data / "video" / "vtest.gt.txt", len(frames))
    behind = np.median(np.stack(frames[::12]), 0).astype(np.uint8)
    models, rng = Models(threads=1), np.random.default_rng(0)
    served = {side: models.serve(model) if side == 1 else smaller(models, model, side) for side in SIDES}
    home = out.parent
    tasks = {
        side: make_task(parse_task(f"detect:{model}?score={SURE}&low=0.1"), lambda _, one=one: one, home)  # type: ignore[misc]
        for side, one in served.items()
    }
    found: dict[tuple[str, float], list[Any]] = {}
    for condition in CONDITIONS:
        say(condition)
        for number, frame in enumerate(frames):
            made = frame if condition == "busy" else _made(frame, people[number], behind, condition, rng)
            for side, task in tasks.items():
                (one,) = task(Frame(made, 0.0, 0.0))
                what = one.what  # type: ignore[union-attr]
                assert isinstance(what, Detections)
                person = what.label == 0
                found.setdefault((condition, side), []).append((what.xyxy[person], what.score[person]))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(pickle.dumps(found))
    return found


# ── answers become figures ───────────────────────────────────────────────────────────────────────────────


def overlap(a: Array, b: Array) -> Array:
    """(n, 4) and (m, 4) -> (n, m) intersection over union."""
    corner, other = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(other - corner, 0, None).prod(2)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return np.asarray(both / (areas[0][:, None] + areas[1][None] - both + 1e-9))


def matches(a: Array, b: Array) -> int:
    """How many of the boxes are the same, best first, at an overlap of 0.5."""
    if not len(a) or not len(b):
        return 0
    left, count = overlap(a, b), 0
    while left.max() >= 0.5:
        row, column = np.unravel_index(left.argmax(), left.shape)
        left[row], left[:, column] = -1, -1
        count += 1
    return count


def _near(boxes: Array) -> Array:
    """Those that the truth speaks of: not far off at the upper left, nor half out of the picture."""
    if not len(boxes):
        return boxes
    far = (boxes[:, 3] < 125) & (boxes[:, 2] < 320) | (boxes[:, 2] < 130) & (boxes[:, 3] < 240)
    return boxes[~(far | (boxes[:, 0] > 715))]


def followed(rows: list[Any], often: float, frames: range) -> tuple[list[Array], list[int]]:
    """What the tracker says of each frame where a share `often` of them is looked at, and how many things that is."""
    tracker, due, boxes = Tracker(Rules(), {0: "person"}), 1.0, list[Array]()
    for frame in frames:
        look, due = due >= 1, min(1.0, due - (due >= 1) + often)
        if look:
            xyxy, score = rows[frame]
            label = np.zeros(len(score), np.int32)
            seen = tracker(frame / FPS, xyxy.astype(np.float32), score, label, SURE)
            boxes.append(_near(xyxy[seen.box]))
        else:
            boxes.append(_near(tracker.between(frame / FPS).xyxy))
    return boxes, [len(one) for one in boxes]


def agreed(found: dict[tuple[str, float], list[Any]], condition: str, frame: int) -> Array:
    """Boxes that two sizes and more find: what stands in for the truth where there is none."""
    each = [found[condition, side][frame] for side in SIDES]
    rows = [(size, box) for size, (xyxy, score) in enumerate(each) for box in xyxy[score >= SURE]]
    taken, made = set[int](), list[Array]()
    for at, (size, box) in enumerate(rows):
        if at in taken:
            continue
        group, sizes = [at], {size}
        for other in range(at + 1, len(rows)):
            if other not in taken and rows[other][0] not in sizes and overlap(box[None], rows[other][1][None]) >= 0.5:
                group.append(other)
                sizes.add(rows[other][0])
        taken.update(group)
        if len(sizes) > 1:
            made.append(np.mean([rows[one][1] for one in group], 0))
    return _near(np.array(made).reshape(-1, 4))


def tables(found: dict[tuple[str, float], list[Any]], truth: list[list[tuple[int, Array]]], frames: range) -> Array:
    """(kind, condition, arm, second of film): matches, boxes and people by the truth, the same by `agreed`, and how
    many things are in view.
    """
    seconds = len(frames) // WINDOW
    out = np.zeros((7, len(CONDITIONS), len(ARMS), seconds))
    for c, condition in enumerate(CONDITIONS):
        real = [_near(np.array([b for who, b in truth[f] if _stays(condition, who)]).reshape(-1, 4)) for f in frames]
        common = [agreed(found, condition, frame) for frame in frames]
        for a, (side, often) in enumerate(ARMS):
            boxes, count = followed(found[condition, side], often, frames)
            rows = [
                (matches(b, r), len(b), len(r), matches(b, m), len(b), len(m), n)
                for b, r, m, n in zip(boxes, real, common, count, strict=True)
            ]
            table = np.array(rows[: seconds * WINDOW], float).reshape(seconds, WINDOW, 7)
            out[:, c, a] = table.sum(1).T
    out[6] /= WINDOW
    return out
