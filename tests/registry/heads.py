"""Real detectors of a few nodes, in each head and each way of input. For tests only.

They see squares of pure colour: a cell of 8x8 pixels gives one box, its classes are the means of the channels, so
that family, layout, scale and the place of the boxes are all in what comes out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
CELLS = 84
"""of 64x64 with strides 8, 16, 32"""
BOX = 24.0
"""pixels of a side of each box"""
QUERIES = 100
"""rows of the heads that have queries or finished boxes"""
BINS = 8
"""of the distances of NanoDet"""
ORDERS = {
    "end2end": "xyxysc",
    "end2end-xywh": "xywhsc",
    "end2end-yolov7": "-xyxycs",
    "end2end-nas": "-xyxysc",
    "end2end-openvino": "-csxyxy",
    "end2end-paddle": "csxyxy",
    "oriented": "xywhsca",
}
"""head -> its columns: a box, s(core), c(lass), - nothing, a(ngle)"""
CORNERS = ("ssd", "finished", "cells-finished", "box-scores", "ssd-decoded")
"""heads in several tensors whose boxes have corners"""
UNIT = ("ssd", "rtdetr", "detr", "detr-sigmoid", "end2end-xywh")


def picture(path: Path) -> Path:
    """Black, with one square of 24x24 pixels (as the network sees it) in red, one in blue."""
    image = np.zeros((SIDE * 4, SIDE * 4, 3), np.uint8)
    image[32:128, 128:224] = (0, 0, 255)
    image[144:240, 16:112] = (255, 0, 0)
    cv2.imwrite(str(path), image)
    return path


def squares(
    path: Path,
    head: str,
    *,
    gain: float = 1 / 255,
    nhwc: bool = False,
    turned: bool = False,
    element: int = TensorProto.FLOAT,
    batch: int | str = 1,
    lead: list[tuple[str, Any]] | None = None,
    tail: tuple[float, int] | None = None,
    names: tuple[str, str] = ("pixels of anything", "what is in it"),
    meta: dict[str, str] | None = None,
) -> Path:
    """Write the detector. `gain`: score of a cell = mean of a channel * gain; `lead`: operators with a constant before
    the first layer; `tail`: scale and zero point of one QuantizeLinear over the output; `names`: input and output.
    """
    source, sink = names
    nodes: list[Any] = []
    constants: dict[str, npt.NDArray[Any]] = {}
    here = source

    def step(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    def const(value: Any) -> str:
        constants[f"c{len(constants)}"] = np.asarray(value)
        return f"c{len(constants) - 1}"

    if element != TensorProto.FLOAT:
        here = step("Cast", here, to=TensorProto.FLOAT)
    if nhwc:
        here = step("Transpose", here, perm=[0, 3, 1, 2])
    for op, value in lead or []:
        shaped = np.asarray(value, np.float32)
        here = step(op, here, const(shaped.reshape(1, -1, 1, 1) if shaped.size > 1 else shaped))
    weight = np.zeros((3, 3, 8, 8), np.float32)
    for channel in range(3):
        weight[channel, channel] = gain / 64
    # the eight pixels of a cell become one; coarser levels see nothing
    fine = step("Conv", here, const(weight), strides=[8, 8])
    levels = [fine]
    for s in (2, 4):
        pooled = step("AveragePool", fine, kernel_shape=[s, s], strides=[s, s])
        levels.append(step("Mul", pooled, const(np.float32(0))))
    flat = [step("Reshape", level, const(np.array([0, 3, -1], np.int64))) for level in levels]
    scores = step("Concat", *flat, axis=2)
    places = np.zeros((1, 4, CELLS), np.float32)
    strides = np.repeat([8, 16, 32], [64, 16, 4]).astype(np.float32)
    centres = [((i % n) * s + s / 2, (i // n) * s + s / 2) for s, n in ((8, 8), (16, 4), (32, 2)) for i in range(n * n)]
    places[0, :2] = np.array(centres).T
    places[0, 2:] = BOX
    if head == "yolox":
        places[0, :2] = 0.5
        places[0, 2:] = np.log(BOX / strides)
    elif head in CORNERS or "xyxy" in ORDERS.get(head, ""):
        places[0] = np.concatenate([places[0, :2] - BOX / 2, places[0, :2] + BOX / 2])
    elif head == "edge-yolo":
        places[:] = BOX / 16
    elif head == "nanodet":
        # a softmax over bins of which two are not nothing has its mean between these two
        places = np.maximum(1 - np.abs(np.arange(BINS)[:, None] - BOX / 2 / strides), 1e-9)
        places = np.log(np.tile(places, (4, 1)), dtype=np.float32)[None]
    if head == "ssd":
        places = places[:, [1, 0, 3, 2]]
    if head in UNIT:
        places = places / np.float32(SIDE)
    if head in (*UNIT, "finished") or head in ORDERS:
        more = const(np.array([0, 0, 0, 0, 0, QUERIES - CELLS], np.int64))
        scores = step("Pad", scores, more)
        places = np.pad(places, ((0, 0), (0, 0), (0, QUERIES - CELLS)))
    zero = step("Mul", step("Slice", scores, const([0]), const([1]), const([1])), const(np.float32(0)))
    boxes = step("Add", zero, const(places))
    one = step("Add", zero, const(np.float32(1)))
    best = step("ReduceMax", scores, axes=[1])
    which = step("Cast", step("ArgMax", scores, axis=1), to=TensorProto.FLOAT)
    logits = step("Mul", step("Sub", scores, const(np.float32(0.5))), const(np.float32(20)))
    rows = QUERIES if places.shape[2] == QUERIES else CELLS
    parts = {
        "yolov8": [boxes, scores],
        "rtdetr": [boxes, scores],
        "nanodet": [scores, boxes],
        "obb": [boxes, scores, step("Mul", one, const(np.float32(-0.7)))],
    }.get(head, [boxes, one, scores])
    if order := ORDERS.get(head, ""):
        # the four letters of the box stand for one tensor
        columns = {"x": boxes, "s": best, "c": which, "-": zero, "a": step("Mul", one, const(np.float32(-0.7)))}
        parts = [columns[letter] for letter in order.replace("xyxy", "x").replace("xywh", "x")]
    if head in ("edge-yolo", "detr", "detr-sigmoid"):
        sides = [logits] if head != "detr" else [step("Concat", logits, zero, axis=1)]
        outs, widths = [boxes, *sides], [4, 4 if head == "detr" else 3]
    elif head in ("ssd", "finished", "cells-finished"):
        outs, widths = [boxes], [4]
    elif head in ("box-scores", "ssd-decoded"):
        none = [step("Sub", const(np.float32(1)), best)] if head == "ssd-decoded" else []
        outs, widths = [boxes, step("Concat", *none, scores, axis=1)], [4, 3 + len(none)]
    elif head == "rtmdet":
        outs, widths = levels, []
    else:
        outs = [step("Concat", *parts, axis=1)]
        widths = [len(order) or {"nanodet": 4 * BINS + 3, "yolov8": 7, "rtdetr": 7}.get(head, 8)]
    if head == "yolov5":
        outs, rows = [step("Concat", *outs, *outs, *outs, axis=2)], 3 * CELLS
    shapes: list[list[int | str]] = [[batch, width, rows] for width in widths]
    if (head == "yolov8") == turned and head != "rtmdet":
        outs = [step("Transpose", out, perm=[0, 2, 1]) for out in outs]
        shapes = [[batch, rows, width] for width in widths]
    if head in ("ssd", "finished", "cells-finished"):
        outs += [step("Squeeze", part, const([1])) for part in (which, best)]
        count = step("Slice", step("Shape", best), const([2]), const([3]))
        outs.append(step("Cast", count, to=TensorProto.FLOAT))
        shapes += [[batch, rows], [batch, rows], [1]]
    elif head == "rtmdet":
        reach = [step("Concat", *[step("Slice", x, const([0]), const([1]), const([1]))] * 4, axis=1) for x in levels]
        outs = [*levels, *reach]
        shapes = [[batch, width, n, n] for width in (3, 4) for n in (8, 4, 2)]
        if turned:
            outs = [step("Transpose", out, perm=[0, 2, 3, 1]) for out in outs]
            shapes = [[batch, n, n, width] for width in (3, 4) for n in (8, 4, 2)]
    if tail:
        scale, low = const(np.float32(tail[0])), const(np.int8(tail[1]))
        outs = [step("DequantizeLinear", step("QuantizeLinear", out, scale, low), scale, low) for out in outs]
    if element == TensorProto.FLOAT16:
        outs = [step("Cast", out, to=TensorProto.FLOAT16) for out in outs]
    kind = TensorProto.FLOAT16 if element == TensorProto.FLOAT16 else TensorProto.FLOAT
    finals = [sink] if len(outs) == 1 else [f"{sink} {i}" for i in range(len(outs))]
    nodes += [helper.make_node("Identity", [out], [final]) for out, final in zip(outs, finals, strict=True)]
    given = [batch, SIDE, SIDE, 3] if nhwc else [batch, 3, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        head,
        [helper.make_tensor_value_info(source, element, given)],
        [helper.make_tensor_value_info(name, kind, dims) for name, dims in zip(finals, shapes, strict=True)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": "['blue', 'green', 'red']", **(meta or {})})
    onnx.save(model, str(path))
    return path
