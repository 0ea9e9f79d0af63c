"""edge-yolo's layers as a TFLite file: float32, float16 weights, or int8.

Maps are NHWC. Padding is symmetric, as the network was trained, by PAD where TFLite's SAME would differ. int8 follows
the TFLite quantization specification: activations one scale and zero point a tensor, weights symmetric with one scale
an output channel, biases int32; the last convolutions, whose outputs are boxes and logits, stay float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_agent.workshop.train.detector.graph import ConvLayer, Size, Tensors, layers
from edge_agent.workshop.train.tflite import TYPES, TfliteFile

Array = npt.NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]
"""least and greatest value of each tensor"""
SAME, VALID, RELU = 0, 1, 1
MOVES = ("pool", "double", "concat")
"""layers that only move numbers: what goes in and what comes out share one range"""


def to_tflite(
    tensors: Tensors, size: Size, precision: Literal["fp32", "fp16", "int8"], ranges: Ranges | None = None
) -> bytes:
    """`images` (1, height, width, 3) float32 BGR 0..255 -> `boxes` (1, N, 4), `logits` (1, N, C) float32.

    `ranges`: of each layer's output, for "int8" (`int8.ranges`).
    """
    made = layers(tensors, size)
    shared = _shared_ranges(made, ranges or {}) if precision == "int8" else {}
    file = _DetectorFile(tensors, precision == "fp16", shared)
    given = [1, size[1], size[0], 3]
    start = file.at["images"] = file.tensor("images", given)
    if precision == "int8":
        file.at["images"] = file.quantize(file.tensor("images.int8", given, "int8"), *_scale(*file.ranges["images"]))
        file.op("QUANTIZE", [start], file.at["images"])
    for layer in made:
        file.add(layer)
    return file.packed([start], [file.at["boxes"], file.at["logits"]])


class _DetectorFile(TfliteFile):
    """The file while layers are added to it."""

    def __init__(self, weights: Tensors, half: bool, ranges: Ranges) -> None:
        """`half`: weights are stored as float16. `ranges`: of the tensors that are int8."""
        super().__init__({"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 3, "PAD": 2, "ADD": 2})
        self.weights, self.half, self.ranges = weights, half, ranges
        self.at: dict[str, int] = {}
        """the tensor of each layer's output"""

    def add(self, layer: ConvLayer) -> None:
        """One more layer; where int8 ends its inputs become float again."""
        out = self.map(layer.output, layer.shape)
        inputs = [self.at[name] for name in layer.inputs]
        if layer.inputs[0] in self.ranges and layer.output not in self.ranges:
            inputs = [self.as_float(index) for index in inputs]
        WRITERS[layer.kind](self, layer, inputs, out)
        self.at[layer.output] = out

    def map(self, name: str, shape: tuple[int, ...]) -> int:
        """A tensor of one picture: int8 where its range is known, else float."""
        if name not in self.ranges:
            return self.tensor(name, [1, *shape])
        return self.quantize(self.tensor(name, [1, *shape], "int8"), *_scale(*self.ranges[name]))

    def as_float(self, index: int) -> int:
        """The float tensor beside an int8 one."""
        given = self.tensors[index]
        name = f"{given.name}.float"
        for at, tensor in enumerate(self.tensors):
            if tensor.name == name:
                return at
        out = self.tensor(name, given.shape)
        self.op("DEQUANTIZE", [index], out)
        return out


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────


def _activated(file: _DetectorFile, layer: ConvLayer, inputs: list[int], out: int) -> None:
    if layer.act != "silu":
        _convolution(file, layer, inputs[0], out)
        return
    raw, gate = (file.map(f"{layer.output}.{part}", layer.shape) for part in ("raw", "gate"))
    _convolution(file, layer, inputs[0], raw)
    file.op("LOGISTIC", [raw], gate)
    file.op("MUL", [raw, gate], out)


def _add(file: _DetectorFile, _layer: ConvLayer, inputs: list[int], out: int) -> None:
    file.op("ADD", inputs, out)


def _concat(file: _DetectorFile, _layer: ConvLayer, inputs: list[int], out: int) -> None:
    file.op("CONCATENATION", inputs, out, axis=3)


def _pool(file: _DetectorFile, _layer: ConvLayer, inputs: list[int], out: int) -> None:
    file.op("MAX_POOL_2D", inputs, out, padding=SAME, strideW=1, strideH=1, filterWidth=5, filterHeight=5)


def _double(file: _DetectorFile, layer: ConvLayer, inputs: list[int], out: int) -> None:
    side = file.tensor(f"{layer.output}.size", [2], "int32", np.array(layer.shape[:2]))
    # asymmetric coordinates, rounded down: neither of the two options
    file.op("RESIZE_NEAREST_NEIGHBOR", [inputs[0], side], out)


def _cells(file: _DetectorFile, layer: ConvLayer, inputs: list[int], out: int) -> None:
    shape = np.array([1, *layer.shape])
    file.op("RESHAPE", [inputs[0], file.tensor(f"{layer.output}.shape", [3], "int32", shape)], out, newShape=shape)


def _stack(file: _DetectorFile, layer: ConvLayer, inputs: list[int], out: int) -> None:
    # a concatenation has a field for an activation, but the runtimes ignore it
    joined = file.tensor(f"{layer.output}.raw", [1, *layer.shape]) if layer.act else out
    file.op("CONCATENATION", inputs, joined, axis=1)
    if layer.act:
        file.op("RELU", [joined], out)


