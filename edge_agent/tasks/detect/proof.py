"""How a detector proves itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.samples.carried import PICTURES, Scene, frames, scenes, thing_of, whole_scene
from edge_agent.tasks import make_task
from edge_agent.tasks.detect.detect import Detector
from edge_agent.tasks.detect.places import in_places, there
from edge_agent.tasks.proofs import LOW, Recorder, constant
from edge_agent.types import Detections, Finding, Frame
from edge_agent.uri import Uri

EXPECTED = 0.1
"""score at which something that is in a picture counts as seen"""
SURE = 0.5
"""score of a wrong name, which no sound model was seen to give to two different things"""
FEW = 3
"""classes that may be seen better in a picture than what is in it"""
MANY_CLASSES, COMMON, IN_TWO, ALL = 5, 0.4, 0.7, 0.9
"""from so many classes on, one that reaches COMMON in three pictures that have nothing in common, or IN_TWO in two of
them, is seen everywhere: of sound models none was measured above 0.09 and 0.36; of fewer classes, one that reaches ALL
in them and in noise
"""
CLIPPED = 0.1
"""share of box coordinates at an end of the scale from which on boxes are clipped; of sound heads it is below 0.001"""


def prove(model: Served, seen: Recorder) -> list[str]:
    """Run it on what it is for. Notes on what it says; RefusedError where that makes no sense."""
    task = make_task(Uri("detect", model.ref.name, {"score": str(LOW)}), lambda _: model, home())
    assert isinstance(task, Detector)
    found = {name: _boxes(task, frame, f"the proof picture {name}") for name, frame in frames().items()}
    # a head that suppresses in the graph gives zeros when it finds nothing
    if constant(seen) and (task.family.nms or any(map(len, found.values()))):
        raise RefusedError("it gives the same output for three different pictures and for noise")
    if task.family.nms or task.family.order:
        _one_scale(seen)
    _placed([task.family.decode(outputs, task.head, LOW).xyxy for outputs in seen.outputs], model)
    notes = [f"{name}: {_best(what)}" for name, what in found.items()]
    told = "; ".join(notes[:3])
    _everywhere(found)
    doubts = _in_places(task, found, told)
    return [*notes, *_there(model, found, told), *doubts]


def _boxes(task: Detector, frame: Frame, what: str) -> Detections:
    """What it finds in a frame. RefusedError, with `what` that is, where it fails."""
    try:
        (finding,) = task(frame)
    except EdgeAgentError as error:
        raise RefusedError(f"on {what}: {error}") from None
    assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
    return finding.what


def _best(what: Detections) -> str:
    """The three best boxes, in words."""
    found = [f"{what.names[int(what.label[i])]} {what.score[i]:.2f}" for i in range(min(3, len(what)))]
    return ", ".join(found) or "nothing"


def _there(model: Served, found: dict[str, Detections], told: str) -> list[str]:
    """A doubt, or none; RefusedError where it knows several of the things in the pictures and sees none of them."""
    names = {thing_of(name) or name.casefold(): key for key, name in model.manifest.names().items()}
    known = {picture: names[thing] for picture, thing in PICTURES.items() if thing in names}
    if not known or any(_near_the_top(found[picture], key) for picture, key in known.items()):
        return []
    things = ", ".join(PICTURES[picture] for picture in known)
    why = f"it names {things}, but sees none of it where it is in the proof pictures ({told})"
    # one class may be meant more narrowly than its name says
    if len(known) > 1:
        raise RefusedError(f"{why}: wrong colours, scale, layout or labels in its manifest, or a broken conversion")
    return [f"doubtful: {why}"]


def _near_the_top(what: Detections, key: int) -> bool:
    """Whether a class is seen, and few others are seen better."""
    best = {int(label): float(what.score[what.label == label].max()) for label in set(what.label.tolist())}
    score = best.get(key, 0.0)
    return score >= EXPECTED and sum(other > score for other in best.values()) < FEW


def _everywhere(found: dict[str, Detections]) -> None:
    """RefusedError for a class that is in most pictures, which have nothing in common; of few classes, in noise too."""
    ids = {int(label) for what in found.values() for label in what.label}
    many = len(next(iter(found.values())).names) >= MANY_CLASSES
    for key in sorted(ids):
        scores = {name: float(what.score[what.label == key].max(initial=0.0)) for name, what in found.items()}
        if _in_most(scores, many):
            label = next(iter(found.values())).names[key]
            told = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
            why = f"it sees {label} in pictures that have nothing in common ({told})"
            raise RefusedError(f"{why}: a broken conversion, or damaged")


def _in_most(scores: dict[str, float], many: bool) -> bool:
    """Whether a class with these scores in the pictures is seen everywhere; `many`: of many classes."""
    least, second = sorted(score for name, score in scores.items() if name != "noise" or not many)[:2]
    return (least >= COMMON or second >= IN_TWO) if many else least >= ALL


def _in_places(task: Detector, whole: dict[str, Detections], told: str) -> list[str]:
    """A doubt, or none; RefusedError where what it names is seen, but elsewhere than it is, or where two different
    things have one wrong name: in the carried pictures and where these are put together.
    """
    shown = scenes()
    known = _known(task, shown[0])
    found = [_boxes(task, scene.frame, "the proof pictures together") for scene in shown]
    scores, wrong = in_places(found, shown, known) if known else ({}, 0)
    placed = sum(score > 0 for some in scores.values() for score in some)
    if wrong > placed:
        why = f"it sees {', '.join(known)} {wrong} times where none is, and {placed} times where one is"
        # one class may be meant more narrowly than its name says
        if len(known) == 1:
            return [f"doubtful: {why}"]
        raise RefusedError(f"{why} ({told}): wrong family, size or layout in its manifest, or a broken conversion")
    alone = [(whole[name], whole_scene(name)) for name in PICTURES]
    for name, things in _called([*alone, *zip(found, shown, strict=True)], known).items():
        if len(things) > 1:
            raise RefusedError(
                f"it calls {' and '.join(sorted(things))} {name} ({told}): a broken conversion, or damaged"
            )
    return []


def _known(task: Detector, scene: Scene) -> list[str]:
    """The things in a scene that it has a name for."""
    named = {thing_of(name) for name in task.names.values()}
    return [thing for thing, _ in scene.things if thing in named]


def _called(shown: list[tuple[Detections, Scene]], known: list[str]) -> dict[str, set[str]]:
    """Wrong name -> the known things that are surely called so."""
    called: dict[str, set[str]] = {}
    for what, scene in shown:
        for thing, where in scene.things:
            score, name = there(what, where)
            if thing in known and score >= SURE and thing_of(name) != thing:
                called.setdefault(name, set()).add(thing)
    return called


def _one_scale(seen: Recorder) -> None:
    """RefusedError when boxes and scores stand in one tensor that was quantized with one scale, which clips the boxes.

    Its coordinates heap up at the ends; seen in the run, so that it is found behind a dequantizing last operator too.
    """
    for name in seen.outputs[0]:
        arrays = [outputs[name] for outputs in seen.outputs if outputs[name].ndim == 3]
        levels = _levels(arrays)
        if levels is None:
            continue
        boxes = np.concatenate([_coordinates(array).ravel() for array in arrays])
        low, high, step = float(levels[0]), float(levels[-1]), float(np.diff(levels).min())
        clipped = float(((boxes == low) | (boxes == high)).mean())
        scale = f'its output "{name}" has one int8 scale ({step:.3g}) for boxes and scores'
        if clipped > CLIPPED:
            raise RefusedError(
                f"{scale}, so boxes clip: {clipped:.0%} of the coordinates are at {low:.3g} or {high:.3g}; "
                "convert it with the boxes and the scores as two outputs, or with a float output"
            )
        if not any(_others(array).any() for array in arrays):
            raise RefusedError(f"{scale}, so every score becomes 0; convert it with boxes and scores as two outputs")


def _levels(arrays: list[Any]) -> Any:
    """The different numbers in tensors of int8, boxes with scores: at most 256, all of them whole multiples of one
    step; else None.
    """
    if not arrays or min(arrays[0].shape[1:]) < 6:
        return None
    levels = np.unique(np.concatenate([np.unique(array) for array in arrays]))
    if not 2 <= len(levels) <= 256:
        return None
    places = (levels - levels[0]) / float(np.diff(levels).min())
    return None if places[-1] > 255.5 or np.abs(places - places.round()).max() > 0.01 else levels


def _coordinates(array: Any) -> Any:
    """The four box numbers of each point: the shorter of the two axes holds what is said about a point."""
    return array[:, :, :4] if array.shape[2] < array.shape[1] else array[:, :4]


def _others(array: Any) -> Any:
    return array[:, :, 4:] if array.shape[2] < array.shape[1] else array[:, 4:]


def _placed(boxes: list[Any], model: Served) -> None:
    """RefusedError when the boxes found cannot be meant: off the picture, of no size, or one and the same."""
    assert model.input is not None
    wide, high = model.input.width, model.input.height
    xyxy = np.concatenate(boxes)
    if len(xyxy) < 2:
        return
    centre, size = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
    off = ((centre < 0) | (centre > (wide, high))).any(axis=1).mean()
    flat = (size < 0.5).any(axis=1).mean()
    if off > 0.5:
        raise RefusedError(
            f"{off:.0%} of the {len(xyxy)} boxes in the proof pictures lie outside: wrong family or size"
        )
    if flat > 0.5:
        raise RefusedError(f"{flat:.0%} of the {len(xyxy)} boxes in the proof pictures have no area: wrong family")
    if len(xyxy) >= 10 and len(np.unique(xyxy.round(), axis=0)) == 1:
        raise RefusedError(f"all {len(xyxy)} boxes in the proof pictures are the same one")
