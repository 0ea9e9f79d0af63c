"""A detector on pictures: COCO's figures against labels and against a parent, and the worst pictures drawn."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.errors import UsageError
from edge_agent.families.table import FAMILIES
from edge_agent.figures.coco_map import FIGURES, Truth, match
from edge_agent.manifest import Served
from edge_agent.pictures.read import read_picture
from edge_agent.tasks.detect.compare import as_columns
from edge_agent.types import Frame
from edge_agent.workshop import workers
from edge_agent.workshop.data.feed import served_by
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.data.look import groups, look
from edge_agent.workshop.data.pictures import Pictures, few, match_classes, read_pictures
from edge_agent.workshop.evaluate.frame import Answers, Say, ask_all, finds, identity
from edge_agent.workshop.evaluate.worst import draw_worst

SCORE, IOU = 0.001, 0.65
"""of detections that are scored: COCO's precision wants the faint ones too (YOLOX and YOLOv5 evaluate so)"""
PART = 8
"""pictures that a worker is asked for at once"""
Asked = tuple[Sequence[LabelledSample], float | None, float | None]
"""pictures, score and overlap; None: the manifest's"""


@dataclass(frozen=True, slots=True)
class Judge:
    """Boxes that answers are held against."""

    truth: Truth
    ids: dict[int, int]
    """class of the model -> class of the truth; the classes that are scored"""
    names: Mapping[int, str]
    """of the truth's classes"""

    def figures(self, answers: Answers) -> dict[str, Any]:
        """COCO's, over all scored classes and of each."""
        labels, found = sorted(set(self.ids.values())), as_columns(answers.said, self.ids)
        matched = match(self.truth, found, labels)
        precision = matched.precision()
        classes = {self.names[label]: precision.of_class(k) for k, label in enumerate(labels) if precision.count[k]}
        figures = {key: matched.figure(len(answers.said), key) for key in FIGURES}
        return {**figures, "boxes": int(precision.count.sum()), "classes": classes}

    def shared_with(self, names: dict[int, str]) -> Judge:
        """The same for a model of other classes, over those that are scored here, too."""
        both = match_classes(self.names, names)
        return replace(self, ids={key: to for key, to in both.items() if to in self.ids.values()})


