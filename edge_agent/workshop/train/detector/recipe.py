"""`edge-agent train detector`: an edge-yolo for your own pictures, taught by a bigger detector or by labels."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_agent import paths
from edge_agent.errors import InputError, UsageError
from edge_agent.gate import read
from edge_agent.pictures.read import cv2
from edge_agent.registry import catalogue, files
from edge_agent.workshop.train import checkpoint
from edge_agent.workshop.train.bert.net import half_pays
from edge_agent.workshop.train.detector.augment import Picture, Size, plain
from edge_agent.workshop.train.detector.data import labelled_by, read_pictures
from edge_agent.workshop.train.detector.export import tensors_of, write_model
from edge_agent.workshop.train.detector.fit import BEST, CURVE, STATE, Trainer, TrainRecipe, fit
from edge_agent.workshop.train.detector.net import EdgeYolo, from_folded, narrowed, new_net
from edge_agent.workshop.train.detector.prune import start_from
from edge_agent.workshop.train.detector.teacher import YoloxTeacher, is_yolox

Say = Callable[[str], None]
CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "bus", "truck", "traffic light", "bird", "cat", "dog"),
    *("bottle", "cup", "bowl", "chair", "couch", "potted plant", "dining table", "tv", "laptop", "book"),
)
"""what edge-yolo tells apart, unless --classes says otherwise; COCO's names"""
OWN = "edge-yolo"
Start = tuple[dict[str, Any], tuple[str, ...]]
"""tensors and class names of an edge-yolo that a training begins with"""
SIZE = (288, 224)
"""width and height, as the pictures of most cameras are"""
SIDE = 416
"""pixels; pictures are kept in memory at this size, above what the network sees, so that crops have detail"""
MOST_OFTEN = 5
"""times more than once that a crowded picture is shown"""
CALIBRATION = 128
"""pictures on which the int8 ranges are taken"""


def run(args: argparse.Namespace, say: Say) -> int:
    """Train and write the model folder; 0 when it stands in `args.out`."""
    try:
        first, last = (float(v) for v in args.part.split(":"))
    except ValueError:
        raise UsageError(f"--part {args.part} is not two shares as 0:0.5") from None
    classes = tuple(c.strip() for c in args.classes.split(",")) if args.classes else None
    train_detector(
        args.data,
        args.out,
        args.teacher or (None if args.labels or args.data.suffix == ".json" else "yolox-nano"),
        part=(first, last),
        labels=args.labels,
        start=args.start,
        width=args.width,
        classes=classes,
        minutes=args.minutes,
        resume=args.resume,
        size=_size(args.size),
        batch=args.batch,
        rate=args.rate,
        seed=args.seed,
        device=args.device,
        say=say,
    )
    return 0


