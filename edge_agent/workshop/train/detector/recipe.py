"""`edge-agent train detector`: an edge-yolo for your own pictures, taught by a bigger detector or by labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_agent.errors import InputError, ModelError, RefusedError, UsageError
from edge_agent.gate import read
from edge_agent.manifest import Manifest
from edge_agent.pictures.read import cv2
from edge_agent.registry import catalogue, files
from edge_agent.samples import recorded
from edge_agent.workshop.data import formats
from edge_agent.workshop.report.folder import TRAINING
from edge_agent.workshop.train import loop
from edge_agent.workshop.train.bert.net import half_pays
from edge_agent.workshop.train.detector.augment import Picture, Size, plain
from edge_agent.workshop.train.detector.data import labelled_by, read_pictures
from edge_agent.workshop.train.detector.export import tensors_of, write_model
from edge_agent.workshop.train.detector.fit import Trainer, fit
from edge_agent.workshop.train.detector.net import EdgeYolo, from_folded, narrowed, new_net
from edge_agent.workshop.train.detector.start import start_from
from edge_agent.workshop.train.detector.teacher import YoloxTeacher
from edge_agent.workshop.train.finish import Say, finish, made, refuse_ruin

CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "bus", "truck", "traffic light", "bird", "cat", "dog"),
    *("bottle", "cup", "bowl", "chair", "couch", "potted plant", "dining table", "tv", "laptop", "book"),
)
"""what edge-yolo tells apart, unless --classes says otherwise; COCO's names"""
Start = tuple[dict[str, Any], tuple[str, ...]]
"""tensors and class names of an edge-yolo that a training begins with"""
SIDE = 416
"""pixels; pictures are kept in memory at this size, above what the network sees, so that crops have detail"""
MOST_OFTEN = 5
"""times more than once that a crowded picture is shown"""
RATES = {"teacher": 3e-4, "none": 2e-3}
"""what has worked: with normalisation (a fresh network) a high rate, without it a low one"""
CALIBRATION = 128
"""pictures on which the int8 ranges are taken"""


def run(args: argparse.Namespace, say: Say) -> int:
    """Train and write the model folder; 0 when it stands in `args.out`."""
    if (args.data is None) != args.from_samples:
        raise UsageError("say what to learn from: --data or --from-samples")
    try:
        first, last = (float(v) for v in args.part.split(":"))
    except ValueError:
        raise UsageError(f"--part {args.part} is not two shares as 0:0.5") from None
    args.part, args.steps = (first, last), None
    args.classes = tuple(c.strip() for c in args.classes.split(",")) if args.classes else None
    args.data = _samples() if args.from_samples else args.data
    args.teacher = args.teacher or (None if args.labels or formats.find(args.data) else "yolox-nano")
    args.size = _size(args.size)
    train_detector(args, say)
    return 0


def _samples() -> Path:
    """The corrected boxes of this device. UsageError where there are none."""
    found = recorded.labels()
    if found is None:
        how = "edge-agent samples export FOLDER, correct it, then edge-agent samples take FOLDER/instances.json"
        raise UsageError(f"--from-samples: nothing of {recorded.place().parent} was corrected yet: {how}")
    return found


def train_detector(args: argparse.Namespace, say: Say) -> EdgeYolo:
    """Train an edge-yolo and write its model folder. `args`: as `run` reads them.

    Returns the network, normalisation folded in. Raises UsageError, InputError or ModelError for what cannot be.
    """
    _check(args)
    torch.manual_seed(args.seed)
    cv2.setNumThreads(1)
    device = torch.device(loop.device_of(args.device))
    begin = None if args.start in ("none", "teacher") else _start_of(args.start)
    usual = begin[1] if begin else CLASSES
    classes = _known(args.classes or _labels_own(args, usual) or usual)
    dense = _dense_teacher(args.teacher, classes)
    pictures = _labelled(args, classes, dense is not None, device, say)
    held, pool, often = _shared_out(pictures, args.seed)
    net = _network(args, begin, classes, dense, pool, say)
    args.rate = args.rate if args.rate is not None else RATES.get(args.start, 1e-4)
    args.half = half_pays(device.type)
    trainer = Trainer(net, dense, args, device, pool, args.out / TRAINING)
    if args.resume:
        say(f"resumed at step {trainer.clock.step}")
    unseen = held or pool[:16]
    begun = sum(trainer.held_out(unseen))
    trained = fit(trainer, often, held, say)
    refuse_ruin(begun, sum(trainer.held_out(unseen)), args.out)

    wide, high = args.size
    method = f"{trainer.clock.step} steps of {args.batch} pictures at {wide}x{high}, seed {args.seed}"
    begun_with = args.teacher if args.start == "teacher" else args.start
    parent = None if args.start == "none" else catalogue.locate(begun_with, read=read.seen)

    def build(new: Path) -> Manifest:
        return write_model(trained, classes, args.size, pool[:CALIBRATION], new, say)

    finish(args, say, build, made(method, [args.data], parent), trainer.curve)
    return trained


