"""What a detector finds in pictures, and what it is held against."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import InputError
from edge_agent.families.table import FAMILIES
from edge_agent.figures.coco_map import FIGURES, FoundBoxes, Truth, match
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.pictures.read import read_picture
from edge_agent.tasks import make_task
from edge_agent.types import Detections, Finding, Floats, Task
from edge_agent.uri import Uri
from edge_agent.workshop.data.look import look
from edge_agent.workshop.data.pictures import match_classes
from edge_agent.workshop.evaluate.verb import Others, Say


@dataclass(slots=True)
class Answers:
    """What one model found in the pictures."""

    model: Served
    found: list[Detections]
    spent: list[float]
    """milliseconds a picture, without reading the file"""
    sizes: list[tuple[int, int]]
    """(width, height) of each picture"""
    bad: dict[int, str]
    """number of each picture that could not be read, and why; these are in no other field"""
    looks: list[Floats | None]
    """of each picture, by which the frames of a scene are found"""

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


@dataclass(frozen=True, slots=True)
class Judge:
    """Boxes that answers are held against."""

    truth: Truth
    ids: dict[int, int]
    """class of the model -> class of the truth; the classes that are scored"""
    names: Any
    """of the truth's classes"""

    def figures(self, answers: Answers) -> dict[str, Any]:
        """COCO's, over all scored classes and of each."""
        labels, found = sorted(set(self.ids.values())), answers.boxes(self.ids)
        matched = match(self.truth, found, labels)
        precision = matched.precision()
        classes = {self.names[label]: precision.of_class(k) for k, label in enumerate(labels) if precision.count[k]}
        figures = {key: matched.figure(len(answers.found), key) for key in FIGURES}
        return {**figures, "boxes": int(precision.count.sum()), "classes": classes}

    def shared_with(self, names: dict[int, str]) -> Judge:
        """The same for a model of other classes, over those that are scored here, too."""
        both = match_classes(self.names, names)
        return replace(self, ids={key: to for key, to in both.items() if to in self.ids.values()})


PART = 8
"""pictures that a worker is asked for at once"""
Asked = tuple[Sequence[Path], float | None, float | None]


def together(
    model: Served, paths: Sequence[Path], score: float | None, iou: float | None, say: Say, others: Others
) -> Answers:
    """As `ask`, by workers, a part of the pictures each."""
    starts = range(0, len(paths), PART)
    asked = [others(found_by, model, (paths[at : at + PART], score, iou)) for at in starts]
    whole = Answers(model, [], [], [], {}, [])
    for at, one in zip(starts, asked, strict=True):
        say(model.ref.name, at, len(paths))
        found, spent, sizes, bad, looks = one.result()
        whole.found += found
        whole.spent += spent
        whole.sizes += sizes
        whole.looks += looks
        whole.bad |= {at + number: why for number, why in bad.items()}
    say(model.ref.name, len(paths), len(paths))
    return whole


def asker(others: Others | None) -> Callable[..., Answers]:
    """`together` where there are workers, else `ask`."""
    return ask if others is None else functools.partial(together, others=others)


def found_by(given: tuple[str, str, int]) -> Callable[[Asked], tuple[Any, ...]]:
    """In a worker: what the model of a name, of a file of this SHA-256, finds, as the fields of Answers."""
    from edge_agent.serving.models import Models

    name, sha256, threads = given
    model = Models(threads=threads, only={name: sha256}).serve(name)

    def found(asked: Asked) -> tuple[Any, ...]:
        one = ask(model, *asked, lambda *_: None)
        return one.found, one.spent, one.sizes, one.bad, one.looks

    return found


def ask(model: Served, paths: Sequence[Path], score: float | None, iou: float | None, say: Say) -> Answers:
    """Every picture that can be read through the task `detect`; None: the manifest's threshold."""
    family = FAMILIES.get(model.manifest.family)
    options = {} if score is None else {"score": str(score)}
    options |= {"iou": str(iou)} if iou is not None and family is not None and family.nms else {}
    task: Task = make_task(Uri("detect", model.ref.name, options), lambda _: model, home())
    answers = Answers(model, [], [], [], {}, [])
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
        answers.looks.append(look(frame))
        answers.spent.append(sum(ms for stage, ms in finding.spent_ms.items() if stage != "decode"))
    say(model.ref.name, len(paths), len(paths))
    return answers
