"""A detector on pictures: COCO's figures against labels and against a parent, and the worst pictures drawn."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import InputError, UsageError
from edge_agent.families.table import FAMILIES
from edge_agent.figures.coco_map import FoundBoxes, Truth, average_precision, f1_by_picture
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.pictures.draw import draw, save_jpeg
from edge_agent.pictures.read import read_picture
from edge_agent.tasks import make_task
from edge_agent.types import Detections, Finding, Pixels, Task
from edge_agent.uri import Uri
from edge_agent.workshop.data.pictures import Pictures, match_classes, read_pictures
from edge_agent.workshop.evaluate.verb import Say, folder, identity

SCORE, IOU = 0.001, 0.65
"""of detections that are scored: COCO's precision wants the faint ones too (YOLOX and YOLOv5 evaluate so)"""
WORST = 12
"""pictures that are drawn"""
WIDEST = 1280
"""pixels of one half of a drawn picture"""


@dataclass(slots=True)
class _Answers:
    """What one model found in the pictures."""

    model: Served
    found: list[Detections]
    spent: list[float]
    """milliseconds a picture, without reading the file"""
    sizes: list[tuple[int, int]]
    """(width, height) of each picture"""
    bad: dict[int, str]
    """number of each picture that could not be read, and why; these are in no other field"""

    def boxes(self, ids: dict[int, int]) -> FoundBoxes:
        """As columns, with the class ids of the truth; boxes of classes that it has not are left out."""
        image = np.repeat(np.arange(len(self.found)), [len(one) for one in self.found])
        label = np.concatenate([one.label for one in self.found])
        xyxy = np.concatenate([one.xyxy for one in self.found]).astype(np.float64)
        score = np.concatenate([one.score for one in self.found]).astype(np.float64)
        keep = np.isin(label, list(ids))
        label = np.array([ids[int(key)] for key in label[keep]], np.int64)
        xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
        return FoundBoxes(image[keep], label, xywh[keep], score[keep])


