"""int8 of an edge-yolo: activations' ranges on pictures, and the ONNX file with QDQ pairs.

U8 activations and S8 weights, one scale an output channel (onnxruntime's static QDQ form, which x86 and Arm both run
fast); the convolutions that give boxes and logits, and all after them, stay float, as one scale does not serve what is
added up over a picture's boxes.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from edge_agent.workshop.train.detector_graph import Layer, Tensors, layers, to_onnx

Batch = npt.NDArray[np.float32]
MOST = 16.0
"""by which a channel is scaled at most, either way"""


def ranges(model: onnx.ModelProto, pictures: Sequence[Batch]) -> dict[str, tuple[float, float]]:
    """Least and greatest value of each float tensor of `model` in a picture, each (1, 3, size, size), on average.

    The mean of the pictures' extremes, so that one rare peak does not cost all other values their resolution.
    """
    names = [output for node in model.graph.node for output in node.output]
    session = _seeing(model, names)
    sums = {name: np.zeros(2) for name in names}
    for picture in pictures:
        for name, value in zip(names, session.run(names, {"images": picture}), strict=True):
            sums[name] += value.min(), value.max()
    means = {name: both / len(pictures) for name, both in sums.items()}
    return {name: (float(low), float(high)) for name, (low, high) in means.items()} | {"images": (0.0, 255.0)}


def equalized(tensors: Tensors, size: int, pictures: Sequence[Batch]) -> dict[str, npt.NDArray[np.float32]]:
    """The same network with channels of like size, so that one scale serves a whole tensor.

    ReLU lets a channel be divided by a positive number if the convolutions that read it multiply by the same number
    (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721). The
    number is the channel's greatest value over `pictures`; where a full convolution reads it, the root of that value
    over the weights that read it, since their rows have one scale each as well.
    """
    made = layers(tensors, size)
    chosen = {}
    for layer in made:
        readers = _readers(made, layer.output) if layer.kind == "conv" and layer.relu else None
        if readers:
            chosen[layer.output] = layer, readers
    highest = _highest(to_onnx(tensors, size), list(chosen), pictures)
    new = {name: value.copy() for name, value in tensors.items()}
    for name, (layer, readers) in chosen.items():
        _scale_channels(new, layer, readers, np.maximum(highest[name], 1e-6))
    return new


def _scale_channels(
    new: dict[str, npt.NDArray[np.float32]],
    layer: Layer,
    readers: list[tuple[Layer, int]],
    top: npt.NDArray[np.float32],
) -> None:
    """Divide the channels that `layer` gives by their sizes, in `new`, and multiply where they are read. `top`: the
    greatest value of each.
    """
    read = np.zeros(len(top), np.float32)
    for reader, first in readers:
        if reader.groups == 1:
            rows = new[reader.weight][:, first : first + len(top)]
            read = np.maximum(read, np.abs(rows).max(axis=(0, 2, 3)))
    factor = np.sqrt(top / np.maximum(read, 1e-6)) if read.any() else top
    factor = np.clip(factor / np.exp(np.log(factor).mean()), 1 / MOST, MOST).astype(np.float32)
    new[layer.weight] /= factor[:, None, None, None]
    new[layer.weight.replace(".weight", ".bias")] /= factor
    for reader, first in readers:
        part = slice(first, first + len(top))
        if reader.groups > 1:
            new[reader.weight][part] *= factor[:, None, None, None]
        else:
            new[reader.weight][:, part] *= factor[None, :, None, None]


def _readers(made: list[Layer], name: str) -> list[tuple[Layer, int]] | None:
    """The convolutions that read the map `name`, by way of joins, doublings and pools too, and the place of its first
    channel among their inputs; None where something else reads it as well, as a sum does.
    """
    found: list[tuple[Layer, int]] = []
    for layer in made:
        at = 0
        for given in layer.inputs:
            if given == name and layer.kind == "conv":
                found.append((layer, 0))
            elif given == name:
                further = _readers(made, layer.output) if layer.kind in ("concat", "double", "pool") else None
                if further is None:
                    return None
                found += [(reader, at + first) for reader, first in further]
            at += next((a.channels for a in made if a.output == given), 0)
    return found


def _highest(model: onnx.ModelProto, names: list[str], pictures: Sequence[Batch]) -> dict[str, npt.NDArray[np.float32]]:
    """Greatest value of each channel of the named maps over `pictures`."""
    session = _seeing(model, names)
    found = {name: np.zeros(0, np.float32) for name in names}
    for picture in pictures:
        for name, value in zip(names, session.run(names, {"images": picture}), strict=True):
            top = value.max(axis=(0, 2, 3))
            found[name] = np.maximum(found[name], top) if len(found[name]) else top
    return found


def _seeing(model: onnx.ModelProto, names: list[str]) -> ort.InferenceSession:
    """A session of `model` that gives the named tensors."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])


class _Reader:
    """What onnxruntime calibrates on."""

    def __init__(self, pictures: Sequence[Batch]) -> None:
        self._rows: Iterator[Batch] = iter(pictures)

    def get_next(self) -> dict[str, Batch] | None:
        picture = next(self._rows, None)
        return None if picture is None else {"images": picture}


def to_int8(model: onnx.ModelProto, pictures: Sequence[Batch]) -> onnx.ModelProto:
    """The QDQ form of `model`, calibrated on `pictures`, each (1, 3, size, size) float32."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    float_ends = (".boxes", ".logits", ".cells", ".flat")
    kept = [node.name for node in model.graph.node if node.name.endswith(float_ends)]
    kept += ["boxes", "logits", "boxes.raw"]
    options: dict[str, Any] = {"CalibMovingAverage": True}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, str(source))
        level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)  # onnxruntime logs its advice through the root logger
        try:
            quantize_static(
                str(source),
                str(target),
                _Reader(pictures),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=kept,
                extra_options=options,
            )
        finally:
            logging.getLogger().setLevel(level)
        return onnx.load(str(target))
