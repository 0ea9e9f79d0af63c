"""A detector on pictures: COCO's figures against labels and against a parent, and the worst pictures drawn."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
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
from edge_agent.workshop.evaluate.frame import Answers, Evaluation, Say, ask_all, finds, measured
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


def detector(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Figures against the labels where there are some, "against" the parent where there is one."""
    pictures, names = read_pictures(Path(args.data), args.limit), model.manifest.names()
    ids, notes = None, [*pictures.notes]
    if pictures.truth is not None:
        ids = match_classes(pictures.names, names)
        notes += _said(pictures.names, names, ids)
        if not len(pictures.truth.label):
            nothing = "no box in it of a picture and a category that it lists; there is nothing to measure"
            raise UsageError(f"{args.data}: {nothing}")
    with workers.crew(args.workers or "1") as crew:
        both = _Both(args, model, parent, pictures, ids, notes, crew)
        sizes = pictures.sizes or [(0, 0)] * len(pictures.paths)
        rows = [LabelledSample(path.name, path, _size(*size)) for path, size in zip(pictures.paths, sizes, strict=True)]
        give = "a COCO JSON file"
        how = Evaluation(
            "image", rows, ids is not None, give, both.figures, both.agreement, both.answers, both.save, both.more
        )
        shown = measured(args, model, parent, how, say, notes)
    alike = {} if ids else {key: shown["against"][key] for key in (*FIGURES, "boxes", "classes")}
    return {**shown, **alike}


@dataclass(slots=True)
class _Both:
    """A detector and its parent on the same pictures."""

    args: argparse.Namespace
    model: Served
    parent: Served | None
    pictures: Pictures
    ids: dict[int, int] | None
    """class of the model -> class of the labels; None without labels"""
    notes: list[str]
    crew: Executor | None
    agreed: Judge | None = None
    """what the parent reports"""

    def answers(self, one: Served, rows: Sequence[LabelledSample], say: Say, reported: bool = False) -> Answers:
        """Boxes as they are scored; as they would be reported of a parent that stands for labels."""
        own = reported or (one is self.parent and self.ids is None)
        asked: Asked = (rows, None, None) if own else (rows, *self._scored())
        if self.crew is None:
            return ask_detector(one, asked, say)
        name = self.args.model if one is self.model else self.args.against
        return _together(self.crew, (name, one.ref.sha256, self.args.threads), asked, say)

    def _scored(self) -> tuple[float, float]:
        score, iou = self.args.score, self.args.iou
        return SCORE if score is None else score, IOU if iou is None else iou

    def figures(self, answers: Answers) -> dict[str, Any]:
        """On the labels."""
        return self._judge(answers).figures(answers)

    def _judge(self, answers: Answers) -> Judge:
        """The labels of these pictures, over the classes of the model and of who answered."""
        assert self.pictures.truth is not None and self.ids is not None
        number = {path: at for at, path in enumerate(self.pictures.paths)}
        truth = self.pictures.truth.of_pictures([number[Path(row.what)] for row in answers.rows])
        theirs = match_classes(self.pictures.names, answers.said[0].names)
        ids = {key: to for key, to in theirs.items() if to in self.ids.values()}
        return Judge(truth, ids, self.pictures.names)

    def agreement(self, theirs: Answers, mine: Answers) -> dict[str, Any]:
        """With what the parent would report as the truth."""
        assert self.parent is not None
        if self.ids is not None:
            theirs = self.answers(self.parent, mine.rows, lambda *_: None, True)
        self.agreed = _parents(self.args, self.parent, theirs, self.model.manifest.names(), self.notes)
        return {"score": self.parent.manifest.score, **self.agreed.figures(mine)}

    def save(self, where: Path, answers: Answers) -> str:
        """Draw the worst pictures."""
        judge = self._judge(answers) if self.ids is not None else self.agreed
        assert judge is not None
        paths, score = [Path(row.what) for row in answers.rows], self.model.manifest.score
        drawn = draw_worst(where, paths, answers.said, score, judge.truth, judge.ids, judge.names)
        return f"{drawn} worst pictures in {where}: truth left, {self.model.ref.name} right"

    def more(self, answers: Answers) -> dict[str, Any]:
        """How it was measured, and on what."""
        sizes = zip(answers.rows, answers.kept, strict=True)
        odd = [f"{row.name} is {is_}, labelled as {row.label}" for row, (is_, _) in sizes if row.label not in ("", is_)]
        what = "pictures have another size than their labels, whose boxes then miss"
        self.notes += [f"{len(odd)} {what}: {first}" for first in odd[:1]]
        score, iou = self._scored()
        return {
            "missing": [*self.pictures.missing, *(row.name for row, _ in answers.bad)],
            "score": score,
            "iou": iou if FAMILIES[self.model.manifest.family].nms else None,
            "truth": "labels" if self.parent is None or self.ids is not None else self.parent.ref.name,
            "groups": groups([seen for _, seen in answers.kept]),
        }


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


def _seen(frame: Frame) -> tuple[str, Any]:
    return _size(frame.width, frame.height), look(frame)


def _size(width: int, height: int) -> str:
    return f"{width}x{height}" if width and height else ""


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


def _said(theirs: Any, ours: Any, ids: dict[int, int]) -> list[str]:
    """Which classes are scored, when these are not all."""
    notes = []
    if len(set(ids.values())) < len(theirs):
        notes.append(f"scored over {len(set(ids.values()))} of the data's {len(theirs)} classes: the model knows these")
    if len(ids) < len(ours):
        lost = [name for key, name in ours.items() if key not in ids]
        notes.append(f"{len(lost)} of the model's classes are not in the data and not scored: {few(lost)}")
    return notes
