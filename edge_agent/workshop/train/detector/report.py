"""What an edge-yolo reached: COCO's figures beside its teacher's and an SSD's, and its time beside the teacher's.

``python -m edge_agent.workshop.train.detector.report --model models/edge-yolo --pictures instances.json …`` prints the
table of the card. All models answer through the task that serves, and are scored over the classes of the first model
by pycocotools. Times are of the bare network on one thread, taken in turns, as ratios to the first `--beside`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent import paths
from edge_agent.backends import open_net
from edge_agent.errors import EdgeAgentError, InputError, UsageError
from edge_agent.figures.coco_map import FoundBoxes, Truth, average_precision
from edge_agent.gate import read
from edge_agent.gate.opened import warm
from edge_agent.manifest import Manifest, Served
from edge_agent.pictures.read import read_picture
from edge_agent.registry import catalogue
from edge_agent.registry.files import file_path
from edge_agent.tasks.detect.detect import detect
from edge_agent.types import Detections, Finding, Frame, ModelRef
from edge_agent.uri import Uri, parse_uri
from edge_agent.walk.lane import Lane
from edge_agent.workshop.train import need
from edge_agent.workshop.train.detector.data import video_frames

SHOWN = ("person", "car", "dog", "cat", "chair", "bottle")
SCORE, IOU = 0.001, 0.65
"""of detections that are scored"""
FRAMES = 80
"""of a video, on which the agreement is measured"""


def variants(name: str) -> dict[str, Served]:
    """Each network of a model, warm, under the name of its file. `name` may end in "@" and a file of labels."""
    name, _, labels = name.partition("@")
    located = catalogue.locate(name, pull=True, read=read.seen)
    if labels:
        names = Path(labels).read_text(encoding="utf-8").splitlines()
        manifest = msgspec.structs.replace(located.manifest, labels=names, class_ids=None)
        located = msgspec.structs.replace(located, manifest=manifest)
    found = {}
    for row in located.manifest.networks():
        net = open_net(file_path(located, row, pull=True), row.format, 1)
        given = located.manifest.input
        assert given is not None
        picture = msgspec.structs.replace(given, layout=row.layout) if row.layout else given
        warm(net, picture)
        ref = ModelRef(located.manifest.name, located.manifest.version, row.sha256)
        found[row.name] = Served(located.manifest, ref, net, {}, picture, row.name)
    return found


def resized(name: str, size: tuple[int, int], folder: Path) -> Served:
    """The first ONNX file of a YOLOX model, made to take pictures of width and height `size`."""
    from edge_agent.workshop.train.detector.teacher import YoloxTeacher

    located = catalogue.locate(name, pull=True, read=read.seen)
    row = next(row for row in located.manifest.networks() if row.format == "onnx")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{located.manifest.name}-{size[0]}x{size[1]}.onnx"
    YoloxTeacher(file_path(located, row)).write(target, size)
    assert located.manifest.input is not None
    given = msgspec.structs.replace(located.manifest.input, width=size[0], height=size[1])
    manifest = msgspec.structs.replace(located.manifest, name=target.stem, input=given)
    net = open_net(target, "onnx", 1)
    warm(net, given)
    return Served(manifest, ModelRef(target.stem, manifest.version, ""), net, {}, given, "")


def figures(model: Served, truth: Any, folder: Path, classes: Sequence[str]) -> dict[str, float]:
    """map, map50 and AP50 by name of `model` on the pictures of `truth` (pycocotools' COCO) over `classes`."""
    from pycocotools.cocoeval import COCOeval

    ids = {row["name"]: row["id"] for row in truth.loadCats(truth.getCatIds())}
    found = _found(model, truth, folder, {name: ids[name] for name in classes})
    with contextlib.redirect_stdout(io.StringIO()):
        scored = COCOeval(truth, truth.loadRes(found), "bbox")
        scored.params.catIds = [ids[name] for name in classes]
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    precision = scored.eval["precision"]  # IoU, recall, class, area, most
    result = {"map": float(scored.stats[0]), "map50": float(scored.stats[1])}
    for k, name in enumerate(classes):
        column = precision[0, :, k, 0, 2]
        if name in SHOWN and (column > -1).any():
            result[name] = float(column[column > -1].mean())
    return result


def _found(model: Served, truth: Any, folder: Path, ids: dict[str, int]) -> list[dict[str, Any]]:
    """The boxes of the classes `ids` that `model` finds, as rows of COCO's results."""
    options = f"?score={SCORE}" + ("" if model.manifest.family in ("ssd", "end2end") else f"&iou={IOU}")
    task = detect(parse_uri(f"detect:{model.manifest.name}{options}"), model, paths.home())
    found = []
    for image in truth.loadImgs(truth.getImgIds()):
        for finding in task(read_picture(folder / image["file_name"])):
            assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
            boxes = finding.what
            for (x1, y1, x2, y2), score, label in zip(boxes.xyxy.tolist(), boxes.score, boxes.label, strict=True):
                name = boxes.names[int(label)]
                if name in ids:
                    box = [x1, y1, x2 - x1, y2 - y1]
                    row = {"image_id": image["id"], "category_id": ids[name], "bbox": box, "score": float(score)}
                    found.append(row)
    return found


def agreement(model: Served, teacher: Served, video: Path, part: tuple[float, float], most: int) -> dict[str, Any]:
    """How far `model` finds what `teacher` finds (at its own score) in `most` frames of a share of a video: AP50 and
    mAP50-95 over the classes that the teacher found, its boxes as the truth, and their number.
    """
    frames = [Frame(p.pixels, 0.0, 0.0, p.name) for p in video_frames(video, 10_000, part, most)]
    own_names = model.manifest.names()
    index = {name: label for label, name in own_names.items()}
    options = {"score": str(SCORE), "iou": str(IOU)}
    tasks = [
        detect(Uri("detect", teacher.ref.name, {}), teacher, paths.home()),
        detect(Uri("detect", model.ref.name, options), model, paths.home()),
    ]
    columns: list[list[tuple[int, int, list[float], float]]] = [[], []]
    for number, frame in enumerate(frames):
        for task, rows in zip(tasks, columns, strict=True):
            (finding,) = task(frame)
            assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
            seen = finding.what
            for (x1, y1, x2, y2), score, label in zip(seen.xyxy.tolist(), seen.score, seen.label, strict=True):
                if seen.names[int(label)] in index:
                    rows.append((number, index[seen.names[int(label)]], [x1, y1, x2 - x1, y2 - y1], float(score)))
    if not columns[0]:
        raise InputError(f"the teacher finds nothing in {video}: there is nothing to agree on")
    image, label, xywh, _ = _columns(columns[0])
    truth = Truth(image, label, xywh, xywh[:, 2] * xywh[:, 3], np.zeros(len(label), bool))
    labels = sorted(set(label.tolist()))
    precision = average_precision(truth, FoundBoxes(*_columns(columns[1])), labels)
    figures = precision.figures()
    result = {"map": figures["map"], "map50": figures["map50"], "boxes": len(label), "frames": len(frames)}
    return result | {"classes": {own_names[label]: precision.of_class(k) for k, label in enumerate(labels)}}


def _columns(rows: list[tuple[int, int, list[float], float]]) -> tuple[Any, Any, Any, Any]:
    """Picture, label, box and score as arrays."""
    image, label, xywh, score = zip(*rows, strict=True) if rows else ((), (), (), ())
    boxes = np.array(xywh, np.float64).reshape(-1, 4)
    return np.array(image, np.int64), np.array(label, np.int64), boxes, np.array(score, np.float64)


def times(models: Sequence[Served], runs: int = 40) -> list[float]:
    """Median milliseconds of one run of each network on one thread, taken in turns."""
    feeds = []
    for model in models:
        spec = model.net.inputs[0]
        shape = [n or 1 for n in spec.shape]
        noise = np.random.default_rng(0).integers(0, 255, shape)
        feeds.append({spec.name: noise.astype(spec.dtype)})
    spent: list[list[float]] = [[] for _ in models]
    lane = Lane()
    for _ in range(runs):
        for model, feed, row in zip(models, feeds, spent, strict=True):
            with lane.turn():
                begun = time.perf_counter()
                model.net.run(feed)
                row.append((time.perf_counter() - begun) * 1e3)
    return [float(np.median(row)) for row in spent]


def operations(name: str) -> float | None:
    """Millions of floating-point operations of one picture (a multiply-add counts as two) in the convolutions of a
    model's original file; None where that is no ONNX file.
    """
    import onnx

    located = catalogue.locate(name.partition("@")[0], pull=True, read=read.seen)
    row = located.manifest.original()
    if row.format != "onnx":
        return None
    graph = onnx.shape_inference.infer_shapes(onnx.load(file_path(located, row, pull=True))).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    total = sum(2.0 * math.prod(weights[n.input[1]][1:]) * math.prod(shapes[n.output[0]]) for n in convolutions) / 1e6
    return float(total)


def table(rows: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table."""
    shown = list(SHOWN)
    heads = ["network", "mAP50-95", "AP50", *(f"{n} AP50" for n in shown), "ms", "of the teacher's time"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        cells = [f"{row.get(key, float('nan')):.3f}" for key in ("map", "map50", *shown)]
        lines.append(f"| {name} | " + " | ".join([*cells, f"{row['ms']:.1f}", f"{row['ratio']:.2f}"]) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; with --json the figures."""
    parser = argparse.ArgumentParser(prog="report_detector", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="edge-yolo", help="the edge-yolo (edge-yolo)")
    parser.add_argument("--pictures", type=Path, help="COCO .json, its pictures in images/ beside it")
    parser.add_argument("--video", type=Path, help="report the agreement with --beside on its second half instead")
    parser.add_argument("--beside", default="yolox-nano", help="the teacher, a YOLOX .onnx or its name (yolox-nano)")
    parser.add_argument("--other", action="append", default=[], help="another detector to score; may be repeated")
    parser.add_argument("--work", type=Path, default=Path("report"), help="folder for the resized teacher (report)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        return _report(args)
    except EdgeAgentError as error:
        sys.stderr.write(f"report_detector: {error}\n")
        return error.exit_code


def _report(args: argparse.Namespace) -> int:
    """Print what is asked for. EdgeAgentError."""
    given = args.video or args.pictures
    if given is None or not given.is_file():
        raise UsageError(f"--pictures or --video {given}: no such file")
    if args.video:
        model, teacher = (next(iter(variants(name).values())) for name in (args.model, args.beside))
        print(json.dumps(agreement(model, teacher, args.video, (0.5, 1.0), FRAMES)))
        return 0
    need("the table", "pycocotools", "onnx", "torch")
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(args.pictures))
    own = variants(args.model)
    classes = _shared_classes(next(iter(own.values())).manifest, truth)
    models = _compared(own, args)
    spent = times(list(models.values()))
    rows = {}
    for (name, served), ms in zip(models.items(), spent, strict=True):
        reached = figures(served, truth, args.pictures.parent / "images", classes)
        rows[name] = {**reached, "ms": ms, "ratio": ms / spent[0]}
        print(name, file=sys.stderr)
    print(json.dumps(rows, indent=1) if args.json else table(rows))
    print(_operations([args.beside, args.model]), file=sys.stderr)
    return 0


def _shared_classes(manifest: Manifest, truth: Any) -> list[str]:
    """The model's classes that the labels have, too."""
    assert isinstance(manifest.labels, list)
    known = {row["name"] for row in truth.loadCats(truth.getCatIds())}
    return [name for name in manifest.labels if name in known]


def _compared(own: dict[str, Served], args: argparse.Namespace) -> dict[str, Served]:
    """Name -> network: the teacher at its own size, first, and at the model's, the model's, and the others."""
    teacher, model = next(iter(variants(args.beside).values())), next(iter(own.values()))
    assert teacher.input is not None and model.manifest.input is not None
    size = model.manifest.input.width, model.manifest.input.height
    models = {f"teacher at {teacher.input.width} x {teacher.input.height}": teacher}
    models[f"teacher at {size[0]} x {size[1]}"] = resized(args.beside, size, args.work)
    models |= {f"{model.manifest.name} {name}": served for name, served in own.items()}
    for other in args.other:
        served = next(iter(variants(other).values()))
        models[served.manifest.name] = served
    return models


def _operations(models: list[str]) -> str:
    """A line on how much each of the models computes."""
    counts = {name: operations(name) for name in models}
    told = ", ".join(f"{Path(name).name} {count:.0f} million" for name, count in counts.items() if count is not None)
    return f"operations of a picture: {told}"


if __name__ == "__main__":
    sys.exit(main())
