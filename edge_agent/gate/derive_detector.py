"""Makes a detector faster: stops it before its tail, and rewrites what is left; in the child of gate/ask.py.

Each is kept only where the boxes are the whole network's, cell by cell.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import msgspec
import numpy as np

from edge_agent.backends import open_net
from edge_agent.backends.onnx import PROVIDERS
from edge_agent.errors import ModelError, RefusedError
from edge_agent.families.candidates import Candidates, sigmoid
from edge_agent.families.family import CutRecipe
from edge_agent.families.table import CUTS
from edge_agent.gate import timed
from edge_agent.gate.opened import input_of, open_served
from edge_agent.gate.trial import Derive, Variant
from edge_agent.graphs.cut import Cuttable
from edge_agent.graphs.rewrite import rewrite
from edge_agent.manifest import File
from edge_agent.paths import home
from edge_agent.samples.carried import pictures
from edge_agent.tasks import make_task
from edge_agent.tasks.detect.detect import Detector
from edge_agent.types import Frame, TensorSpec
from edge_agent.uri import Uri

SHOWN = 8
"""pictures that both forms are shown"""
LOOKED_AT = 300
"""cells of a picture whose boxes are compared, the best scored"""
PIXELS, SCORE = 1e-3, 1e-4
"""how far a box and a score may be from the parent's"""
ROUNDED, ROUNDED_SCORE = 1e-2, 5e-4
"""how far they may be off where the same numbers were added in another order: pixels as an event rounds them"""


class Takes(TypedDict, total=False):
    """What the input of a file takes, as its row in the manifest says it."""

    layout: Literal["NCHW", "NHWC"]
    pixels: bool


class Form(NamedTuple):
    """A network to be written down as this processor runs it best, and what is to be said of it."""

    source: Path
    family: str | None
    precision: str
    how: str = "optimised"
    takes: Takes = Takes()


def of_detector(question: Derive, notes: list[str]) -> Form:
    """The form of a detector; `notes` says what was done, and why not more."""
    (variant,) = question.variants
    out, title = Path(question.out), variant.file.title()
    form = Form(Path(variant.path), variant.file.family, variant.file.precision)
    if variant.file.family is None:
        try:
            family, most = _cut(question, out)
            form = form._replace(source=out.replace(out.with_suffix(".onnx")), family=family, how="cut")
            notes.append(f"{title} is stopped before its tail: boxes within {most:.1g} px of the whole one's")
        except ModelError as error:
            notes.append(f"the tail of {title} stays: {str(error).removeprefix(f'{form.source}: ')}")
    if not os.environ.get(PROVIDERS):
        source, takes = _rewritten(question, form.source, form.family, notes)
        form = form._replace(source=source, takes=takes)
    return form


def _cut(question: Derive, out: Path) -> tuple[str, float]:
    """Write the network without its tail to `out`: the family that reads it, and how far its boxes are off."""
    (variant,) = question.variants
    recipe = CUTS.get(question.manifest.family)
    if recipe is None:
        raise RefusedError(f"nobody has written how {question.manifest.family} is cut")
    whole = Cuttable(Path(variant.path))
    found = whole.maps()
    whole.write(out, {name: f"map:{number}" for number, name in enumerate(found)})
    maps = open_net(out, "onnx", 1).outputs
    reason = "no reading of its maps fits its labels"
    asked = _detector(question, Path(variant.path))
    for names in _readings(dict(zip(found, maps, strict=True)), recipe, asked.head.classes):
        whole.write(out, names)
        if recipe.family == "yolov5-maps":
            whole.write(out, names, {"anchors": _anchors(asked, out)})
        try:
            return recipe.family, same(asked, _detector(question, out, recipe.family))
        except RefusedError as error:
            reason = str(error)
    raise RefusedError(reason)


def _readings(maps: dict[str, TensorSpec], recipe: CutRecipe, classes: int) -> Iterator[dict[str, str]]:
    """What each tensor may be, as tensor -> role and level: levels by their size, roles by the number of channels."""
    ordered = _levels(maps)
    sizes = [len(level) for level in ordered]
    if set(sizes) - {len(recipe.roles)}:
        raise RefusedError(f"it has {sizes} maps a level, {len(recipe.roles)} are known")
    for roles in itertools.permutations(recipe.roles):
        pairs = [(name, role, n) for n, level in enumerate(ordered) for name, role in zip(level, roles, strict=True)]
        if all(_fits(recipe, role, int(maps[name].shape[1] or 0), classes) for name, role, _ in pairs):
            yield {name: f"{role}{level}" for name, role, level in pairs}


def _levels(maps: dict[str, TensorSpec]) -> list[list[str]]:
    """Names of the maps of each size, the largest first."""
    levels: dict[tuple[int, ...], list[str]] = {}
    for name, spec in maps.items():
        if len(spec.shape) != 4 or None in spec.shape:
            raise RefusedError(f"{name} before its tail is no map: {list(spec.shape)}")
        levels.setdefault(tuple(-int(n or 0) for n in spec.shape[2:]), []).append(name)
    return [levels[size] for size in sorted(levels)]