def evaluate(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Figures against the labels where there are some, "against" the parent where there is one."""
    pictures, names = read_pictures(Path(args.data), args.limit), model.manifest.names()
    _check(args, pictures, names, parent)
    score, iou = SCORE if args.score is None else args.score, IOU if args.iou is None else args.iou
    answers = _ask(model, pictures.paths, score, iou, say)
    pictures, notes = _readable(pictures, answers)
    shown: dict[str, Any] = {
        **identity(model),
        "data": str(args.data),
        "images": len(pictures.paths),
        "missing": list(pictures.missing),
        "score": score,
        "iou": iou if FAMILIES[model.manifest.family].nms else None,
        "ms_per_image": statistics.median(answers.spent),
        "notes": [*pictures.notes, *notes],
    }
    labelled = agreed = None
    if pictures.truth is not None:
        labelled = _Judge(pictures.truth, match_classes(pictures.names, names), pictures.names)
        shown["notes"] += _said(pictures.names, names, labelled.ids)
        shown |= {"truth": "labels"} | labelled.figures(answers)
    if parent is not None:
        theirs = _ask(parent, pictures.paths, None, None, say)
        agreed = _parents(args, theirs, names, shown["notes"])
        figures = agreed.figures(answers)
        against = {"score": parent.manifest.score, "ms_per_image": statistics.median(theirs.spent)} | figures
        if labelled is None:
            shown |= {"truth": parent.ref.name} | figures
        else:
            whole = _ask(parent, pictures.paths, score, iou, say)
            against["on_labels"] = labelled.shared_with(parent.manifest.names()).figures(whole)
        shown["against"] = identity(parent) | against
    if args.save:
        judge = labelled or agreed
        assert judge is not None
        drawn = _draw_worst(folder(Path(args.save)), pictures.paths, judge, answers)
        shown["notes"].append(f"{drawn} worst pictures in {args.save}: truth left, {model.ref.name} right")
    return shown


@dataclass(frozen=True, slots=True)
class _Judge:
    """Boxes that answers are held against."""

    truth: Truth
    ids: dict[int, int]
    """class of the model -> class of the truth; the classes that are scored"""
    names: Any
    """of the truth's classes"""

    def figures(self, answers: _Answers) -> dict[str, Any]:
        """COCO's, over all scored classes and of each."""
        labels = sorted(set(self.ids.values()))
        precision = average_precision(self.truth, answers.boxes(self.ids), labels)
        classes = {self.names[label]: precision.of_class(k) for k, label in enumerate(labels) if precision.count[k]}
        return {**precision.figures(), "boxes": int(precision.count.sum()), "classes": classes}

    def shared_with(self, names: dict[int, str]) -> _Judge:
        """The same for a model of other classes, over those that are scored here, too."""
        both = match_classes(self.names, names)
        return replace(self, ids={key: to for key, to in both.items() if to in self.ids.values()})


def _parents(args: argparse.Namespace, theirs: _Answers, names: dict[int, str], notes: list[str]) -> _Judge:
    """What the parent found as the truth for a model of these classes. UsageError where it found nothing."""
    their_names = theirs.model.manifest.names()
    ids = match_classes(their_names, names)
    classes = set(ids.values())
    found = theirs.boxes({key: key for key in classes})
    if not len(found.label):
        raise UsageError(
            f"--against {args.against}: it found nothing at score {theirs.model.manifest.score:g} in "
            f"{len(theirs.found)} pictures; give pictures with something in them"
        )
    if len(classes) < len(their_names):
        notes.append(f"compared over {len(classes)} of the parent's {len(their_names)} classes")
    return _Judge(found.as_truth(), ids, their_names)


def _check(args: argparse.Namespace, pictures: Pictures, names: dict[int, str], parent: Served | None) -> None:
    """UsageError for data that say nothing of the model, before any picture is looked at."""
    if pictures.truth is None:
        if parent is None:
            raise UsageError(f"{args.data}: pictures without labels; give --against PARENT or a COCO JSON file")
        return
    match_classes(pictures.names, names)
    if not len(pictures.truth.label):
        raise UsageError(
            f"{args.data}: no box in it of a picture and a category that it lists; there is nothing to measure"
        )


def _ask(model: Served, paths: Sequence[Path], score: float | None, iou: float | None, say: Say) -> _Answers:
    """Every picture that can be read through the task `detect`; None: the manifest's threshold."""
    family = FAMILIES.get(model.manifest.family)
    options = {} if score is None else {"score": str(score)}
    options |= {"iou": str(iou)} if iou is not None and family is not None and family.nms else {}
    task: Task = make_task(Uri("detect", model.ref.name, options), lambda _: model, home())
    answers = _Answers(model, [], [], [], {})
    for number, path in enumerate(paths):
        say(model.ref.name, number, len(paths))
        try:
            frame = read_picture(path)
        except InputError as error:
            answers.bad[number] = f"{path.name} {error}"
            continue
        (finding,) = task(frame)
        assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
        answers.found.append(finding.what)
        answers.sizes.append((frame.width, frame.height))
        answers.spent.append(sum(ms for stage, ms in finding.spent_ms.items() if stage != "decode"))
    say(model.ref.name, len(paths), len(paths))
    return answers


def _readable(pictures: Pictures, answers: _Answers) -> tuple[Pictures, list[str]]:
    """Without the pictures that could not be read; notes on these and on those of another size than labelled."""
    bad, paths = answers.bad, pictures.paths
    if len(bad) == len(paths):
        raise UsageError(f"{paths[0].parent}: none of {len(paths)} pictures can be read; the first, {bad[0]}")
    kept = [i for i in range(len(paths)) if i not in bad]
    stated = [pictures.sizes[i] for i in kept] if pictures.sizes else answers.sizes
    truth = None if pictures.truth is None else pictures.truth.of_pictures(kept)
    missing = [*pictures.missing, *(paths[i].name for i in bad)]
    left = replace(pictures, paths=[paths[i] for i in kept], truth=truth, sizes=stated, missing=missing)
    notes = _odd_sizes(left, answers.sizes)
    if bad:
        notes.append(f"{len(bad)} pictures cannot be read and are left out: {'; '.join(list(bad.values())[:5])}")
    return left, notes


def _odd_sizes(pictures: Pictures, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """A note on the pictures that are of another size than labelled."""
    pairs = list(zip(pictures.paths, pictures.sizes, sizes, strict=True))
    odd = [row for row in pairs if all(row[1]) and row[1] != row[2]]
    if not odd:
        return []
    path, (sw, sh), (w, h) = odd[0]
    first = f"{path.name} is {w}x{h}, labelled as {sw}x{sh}"
    return [f"{len(odd)} pictures have another size than their labels, whose boxes then miss: {first}"]


def _said(theirs: Any, ours: Any, ids: dict[int, int]) -> list[str]:
    """Which classes are scored, when these are not all."""
    notes = []
    if len(set(ids.values())) < len(theirs):
        notes.append(f"scored over {len(set(ids.values()))} of the data's {len(theirs)} classes: the model knows these")
    if len(ids) < len(ours):
        lost = [name for key, name in ours.items() if key not in ids]
        few = ", ".join(lost[:5]) + (" …" if len(lost) > 5 else "")
        notes.append(f"{len(lost)} of the model's classes are not in the data and not scored: {few}")
    return notes


# ── pictures of the worst cases ──────────────────────────────────────────────────────────────────────────


def _draw_worst(where: Path, paths: Sequence[Path], judge: _Judge, answers: _Answers) -> int:
    """Write the pictures of the least F1 at IoU 0.5, of the boxes that would be reported; returns how many."""
    truth, ids, names = judge.truth, judge.ids, judge.names
    served = [_above(found, answers.model.manifest.score) for found in answers.found]
    boxes = replace(answers, found=served).boxes(ids)
    f1 = f1_by_picture(truth, boxes, sorted(set(ids.values())), len(paths))
    worst = [int(i) for i in np.argsort(f1, kind="stable")[:WORST] if f1[i] < 1]
    for place, i in enumerate(worst, 1):
        mine = np.flatnonzero((truth.image == i) & np.isin(truth.label, list(ids.values())))
        xywh = truth.xywh[mine]
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)
        label = truth.label[mine].astype(np.int32)
        left = Detections(corners, np.ones(len(mine), np.float32), label, names)
        of = np.flatnonzero(np.isin(served[i].label, list(ids)))
        # in the truth's ids, so that a class has one colour on both sides
        same = np.array([ids[int(key)] for key in served[i].label[of]], np.int32)
        right = Detections(served[i].xyxy[of], served[i].score[of], same, names)
        image = read_picture(paths[i]).image
        save_jpeg(_pair(image, left, right), where / f"{place:02d}_f1-{f1[i]:.2f}_{paths[i].stem}.jpg")
    return len(worst)


def _above(found: Detections, score: float) -> Detections:
    keep = found.score >= score
    return Detections(found.xyxy[keep], found.score[keep], found.label[keep], found.names)


def _pair(image: Pixels, left: Detections, right: Detections) -> Pixels:
    """The picture twice, side by side with a white line between; large ones at every second (third, …) pixel."""
    step = -(-image.shape[1] // WIDEST)
    small: Pixels = np.ascontiguousarray(image[::step, ::step])
    line = np.full((small.shape[0], 8, 3), 255, np.uint8)
    halves = [draw(small, Detections(d.xyxy / np.float32(step), d.score, d.label, d.names)) for d in (left, right)]
    return np.concatenate([halves[0], line, halves[1]], axis=1)


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────

ROWS = (
    ("mAP50-95", "map"),
    ("mAP50", "map50"),
    ("mAP75", "map75"),
    ("small", "map_small"),
    ("medium", "map_medium"),
    ("large", "map_large"),
    ("recall", "recall"),
)


def lines(result: dict[str, Any]) -> list[str]:
    """A column of figures for each comparison, then the classes by how many boxes they have."""
    against = result.get("against", {})
    on_labels = result["truth"] == "labels"
    nms = "" if result["iou"] is None else f", NMS {result['iou']:g}"
    told = [
        f"{result['model']}: {result['images']} pictures, {result['boxes']} boxes, score {result['score']:g}{nms}, "
        f"{result['ms_per_image']:.1f} ms a picture"
    ]
    columns = {"on labels": result} if on_labels else {}
    if "on_labels" in against:
        columns["parent"] = against["on_labels"]
    if against:
        columns["agreement"] = against
        told.append(
            f"parent and agreement: {against['model']}, {against['boxes']} boxes at score {against['score']:g}, "
            f"{against['ms_per_image']:.1f} ms a picture"
        )
    told.append(f"{'':16}" + "".join(f"{name:>11}" for name in columns))
    for name, key in ROWS:
        told.append(f"{name:16}" + "".join(f"{_cell(column[key]):>11}" for column in columns.values()))
    told.append(f"{'class':16}{'mAP50-95':>11}{'mAP50':>11}{'boxes':>11}")
    by_count = sorted(result["classes"].items(), key=lambda item: -item[1]["boxes"])
    told += [f"{name:16}{_cell(row['map']):>11}{_cell(row['map50']):>11}{row['boxes']:>11}" for name, row in by_count]
    return told


def _cell(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
