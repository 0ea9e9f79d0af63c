"""What a reading of a bare file is worth: it is tried on proof pictures or sentences, in the child of gate/ask.py.

Inspection (inspect/) asks this where the file leaves open which family, scale or channel order is meant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.errors import InputError, ManifestError, ModelError, RefusedError
from edge_agent.gate.worth_of_boxes import of_detections
from edge_agent.inspect.worth import TryReading, Worth
from edge_agent.manifest import File, Manifest, Seen, Served
from edge_agent.pictures.boxes import preparer
from edge_agent.pictures.read import read_picture
from edge_agent.samples.carried import SENTENCES, Scene, frames, scenes
from edge_agent.tasks.anomaly.anomaly import rebuilder
from edge_agent.tasks.recognise.recognise import probabilities
from edge_agent.tasks.text.encoder import encoder, words_of
from edge_agent.tasks.text.reader import made
from edge_agent.tasks.text.texthead import text_head
from edge_agent.types import Frame, ModelRef, Net, Pixels, Tensors

ROOM = 4 / 3
"""how much larger a picture is made for the same one to stand in two corners of it"""


def looker(pictures: Sequence[Path] = ()) -> TryReading:
    """A `TryReading` on the carried pictures, or on those of the user. InputError for one that is none."""
    given = [read_picture(path) for path in pictures]
    proofs = [scene for frame in given for scene in _corners_of(frame)] or scenes()
    last: list[Net] = []

    def look(net: Net, seen: Seen, parts: Mapping[str, Path]) -> Worth:
        if last[:1] != [net]:
            last[:] = [net, _remembering(net)]
        model = served_as(last[1] if seen.task == "detect" else net, seen, parts)
        if seen.text is not None:
            try:
                words_of(model)
            except ManifestError as error:
                raise RefusedError(str(error)) from None
        try:
            if seen.task in ("classify", "tag"):
                text_head(model)
                return Worth(1.0, "")
            if seen.task in ("fill", "follows", "answer"):
                made(model, None)
                return Worth(1.0, "")
            if seen.task == "encode":
                return _sentences(model)
            if seen.task == "detect":
                return of_detections(model, proofs)
            whole = [frame for name, frame in frames().items() if name != "noise"] + given
            return (_classes if seen.task == "recognise" else _rebuilt)(model, whole)
        except ModelError as error:
            return Worth(-1.0, _short(error))
        except InputError as error:
            return Worth(0.0, _short(error))

    return look


def _short(error: Exception) -> str:
    return " ".join(str(error).removeprefix("candidate: ").removeprefix("scene: ").replace("; ", ", ").split())[:120]


def _remembering(net: Net) -> Net:
    """The same network, which runs once on what it is given again: many readings differ in what is made of its outputs
    alone.
    """
    runs: dict[bytes, dict[str, Any]] = {}

    def run(tensors: Tensors) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        for array in tensors.values():
            digest.update(np.ascontiguousarray(array).data)
        key = digest.digest()
        if key not in runs:
            runs[key] = {name: np.array(array) for name, array in net.run(tensors).items()}
        return runs[key]

    return msgspec.structs.replace(net, run=run)


def _corners_of(frame: Frame) -> list[Scene]:
    """The picture in two corners of a larger one, its most usual colour around it.

    Beside each other and not across: a box whose axes are turned moves the other way.
    """
    high, wide = frame.image.shape[:2]
    size = (round(high * ROOM), round(wide * ROOM))
    found = []
    for left in (0, size[1] - wide):
        image = np.empty((*size, 3), np.uint8)
        image[:] = np.median(frame.image, axis=(0, 1))
        image[:high, left : left + wide] = frame.image
        found.append(Scene(Frame(image, 0.0, 0.0, "proof"), (("", np.array([left, 0] * 2, np.float32)),)))
    return found


def served_as(net: Net, seen: Seen, parts: Mapping[str, Path]) -> Served:
    """The network as it would be served if it were what `seen` says."""
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
    # where on the canvas the picture stands is no question here: boxes are brought back from wherever it does
    how = seen.input
    if how is not None and seen.task == "detect":
        how = msgspec.structs.replace(how, letterbox="center")
    return Served(manifest, ModelRef("candidate", "0", blank), net, parts, how, "tried")


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────


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


def _classes(model: Served, frames: list[Frame]) -> Worth:
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
    alike = len({int(row[0].argmax()) for row in shares}) == 1
    return Worth(worth, f"{worth:.0%} owed to the picture ({', '.join(seen)})", alike=alike)


def _rebuilt(model: Served, frames: list[Frame]) -> Worth:
    """How much of the pictures an autoencoder gives back: 1 - error / variance of what goes in, at least 0."""
    assert model.input is not None
    rebuild = rebuilder(model)
    prepare = preparer(model.input, rebuild.source)
    left = []
    for frame in frames:
        tensor, _ = prepare(frame.image)
        left.append(rebuild.picture(tensor) / max(float(rebuild.real(tensor).var()), 1e-12))
    worth = max(0.0, 1 - float(np.mean(left)))
    return Worth(worth, f"{worth:.0%} of the picture comes back")


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────


def _sentences(model: Served) -> Worth:
    """How much closer, as a cosine, sentences of one meaning are than others, in standard deviations of the others.

    The spread makes poolings comparable whose cosines crowd together.
    """
    vectors = encoder(model).embed_many([sentence for pair in SENTENCES for sentence in pair]).astype(np.float64)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    alike = [cosine[i, i + 1] for i in range(0, len(unit), 2)]
    apart = [cosine[i, j] for i, j in combinations(range(len(unit)), 2) if i // 2 != j // 2]
    worth = (np.mean(alike) - np.mean(apart)) / max(float(np.std(apart)), 1e-6)
    return Worth(float(worth), f"cosine {np.mean(alike):.2f} for one meaning and {np.mean(apart):.2f} for others")
