"""A trained edge-yolo as a model folder: ONNX and TFLite, float and int8, labels and manifest.

int8 is U8 activations and S8 weights, one scale an output channel. The convolutions that give boxes and logits stay
float, and all after them, as one scale does not serve what is added up over a picture's boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from edge_agent.backends import open_net
from edge_agent.errors import ModelError
from edge_agent.inspect.names import coco80
from edge_agent.manifest import Input, Manifest
from edge_agent.workshop.graph import net as graphs
from edge_agent.workshop.quantize import prepare
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.train.detector.augment import Picture, Size, plain
from edge_agent.workshop.train.detector.net import EdgeYolo
from edge_agent.workshop.train.exported import Feeds, exported, small_onnx, small_tflite
from edge_agent.workshop.train.finish import manifest, row
from edge_agent.workshop.train.tflite import to_tflite

Say = Callable[[str], None]
NAME = "edge-yolo-2"
"""of the ONNX graph. The first version's had ReLU throughout, so its weights mean another network"""
AGREES = 1e-3
"""the most by which the float files may differ from each other, in strides and in logits"""
DELICATE = 4
"""nodes of the first two layers, which stay float in ONNX: few channels, of very unlike size"""
OUTPUTS = ("boxes", "logits")


def to_onnx(net: EdgeYolo, size: Size) -> onnx.ModelProto:
    """`images` (1, 3, height, width) float32 BGR 0..255 -> `boxes` (1, N, 4), `logits` (1, N, C), of `folded_copy`'s
    network. Its constants bear the names of the network's, so that a fine-tuning can start from the file.
    """
    return exported(net, (torch.zeros(1, 3, size[1], size[0]),), ["images"], OUTPUTS, name=NAME)


def write_model(
    net: EdgeYolo,
    classes: tuple[str, ...],
    size: Size,
    pictures: Sequence[Picture],
    out: Path,
    say: Say,
) -> Manifest:
    """Write model.onnx, model.int8.onnx, model.fp16.tflite, model.int8.tflite and labels.txt to `out`; the manifest.

    `net` as of `net.folded_copy`, `pictures`: for the int8 ranges.

    Raises ModelError where the float files do not agree with each other.
    """
    shown = [{"images": _tensor(picture, size)} for picture in pictures]
    model = to_onnx(net, size)
    (out / "model.onnx").write_bytes(model.SerializeToString())
    wide = to_tflite(model)
    (out / "model.tflite").write_bytes(wide)
    apart = difference(out / "model.onnx", out / "model.tflite", shown[0]["images"])
    if not apart < AGREES:
        raise ModelError(f"the TFLite file answers otherwise than the ONNX file (by {apart:.2g}); nothing was written")
    (out / "model.tflite").unlink()
    say(f"TFLite differs from ONNX by {apart:.1g}")
    (out / "model.int8.onnx").write_bytes(int8_onnx(model, shown))
    (out / "model.fp16.tflite").write_bytes(small_tflite(wide, QuantizePlan(form="float16")))
    (out / "model.int8.tflite").write_bytes(int8_tflite(model, wide, shown))
    (out / "labels.txt").write_text("".join(f"{label}\n" for label in classes), encoding="utf-8")
    return _manifest(classes, size)


def int8_onnx(model: onnx.ModelProto, shown: Feeds) -> bytes:
    """Its int8 form, by ranges on `shown`."""
    whole = graphs.of(model)
    keep = (*prepare.head(whole), *(str(node.name) for node in list(whole.graph)[:DELICATE]))
    return small_onnx(model, QuantizePlan(ops="all", keep=keep), shown)


def int8_tflite(model: onnx.ModelProto, wide: bytes, shown: Feeds) -> bytes:
    """The same of `wide`, its float TFLite file, where all before the heads is int8."""
    whole = graphs.of(model)
    heads = prepare.head(whole)
    keep = tuple(str(node.outputs[0].name) for node in graphs.layers(whole) if node.name in heads)
    feeds = [{"images": feed["images"].transpose(0, 2, 3, 1)} for feed in shown]
    return small_tflite(wide, QuantizePlan(ops="all", keep=keep), feeds)


def _manifest(classes: tuple[str, ...], size: Size) -> Manifest:
    known = coco80()
    rows = [row("model.onnx", "onnx", "fp32"), row("model.int8.onnx", "onnx", "int8")]
    for precision in ("fp16", "int8"):
        rows.append(msgspec.structs.replace(row(f"model.{precision}.tflite", "tflite", precision), layout="NHWC"))
    says = f"a detector of {len(classes)} classes for small boards, {size[0]} x {size[1]} pixels"
    return manifest(
        "edge-yolo",
        "detect",
        "edge-yolo",
        says,
        rows,
        labels="labels.txt",
        class_ids=[known.index(c) for c in classes] if set(classes) <= set(known) else None,
        score=0.3,
        iou=0.5,
        input=Input(*size, layout="NCHW", channels="BGR", letterbox="top-left", pad=114),
    )


def _tensor(picture: Picture, size: Size) -> npt.NDArray[np.float32]:
    """(1, 3, height, width) as at inference."""
    return np.ascontiguousarray(plain(picture, size)[0].transpose(2, 0, 1)[None], np.float32)


def difference(one: Path, lite: Path, picture: npt.NDArray[np.float32]) -> float:
    """The greatest difference of what an ONNX file and a TFLite file say of `picture` (1, 3, height, width)."""
    said = open_net(one, "onnx", 1).run({"images": picture})
    other = open_net(lite, "tflite", 1).run({"images": np.ascontiguousarray(picture.transpose(0, 2, 3, 1))})
    return max(float(np.abs(said[name] - other[name]).max()) for name in OUTPUTS)


def tensors_of(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The network's tensors out of a model.onnx that `write_model` wrote. Raises ModelError for any other file."""
    graph = graphs.load(path).graph
    if graph.name != NAME:
        raise ModelError(f"{path} is no float edge-yolo of version 2, so a training cannot start from it")
    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    return {name: value for name, value in found.items() if name.endswith((".weight", ".bias"))}
