"""Does a variant (int8, fp16, pruned, another runtime) answer as its parent does? Runs in the child of prove.py.

The samples are sealed: the carried pictures, each also mirrored, darkened and cut, or everyday sentences; and what
the device itself recorded under HOME/samples.

Detectors: mAP50 of the variant's boxes against the parent's (those that the parent would report). Encoders: the
correlation of the cosines of all pairs of sentences. Both are 1 for a variant that answers alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from edge_agent.errors import InputError, RefusedError
from edge_agent.figures.coco_map import Found, Truth, average_precision
from edge_agent.figures.scores import pearson, similarities
from edge_agent.manifest import Served
from edge_agent.proof import LOW, SENTENCES, frames, open_served
from edge_agent.prove import Result, Trial, samples
from edge_agent.registry import home
from edge_agent.sources.files import read_picture
from edge_agent.tasks import everyday, make_task
from edge_agent.tasks.encoder import encoder
from edge_agent.types import Detections, Finding, Frame, Pixels, Uri


def agree(trial: Trial) -> Result:
    """How far the first variant agrees with the second. Refused below 1 - max_drop of the manifest."""
    assert trial.manifest is not None
    variant, parent = trial.variants
    one = open_served(trial.manifest, variant, trial.parts, trial.threads)
    other = open_served(trial.parent or trial.manifest, parent, trial.parent_parts, trial.threads)
    compare, measure = _COMPARED[trial.manifest.task]
    agreement, count = compare(one, other)
    figures = {"agreement": agreement, "measure": measure, "samples": count, "parent": parent.file.name}
    figures["max_drop"] = trial.manifest.max_drop
    if np.isnan(agreement):
        note = f"not compared: its parent {parent.file.name} has nothing to say about {count} samples"
        return Result(True, notes=[note], figures={**figures, "agreement": None})
    told = f"{measure} {agreement:.3f} against {parent.file.name} on {count} samples"
    if agreement < 1 - trial.manifest.max_drop:
        least = f"at least {1 - trial.manifest.max_drop:.3f} is asked for"
        return Result(False, f"it does not agree with its parent: {told}, {least}", figures=figures)
    return Result(True, notes=[told], figures=figures)


# ── detectors ────────────────────────────────────────────────────────────────────────────────────────────


def _detectors(one: Served, other: Served) -> tuple[float, int]:
    """mAP50 of `one` with the boxes of `other` as the truth, over the classes that both name; and the pictures."""
    shown = list(_pictures())
    names = {name.casefold(): key for key, name in one.manifest.names().items()}
    shared = {names[name.casefold()]: key for key, name in other.manifest.names().items() if name.casefold() in names}
    if not shared:
        raise RefusedError(f"it has no class in common with its parent {other.manifest.name}")
    theirs = boxes(other, shown, other.manifest.score, {key: key for key in shared.values()})
    truth = Truth(
        theirs.image,
        theirs.label,
        theirs.xywh,
        theirs.xywh[:, 2] * theirs.xywh[:, 3],
        np.zeros(len(theirs.label), bool),
    )
    mine = boxes(one, shown, LOW, shared)
    return average_precision(truth, mine, sorted(set(shared.values()))).figures()["map50"], len(shown)


def _pictures() -> Iterator[Frame]:
    """The samples; a picture that cannot be read is left out."""
    for name, frame in frames().items():
        if name != "noise":
            image = frame.image
            yield frame
            yield _of(image[:, ::-1])
            yield _of((image * 0.6).astype(np.uint8))
            yield _of(image[image.shape[0] // 8 :, image.shape[1] // 8 :])
    for path in samples():
        if path.suffix != ".txt":
            try:
                yield read_picture(path)
            except InputError:
                continue


def _of(image: Pixels) -> Frame:
    return Frame(np.ascontiguousarray(image), time.time(), time.monotonic())


def boxes(model: Served, shown: list[Frame], score: float, ids: dict[int, int]) -> Found:
    """All boxes of the classes in `ids`, under the ids that these are mapped to."""
    task = make_task(Uri("detect", model.ref.name, {"score": str(score)}), lambda _: model, home())
    columns = []
    for number, frame in enumerate(shown):
        (finding,) = task(frame)
        assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
        what = finding.what
        keep = np.isin(what.label, list(ids))
        xywh = np.concatenate([what.xyxy[keep, :2], what.xyxy[keep, 2:] - what.xyxy[keep, :2]], axis=1)
        label = np.array([ids[int(key)] for key in what.label[keep]], np.int64)
        image = np.full(len(label), number, np.int64)
        columns.append(Found(image, label, xywh.astype(np.float64), what.score[keep].astype(np.float64)))
    parts = [(c.image, c.label, c.xywh, c.score) for c in columns]
    return Found(*(np.concatenate(column) for column in zip(*parts, strict=True)))


# ── encoders ─────────────────────────────────────────────────────────────────────────────────────────────


def _encoders(one: Served, other: Served) -> tuple[float, int]:
    """Correlation of the cosines of all pairs of sentences; and the sentences."""
    recorded = [line for path in samples() if path.suffix == ".txt" for line in path.read_text("utf-8").splitlines()]
    sentences = [*everyday.SENTENCES, *(sentence for pair in SENTENCES for sentence in pair)]
    sentences += [line for line in recorded if line.strip()][:1000]
    cosines = []
    for model in (one, other):
        vectors = encoder(model).embed_many(sentences)
        length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        cosines.append(similarities(vectors / length))
    return pearson(cosines[0], cosines[1]), len(sentences)


_COMPARED = {"detect": (_detectors, "mAP50"), "encode": (_encoders, "correlation")}