def detector(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Figures against the labels where there are some, "against" the parent where there is one."""
    pictures, names = read_pictures(Path(args.data), args.limit), model.manifest.names()
    _check(args, pictures, names, parent)
    score, iou = SCORE if args.score is None else args.score, IOU if args.iou is None else args.iou
    rows = [LabelledSample(path.name, path, None) for path in pictures.paths]
    answers, *theirs = _asked(args, model, parent, rows, (score, iou), pictures.truth is not None, say)
    pictures = _readable(pictures, rows, answers)
    shown: dict[str, Any] = {
        **identity(model),
        "data": str(args.data),
        "images": len(pictures.paths),
        "missing": list(pictures.missing),
        "score": score,
        "iou": iou if FAMILIES[model.manifest.family].nms else None,
        "ms_per_image": statistics.median(answers.spent),
        "notes": [*pictures.notes, *answers.notes()],
        "groups": groups([seen for _, seen in answers.kept]),
    }
    judge = None
    if pictures.truth is not None:
        judge = Judge(pictures.truth, match_classes(pictures.names, names), pictures.names)
        shown["notes"] += _said(pictures.names, names, judge.ids)
        shown |= {"truth": "labels"} | judge.figures(answers)
    if parent is not None:
        judge = _against(args, parent, judge, theirs, answers, names, shown)
    if args.save and judge is not None:
        truth = (judge.truth, judge.ids, judge.names)
        drawn = draw_worst(Path(args.save), pictures.paths, answers.said, model.manifest.score, *truth)
        shown["notes"].append(f"{drawn} worst pictures in {args.save}: truth left, {model.ref.name} right")
    return shown


def _asked(
    args: argparse.Namespace,
    model: Served,
    parent: Served | None,
    rows: Sequence[LabelledSample],
    how: tuple[float, float],
    labelled: bool,
    say: Say,
) -> list[Answers]:
    """The model's answers; and its parent's as it would report them and, where there are labels, as they are scored."""
    asked: list[tuple[Any, ...]] = [(args.model, model, *how)]
    if parent is not None:
        asked += [(args.against, parent, None, None), (args.against, parent, *how)][: 1 + labelled]
    found: list[Answers] = []
    with workers.crew(args.workers or "1") as crew:
        for name, one, *own in asked:
            point: Asked = (found[0].rows if found else rows, own[0], own[1])
            if crew is None:
                answers = ask_detector(one, point, say)
            else:
                answers = _together(crew, (name, one.ref.sha256, args.threads), point, say)
            found.append(answers.some())
    return found


def _against(
    args: argparse.Namespace,
    parent: Served,
    labels: Judge | None,
    theirs: Sequence[Answers],
    mine: Answers,
    names: dict[int, str],
    shown: dict[str, Any],
) -> Judge:
    """Figures with what the parent would report as the truth, and its own on the labels, into `shown`; without labels
    they are what is shown. Returns what the model is held against.
    """
    agreed = _parents(args, parent, theirs[0], names, shown["notes"])
    figures = agreed.figures(mine)
    against = {"score": parent.manifest.score, "ms_per_image": statistics.median(theirs[0].spent)} | figures
    if labels is None:
        shown |= {"truth": parent.ref.name} | figures
    else:
        against["on_labels"] = labels.shared_with(parent.manifest.names()).figures(theirs[1])
    shown["against"] = identity(parent) | against
    return labels or agreed


def ask_detector(model: Served, asked: Asked, say: Say) -> Answers:
    """Boxes of every picture that can be read, through the task `detect`; beside them its size, and how it looks."""
    rows, score, iou = asked
    family = FAMILIES.get(model.manifest.family)
    options = {} if score is None else {"score": str(score)}
    options |= {"iou": str(iou)} if iou is not None and family is not None and family.nms else {}
    return ask_all(model.ref.name, finds(served_by(model, options)), rows, say, _frame, _seen)


def _frame(row: LabelledSample) -> Frame:
    assert isinstance(row.what, Path)
    return read_picture(row.what)


def _seen(frame: Frame) -> tuple[tuple[int, int], Any]:
    return (frame.width, frame.height), look(frame)


def _together(crew: Executor, given: tuple[str, str, int], asked: Asked, say: Say) -> Answers:
    """As `ask_detector`, by workers, a part of the pictures each."""
    rows, *how = asked
    starts = range(0, len(rows), PART)
    parts = [workers.ask(crew, found_by, given, (rows[at : at + PART], *how)) for at in starts]
    whole = Answers()
    for at, one in zip(starts, parts, strict=True):
        say(given[0], at, len(rows))
        whole.add(one.result())
    say(given[0], len(rows), len(rows))
    return whole


def found_by(given: tuple[str, str, int]) -> Callable[[Asked], Answers]:
    """In a worker: what the model of a name, of a file of this SHA-256, finds."""
    from edge_agent.serving.models import Models

    name, sha256, threads = given
    model = Models(threads=threads, only={name: sha256}).serve(name)
    return lambda asked: ask_detector(model, asked, lambda *_: None)


def _parents(
    args: argparse.Namespace, parent: Served, theirs: Answers, names: dict[int, str], notes: list[str]
) -> Judge:
    """What the parent found as the truth for a model of these classes. UsageError where it found nothing."""
    their_names = parent.manifest.names()
    ids = match_classes(their_names, names)
    classes = set(ids.values())
    found = as_columns(theirs.said, {key: key for key in classes})
    if not len(found.label):
        raise UsageError(
            f"--against {args.against}: it found nothing at score {parent.manifest.score:g} in "
            f"{len(theirs.said)} pictures; give pictures with something in them"
        )
    if len(classes) < len(their_names):
        notes.append(f"compared over {len(classes)} of the parent's {len(their_names)} classes")
    return Judge(found.as_truth(), ids, their_names)


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


def _readable(pictures: Pictures, rows: Sequence[LabelledSample], answers: Answers) -> Pictures:
    """Without the pictures that could not be read; with a note on those of another size than labelled."""
    bad = {row for row, _ in answers.bad}
    kept = [at for at, row in enumerate(rows) if row not in bad]
    paths, truth = [pictures.paths[i] for i in kept], pictures.truth
    missing = [*pictures.missing, *(row.name for row, _ in answers.bad)]
    sizes = [size for size, _ in answers.kept]
    odd = _odd_sizes(paths, [pictures.sizes[i] for i in kept] if pictures.sizes else sizes, sizes)
    truth = None if truth is None else truth.of_pictures(kept)
    return replace(pictures, paths=paths, truth=truth, missing=missing, notes=[*pictures.notes, *odd])


def _odd_sizes(paths: Sequence[Path], stated: Sequence[tuple[int, int]], sizes: Sequence[tuple[int, int]]) -> list[str]:
    """A note on the pictures that are of another size than labelled."""
    odd = [row for row in zip(paths, stated, sizes, strict=True) if all(row[1]) and row[1] != row[2]]
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
        notes.append(f"{len(lost)} of the model's classes are not in the data and not scored: {few(lost)}")
    return notes