def _fits(recipe: CutRecipe, role: str, channels: int, classes: int) -> bool:
    if role == "all":
        return channels % (5 + classes) == 0 if recipe.family == "yolov5-maps" else (channels - classes) % 4 == 0
    return {"boxes": channels % 4 == 0, "objects": channels == 1, "classes": channels == classes}[role]


def _rewritten(question: Derive, source: Path, family: str | None, notes: list[str]) -> tuple[Path, Takes]:
    """The network in `source` rewritten, where that finds the same and is faster; else `source`. `notes` says which.
    With it what its input takes, where that is not what the model's does.
    """
    (variant,) = question.variants
    path, title = Path(question.out).with_suffix(".rewritten.onnx"), variant.file.title()
    reason, takes = "", Takes()
    # to multiply the weights and not the pixels rounds otherwise, which some networks make much of
    for prepared in (input_of(question.manifest, variant.file), None):
        try:
            what = rewrite(source, path, prepared)
            if not what:
                return source, Takes()
            (spec,) = open_net(path, "onnx", 1).inputs
            takes = Takes(layout="NHWC", pixels=spec.dtype == "uint8") if spec.shape[-1] == 3 else Takes()
            made = _detector(question, path, family, takes)
            same(_detector(question, Path(variant.path)), made, ROUNDED, ROUNDED_SCORE)
            share = timed.share(_to_outputs(_detector(question, source, family)), _to_outputs(made))
        except ModelError as error:
            reason = str(error).removeprefix(f"{source}: ")
            if takes.get("pixels"):
                continue
            break
        told = f"{title} rewritten ({what}) takes {share:.3f} of its processor time"
        notes.append(told if share < 1 else f"{told}, so it stays as it is")
        return (path, takes) if share < 1 else (source, Takes())
    notes.append(f"{title} is not rewritten: {reason}")
    return source, Takes()


def _to_outputs(task: Detector) -> Callable[[], object]:
    """A picture up to the network's outputs."""
    picture = next(pictures()).image
    return lambda: task.model.net.run({task.model.net.inputs[0].name: task.prepare(picture)[0]})


def _detector(question: Derive, path: Path, family: str | None = None, takes: Takes | None = None) -> Detector:
    """The task on the network in `path`; `family`: whose decoder reads it, `takes`: what its input does, where they are
    not the model's.
    """
    file = question.variants[0].file
    row: File = msgspec.structs.replace(file, family=family, **(takes or {}))
    model = open_served(question.manifest, Variant(row, str(path)), question.parts, 1)
    task = make_task(Uri("detect", model.ref.name), lambda _: model, home())
    assert isinstance(task, Detector)
    return task


def _cells(task: Detector, frame: Frame) -> Candidates:
    """What it says of each cell, whatever the score."""
    tensor, _ = task.prepare(frame.image)
    return task.family.decode(task.model.net.run({task.model.net.inputs[0].name: tensor}), task.head, 0.0)


def same(whole: Detector, cut: Detector, pixels: float = PIXELS, points: float = SCORE) -> float:
    """The largest difference between the boxes of the two, pixels of the canvas; RefusedError above `pixels`, where
    scores are more than `points` apart, or where classes are not alike.
    """
    most, compared = 0.0, 0
    for frame in itertools.islice(pictures(), SHOWN):
        one, other = _cells(whole, frame), _cells(cut, frame)
        if len(one.score) != len(other.score):
            raise RefusedError(f"its maps have {len(other.score)} cells, the whole network has {len(one.score)}")
        best = np.argsort(-one.score, kind="stable")[:LOOKED_AT]
        compared += len(best)
        score = float(np.abs(one.score[best] - other.score[best]).max(initial=0))
        box = float(np.abs(one.xyxy[best] - other.xyxy[best]).max(initial=0))
        if not (score <= points and box <= pixels):
            raise RefusedError(f"without it boxes are {box:.2g} px and scores {score:.2g} off")
        # below, and where a sigmoid has no digits left above, any class is as good as another
        clear = (one.score[best] > 100 * SCORE) & (one.score[best] < 1 - SCORE)
        if (one.label[best] != other.label[best])[clear].any():
            raise RefusedError("without it other classes come out")
        most = max(most, box)
    if not compared:
        raise RefusedError("it finds nothing at all in the pictures, so that nothing can be compared")
    return most


def _anchors(whole: Detector, out: Path) -> list[float]:
    """Width and height of each anchor, pixels, level by level: the whole network's boxes over what the maps hold."""
    tensor, _ = whole.prepare(next(pictures()).image)
    net = open_net(out, "onnx", 1)
    maps = net.run({net.inputs[0].name: tensor})
    boxes = whole.family.decode(whole.model.net.run({whole.model.net.inputs[0].name: tensor}), whole.head, 0.0).xyxy
    sizes, anchors, at = boxes[:, 2:] - boxes[:, :2], [], 0
    for level in range(len(maps)):
        rows = maps[f"all{level}"].reshape(-1, 5 + whole.head.classes, maps[f"all{level}"][0, 0].size)
        for row in rows:
            share = (sigmoid(row[2:4].T) * 2) ** 2
            anchors += np.median(sizes[at : at + len(share)] / share, axis=0).tolist()
            at += len(share)
    return anchors
