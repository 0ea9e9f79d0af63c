"""int8 of an edge-yolo: the recipe's own plan, by the workshop's general quantization.

U8 activations and S8 weights, one scale an output channel (onnxruntime's static QDQ form, which x86 and Arm both run
fast); the convolutions that give boxes and logits, and all after them, stay float, as one scale does not serve what is
added up over a picture's boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from edge_agent.workshop import quantize_balance, quantize_graph, quantize_ranges
from edge_agent.workshop.quantize_build import Plan, build
from edge_agent.workshop.train.detector_graph import Tensors, tensors_of, to_onnx

Batch = npt.NDArray[np.float32]
PIXELS = (0.0, 255.0)


def ranges(model: onnx.ModelProto, pictures: Sequence[Batch]) -> dict[str, tuple[float, float]]:
    """Least and greatest value of each float tensor of `model` in a picture, each (1, 3, size, size), on average.

    The mean of the pictures' extremes, so that one rare peak does not cost all other values their resolution.
    """
    return {
        name: (seen.lows / seen.samples, seen.highs / seen.samples) for name, seen in _seen(model, pictures).items()
    } | {"images": PIXELS}


def equalized(tensors: Tensors, size: int, pictures: Sequence[Batch]) -> dict[str, npt.NDArray[np.float32]]:
    """The same network with channels of like size, so that one scale serves a whole tensor (quantize_balance.py)."""
    model = to_onnx(tensors, size)
    return tensors_of(quantize_balance.equalized(onnx.shape_inference.infer_shapes(model), _seen(model, pictures))[0])


def to_int8(model: onnx.ModelProto, pictures: Sequence[Batch]) -> onnx.ModelProto:
    """The QDQ form of `model`, calibrated on `pictures`, each (1, 3, size, size) float32."""
    seen = _seen(model, pictures)
    kept = tuple(name for layer in quantize_graph.head(model) for name in layer.nodes)
    found = quantize_ranges.ranges(seen, "average", 8) | {"images": PIXELS}
    return build(model, Plan(method="average", ops="all", keep=kept), found)


def _seen(model: onnx.ModelProto, pictures: Sequence[Batch]) -> dict[str, quantize_ranges.Seen]:
    whole = onnx.shape_inference.infer_shapes(model)
    return quantize_ranges.watch(whole, lambda: ({"images": one} for one in pictures), False, lambda step: None)
