"""The table of families: one row says how one is decoded, guessed, was trained and is cut."""

from __future__ import annotations

from functools import partial

from edge_agent.families import detr, distributions, finished, maps, yolo
from edge_agent.families.candidates import Array, HeadLayout, Outputs
from edge_agent.families.family import CutRecipe, Family, Training
from edge_agent.families.outputs import rows_of, table, volume

_YOLOX = Training("BGR", "0..255", "top-left", always=True)
_USUAL = Training()
_YOLO = Training(always=True)
_UNIT = Training(letterbox="stretch")
_IMAGENET = Training("RGB", "imagenet", "stretch")
_TENSORFLOW = Training("RGB", "-1..1", "stretch")


def _finished(order: str, trained: Training = _USUAL) -> Family:
    """Finished boxes in one tensor."""
    decode = partial(finished.finished, order=order)
    return Family(decode, nms=False, trained=trained, order=order, one_tensor=True)


WHOLE: dict[str, Family] = {
    "yolox": Family(
        yolo.yolox,
        nms=True,
        trained=_YOLOX,
        before=5,
        cell="each a raw box, objectness and {} classes",
        one_tensor=True,
        raw=True,
        cut=CutRecipe("yolox-maps", ("boxes", "objects", "classes")),
    ),
    "yolox-decoded": Family(
        yolo.yolov5,
        nms=True,
        trained=_YOLOX,
        before=5,
        cell="each a box in pixels, objectness and {} classes",
        one_tensor=True,
        cut=CutRecipe("yolox-maps", ("boxes", "objects", "classes")),
    ),
    "yolov6": Family(
        yolo.yolov5,
        nms=True,
        trained=_YOLO,
        before=5,
        cell="each a box in pixels, an objectness of 1 and {} classes",
        one_tensor=True,
        alike="yolox-decoded",
        cut=CutRecipe("yolov8-maps", ("boxes", "classes")),
    ),
    "yolov8": Family(
        yolo.yolov8,
        nms=True,
        trained=_YOLO,
        before=4,
        cell="each a box and {} classes",
        one_tensor=True,
        cut=CutRecipe("yolov8-maps", ("boxes", "classes")),
    ),
    "yolov5": Family(
        yolo.yolov5,
        nms=True,
        trained=_YOLO,
        before=5,
        one_tensor=True,
        cut=CutRecipe("yolov5-maps", ("all",)),
    ),
    "nanodet": Family(
        distributions.nanodet,
        nms=True,
        trained=Training("BGR", "imagenet", "stretch", always=True),
        levels=(3,),
        one_tensor=True,
        raw=True,
        cut=CutRecipe("nanodet-maps", ("all",)),
    ),
    "picodet": Family(
        distributions.picodet, nms=True, trained=Training("RGB", "imagenet", "stretch", always=True), levels=(4,)
    ),
    "edge-yolo": Family(
        yolo.edge_yolo, nms=True, trained=_YOLOX, cut=CutRecipe("edge-yolo-maps", ("boxes", "classes"))
    ),
    # YOLOv10, YOLO26 and exports with NMS
    "end2end": _finished("xyxysc"),
    # RT-DETR as Ultralytics exports it
    "end2end-xywh": _finished("xywhsc", _UNIT),
    # mmdeploy's of one class
    "end2end-one": _finished("xyxys"),
    # YOLOv7 with --end2end
    "end2end-yolov7": _finished("-xyxycs"),
    # YOLO-NAS's flat format
    "end2end-nas": _finished("-xyxysc"),
    # OpenVINO's DetectionOutput
    "end2end-openvino": _finished("-csxyxy", Training("BGR", "0..255", "stretch")),
    # PaddleDetection
    "end2end-paddle": _finished("csxyxy", _IMAGENET),
    "finished": Family(partial(finished.columns, form="xyxy"), nms=False, trained=_UNIT),
    "cells-finished": Family(partial(finished.columns, form="xyxy"), nms=True),
    "box-scores": Family(finished.scores, nms=True),
    "ssd-decoded": Family(partial(finished.scores, background=True), nms=True, trained=_TENSORFLOW, alike="box-scores"),
    "rtdetr": Family(
        yolo.yolov8, nms=False, trained=Training(letterbox="stretch", always=True), before=4, one_tensor=True
    ),
    "detr": Family(detr.detr, nms=False, trained=_IMAGENET),
    "detr-sigmoid": Family(detr.detr_sigmoid, nms=False, trained=_UNIT),
    # mAP 0.194 by area instead of 0.193, on others 0.160 both; it looks at 300 pixels, and may afford it
    "ssd": Family(
        partial(finished.columns, form="yxyx", unit=True),
        nms=False,
        trained=Training("RGB", "-1..1", "stretch", resize="area"),
    ),
}
"""detectors as they are exported"""

MAPS: dict[str, Family] = {
    "yolov8-maps": Family(maps.distances, nms=True),
    "edge-yolo-maps": Family(partial(maps.distances, least=0.0), nms=True),
    "yolox-maps": Family(maps.yolox, nms=True),
    "yolov5-maps": Family(maps.yolov5, nms=True),
    "nanodet-maps": Family(maps.nanodet, nms=True),
}
"""the same as this program cuts them"""

FAMILIES = {**WHOLE, **MAPS}
"""every family of detectors that is served"""

_CLASSIFIER = Training(letterbox="stretch", resize="area")
OTHERS: dict[str, Training] = {
    "bert": Training(),
    "bert-classifier": Training(),
    "bert-tagger": Training(),
    "bert-mlm": Training(),
    "bert-nsp": Training(),
    "bert-qa": Training(),
    # visual wake words: 0.80 by area instead of 0.72 are right of 86 pictures, 0.83 instead of 0.82 of 317 others
    "image-classifier": _CLASSIFIER,
    "image-classifier-logits": _CLASSIFIER,
    "autoencoder": _UNIT,
    "vae": _UNIT,
}
"""families that give no boxes and are served -> how they are trained on pictures"""
NAMED = {"rtmdet": Training("BGR", "imagenet", "top-left")}
"""families that are known and not served, of whose training something is known"""

RUNS = (*WHOLE, *OTHERS)
"""families that the tasks can decode"""
CUTS = {name: row.cut for name, row in FAMILIES.items() if row.cut}
"""family -> how it is cut"""
ORDERS = {name: row.order for name, row in FAMILIES.items() if row.order}
"""family of finished boxes in one tensor -> its columns"""


def training(family: str) -> Training:
    """How a family's own training prepares a picture."""
    return FAMILIES[family].trained if family in FAMILIES else {**OTHERS, **NAMED}.get(family, Training())


def shares(outputs: Outputs, family: Family, head: HeadLayout) -> Array | None:
    """All scores of a head whose family has them in one tensor with the boxes; None for others."""
    if family.order:
        return table(outputs, len(family.order))[:, [family.order.index("s")]]
    if family.levels:
        return distributions.distributions(outputs, head)[0][:, : head.classes]
    return rows_of(volume(outputs), family.before + head.classes)[:, 4:] if family.before else None
