"""What a reading of a detector is worth: the scores of what it finds where it is."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.families.candidates import Candidates
from edge_agent.families.table import shares
from edge_agent.inspect.worth import Worth
from edge_agent.manifest import Served
from edge_agent.samples.carried import Scene, thing_of
from edge_agent.tasks.detect.detect import Detector, detect
from edge_agent.tasks.detect.places import FIRST, in_places, iou
from edge_agent.types import Detections, Finding, Frame
from edge_agent.uri import Uri

MOVED = 0.75
"""IoU with itself of a box that moves with its picture"""
SIGHTINGS = 2
"""finds in their places that one chance does not explain"""
LEAST_SIDE = 0.03
"""of the picture: a box with a shorter side is no find of a head whose classes are not known"""
MANY = 100
"""boxes in one picture beyond which they are noise"""
TURNED = 0.02
"""share of boxes that end before they begin from which on their numbers mean something else"""
FLAT = 0.01
"""pixels"""
AWAY = 0.2
"""share of boxes that reach far out of the picture from which on their numbers mean something else"""


def of_detections(model: Served, proofs: list[Scene]) -> Worth:
    """The scores of what is found where it is, in the mean of the pictures; -1 for numbers that cannot be meant so.

    Where the classes have names and a thing in the pictures is among them, the best box of that name has to be in the
    thing's place; otherwise one of the best boxes of whatever class. In a picture of which nothing is known, a box has
    to move with the picture. What is nowhere in its place is a find of little worth: the best box that lies in the
    picture and is neither tiny nor one of very many.
    """
    task = detect(Uri("detect", "candidate", {"score": "0.1"}), model, Path())
    assert isinstance(task, Detector)
    found = [_found(task, scene.frame) for scene in proofs]
    if not proofs[0].things[0][0]:
        return _moving(found, proofs)
    names = {thing for name in model.manifest.names().values() if (thing := thing_of(name))}
    return _placed(found, proofs, [thing for thing, _ in proofs[0].things if thing in names])


def _found(task: Detector, frame: Frame) -> Detections:
    """What is found in a picture. RefusedError for what cannot be meant so."""
    _possible(task, frame)
    (finding,) = task(frame)
    assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
    return finding.what


def _placed(found: list[Detections], proofs: list[Scene], known: list[str]) -> Worth:
    """Of pictures with `known` things in known places."""
    scores, wrong = in_places(found, proofs, known)
    sightings = sum(score > 0 for score in chain.from_iterable(scores.values()))
    said = ", ".join(f"{name} {max(some):.2f}" for name, some in scores.items() if max(some) > 0)
    if sightings >= SIGHTINGS and wrong < sightings:
        each = {name: sum(some) for name, some in scores.items()}
        return Worth(sum(each.values()) / len(proofs), said, True, each=each)
    if known:
        return Worth(0.0, f"{said} and {wrong} in wrong places" if said or wrong else "finds nothing")
    return _anywhere(found, proofs)


def _anywhere(found: list[Detections], proofs: list[Scene]) -> Worth:
    """Of pictures in which nothing is known."""
    score, name = max(_any(what, scene.frame) for what, scene in zip(found, proofs, strict=True))
    return Worth(score, f"{name} {score:.2f}" if name else "finds nothing")


def _possible(task: Detector, frame: Frame) -> None:
    """RefusedError where what it says of the picture, whatever the score, cannot be meant as the family reads it."""
    tensor, _ = task.prepare(frame.image)
    outputs = task.model.net.run({task.model.net.inputs[0].name: tensor})
    _possible_scores(task, outputs)
    _possible_boxes(task, task.family.decode(outputs, task.head, 1e-9))


def _possible_scores(task: Detector, outputs: dict[str, Any]) -> None:
    these = shares(outputs, task.family, task.head)
    if these is None:
        return
    low, high = float(these.min(initial=0)), float(these.max(initial=0))
    if low < -0.01 or high > 1.1:
        raise RefusedError(f"what should be scores runs from {low:.3g} to {high:.3g}")
    whole = (these == np.rint(these)).all(axis=0) & (these.max(axis=0, initial=0) >= 1)
    if task.family.before and whole[task.family.before - 4 :].any():
        raise RefusedError("what should be scores of a class are whole numbers")


def _possible_boxes(task: Detector, every: Candidates) -> None:
    if not len(every.score):
        return
    size = every.xyxy[:, 2:] - every.xyxy[:, :2]
    if (turned := float((size < 0).any(axis=1).mean())) > TURNED:
        raise RefusedError(f"{turned:.0%} of its boxes end before they begin")
    if (flat := float((size < FLAT).any(axis=1).mean())) > 0.5:
        raise RefusedError(f"{flat:.0%} of its boxes have no area")
    canvas = np.array([task.head.width, task.head.height], np.float32)
    off = ((every.xyxy[:, :2] < -canvas / 4) | (every.xyxy[:, 2:] > canvas * 5 / 4)).any(axis=1)
    if (away := float(off.mean())) > AWAY and not task.family.nms:
        raise RefusedError(f"{away:.0%} of its boxes reach far out of the picture")


def _moving(found: list[Detections], proofs: list[Scene]) -> Worth:
    """The scores of the best boxes that move with their picture, where most do; pairs of it stand in `proofs`."""
    total, names, placed = 0.0, [], False
    for at in range(0, len(found), 2):
        one, other = found[at], found[at + 1]
        shift = proofs[at + 1].things[0][1] - proofs[at].things[0][1]
        met = [
            any(
                key == label and iou(box + shift, again) >= max(MOVED, iou(box, again))
                for again, key in zip(other.xyxy[:MANY], other.label[:MANY], strict=True)
            )
            for box, label in list(zip(one.xyxy, one.label, strict=True))[:FIRST]
        ]
        if 2 * sum(met) > len(met):
            best, placed = met.index(True), True
            score, name = float(one.score[best]), one.names[int(one.label[best])]
        else:
            score, name = _any(one, proofs[at].frame)
        total += score
        names += [f"{name} {score:.2f}"] if name else []
    return Worth(total, ", ".join(names) or "finds nothing", placed)


def _any(what: Detections, frame: Frame) -> tuple[float, str]:
    """Score and name of the best box that may be something; (0, "") when there is none."""
    least, most = LEAST_SIDE * np.array([frame.width, frame.height]), 0.98 * np.array([frame.width, frame.height])
    for box, score, label in zip(what.xyxy, what.score, what.label, strict=True):
        size = box[2:] - box[:2]
        if len(what) <= MANY and (size >= least).all() and (size <= most).any():
            return float(score), what.names[int(label)]
    return 0.0, ""