def train_detector(
    data: Path,
    out: Path,
    teacher: str | None,
    *,
    part: tuple[float, float] = (0.0, 1.0),
    labels: Path | None = None,
    start: str | None = None,
    width: float = 1.0,
    classes: tuple[str, ...] | None = None,
    minutes: float | None = 60.0,
    steps: int | None = None,
    resume: bool = False,
    size: Size = SIZE,
    batch: int = 8,
    rate: float | None = None,
    seed: int = 0,
    device: str | None = None,
    say: Say,
) -> EdgeYolo:
    """Train an edge-yolo on `data` for `minutes` or `steps` and write its model folder `out`.

    `teacher`: any detector's name, folder or file; a YOLOX .onnx teaches by each of its cells, others by the boxes that
    they find; None: labels alone, of a COCO JSON as `data`, or as `labels` for pictures of a folder. `start`: an
    edge-yolo, "teacher" (a YOLOX's weights), "none", or None for our own; `width`: the share of YOLOX-nano's channels,
    for a start from the teacher or from none. Checkpoints go to `out`/training.
    Returns the network, normalisation folded in. Raises UsageError, InputError or ModelError for what cannot be.
    """
    _check(data, part, minutes, steps, size, batch, rate)
    torch.manual_seed(seed)
    cv2.setNumThreads(1)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    begin = _start(start, classes)
    classes = _known(classes or (begin[1] if begin else CLASSES))
    dense = _dense_teacher(teacher, classes)
    pictures = read_pictures(data, classes, max(SIDE, *size), say, part, labels)
    say(f"{len(pictures)} pictures, {sum(len(p.boxes) for p in pictures)} labels, {len(classes)} classes, on {place}")
    pictures = _taught(pictures, teacher, dense is not None, classes, data, say)
    held, pool, often = _shared_out(pictures, seed)
    keep = _rows(dense[1], classes) if dense else []
    net = _network(start, begin, classes, narrowed(width), dense, keep, pool, size, seed, say)
    recipe = TrainRecipe(
        size=size,
        seconds=minutes * 60 if minutes is not None else None,
        steps=steps,
        batch=batch,
        rate=rate if rate is not None else _usual_rate(start, begin),
        seed=seed,
        half=half_pays(place.type),
    )
    trainer = Trainer(net, dense[0] if dense else None, keep, recipe, place, pool)
    work = out / "training"
    if resume:
        trainer.restore(checkpoint.load_parts(work, STATE))
        say(f"resumed at step {trainer.step}")
    trained = fit(trainer, often, held, work, say, classes)
    tensors = {name: value.numpy() for name, value in trained.state_dict().items()}
    write_model(tensors, classes, size, pool[:CALIBRATION], out, say, name=out.resolve().name)
    draw(work / CURVE, out / "curves.png", f"{out.resolve().name}: {trainer.step} steps of {batch} pictures")
    say(f"the best weights are also in {work / BEST}; curves in {out / 'curves.png'}")
    return trained


def _taught(
    pictures: list[Picture], teacher: str | None, dense: bool, classes: tuple[str, ...], data: Path, say: Say
) -> list[Picture]:
    """The pictures with what the teacher finds in them, too. InputError where there is nothing to learn.

    A dense teacher sees each step's pictures at the student's size; at its own it finds smaller things too.
    """
    if teacher:
        pictures = labelled_by(teacher, pictures, classes, 0.3 if dense else 0.2, say)
    if not dense and not any(len(p.boxes) for p in pictures):
        raise InputError(f"nothing to learn in {data}: no labels, and no teacher that finds {', '.join(classes)} there")
    return pictures


