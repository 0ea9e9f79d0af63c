"""The table of families: which are served, how they were trained, how they are cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RUNS = (
    "yolox",
    "yolox-decoded",
    "yolov5",
    "yolov6",
    "yolov8",
    "end2end",
    "end2end-xywh",
    "end2end-one",
    "end2end-yolov7",
    "end2end-nas",
    "end2end-openvino",
    "end2end-paddle",
    "finished",
    "cells-finished",
    "box-scores",
    "ssd-decoded",
    "rtdetr",
    "detr",
    "detr-sigmoid",
    "nanodet",
    "ssd",
    "edge-yolo",
    "bert",
    "bert-classifier",
    "bert-tagger",
    "image-classifier",
    "image-classifier-logits",
    "autoencoder",
    "vae",
)
"""families that the tasks can decode"""


Range = Literal["0..1", "0..255", "-1..1", "imagenet", "caffe"]
Channels = Literal["BGR", "RGB"]
Letterbox = Literal["top-left", "center", "stretch"]
TRAINED: dict[str, tuple[Channels, Range, Letterbox]] = {
    "yolox": ("BGR", "0..255", "top-left"),
    "yolox-decoded": ("BGR", "0..255", "top-left"),
    "edge-yolo": ("BGR", "0..255", "top-left"),
    "ssd": ("RGB", "-1..1", "stretch"),
    "rtdetr": ("RGB", "0..1", "stretch"),
    "detr": ("RGB", "imagenet", "stretch"),
    "detr-sigmoid": ("RGB", "0..1", "stretch"),
    "end2end-xywh": ("RGB", "0..1", "stretch"),
    "end2end-paddle": ("RGB", "imagenet", "stretch"),
    "end2end-openvino": ("BGR", "0..255", "stretch"),
    "finished": ("RGB", "0..1", "stretch"),
    "ssd-decoded": ("RGB", "-1..1", "stretch"),
    "nanodet": ("BGR", "imagenet", "stretch"),
    "rtmdet": ("BGR", "imagenet", "top-left"),
    "image-classifier": ("RGB", "0..1", "stretch"),
    "image-classifier-logits": ("RGB", "0..1", "stretch"),
    "autoencoder": ("RGB", "0..1", "stretch"),
    "vae": ("RGB", "0..1", "stretch"),
}
"""family -> how its own training prepares a picture"""
USUAL: tuple[Channels, Range, Letterbox] = ("RGB", "0..1", "center")
"""of YOLOv5 to v12 and most others"""


ONE_SCALE = (
    "yolox", "yolox-decoded", "yolov5", "yolov6", "yolov8", "rtdetr", "nanodet",
    *(family for family in RUNS if family.startswith("end2end")),
)  # fmt: skip
"""families with boxes and scores in one tensor"""


@dataclass(frozen=True, slots=True)
class CutRecipe:
    """How a family is cut."""

    family: str
    """whose decoder reads the maps"""
    roles: tuple[str, ...]
    """of the maps of one level"""


CUTS = {
    "yolov8": CutRecipe("yolov8-maps", ("boxes", "classes")),
    "yolov6": CutRecipe("yolov8-maps", ("boxes", "classes")),
    "edge-yolo": CutRecipe("edge-yolo-maps", ("boxes", "classes")),
    "yolox": CutRecipe("yolox-maps", ("boxes", "objects", "classes")),
    "yolox-decoded": CutRecipe("yolox-maps", ("boxes", "objects", "classes")),
    "yolov5": CutRecipe("yolov5-maps", ("all",)),
    "nanodet": CutRecipe("nanodet-maps", ("all",)),
}
