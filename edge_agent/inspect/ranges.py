"""The ranges that pixels are brought to, and the input of a manifest that does so."""

from __future__ import annotations

import msgspec

from edge_agent.families.family import Channels, Range
from edge_agent.graphs.graph import IMAGENET_MEAN
from edge_agent.manifest import Input

IMAGENET_STD = (58.395, 57.12, 57.375)
CAFFE_MEAN = (123.68, 116.779, 103.939)
"""R, G, B on 0..255, as Caffe's networks have them subtracted"""
RANGES: tuple[Range, ...] = ("0..1", "0..255", "-1..1", "imagenet", "caffe")
ORDERS: dict[str, Channels] = {"RGB": "RGB", "BGR": "BGR"}
_ZERO, _ONE, _HALF = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (127.5, 127.5, 127.5)
MAPPED: dict[Range, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "0..1": (1 / 255, _ZERO, _ONE),
    "0..255": (1.0, _ZERO, _ONE),
    "-1..1": (1.0, _HALF, _HALF),
    "imagenet": (1.0, IMAGENET_MEAN, IMAGENET_STD),
    "caffe": (1.0, CAFFE_MEAN, _ONE),
}
"""range -> scale, and mean and std of R, G, B, by which a pixel gets there"""
SPANS: dict[Range, tuple[float, float]] = {
    "0..1": (0, 1),
    "0..255": (0, 255),
    "-1..1": (-1, 1),
    "imagenet": (-2.118, 2.64),
}


def scaled(start: Input, kind: Range, channels: Channels) -> Input:
    """`start` with the pixels mapped to that range."""
    scale, mean, std = MAPPED[kind]
    turn = 1 if channels == "RGB" else -1
    return msgspec.structs.replace(start, channels=channels, scale=scale, mean=mean[::turn], std=std[::turn])


def swapped(picture: Input) -> Input:
    """The same with the other channel order; mean and std follow their channels."""
    other: Channels = "RGB" if picture.channels == "BGR" else "BGR"
    return msgspec.structs.replace(picture, channels=other, mean=picture.mean[::-1], std=picture.std[::-1])


def span(picture: Input) -> str:
    """What black and white become, e.g. 0..255."""
    low, high = [((x * picture.scale) - picture.mean[0]) / picture.std[0] for x in (0, 255)]
    return f"{low:.3g}..{high:.3g}"


def describe(picture: Input) -> str:
    """e.g. BGR 0..255."""
    return f"{picture.channels} {span(picture)}"