WRITERS: dict[str, Callable[[_DetectorFile, ConvLayer, list[int], int], None]] = {
    "conv": _activated,
    "add": _add,
    "concat": _concat,
    "pool": _pool,
    "double": _double,
    "cells": _cells,
    "stack": _stack,
}


# ── convolutions ─────────────────────────────────────────────────────────────────────────────────────────


def _convolution(file: _DetectorFile, layer: ConvLayer, x: int, out: int) -> None:
    weight, bias = file.weights[layer.weight], file.weights[layer.weight.replace(".weight", ".bias")]
    kernel, strided = weight.shape[2], layer.stride > 1
    if strided and kernel > 1:
        x = _padded(file, layer.output, x, (kernel - 1) // 2)
    depthwise = layer.groups > 1
    data = _laid_out(weight, depthwise)
    if file.tensors[out].type == TYPES["int8"]:
        w, b = _int8_weights(file, layer, x, data, bias, 3 if depthwise else 0)
    else:
        w, b = _float_weights(file, layer, data, bias)
    options: dict[str, Any] = {
        "padding": VALID if strided or kernel == 1 else SAME,
        "strideW": layer.stride,
        "strideH": layer.stride,
        "fusedActivationFunction": RELU if layer.act == "relu" else 0,
    }
    if depthwise:
        options["depthMultiplier"] = 1
    file.op("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", [x, w, b], out, **options)


def _laid_out(weight: Array, depthwise: bool) -> Array:
    """OIHW -> OHWI, and 1HWO for a depthwise one."""
    laid: Array = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
    return laid


def _padded(file: _DetectorFile, name: str, x: int, pad: int) -> int:
    """`x` with `pad` pixels on all sides: SAME pads only the far side at stride 2, the network pads both."""
    given = file.tensors[x]
    high, wide = given.shape[1] + 2 * pad, given.shape[2] + 2 * pad
    padded = file.tensor(f"{name}.padded", [1, high, wide, given.shape[3]])
    file.tensors[padded].type, file.tensors[padded].quantization = given.type, given.quantization
    amount = file.tensor(f"{name}.pads", [4, 2], "int32", np.array([[0, 0], [pad] * 2, [pad] * 2, [0, 0]]))
    file.op("PAD", [x, amount], padded)
    return padded


def _float_weights(file: _DetectorFile, layer: ConvLayer, data: Array, bias: Array) -> tuple[int, int]:
    """Weights, stored as float16 where the file is to be half as large, and bias."""
    b = file.tensor(f"{layer.output}.bias", bias.shape, "float32", bias)
    if not file.half:
        return file.tensor(layer.weight, data.shape, "float32", data), b
    half = file.tensor(f"{layer.weight}.half", data.shape, "float16", data)
    w = file.tensor(layer.weight, data.shape)
    file.op("DEQUANTIZE", [half], w)
    return w, b


def _int8_weights(
    file: _DetectorFile, layer: ConvLayer, x: int, data: Array, bias: Array, axis: int
) -> tuple[int, int]:
    """Weights int8, symmetric, one scale an output channel (`axis` of `data`); bias int32 in the product's scale."""
    others = tuple(i for i in range(data.ndim) if i != axis)
    given = float(file.tensors[x].quantization.scale[0])
    # a channel of next to no weights still needs a scale in which its bias fits an int32
    scale = np.maximum(np.abs(data).max(axis=others) / 127, np.abs(bias) / given / 2**30 + 1e-12)
    spread = scale.reshape([-1 if i == axis else 1 for i in range(data.ndim)])
    whole = np.clip(np.rint(data / spread), -127, 127)
    w = file.quantize(file.tensor(layer.weight, data.shape, "int8", whole), scale, axis=axis)
    product = scale * given
    b = file.quantize(file.tensor(f"{layer.output}.bias", bias.shape, "int32", np.rint(bias / product)), product)
    return w, b


# ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────


def _scale(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of int8 for values from `low` to `high`; 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-6) / 255
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


def _shared_ranges(made: list[ConvLayer], ranges: Ranges) -> dict[str, tuple[float, float]]:
    """The range of each int8 tensor; one range for all that MOVES tie together. What follows the last convolutions'
    inputs has no range: it stays float.
    """
    root = _roots(made)
    inner = ["images", *(layer.output for layer in made if layer.kind in ("conv", "add", *MOVES))]
    inner = [name for name in inner if not name.endswith((".boxes", ".logits"))]
    found: dict[str, tuple[float, float]] = {}
    for name in inner:
        low, high = ranges[name]
        old = found.get(root(name), (low, high))
        found[root(name)] = min(old[0], low), max(old[1], high)
    shares = {name: found[root(name)] for name in inner}
    for layer in made:
        if layer.act == "silu":
            # the specification fixes a sigmoid's scale: 1 / 256
            shares |= {f"{layer.output}.raw": ranges[f"{layer.output}.raw"], f"{layer.output}.gate": (0.0, 255 / 256)}
    return shares


def _roots(made: list[ConvLayer]) -> Callable[[str], str]:
    """A function from a tensor to the one that stands for all that are tied to it."""
    tied: dict[str, str] = {}

    def root(name: str) -> str:
        while name in tied:
            name = tied[name]
        return name

    for layer in made:
        for name in layer.inputs if layer.kind in MOVES else ():
            if root(name) != root(layer.output):
                tied[root(name)] = root(layer.output)
    return root
