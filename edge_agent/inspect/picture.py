"""How a picture goes into a network: layout, size, scale and channel order, each with the evidence for it.

Evidence, the strongest first: what the exporter wrote, arithmetic at the head of the graph, the range of a quantized
input, bytes as input; then the way in which the family is trained, which is a guess and has to be tried.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from edge_agent.families.family import Channels, Range
from edge_agent.families.guess import shape, side
from edge_agent.families.table import training
from edge_agent.graphs.graph import AFFINE, IMAGENET_MEAN, FileGraph, Leading, input_scale, leading
from edge_agent.inspect.options import as_told
from edge_agent.inspect.ranges import ORDERS, RANGES, SPANS, scaled, span
from edge_agent.manifest import Input
from edge_agent.types import TensorSpec

DYNAMIC_SIDE = 640
"""pixels taken for a detector whose input has no fixed size"""


@dataclass(frozen=True, slots=True)
class Ways:
    """How the picture may go in: the first is the likeliest, more than one have to be tried."""

    first: Input
    ranges: tuple[Input, ...]
    """the same with other scales, where nothing in the file says which"""
    orders: bool
    """whether the channel order is open too"""
    reasons: tuple[str, ...]

    @property
    def is_open(self) -> bool:
        """Whether anything has to be tried."""
        return bool(self.ranges) or self.orders


def layout(spec: TensorSpec, graph: FileGraph, tflite: bool) -> tuple[Literal["NCHW", "NHWC"] | None, str]:
    """Where the three colours stand, and why; None where no axis can hold them."""
    a, c = spec.shape[1], spec.shape[3]
    if a == 3 and c != 3:
        return "NCHW", f"input {spec.name} is {shape(spec)}, 3 stands second"
    if c == 3 and a != 3:
        return "NHWC", f"input {spec.name} is {shape(spec)}, 3 stands last"
    if a not in (None, 3) and c not in (None, 3):
        return None, f"no axis of 3 colours in the input {shape(spec)}"
    if tflite:
        return "NHWC", f"input {spec.name} is {shape(spec)}, and TFLite's convolutions want the colours last"
    if leading(graph, spec.name).perm == (0, 3, 1, 2):
        return "NHWC", f"input {spec.name} is {shape(spec)}, and the graph moves the last axis to the front"
    return "NCHW", f"input {spec.name} is {shape(spec)}, and ONNX convolutions want the colours second"


def size(
    spec: TensorSpec, order: Literal["NCHW", "NHWC"], outputs: tuple[TensorSpec, ...], meta: Any
) -> tuple[int, int, str]:
    """Width, height in pixels and why."""
    height, width = spec.shape[2:] if order == "NCHW" else spec.shape[1:3]
    if width and height:
        return width, height, "fixed by the input"
    if stated := _imgsz(meta):
        return *stated, "the file leaves it open and states imgsz"
    counted = side(outputs)
    cells = ", the rows of its output count these cells" if counted else ""
    usual = counted or DYNAMIC_SIDE
    return width or usual, height or usual, f"the file leaves it open{cells}"


def _imgsz(meta: Any) -> tuple[int, int] | None:
    """Width and height as Ultralytics' exports write them, height first or one number for both."""
    stated = _numbers(meta.get("imgsz", ""))
    fits = len(stated) in (1, 2) and all(1 <= v <= 8192 for v in stated)
    return (int(stated[-1]), int(stated[0])) if fits else None


def ways(spec: TensorSpec, graph: FileGraph, family: str, base: dict[str, Any]) -> Ways:
    """`base`: width, height and layout. Scale and channels with the evidence, or what has to be tried."""
    trained = training(family)
    start = Input(**base, letterbox=trained.letterbox, resize=trained.resize)
    order, why = _order(graph, leading(graph, spec.name))
    channels = order or trained.channels
    reasons = [f"letterbox {trained.letterbox} on 114: as the family {family} is trained"]
    if trained.resize != "linear":
        reasons.append(f"resize {trained.resize}: better for the family {family}, as was measured")
    if order:
        reasons.append(f"channels {order}: {why}")
    if given := _scale(spec, graph, family, start, channels):
        first, why = given
        return Ways(first, (), not order, (*reasons, f"scale {span(first)}: {why}"))
    others = tuple(scaled(start, each, channels) for each in RANGES if each != trained.range)
    return Ways(scaled(start, trained.range, channels), others, not order, tuple(reasons))


def _scale(
    spec: TensorSpec, graph: FileGraph, family: str, start: Input, channels: Channels
) -> tuple[Input, str] | None:
    """The scale by the strongest evidence, which is said with it; None where there is none."""
    return (
        as_told(graph.told, start, channels)
        or (_bytes(spec, graph, start, channels) if spec.dtype == "uint8" else None)
        or _stated(graph, family, start, channels)
        or _computed(spec, leading(graph, spec.name), start, channels)
        or _bytes(spec, graph, start, channels)
    )


def _order(graph: FileGraph, head: Leading) -> tuple[Channels | None, str]:
    """The order of the colours and the evidence for it; None where there is none."""
    if order := ORDERS.get(graph.told.get("channels", "")):
        return order, "--channels"
    stated = graph.meta.get("color_space") or graph.meta.get("Image.BitmapPixelFormat", "")
    if order := ORDERS.get(stated[:3].upper()):
        return order, f"the file's metadata says {stated[:8]}"
    if _own(graph):
        return "BGR", "the file was written by this project's own export"
    if _ultralytics(graph.meta):
        return "RGB", "the metadata is Ultralytics', whose exports take RGB"
    return _order_of_mean(head)


