"""A candidate reading of a bare file is tried on proof pictures or sentences: what is it worth?

Inspection (registry/inspect.py) asks this where the file leaves open which family, scale or channel order is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from edge_agent.errors import InputError, ManifestError, ModelError, RefusedError
from edge_agent.manifest import File, Input, Manifest, Served
from edge_agent.registry import carried
from edge_agent.registry.inspect import Look, Seen
from edge_agent.shown import SENTENCES
from edge_agent.sources.pictures import read_picture
from edge_agent.tasks.anomaly import rebuilder
from edge_agent.tasks.boxes import letterbox, preparer
from edge_agent.tasks.detect import detect
from edge_agent.tasks.encoder import encoder, words_of
from edge_agent.tasks.recognise import probabilities
from edge_agent.tasks.texthead import text_head
from edge_agent.types import Detections, Finding, Floats, Frame, ModelRef, Net, Pixels, Uri

PROOFS: dict[str, tuple[str, tuple[float, float, float, float]]] = {
    "astronaut.png": ("person", (0.02, 0.0, 0.95, 1.0)),
    "chelsea.png": ("cat", (0.0, 0.0, 1.0, 1.0)),
    "coffee.png": ("cup", (0.29, 0.04, 0.68, 0.77)),
}
"""of deploy/demo: what is in it, and where as left, top, right, bottom in 0..1"""
TILE = 320
"""pixels of a side of the tile that each of them gets in the one proof picture"""
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
    given = [Proof(read_picture(path)) for path in pictures]
    proofs = given or [mosaic()]

    def look(net: Net, seen: Seen, parts: Mapping[str, Path]) -> tuple[float, str]:
        model = _served(net, seen, parts)
        if seen.text is not None:
            try:
                words_of(model)
            except ManifestError as error:
                raise RefusedError(str(error)) from None
        try:
            if seen.task in ("classify", "tag"):
                text_head(model)
                return 1.0, ""
            if seen.task == "encode":
                return _sentences(model)
            if seen.task == "detect":
                return _pictures(model, proofs)
            whole = [read_picture(carried("deploy", "demo", name)) for name in PROOFS] + [one.frame for one in given]
            return (_classes if seen.task == "recognise" else _rebuilt)(model, whole)
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
        task=seen.task,  # type: ignore[arg-type]
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


def _views(image: Pixels) -> Iterator[Pixels]:
    """A picture and what is plainly the same: mirrored, darkened, its border cut off."""
    high, wide = image.shape[0] // 20, image.shape[1] // 20
    inner = image[high:-high, wide:-wide] if high and wide else image
    for view in (
        image,
        image[:, ::-1],
        (image * 0.7).astype(np.uint8),
        inner,
        inner[:, ::-1],
        image[2 * high :, wide:],
    ):
        yield np.ascontiguousarray(view)


def _classes(model: Served, frames: list[Frame]) -> tuple[float, str]:
    """How much of what a classifier says is owed to the picture, and not to how it was turned or lit, in 0..1.

    Share of the variance of the log probabilities that lies between pictures (eta squared): a network that sees what
    it was trained on is indifferent to a mirror, whatever it answers. Being sure is no sign: a too bright input makes
    every network sure.
    """
    assert model.input is not None
    prepare, net = preparer(model.input, model.net.inputs[0]), model.net
    labels = [str(label) for label in model.manifest.labels]
    rows = []
    for frame in frames:
        outputs = [net.run({net.inputs[0].name: prepare(view)[0]}) for view in _views(frame.image)]
        rows.append([probabilities(given, model.manifest.family, len(labels)) for given in outputs])
    shares = np.array(rows, np.float64)
    logs = np.log(np.maximum(shares, 1e-6))
    logs -= logs.mean(axis=2, keepdims=True)
    within = np.square(logs - logs.mean(axis=1, keepdims=True)).mean()
    total = np.square(logs - logs.mean(axis=(0, 1))).mean()
    worth = float(1 - within / total) if total > 1e-9 else 0.0
    seen = [f"{labels[int(row[0].argmax())]} {row[0].max():.2f}" for row in shares[:3]]
    return worth, f"{worth:.0%} owed to the picture ({', '.join(seen)})"


def _rebuilt(model: Served, frames: list[Frame]) -> tuple[float, str]:
    """How much of the pictures an autoencoder gives back: 1 - error / variance of what goes in, at least 0."""
    assert model.input is not None
    rebuild = rebuilder(model)
    prepare = preparer(model.input, rebuild.source)
    left = []
    for frame in frames:
        tensor, _ = prepare(frame.image)
        left.append(rebuild.picture(tensor) / max(float(rebuild.real(tensor).var()), 1e-12))
    worth = max(0.0, 1 - float(np.mean(left)))
    return worth, f"{worth:.0%} of the picture comes back"


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
