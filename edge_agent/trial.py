"""A candidate reading of a bare file is tried on proof pictures or sentences: what is it worth?

Inspection (registry/inspect.py) asks this where the file leaves open which family, scale or channel order is meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from edge_agent.errors import InputError, ModelError
from edge_agent.manifest import File, Input, Manifest, Served
from edge_agent.registry import carried
from edge_agent.registry.inspect import Look, Seen
from edge_agent.sources.files import read_picture
from edge_agent.tasks.boxes import letterbox
from edge_agent.tasks.detect import detect
from edge_agent.tasks.encoder import encoder
from edge_agent.types import Detections, Finding, Floats, Frame, ModelRef, Net, Uri

PROOFS: dict[str, tuple[str, tuple[float, float, float, float]]] = {
    "astronaut.png": ("person", (0.02, 0.0, 0.95, 1.0)),
    "chelsea.png": ("cat", (0.0, 0.0, 1.0, 1.0)),
    "coffee.png": ("cup", (0.29, 0.04, 0.68, 0.77)),
}
"""of deploy/demo: what is in it, and where as left, top, right, bottom in 0..1"""
TILE = 320
"""pixels of a side of the tile that each of them gets in the one proof picture"""
SENTENCES = (
    ("Switch on the light in the kitchen.", "Turn the kitchen lamp on."),
    ("It is going to rain tomorrow.", "The forecast for tomorrow says rain."),
    ("The dog sleeps on the sofa.", "A dog lies asleep on the couch."),
)
"""pairs that mean the same"""
OVERLAP = 0.5
"""IoU with where the thing is from which on a box is a find"""
LEAST_SIDE = 0.03
"""of the picture: a box with a shorter side is no find of a head whose classes are not known"""
MANY = 100
"""boxes in one picture beyond which they are noise"""


@dataclass(frozen=True, slots=True)
class Proof:
    """A picture, and what is known to be where in it: name and box in its pixels."""

    frame: Frame
    things: tuple[tuple[str, Floats], ...] = ()


def looker(pictures: Sequence[Path] = ()) -> Look:
    """A `Look` for inspection on the carried pictures, or on those of the user. InputError for one that is none."""
    proofs = [Proof(read_picture(path)) for path in pictures] or [mosaic()]

    def look(net: Net, seen: Seen, parts: Mapping[str, Path]) -> tuple[float, str]:
        model = _served(net, seen, parts)
        try:
            return _sentences(model) if seen.task == "encode" else _pictures(model, proofs)
        except (InputError, ModelError) as error:
            return 0.0, " ".join(str(error).replace("; ", ", ").split())[:120]

    return look


def mosaic() -> Proof:
    """The three carried pictures as quarters of one, the last quarter grey.

    A head that is read wrongly gives boxes in the wrong place, or as large as the canvas: in a picture of one thing
    alone these could pass for it.
    """
    image = np.full((2 * TILE, 2 * TILE, 3), 114, np.uint8)
    things: list[tuple[str, Floats]] = []
    for index, (name, (thing, where)) in enumerate(PROOFS.items()):
        picture = read_picture(carried("deploy", "demo", name)).image
        spec = Input(width=TILE, height=TILE, letterbox="center")
        canvas = np.empty((TILE, TILE, 3), np.uint8)
        place = letterbox(picture, spec, canvas)
        top, left = TILE * (index // 2), TILE * (index % 2)
        image[top : top + TILE, left : left + TILE] = canvas
        corner = np.array([left + place.left, top + place.top] * 2, np.float32)
        size = np.array([place.width, place.height] * 2, np.float32)
        things.append((thing, corner + np.array(where, np.float32) * size))
    return Proof(Frame(image, 0.0, 0.0, "proof"), tuple(things))


def _served(net: Net, seen: Seen, parts: Mapping[str, Path]) -> Served:
    blank = "0" * 64
    manifest = Manifest(
        name="candidate",
        version="0",
        task="encode" if seen.task == "encode" else "detect",
        family=seen.family,
        licence="",
        trained_by="",
        file=[File("candidate", "onnx", blank, 0)],
        labels=seen.labels,
        class_ids=seen.class_ids,
        input=seen.input,
        text=seen.text,
    )
    return Served(manifest, ModelRef("candidate", "0", blank), net, parts, seen.input, "tried")


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────


def _pictures(model: Served, proofs: list[Proof]) -> tuple[float, str]:
    """Sum of the scores of the best find of each thing, and what was found.

    Where the classes have names and a thing in the picture is among them, only that thing in its place is a find;
    otherwise the best box of each picture that lies in it and is neither tiny nor one of very many.
    """
    task = detect(Uri("detect", "candidate", {"score": "0.1"}), model, Path())
    names = {name.casefold() for name in model.manifest.names().values()}
    found: list[tuple[float, str]] = []
    for proof in proofs:
        (finding,) = task(proof.frame)
        assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
        known = [thing for thing in proof.things if thing[0] in names]
        found += [_thing(finding.what, *thing) for thing in known] or [_any(finding.what, proof.frame)]
    said = [f"{name} {score:.2f}" for score, name in found if name]
    return sum(score for score, _ in found), ", ".join(said) or "finds nothing"


def _thing(what: Detections, thing: str, where: Floats) -> tuple[float, str]:
    """Score and name of the best box of this name, when it is in its place; (0, "") otherwise.

    Only the best one: wrongly placed boxes are many, and one of them lies anywhere.
    """
    for box, score, label in zip(what.xyxy, what.score, what.label, strict=True):
        if what.names[int(label)].casefold() == thing:
            return (float(score), thing) if _iou(box, where) >= OVERLAP else (0.0, "")
    return 0.0, ""


def _any(what: Detections, frame: Frame) -> tuple[float, str]:
    """Score and name of the best box that may be something; (0, "") when there is none."""
    least, most = LEAST_SIDE * np.array([frame.width, frame.height]), 0.98 * np.array([frame.width, frame.height])
    for box, score, label in zip(what.xyxy, what.score, what.label, strict=True):
        size = box[2:] - box[:2]
        if len(what) <= MANY and (size >= least).all() and (size <= most).any():
            return float(score), what.names[int(label)]
    return 0.0, ""


def _iou(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes left, top, right, bottom."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return shared / max(sum(areas) - shared, 1e-9)


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────


def _sentences(model: Served) -> tuple[float, str]:
    """How much closer, as a cosine, sentences of one meaning are than others, in standard deviations of the others.

    The spread makes poolings comparable whose cosines crowd together.
    """
    vectors = encoder(model).embed_many([sentence for pair in SENTENCES for sentence in pair]).astype(np.float64)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    alike = [cosine[i, i + 1] for i in range(0, len(unit), 2)]
    apart = [cosine[i, j] for i, j in combinations(range(len(unit)), 2) if i // 2 != j // 2]
    worth = (np.mean(alike) - np.mean(apart)) / max(float(np.std(apart)), 1e-6)
    return float(worth), f"cosine {np.mean(alike):.2f} for one meaning and {np.mean(apart):.2f} for others"