def _order_of_mean(head: Leading) -> tuple[Channels | None, str]:
    """From the mean that the graph subtracts: in ImageNet's, red is the brightest channel and blue the darkest."""
    means = head.offset
    if len(means) != 3 or means[0] == means[2] or not all(head.gain):
        return None, ""
    mean = [-m / g for m, g in zip(means, head.gain * 3, strict=False)]
    given = mean[::-1] if head.flips else mean
    order = _of_imagenet([m * (1 if max(mean) > 2 else 255) for m in given])
    if order is None:
        return None, ""
    return order, f"the graph subtracts ImageNet's mean in that order ({', '.join(f'{m:.4g}' for m in given)})"


def _of_imagenet(mean: list[float]) -> Channels | None:
    """The order in which three means in 0..255 are ImageNet's."""
    for order, want in MEANS.items():
        if all(abs(m - w) < 6 for m, w in zip(mean, want, strict=True)):
            return order
    return None


MEANS: dict[Channels, tuple[float, ...]] = {"RGB": IMAGENET_MEAN, "BGR": IMAGENET_MEAN[::-1]}


def _own(graph: FileGraph) -> bool:
    return "edge-agent" in (graph.producer, graph.meta.get("description"))


def _ultralytics(meta: Any) -> bool:
    return meta.get("author") == "Ultralytics" or {"stride", "names", "task"} <= set(meta)


def _stated(graph: FileGraph, family: str, start: Input, channels: Channels) -> tuple[Input, str] | None:
    meta = graph.meta
    if family == "edge-yolo" and _own(graph):
        return scaled(start, "0..255", channels), "the file was written by this project's own export"
    mean, std = _numbers(meta.get("mean", "")), _numbers(meta.get("std", ""))
    if len(mean) in (1, 3) and len(std) in (1, 3) and min(std) > 0:
        m, s = (tuple(v * 3 if len(v) == 1 else v) for v in (mean, std))
        made = msgspec.structs.replace(start, channels=channels, mean=m, std=s)
        return made, f"the file's metadata states mean {mean} and std {std}"
    pixel_range = meta.get("Image.NominalPixelRange", "")
    kinds: dict[str, Range] = {"NominalRange_0_255": "0..255", "Normalized_0_1": "0..1", "Normalized_1_1": "-1..1"}
    if pixel_range in kinds:
        return scaled(start, kinds[pixel_range], channels), f"the file's metadata says {pixel_range}"
    if _ultralytics(meta):
        return scaled(start, "0..1", channels), "the metadata is Ultralytics', whose exports take 0..1"
    return None


def _computed(spec: TensorSpec, head: Leading, start: Input, channels: Channels) -> tuple[Input, str] | None:
    """From arithmetic before the first layer: the pixels are what it turns into numbers of a network's usual size."""
    if spec.scale or not any(op.split()[0] in AFFINE for op in head.ops):
        return None
    pairs = list(zip(head.gain * 3, head.offset * 3, strict=False))[:3]
    ranges: tuple[tuple[Range, float], ...] = (("0..255", 255.0), ("0..1", 1.0))
    for kind, top in ranges:
        if _is_usual(pairs, top):
            done = ", ".join(head.ops)
            return scaled(start, kind, channels), f"the graph begins with {done}, which is meant for {kind}"
    return None


def _is_usual(pairs: list[tuple[float, float]], top: float) -> bool:
    """Whether pixels of 0 to `top` become numbers of a usual size by these gains and offsets."""
    ends = [g * x + o for g, o in pairs for x in (0.0, top)]
    # Caffe's way: the mean is subtracted and nothing divided
    bare = top == 255 and 0.5 < abs(pairs[0][0]) <= 2 and min(ends) < -50
    return bare or (0.5 <= max(ends) - min(ends) <= 8 and max(map(abs, ends)) <= 8)


def _bytes(spec: TensorSpec, graph: FileGraph, start: Input, channels: Channels) -> tuple[Input, str] | None:
    """From an integer input, or a float one that is quantized at once: which numbers do its 256 steps stand for?"""
    is_integer = spec.dtype in ("uint8", "int8")
    held = (spec.scale, spec.zero_point, spec.dtype) if is_integer else input_scale(graph, spec.name)
    if held is None:
        return None
    scale, zero, dtype = held
    if not scale:
        why = "the input is uint8 without a scale: the pixels themselves"
        return (scaled(start, "0..255", channels), why) if dtype == "uint8" else None
    low = 0 if dtype == "uint8" else -128
    ends = (low - zero) * scale, (low + 255 - zero) * scale
    said = f"the input is {dtype if is_integer else 'quantized at once'} and stands for {ends[0]:.4g}..{ends[1]:.4g}"
    # so that the table of what a pixel becomes changes none of them
    filled = msgspec.structs.replace(start, channels=channels, mean=(float(zero - low),) * 3, std=(1 / scale,) * 3)
    if spec.dtype == "uint8":
        return filled, f"{said}: the pixels themselves go in"
    if kind := _range(*ends):
        return scaled(start, kind, channels), said
    return (filled, f"{said}, which the pixels fill") if is_integer else None


def _range(low: float, high: float) -> Range | None:
    """The range that ends where these numbers do, or nearly."""
    for kind, (first, last) in SPANS.items():
        near = 0.03 * (last - first)
        if abs(low - first) < near and abs(high - last) < near:
            return kind
    return None


def _numbers(text: str) -> list[float]:
    """[640, 640] or 640 as JSON; [] for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    items = found if isinstance(found, list) else [found]
    good = all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e6 for v in items)
    return [float(v) for v in items] if good and len(items) <= 4 else []
