"""The candidates: fitted to what is normal, their limit set by held samples, measured on the rest."""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edge_agent.backends import open_net
from edge_agent.figures.scores import Doubles, auroc
from edge_agent.paths import carried
from edge_agent.pictures.read import cv2
from edge_agent.tasks.anomaly.learned import Calibration, parts_of
from edge_agent.types import Floats, Net
from edge_agent.workshop.train.anomaly import nets
from edge_agent.workshop.train.anomaly.data import Data
from edge_agent.workshop.train.finish import Rows

BANK, CELLS, PICTURES = 500, 6000, 150
"""normal cells that others are compared with, those that they are chosen of, and pictures that these are of"""
DETECTOR = "edge-yolo"
"""whose features are compared: it is always here"""
Say = Callable[[str], None]


@dataclass
class Candidate:
    """One of METHODS, fitted."""

    name: str
    model: onnx.ModelProto
    decoder: onnx.ModelProto | None = None
    curve: Rows = ()
    score: str = "reconstruction"
    variance: float = 1.0
    normals: tuple[float, ...] = ()
    limit: float = 0.0
    chosen_by: float = 0.0
    """AUROC on the half of the samples that candidates are chosen by"""
    auroc: float = 0.0
    """on the other half"""
    caught: float = 0.0
    false: float = 0.0
    """shares of unusual and of usual samples above the limit"""
    ms: float = 0.0
    by_kind: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Lesson:
    """The samples, and which are for what."""

    data: Data
    fit: Any
    held: Any
    test: Any
    """numbers of the normal ones to fit to, to set the limit by, and to report"""
    odd: Floats
    what: Sequence[str]
    """the unusual samples, and what each of them is"""
    rate: float

    @property
    def real(self) -> bool:
        """Whether the unusual ones are labelled ones, and not made up."""
        return len(self.data.odd) > 0


def fitted(name: str, lesson: Lesson, args: argparse.Namespace, say: Say) -> Candidate | None:
    """One of METHODS, on the samples to fit to; None where it is none for them, or cannot be had here."""
    normal, shape = lesson.data.normal[lesson.fit], lesson.data.normal.shape[1:]
    if name in ("mean", "pca"):
        weights = nets.principal(normal, 1 if name == "mean" else min(args.code, len(normal) - 1))
        if name == "mean":
            weights |= {key: 0 * weights[key] for key in ("axes", "axes.bias")}
        return Candidate(name, nets.linear(weights, shape))
    if name == "patches":
        return _patches(lesson, args.seed) if lesson.data.whole else None
    if importlib.util.find_spec("torch") is None:
        say('without the autoencoder: pip install "edge-agent-runtime[train]"')
        return None
    of_series = lesson.data.kind == "series"
    mean, spread = (float(normal.mean()), float(normal.std()) or 1.0) if of_series else (0.0, 1.0)
    from edge_agent.workshop.train.anomaly import vae

    trained, curve = vae.train(normal, args.code, args.minutes, args.seed, say, mean, spread)
    return Candidate(name, *vae.to_onnx(trained), curve)


def _patches(lesson: Lesson, seed: int) -> Candidate:
    """The features of normal cells, and of these a choice that lies far apart (k-center, greedily)."""
    detector = onnx.load(str(carried("models") / DETECTOR / "model.onnx"))
    net = loaded(nets.patches(detector, None))
    shown = lesson.fit[:: max(1, len(lesson.fit) // PICTURES)]
    rows = np.concatenate([net.run({"images": whole(lesson.data.whole[i])})["features"] for i in shown])
    rows = rows[np.random.default_rng(seed).permutation(len(rows))[:CELLS]]
    picked, least = [0], np.square(rows - rows[0]).sum(1)
    while len(picked) < min(BANK, len(rows)):
        picked.append(int(least.argmax()))
        least = np.minimum(least, np.square(rows - rows[picked[-1]]).sum(1))
    return Candidate("patches", nets.patches(detector, rows[picked]), score="distance")


def whole(image: Any) -> Any:
    """(224, 288, 3) uint8 BGR as the detector takes it."""
    return image.transpose(2, 0, 1)[None].astype(np.float32)


def _enlarged(x: Floats) -> Any:
    """A small picture as a large one: made-up changes are made on small ones, so all are compared there."""
    image = (x[::-1].transpose(1, 2, 0) * 255).astype(np.uint8)
    return cv2.resize(image, (288, 224), interpolation=cv2.INTER_LINEAR)


def loaded(model: onnx.ModelProto) -> Net:
    """The network, to run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "candidate.onnx"
        onnx.save(model, str(file))
        return open_net(file, "onnx", 1)


def _inputs(one: Candidate, lesson: Lesson, which: Any) -> list[Any]:
    """What goes into the network: of the normal samples `which`, or of the unusual ones where that is None."""
    data = lesson.data
    small = lesson.odd if which is None else data.normal[which]
    if one.name != "patches":
        return [x[None] for x in small]
    if not lesson.real:
        return [whole(_enlarged(x)) for x in small]
    numbers = range(len(data.normal), len(data.whole)) if which is None else which
    return [whole(data.whole[i]) for i in numbers]


def _scores(one: Candidate, lesson: Lesson, net: Net, given: list[Any]) -> dict[str, Doubles]:
    """Each part of the score of each sample."""
    unit = Calibration(lesson.data.kind, "reconstruction", one.variance, [0.0], 1.0, 0.0)
    rows = [parts_of(x.astype(np.float64), net.run({net.inputs[0].name: x}), unit)[0] for x in given]
    return {part: np.array([row[part] for row in rows], np.float64) for part in rows[0]}


def measure(one: Candidate, lesson: Lesson) -> None:
    """Set its limit by the held samples, and measure how well it tells the odd ones from those to report."""
    net, held = loaded(one.model), _inputs(one, lesson, lesson.held)
    began = time.perf_counter()
    calm = _scores(one, lesson, net, held)
    one.ms = (time.perf_counter() - began) / len(held) * 1e3
    if one.score != "distance":
        one.variance = max(float(calm["reconstruction"].mean()) * 2, 1e-12)
        calm = _scores(one, lesson, net, held)
    usual = _scores(one, lesson, net, _inputs(one, lesson, lesson.test))
    odd = _scores(one, lesson, net, _inputs(one, lesson, None))
    one.score = max(usual, key=lambda part: auroc(odd[part][::2], usual[part][::2]))
    mine, theirs, normals = usual[one.score], odd[one.score], np.sort(calm[one.score])
    one.chosen_by, one.auroc = auroc(theirs[::2], mine[::2]), auroc(theirs[1::2], mine[1::2])
    at = int(np.ceil((len(normals) + 1) * (1 - lesson.rate))) - 1
    one.normals, one.limit = tuple(normals.tolist()), float(normals[min(len(normals) - 1, at)])
    one.caught, one.false = float((theirs > one.limit).mean()), float((mine > one.limit).mean())
    kinds = np.array(lesson.what)
    one.by_kind = {kind: auroc(theirs[kinds == kind], mine) for kind in dict.fromkeys(lesson.what)}
