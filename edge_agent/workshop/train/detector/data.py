"""Pictures and labels for a training: a folder, a video, or a COCO JSON beside its images.

What is bad is named and skipped, never trained on in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent import paths
from edge_agent.errors import InputError
from edge_agent.figures.coco_map import iou
from edge_agent.pictures.read import cv2, decode, for_cv2
from edge_agent.serving.models import Models
from edge_agent.tasks.detect.detect import detect
from edge_agent.types import Detections, Finding, Frame
from edge_agent.uri import parse_uri
from edge_agent.workshop.data import formats, pictures
from edge_agent.workshop.data.pictures import GIVE
from edge_agent.workshop.train.detector.augment import Picture
from edge_agent.workshop.train.finish import Say

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
VIDEOS = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".gif")
LEAST = 16
"pixels; a smaller side is refused"
MOST = 20_000
"pictures of a folder, as all are kept in memory; of more, evenly spread ones are taken"


NO_BOXES = np.zeros((0, 6), np.float32)


def read_pictures(
    data: Path,
    classes: tuple[str, ...],
    side: int,
    say: Say,
    part: tuple[float, float] = (0.0, 1.0),
    labels: Path | None = None,
) -> list[Picture]:
    """All usable pictures of `data`: a folder (searched whole), a video file, or a COCO JSON.

    `labels`: a COCO JSON for some of a folder's pictures, which are matched by the names of their files.
    `part` takes that share of a video's frames, or of the files in the order of their names. `say` gets a line for each
    thing that is skipped. Raises InputError where nothing usable is left.
    """
    if not data.exists():
        raise InputError(f"no such data: {data}")
    known = None if labels else formats.find(data)
    if known is not None:
        found = list(_from_files(_share(_labels(data, data, classes, say), part), side, say))
    elif data.is_dir():
        found = _from_folder(data, classes, side, say, part, labels)
    elif data.suffix.lower() in VIDEOS:
        found = list(video_frames(data, side, part))
    else:
        raise InputError(f"{data} is no folder of pictures, no video and no labels; {GIVE}")
    if not found:
        raise InputError(f"none of the pictures in {data} can be used; see the lines above")
    return found


def _from_folder(
    data: Path, classes: tuple[str, ...], side: int, say: Say, part: tuple[float, float], labels: Path | None
) -> list[Picture]:
    files = _share(sorted(p for p in data.rglob("*") if p.suffix.lower() in PICTURES), part)
    if not files:
        raise InputError(f"no pictures ({', '.join(PICTURES)}) in {data}")
    every = -(-len(files) // MOST)
    if every > 1:
        say(f"{data} has {len(files)} pictures; every {every}th is used")
    boxes = {path.name: rows for path, rows in (_labels(labels, data, classes, say) if labels else [])}
    return list(_from_files([(path, boxes.get(path.name, NO_BOXES)) for path in files[::every]], side, say))


def _from_files(files: list[tuple[Path, np.ndarray]], side: int, say: Say) -> Iterator[Picture]:
    for path, boxes in files:
        try:
            pixels = decode(path.read_bytes())
        except OSError as error:
            say(f"skipped {path}: {error.strerror}")
            continue
        except InputError as error:
            say(f"skipped {path}: not a picture that can be decoded, it {error}")
            continue
        if min(pixels.shape[:2]) < LEAST:
            say(f"skipped {path}: {pixels.shape[1]}x{pixels.shape[0]} is too small to learn from")
        else:
            yield _fitted(str(path), pixels, _inside(str(path), boxes, pixels.shape[1], pixels.shape[0], say), side)


def _inside(name: str, boxes: np.ndarray, width: int, height: int, say: Say) -> np.ndarray:
    """The boxes that lie in the picture, give or take a pixel; the others are named and dropped."""
    if not len(boxes):
        return boxes
    x1, y1, x2, y2 = boxes[:, :4].T
    good = np.isfinite(boxes).all(1) & (x1 >= -1) & (y1 >= -1) & (x2 <= width + 1) & (y2 <= height + 1)
    good &= (x2 - x1 >= 1) & (y2 - y1 >= 1)
    for box in boxes[~good]:
        say(f"skipped a label of {name}: box {[round(float(v), 1) for v in box[:4]]} is not inside {width}x{height}")
    inside: np.ndarray = boxes[good]
    return inside


def _fitted(name: str, pixels: np.ndarray, boxes: np.ndarray, side: int) -> Picture:
    """Reduced (never enlarged) until the longer side is `side`."""
    height, width = pixels.shape[:2]
    ratio = side / max(height, width)
    if ratio < 1:
        size = (max(LEAST, round(width * ratio)), max(LEAST, round(height * ratio)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        boxes = boxes.copy()
        boxes[:, [0, 2]] *= size[0] / width
        boxes[:, [1, 3]] *= size[1] / height
    return Picture(name, pixels, boxes)


def video_frames(path: Path, side: int, part: tuple[float, float], most: int = 2000) -> Iterator[Picture]:
    """Frames of a share of a video, evenly thinned to at most `most`."""
    with for_cv2(path) as name:
        video = cv2.VideoCapture(name)
    try:
        if not video.isOpened():
            raise InputError(f"{path} cannot be opened as a video")
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        first, last = int(count * part[0]), round(count * part[1])
        every = max(1, -(-(last - first) // most))
        at = 0
        while True:
            good, frame = video.read()
            if not good or (count > 0 and at >= last):
                return
            if at >= first and (at - first) % every == 0:
                yield _fitted(f"{path}#{at}", frame, NO_BOXES, side)
            at += 1
    finally:
        video.release()


def _share(found: list[Any], part: tuple[float, float]) -> list[Any]:
    return found[int(len(found) * part[0]) : round(len(found) * part[1])]


def _labels(path: Path, data: Path, classes: tuple[str, ...], say: Say) -> list[tuple[Path, np.ndarray]]:
    """The pictures of labels, in `data` or beside them, and the boxes (k, 6) in each, crowds left out."""
    told = pictures.read_pictures(path, first=("train", "val", "test"), within=data)
    for note in told.notes:
        say(f"{path}: {note}")
    _check_names(path, set(told.names.values()), classes, say)
    assert told.truth is not None
    index = {key: classes.index(name) for key, name in told.names.items() if name in classes}
    label = np.array([index.get(int(key), -1) for key in told.truth.label])
    left, top, width, height = told.truth.xywh.T
    rows = np.stack([left, top, left + width, top + height, label, np.ones(len(label))], 1).astype(np.float32)
    kept = (label >= 0) & ~told.truth.crowd
    order = np.argsort(told.truth.image[kept], kind="stable")
    ends = np.searchsorted(told.truth.image[kept][order], np.arange(1, len(told.paths)))
    return list(zip(told.paths, np.split(rows[kept][order], ends), strict=True))


def _check_names(path: Path, names: set[str], classes: tuple[str, ...], say: Say) -> None:
    """Say which categories of labels are none of the classes. InputError where none is."""
    strange = sorted(names - set(classes))
    if len(strange) == len(names):
        raise InputError(f"no category of {path} is among the classes {', '.join(classes)}; name them with --classes")
    if strange:
        say(f"{path}: labels of {len(strange)} other categories are left out ({', '.join(strange[:8])} …)")


def labelled_by(name: str, shown: list[Picture], classes: tuple[str, ...], score: float, say: Say) -> list[Picture]:
    """The pictures with what the detector `name` (any that this program runs) finds in them as labels, of the
    confidence found. Labels that a picture has already stay, in place of what the detector says of the same thing.
    """
    task = detect(parse_uri(f"detect:{name}?score={score}"), Models(pull=True).serve(name), paths.home())
    index = {known: i for i, known in enumerate(classes)}
    labelled = []
    for at, picture in enumerate(shown):
        rows = []
        for finding in task(Frame(picture.pixels, 0.0, 0.0, picture.name)):
            assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
            found = finding.what
            for box, confidence, label in zip(found.xyxy, found.score, found.label, strict=True):
                if found.names[int(label)] in index:
                    rows.append([*box, index[found.names[int(label)]], confidence])
        boxes = np.array(rows, np.float32).reshape(-1, 6)
        boxes = boxes[~_known(boxes, picture.boxes)]
        labelled.append(picture._replace(boxes=np.concatenate([picture.boxes, boxes])))
        if (at + 1) % 200 == 0:
            say(f"the teacher has looked at {at + 1} of {len(shown)} pictures")
    return labelled


def _known(boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(k,) bool: which of `boxes` (k, 6) lie on one of `labels` (m, 6) of their class with an IoU above 0.5."""
    mine, theirs = (np.concatenate([b[:, :2], b[:, 2:4] - b[:, :2]], 1).astype(np.float64) for b in (boxes, labels))
    same = (iou(mine, theirs, np.zeros(len(labels), bool)) > 0.5) & (boxes[:, None, 4] == labels[None, :, 4])
    return np.asarray(same.any(1))
