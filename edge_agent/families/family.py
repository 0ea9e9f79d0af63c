"""What a row of the table of families says."""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_agent.families.candidates import Decoder

Range = Literal["0..1", "0..255", "-1..1", "imagenet", "caffe"]
Channels = Literal["BGR", "RGB"]
Letterbox = Literal["top-left", "center", "stretch"]


class Training(msgspec.Struct, frozen=True):
    """How a family's own training prepares a picture; by default as that of YOLOv5 to v12 and most others."""

    channels: Channels = "RGB"
    range: Range = "0..1"
    letterbox: Letterbox = "center"
    always: bool = False
    """everybody trains it so: it holds unless another way does clearly better"""
    resize: Literal["linear", "area"] = "linear"
    """how a picture is made smaller"""


class CutRecipe(msgspec.Struct, frozen=True):
    """How a family is cut before its tail (graphs/cut.py)."""

    family: str
    """whose decoder reads the maps"""
    roles: tuple[str, ...]
    """of the maps of one level"""


class Family(msgspec.Struct, frozen=True):
    """A row of FAMILIES: all that is said of one family of detectors."""

    decode: Decoder
    nms: bool
    """whether overlapping boxes are still to be suppressed, which the others do in the graph"""
    trained: Training = Training()
    before: int = 0
    """numbers before the class scores in a row of one tensor, where those from the fifth on are in 0..1; 0: no such"""
    cell: str = ""
    """what one row a cell of such a tensor holds, for people; {} stands for the number of classes"""
    order: str = ""
    """columns of finished boxes in one tensor (finished.finished)"""
    levels: tuple[int, ...] = ()
    """how many levels it has where each gives two tensors: class scores, and distributions over four distances"""
    one_tensor: bool = False
    """boxes and scores may stand in one tensor, which one scale of int8 is too coarse for"""
    raw: bool = False
    """its boxes are not decoded: numbers from below 0 to a few strides"""
    alike: str = ""
    """the family that reads boxes as it does"""
    cut: CutRecipe | None = None
