"""`edge-agent train anomaly`: candidates are fitted to what is normal, and the one that tells best what is not serves.

The mean of all, principal components and a variational autoencoder on any data; on pictures also how far the features
of edge-yolo are from the nearest normal ones. Three parts of the normal samples: to fit, to set the limit (a conformal
quantile, Vovk et al. 2005) and to report; candidates are chosen by half of the reported samples and reported by the
other half.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from edge_agent.errors import RefusedError, UsageError
from edge_agent.manifest import Input, Manifest
from edge_agent.pictures.draw import save_jpeg
from edge_agent.pictures.read import cv2
from edge_agent.registry.catalogue import locate
from edge_agent.tasks.anomaly.learned import Calibration, parts_of
from edge_agent.types import Floats, Pixels
from edge_agent.workshop.imagine import tiled
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.report.report import TableRow
from edge_agent.workshop.train.anomaly.candidates import (
    DETECTOR,
    Candidate,
    Lesson,
    Say,
    fitted,
    loaded,
    measure,
    whole,
)
from edge_agent.workshop.train.anomaly.data import SIDE, WINDOW, read
from edge_agent.workshop.train.anomaly.made import made_up
from edge_agent.workshop.train.exported import small_onnx
from edge_agent.workshop.train.finish import finish, made, manifest, row
from edge_agent.workshop.train.options import METHODS

ODD = 6.0
"""times the range of the middle half above it: a sample to fit to that is left out"""
CHANCE = 0.5
"""AUROC of what tells nothing"""
SHOWN = 6
"""normal samples in the picture, and as many unusual ones"""


def run(args: argparse.Namespace, say: Say) -> int:
    """Fit, compare, write the model folder; 0. UsageError for options or data that cannot be."""
    if not 0 < args.rate < 0.5 or args.code < 1 or args.minutes <= 0:
        raise UsageError("--rate lies between 0 and 0.5, --code and --minutes above 0")
    lesson, notes = _lesson(args)
    for line in notes:
        say(line)
    found = []
    for name in METHODS if args.method == "auto" else (args.method,):
        one = fitted(name, lesson, args, say)
        if one is not None:
            measure(one, lesson)
            found.append(one)
    if not found:
        raise UsageError(f"--method {args.method}: not for {lesson.data.kind}, or PyTorch is missing")
    best = max(found, key=lambda one: one.chosen_by)
    if lesson.data.kind == "series":
        say("beside these: anomaly:series needs no model and tells more of most series (docs/anomaly.md)")
    _write(args, lesson, best, found, notes, say)
    return 0


def _lesson(args: argparse.Namespace) -> tuple[Lesson, list[str]]:
    """The samples and which are for what, and what is to be said of them."""
    data = read(args.data)
    notes = [f"cannot be read: {line}" for line in data.bad[:5]]
    count = len(data.normal)
    order = np.arange(count) if data.film else np.random.default_rng(args.seed).permutation(count)
    fit, held, test = np.split(order, [round(0.6 * count), round(0.8 * count)])
    far = _far(data.normal, fit)
    left = [int(i) for i in [*fit, *held] if far[i]]
    fit, held = fit[~far[fit]], held[~far[held]]
    parts = f"{len(fit)} to fit, {len(held)} for the limit, {len(test)} to report"
    notes.append(f"{count} normal samples of {data.kind}: {parts}")
    if len(left):
        which = ", ".join(map(str, left[:8]))
        notes.append(f"{len(left)} of the normal ones look unusual themselves and are left out: numbers {which}")
    least = 1 / (len(held) + 1)
    if args.rate < least:
        notes.append(f"{len(held)} samples promise a false-alarm rate of {least:.3f} at best, not {args.rate:g}")
    odd, what = data.odd, ["labelled"] * len(data.odd)
    if not len(odd):
        odd, what = made_up(data.kind, data.normal[test], args.seed)
    notes.append(f"held against {len(odd)} unusual samples, {'labelled' if len(data.odd) else 'made up'}")
    return Lesson(data, fit, held, test, odd, what, max(args.rate, least)), notes


def _far(normal: Floats, fit: Any) -> Any:
    """Which samples are far from the median one, as most of those to fit to are not."""
    some = normal.reshape(len(normal), -1).astype(np.float64)
    off = np.abs(some - np.median(some[fit], axis=0)).mean(1)
    low, high = np.quantile(off[fit], (0.25, 0.75))
    return off > high + ODD * max(high - low, 0.02 * high)


def _write(
    args: argparse.Namespace, lesson: Lesson, best: Candidate, found: list[Candidate], notes: list[str], say: Say
) -> None:
    """The model folder `args.out`. RefusedError for a ruin, and where the gate takes none of its files."""
    if not best.auroc > CHANCE:
        raise RefusedError(
            f"{args.out}: ruined: nothing tells unusual samples from normal ones (AUROC {best.auroc:.3f}); no model is "
            "written; give more samples, or others"
        )
    curve = [row for one in found for row in one.curve]
    kinds = ", ".join(f"{kind} {value:.3f}" for kind, value in best.by_kind.items())
    odd = "labelled ones" if lesson.real else "made up by the recipe, so no promise for real ones"
    notes = [
        *notes,
        f"unusual samples: {odd}; AUROC of {best.name} by kind: {kinds}",
        f"above the limit of {best.limit:.4g} lie {lesson.rate:.1%} of normal samples, by {len(best.normals)} that it "
        "was not fitted to",
    ]
    rows = [
        TableRow(
            f"{one.name} ({one.score})",
            one.model.ByteSize(),
            one.auroc,
            one.ms,
            f"catches {one.caught:.0%}, {one.false:.1%} false alarms",
            one is best,
        )
        for one in found
    ]
    measured = "AUROC on the half of the reported samples that the choice was not made by", rows
    method = f"{best.name}, fitted to {len(lesson.fit)} samples of {lesson.data.kind}, seed {args.seed}"
    parent = locate(DETECTOR) if best.name == "patches" else None
    how = made(method, [args.data], parent, {"auroc": best.auroc, "caught": best.caught, "false": best.false})
    finish(args, say, lambda new: _build(new, lesson, best, say), how, curve, notes, measured)


def _build(new: Path, lesson: Lesson, best: Candidate, say: Say) -> Manifest:
    """The files in `new`; the manifest of these."""
    kind = lesson.data.kind
    onnx.save(best.model, str(new / "model.onnx"))
    files = [row("model.onnx", "onnx", "fp32")]
    if why := _int8(best, lesson, new):
        say(f"no int8 form: {why}")
    else:
        files.append(row("model.int8.onnx", "onnx", "int8"))
    if best.decoder is not None:
        onnx.save(best.decoder, str(new / "decoder.onnx"))
        files.append(row("decoder.onnx", "onnx", "fp32", "decoder"))
    window = WINDOW if kind == "series" else 0
    kept = Calibration(kind, best.score, best.variance, list(best.normals), best.limit, lesson.rate, window)  # type: ignore[arg-type]
    (new / "calibration.json").write_bytes(msgspec.json.encode(kept))
    files.append(row("calibration.json", "text", "fp32", "calibration"))
    _picture(new / "results.jpg", lesson, best)
    picture = None
    if best.name == "patches":
        picture = Input(288, 224, channels="BGR", letterbox="stretch", resize="area")
    elif kind == "frames":
        picture = Input(SIDE, SIDE, channels="RGB", scale=1 / 255, letterbox="stretch", resize="area")
    family = best.name if best.name in ("vae", "patches") else "autoencoder"
    says = f"what is usual of {kind}, by {best.name}"
    return manifest("anomaly", "anomaly", family, says, files, input=picture)


def _int8(best: Candidate, lesson: Lesson, out: Path) -> str:
    """Write model.int8.onnx; why not, where there is none to be had."""
    source, shown = best.model.graph.input[0].name, lesson.fit[:: max(1, len(lesson.fit) // 32)]
    of_detector, data = best.name == "patches", lesson.data
    batches = [whole(data.whole[i]) if of_detector else data.normal[i][None] for i in shown]
    try:
        made = small_onnx(best.model, QuantizePlan(), [{source: one} for one in batches])
    except RefusedError as error:
        return str(error)
    (out / "model.int8.onnx").write_bytes(made)
    return ""


def _picture(path: Path, lesson: Lesson, best: Candidate) -> None:
    """Samples beside their heat maps; none of a series."""
    if lesson.data.kind == "series":
        return
    network, tiles = loaded(best.model), list[Pixels]()
    unit = Calibration(lesson.data.kind, "reconstruction", best.variance, [0.0], 1.0, 0.0)
    normal = lesson.data.normal[lesson.test]
    for some in (normal[:: max(1, len(normal) // SHOWN)], lesson.odd[:: max(1, len(lesson.odd) // SHOWN)]):
        for x in some[:SHOWN]:
            small = _shown(x)
            given = whole(cv2.resize(small, (288, 224))) if best.name == "patches" else x[None]
            _, heat = parts_of(given.astype(np.float64), network.run({network.inputs[0].name: given}), unit)
            tiles += [small, _heat(heat, best.limit, small)]
    save_jpeg(tiled(tiles), path)


def _shown(x: Floats) -> Pixels:
    image = (np.clip(x[::-1], 0, 1).transpose(1, 2, 0) * 255).astype(np.uint8)
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    return np.asarray(cv2.resize(image, (128, 128), interpolation=cv2.INTER_NEAREST), np.uint8)


def _heat(heat: Floats, limit: float, under: Pixels) -> Pixels:
    """The picture, red where it is far above the limit."""
    share = np.clip(cv2.resize(heat, (128, 128)) / max(3 * limit, 1e-9), 0, 1)[..., None]
    grey = under.mean(axis=2, keepdims=True) * (1 - share)
    return np.asarray(grey + share * np.array([0, 0, 255]), np.uint8)