def _check(args: argparse.Namespace) -> None:
    """Refuse options that cannot be, before anything is read."""
    first, last = args.part
    for good, words in (
        (0 <= first < last <= 1, f"--part {first:g}:{last:g} is no share; give two numbers from 0 to 1, as 0:0.5"),
        (args.steps is not None if args.minutes is None else 0 < args.minutes < 1e5, "--minutes must be above 0"),
        (
            not any(side % 32 or not 64 <= side <= 1280 for side in args.size),
            f"--size {args.size[0]}x{args.size[1]}: each side must be a multiple of 32 from 64 to 1280",
        ),
        (
            1 <= args.batch <= 4096 and (args.rate is None or 0 < args.rate < 1),
            "--batch must be 1 or more, --rate above 0 and below 1",
        ),
        (args.data.exists(), f"--data {args.data}: no such file or folder"),
    ):
        if not good:
            raise UsageError(words)


def _labelled(
    args: argparse.Namespace, classes: tuple[str, ...], dense: bool, device: torch.device, say: Say
) -> list[Picture]:
    """The pictures with their labels; `dense`: the teacher will be asked about each cell. InputError for none."""
    pictures = read_pictures(args.data, classes, max(SIDE, *args.size), say, args.part, args.labels)
    say(f"{len(pictures)} pictures, {sum(len(p.boxes) for p in pictures)} labels, {len(classes)} classes, on {device}")
    if args.teacher:
        # a dense teacher sees each step's pictures at the student's size; at its own it finds smaller things too
        pictures = labelled_by(args.teacher, pictures, classes, 0.3 if dense else 0.2, say)
    if not dense and not any(len(p.boxes) for p in pictures):
        finds = f"no labels, and no teacher that finds {', '.join(classes)} there"
        raise InputError(f"nothing to learn in {args.data}: {finds}")
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


def _labels_own(args: argparse.Namespace, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of the data's own labels, where none is among the usual ones and nobody else says what to learn;
    else ().
    """
    known = formats.find(args.data)
    if known is None or args.teacher or args.labels:
        return ()
    try:
        own = dict.fromkeys(known[0].read(known[1], ("train", "val", "test")).found.names().values())
    except InputError as error:
        raise InputError(f"{known[1]}: {error}") from None
    return () if set(own) & set(usual) else tuple(own)


def _size(text: str) -> Size:
    """320 or 288x224 -> width and height. Raises UsageError."""
    wide, _, high = text.partition("x")
    try:
        return int(wide), int(high or wide)
    except ValueError:
        raise UsageError(f"--size {text} is neither one side as 320 nor width x height as 288x224") from None


def _start_of(model: str) -> Start:
    """The tensors of the model's float ONNX file, and its class names."""
    located = catalogue.locate(model, read=read.seen)
    row = next((r for r in located.manifest.file if r.format == "onnx" and r.precision != "int8"), None)
    if row is None:
        raise UsageError(f"--start {model}: no float .onnx there to start from; `--start none` begins from scratch")
    labels = located.manifest.labels
    assert isinstance(labels, list)
    return tensors_of(files.file_path(located, row)), tuple(labels)


def _dense_teacher(teacher: str | None, classes: tuple[str, ...]) -> YoloxTeacher | None:
    """The teacher if its every cell can be asked; None for none and for any other detector.

    Raises UsageError where the teacher does not know one of `classes`.
    """
    if teacher is None:
        return None
    located = catalogue.locate(teacher, pull=True, read=read.seen)
    labels = _labels_of(located.manifest, teacher, classes)
    row = next((row for row in located.manifest.networks() if row.format == "onnx"), None)
    path = files.file_path(located, row, pull=True) if row else None
    if path is None:
        return None
    try:
        return YoloxTeacher(path, [labels.index(c) for c in classes], torch.get_num_threads())
    except (ModelError, RefusedError):
        return None


def _labels_of(manifest: Manifest, teacher: str, classes: tuple[str, ...]) -> list[str]:
    """The teacher's class names. UsageError where it is no detector, or does not know one of `classes`."""
    labels = manifest.labels
    if manifest.task != "detect" or not isinstance(labels, list):
        raise UsageError(f"--teacher {teacher} is no detector")
    strange = [c for c in classes if c not in labels]
    if strange:
        known = ", ".join(labels[:12])
        raise UsageError(f"--teacher {teacher} does not know {', '.join(strange)}; it knows {known} …; see --classes")
    return labels


def _network(
    args: argparse.Namespace,
    begin: Start | None,
    classes: tuple[str, ...],
    dense: YoloxTeacher | None,
    pool: list[Picture],
    say: Say,
) -> EdgeYolo:
    """The network as training begins."""
    if begin:
        tensors, names = begin
        fresh = [c for c in classes if c not in names]
        if fresh:
            say(f"classes that the start does not know, learnt anew: {', '.join(fresh)}")
        return from_folded(tensors, len(classes), [names.index(c) if c in names else -1 for c in classes])
    if args.start == "teacher":
        if dense is None:
            raise UsageError("--start teacher needs a YOLOX .onnx as --teacher")
        shown = [plain(p, args.size)[0] for p in pool[:192]]
        pictures = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float()
        return start_from(dense, pictures, say)
    return new_net(len(classes), narrowed(args.width), args.seed)
