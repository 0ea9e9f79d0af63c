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

Batch = npt.NDArray[np.float32]


def ranges(model: onnx.ModelProto, pictures: Sequence[Batch], tail: float = 1e-5) -> dict[str, tuple[float, float]]:
    """Least and greatest value of each float tensor of `model` over `pictures`, each (1, 3, size, size).

    `tail`: the share of a picture's values that may lie beyond, so that one rare peak does not cost all others
    their resolution; the mean over the pictures is taken.
    """
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    names = [output for node in model.graph.node for output in node.output]
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])
    lows: dict[str, list[float]] = {}
    highs: dict[str, list[float]] = {}
    for picture in pictures:
        for name, value in zip(names, session.run(names, {"images": picture}), strict=True):
            beyond = int(value.size * tail)
            flat = np.partition(value.ravel(), [beyond, value.size - 1 - beyond])
            lows.setdefault(name, []).append(float(flat[beyond]))
            highs.setdefault(name, []).append(float(flat[value.size - 1 - beyond]))
    found = {name: (float(np.mean(lows[name])), float(np.mean(highs[name]))) for name in names}
    return found | {"images": (0.0, 255.0)}


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