def _known(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Themselves. UsageError where they cannot be the names of classes."""
    if len(set(classes)) != len(classes) or not all(classes):
        raise UsageError(f"--classes names one twice, or an empty one: {', '.join(classes)}")
    return classes


def _shared_out(pictures: list[Picture], seed: int) -> tuple[list[Picture], list[Picture], list[Picture]]:
    """Those kept apart, those to learn from, and these as often as they are shown."""
    order = np.random.default_rng(seed).permutation(len(pictures))
    apart = min(96, len(pictures) // 10)
    held, pool = [pictures[i] for i in order[:apart]], [pictures[i] for i in order[apart:]]
    # a picture is shown the more often the more there is in it: one of a single thing on a bare ground teaches little
    return held, pool, [p for p in pool for _ in range(1 + min(len(p.boxes), MOST_OFTEN))]


def _usual_rate(start: str | None, begin: Start | None) -> float:
    """What has worked: with normalisation (a fresh network) a high rate, without it a low one."""
    if start == "teacher":
        return 3e-4
    return 1e-4 if begin else 2e-3


def draw(curve: Path, picture: Path, title: str) -> None:
    """The losses of a training as a picture."""
    rows = checkpoint.read_curve(curve)
    names = [n for n in ("class", "box", "feature", "held_class", "held_box") if any(np.isfinite(r[n]) for r in rows)]
    series = {n: [(row["pictures"], row[n]) for row in rows] for n in names}
    checkpoint.draw_curves(picture, series, title, "pictures")


def _size(text: str) -> Size:
    """320 or 288x224 -> width and height. Raises UsageError."""
    wide, _, high = text.partition("x")
    try:
        return int(wide), int(high or wide)
    except ValueError:
        raise UsageError(f"--size {text} is neither one side as 320 nor width x height as 288x224") from None


def _check(
    data: Path,
    part: tuple[float, float],
    minutes: float | None,
    steps: int | None,
    size: Size,
    batch: int,
    rate: float | None,
) -> None:
    """Refuse options that cannot be, before anything is read."""
    puzzles = (
        (
            not 0 <= part[0] < part[1] <= 1,
            f"--part {part[0]:g}:{part[1]:g} is no share; give two numbers from 0 to 1, as 0:0.5",
        ),
        (steps is None if minutes is None else not 0 < minutes < 1e5, "--minutes must be above 0"),
        (
            any(side % 32 or not 64 <= side <= 1280 for side in size),
            f"--size {size[0]}x{size[1]}: each side must be a multiple of 32 from 64 to 1280",
        ),
        (
            not 1 <= batch <= 4096 or (rate is not None and not 0 < rate < 1),
            "--batch must be 1 or more, --rate above 0 and below 1",
        ),
        (not data.exists(), f"--data {data}: no such file or folder"),
    )
    for holds, why in puzzles:
        if holds:
            raise UsageError(why)


def _start(start: str | None, classes: tuple[str, ...] | None) -> Start | None:
    """Tensors and class names of the edge-yolo to start from; None where there is none to start from."""
    if start in ("none", "teacher"):
        return None
    if start is None and not (paths.carried("models", OWN) / "manifest.toml").is_file():
        return None
    if start is not None and start.endswith(".pt"):
        best = checkpoint.load(Path(start))
        return {name: value.numpy() for name, value in best["tensors"].items()}, tuple(best["classes"])
    located = catalogue.locate(start or OWN, read=read.seen)
    row = next((r for r in located.manifest.file if r.format == "onnx" and r.precision != "int8"), None)
    if row is None:
        raise UsageError(f"--start {start}: no float .onnx there to start from; `--start none` begins from scratch")
    labels = located.manifest.labels
    assert isinstance(labels, list)
    return tensors_of(files.file_path(located, row)), tuple(labels)


def _dense_teacher(teacher: str | None, classes: tuple[str, ...]) -> tuple[YoloxTeacher, list[str]] | None:
    """A teacher whose every cell can be asked, with its class names; None for none and for any other detector.

    Raises UsageError where the teacher does not know one of `classes`.
    """
    if teacher is None:
        return None
    located = catalogue.locate(teacher, pull=True, read=read.seen)
    manifest = located.manifest
    labels = manifest.labels
    if manifest.task != "detect" or not isinstance(labels, list):
        raise UsageError(f"--teacher {teacher} is no detector")
    strange = [c for c in classes if c not in labels]
    if strange:
        known = ", ".join(labels[:12])
        raise UsageError(f"--teacher {teacher} does not know {', '.join(strange)}; it knows {known} …; see --classes")
    for row in manifest.networks():
        if row.format == "onnx":
            path = files.file_path(located, row, pull=True)
            return (YoloxTeacher(path, torch.get_num_threads()), labels) if is_yolox(path) else None
    return None


def _rows(labels: list[str], classes: tuple[str, ...]) -> list[int]:
    return [labels.index(c) for c in classes]


def _network(
    start: str | None,
    begin: Start | None,
    classes: tuple[str, ...],
    widths: tuple[int, ...],
    dense: tuple[YoloxTeacher, list[str]] | None,
    keep: list[int],
    pool: list[Picture],
    size: Size,
    seed: int,
    say: Say,
) -> EdgeYolo:
    """The network as training begins."""
    if begin:
        tensors, names = begin
        fresh = [c for c in classes if c not in names]
        if fresh:
            say(f"classes that the start does not know, learnt anew: {', '.join(fresh)}")
        return from_folded(tensors, len(classes), [names.index(c) if c in names else -1 for c in classes])
    if start == "teacher":
        if dense is None:
            raise UsageError("--start teacher needs a YOLOX .onnx as --teacher")
        shown = [plain(p, size)[0] for p in pool[:192]]
        pictures = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float()
        return start_from(dense[0], keep, widths, pictures, say)
    return new_net(len(classes), widths, seed)
