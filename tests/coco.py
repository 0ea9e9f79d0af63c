"""Score a detector against COCO ground truth, and the served models that several tests want. For tests only."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edge_agent.backends import open_net
from edge_agent.manifest import File, Input, Manifest, Served
from edge_agent.tasks.detect.detect import detect
from edge_agent.types import Detections, Finding, Frame, ModelRef, Net, Pixels, Task
from edge_agent.uri import Uri

COCO_NAMES_FILE = "models/coco80_names.txt"


def frame(image: Pixels, name: str = "") -> Frame:
    return Frame(image, at=0.0, mono=0.0, name=name)


def read(path: Path) -> Frame:
    image = cv2.imread(str(path))
    assert image is not None, path
    return frame(np.asarray(image, np.uint8), path.name)


def serve_net(net: Net, spec: Input, family: str, labels: list[str], sha256: str = "0" * 64, **more: Any) -> Served:
    """A Served of a net that a test opened itself."""
    row = File(name="model", format="onnx", sha256=sha256, bytes=0)
    manifest = Manifest("model", "1", "detect", family, "none", "a test", [row], labels=labels, input=spec, **more)
    return Served(manifest, ModelRef("model", "1", sha256), net, {}, spec, "a test asked for it")


def serve_file(path: Path, spec: Input, family: str, labels: list[str], threads: int = 1, **more: Any) -> Served:
    """A Served of one model file, as its manifest would say it."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return serve_net(open_net(path, path.suffix[1:], threads), spec, family, labels, digest, **more)


YOLOX = Input(416, 416, channels="BGR", letterbox="top-left")
YOLOV5 = Input(640, 640, layout="NHWC", scale=1 / 255)
SSD = Input(300, 300, layout="NHWC", scale=1 / 128, mean=(1.0, 1.0, 1.0), letterbox="stretch")


def coco80(data: Path) -> list[str]:
    return (data / COCO_NAMES_FILE).read_text().splitlines()


def real(data: Path, name: str, **more: Any) -> Served:
    """One of the real models of the data folder by its file name."""
    models = data / "models"
    if name.startswith("coco_ssd"):
        return serve_file(
            models / name, SSD, "ssd", (models / "coco_ssd_labelmap.txt").read_text().splitlines(), **more
        )
    if "yolox" in name:
        return serve_file(models / name, YOLOX, "yolox", coco80(data), **more)
    family = "yolov5" if "yolov5" in name else "yolov8"
    return serve_file(models / "test-only" / name, YOLOV5, family, coco80(data), **more)


def make(served: Served, **options: str) -> Task:
    return detect(Uri("detect", served.manifest.name, options), served, Path())


def only(task: Task, item: Frame) -> tuple[Detections, Finding]:
    """The detections of the one finding of one frame."""
    (found,) = task(item)
    assert isinstance(found, Finding) and isinstance(found.what, Detections)
    return found.what, found


def mean_average_precision(
    served: Served, folder: Path, score: float = 0.001, iou: float = 0.65
) -> tuple[float, float]:
    """mAP50-95 and mAP50 over folder/instances.json and folder/images (pycocotools, 100 boxes a picture).

    Classes are matched by name, as the ids of models and of COCO differ.
    """
    options = {"score": str(score)} | ({} if served.manifest.family in ("ssd", "end2end") else {"iou": str(iou)})
    task = make(served, **options)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "instances.json"))
        category = {row["name"]: row["id"] for row in truth.loadCats(truth.getCatIds())}
        aliases = {"motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant"}
        aliases |= {"diningtable": "dining table", "tvmonitor": "tv"}
        rows = []
        for picture in truth.loadImgs(truth.getImgIds()):
            found, _ = only(task, read(folder / "images" / picture["file_name"]))
            for box, confidence, label in zip(found.xyxy.tolist(), found.score, found.label, strict=True):
                name = found.names[int(label)]
                name = aliases.get(name, name)
                if name in category:
                    x, y = box[:2]
                    place = [x, y, box[2] - x, box[3] - y]
                    rows.append(
                        {
                            "image_id": picture["id"],
                            "category_id": category[name],
                            "bbox": place,
                            "score": float(confidence),
                        }
                    )
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(rows))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])
