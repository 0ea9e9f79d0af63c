"""Quantization of a float TFLite file: recipes for litert-quantizer, ranges of activations as `quantize` measures them.

The forms of `QuantizePlan`: static (int8), dynamic (int8 weights,
activations quantized as they come), weights (int8, computed in float) and float16. Weights are symmetric with
one scale an output channel. Inputs and outputs stay float32, and so does the tail behind the last
weights, where a detector joins boxes and scores: one scale cannot serve both.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.errors import ModelError, RefusedError
from edge_agent.workshop.graph.layers import Operator, tail
from edge_agent.workshop.graph.net import line
from edge_agent.workshop.graph.tflite import Model
from edge_agent.workshop.quantize.build import QuantizePlan

Array = npt.NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]

HUGE = 1e5
"""a range beyond it belongs to a mask that stands for minus infinity: no scale serves it and what it is added to"""

SMALL = "DEPTHWISE_CONV_2D"
"""these hold a hundredth of the weights, and what a form without calibration saves there costs much accuracy: on
YOLOX-nano, mAP 0.323 with them in float, 0.229 without (24 pictures; the float model has 0.319)
"""


def exact(model: Model, ranges: Ranges) -> set[str]:
    """Layers that must stay float whatever the plan: the tail, and those at a tensor that no scale serves, as it is a
    mask or was not finite (then it has no range).
    """
    odd = {name for name in model.floats if not max(map(abs, ranges.get(name, (np.inf, np.inf)))) < HUGE}
    return tail(model.layers) | {layer.name for layer in model.layers if odd & {*layer.inputs, *layer.outputs}}


def quantized(model: Model, plan: QuantizePlan, ranges: Ranges) -> bytes:
    """The file. `ranges`: least and greatest value of each activation, by name, for the form `static`.

    Raises ModelError where litert-quantizer is missing, RefusedError where it cannot quantize this model.
    """
    try:
        from litert_quantizer.quantizer import Quantizer
    except ImportError as error:
        raise ModelError(
            f'TFLite files are quantized by litert-quantizer: pip install "edge-agent-runtime[workshop]" ({error})'
        ) from None
    odd = set(plan.keep) - {layer.name for layer in model.layers}
    if odd:
        raise RefusedError(f"--keep {min(odd)}: no layer of that name; the first is called {model.layers[0].name}")
    static = plan.form == "static"
    # of a width, so that no scale is 0
    values = {
        name: {"min": np.array([low]), "max": np.array([max(high, 1e-6)])} for name, (low, high) in ranges.items()
    }
    kept = set(plan.keep) | _exceptions(model, plan) | (exact(model, ranges) if static else set())
    if all(layer.name in kept for layer in layers(model)):
        raise RefusedError("every layer would stay float; nothing is left to quantize")
    try:
        # its own bar goes to stderr, whatever it is told
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tool = Quantizer(bytearray(model.data), recipe(model, plan, kept))
            result = tool.quantize(values if static else None, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, TypeError, NotImplementedError) as error:
        raise RefusedError(f"litert-quantizer cannot make it {plan.text()}: {line(error)}") from None
    return bytes(result.quantized_model)


def _exceptions(model: Model, plan: QuantizePlan) -> set[str]:
    """Layers that a form leaves float."""
    if plan.form == "dynamic":
        return {layer.name for layer in model.layers if layer.op == SMALL}
    if plan.form == "static" and plan.ops == "layers":
        return {layer.name for layer in model.layers if not layer.weights}
    return set()


def recipe(model: Model, plan: QuantizePlan, kept: Iterable[str]) -> list[dict[str, Any]]:
    """The plan as litert-quantizer reads it: a rule for all, then the exceptions, of which the last that fits holds."""
    eight = {"num_bits": 8, "symmetric": True, "granularity": "CHANNELWISE", "dtype": "INT"}
    config: dict[str, Any] = {
        "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"} if plan.form == "float16" else eight,
        "compute_precision": "INTEGER" if plan.form in ("static", "dynamic") else "FLOAT",
        "explicit_dequantize": plan.form in ("weights", "float16"),
    }
    if plan.form == "static":
        config["activation_tensor_config"] = {**eight, "symmetric": False, "granularity": "TENSORWISE"}
    algorithm = "float_casting" if plan.form == "float16" else "min_max_uniform_quantize"
    rules = [{"regex": ".*", "operation": "*", "algorithm_key": algorithm, "op_config": config}]
    free = {"algorithm_key": "no_quantize", "op_config": {}}
    rules += [{"regex": ".*", "operation": kind, **free} for kind in ("INPUT", "OUTPUT")]
    # the quantizer calls a layer by all its outputs, a semicolon behind every one
    called = {layer.name: "".join(f"{name};" for name in layer.outputs) for layer in model.layers}
    return rules + [{"regex": f"^{re.escape(called[name])}", "operation": "*", **free} for name in sorted(kept)]


def layers(model: Model) -> list[Operator]:
    """Those whose weights a plan can quantize or keep."""
    return [layer for layer in model.layers if layer.weights]
