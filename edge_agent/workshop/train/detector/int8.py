"""int8 of an edge-yolo: the recipe's own plan, by the workshop's general quantization.

U8 activations and S8 weights, one scale an output channel (onnxruntime's static QDQ form, which x86 and Arm both run
fast). The first two layers stay float, and so do the convolutions that give boxes and logits and all after them, as one
scale does not serve what is added up over a picture's boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_agent.workshop.graph import net
from edge_agent.workshop.quantize import balance, prepare
from edge_agent.workshop.quantize import ranges as quantize_ranges
from edge_agent.workshop.quantize.build import QuantizePlan, build
from edge_agent.workshop.quantize.ranges import TensorRange, watch
from edge_agent.workshop.train.detector.graph import Size, Tensors, tensors_of, to_onnx

Batch = npt.NDArray[np.float32]
PIXELS = (0.0, 255.0)
METHOD = "percentile"
DELICATE = ("stem.raw", "stem", "stage4.0.depth.raw", "stage4.0.depth")
"""the first two layers, which stay float in ONNX: few channels, of very unlike size"""


def ranges(model: onnx.ModelProto, pictures: Sequence[Batch]) -> dict[str, tuple[float, float]]:
    """The range of each float tensor of `model` in which all but few values of `pictures` lie, each (1, 3, height,
    width).
    """
    return quantize_ranges.ranges(_seen(model, pictures), METHOD) | {"images": PIXELS}


def equalized(tensors: Tensors, size: Size, pictures: Sequence[Batch]) -> dict[str, npt.NDArray[np.float32]]:
    """The same network with channels of like size, so that one scale serves a whole tensor (quantize/balance.py)."""
    model = to_onnx(tensors, size)
    made = tensors_of(net.proto(balance.equalized(_whole(model), _seen(model, pictures))[0]))
    # of constants that are equal, as the zero biases of a fresh network, one stands for all
    return {name: made.get(name, np.asarray(value)) for name, value in tensors.items()}


def to_int8(model: onnx.ModelProto, pictures: Sequence[Batch]) -> onnx.ModelProto:
    """The QDQ form of `model`, calibrated on `pictures`, each (1, 3, height, width) float32."""
    whole = _whole(model)
    plan = QuantizePlan(ops="all", keep=(*prepare.head(whole), *DELICATE))
    return onnx.load_from_string(build(whole, plan, ranges(model, pictures)))


def _seen(model: onnx.ModelProto, pictures: Sequence[Batch]) -> dict[str, TensorRange]:
    return watch(_whole(model), lambda: ({"images": one} for one in pictures), lambda step: None)


def _whole(model: onnx.ModelProto) -> ir.Model:
    """Each constant with one reader."""
    return net.one_each(net.of(model))
