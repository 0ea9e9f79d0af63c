"""A list of layers (`train.detector_graph`) as a TFLite file, written by hand: float32, float16 weights, or int8.

Format: the TFLite schema (tensorflow/compiler/mlir/lite/schema/schema.fbs), through the classes that ai-edge-litert
brings. Maps are NHWC. Padding is symmetric, as the network was trained, by PAD where TFLite's SAME would differ.
int8 follows the TFLite quantization specification: activations one scale and zero point a tensor, weights symmetric
with one scale an output channel, biases int32; the last convolutions, whose outputs are boxes and logits, stay float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edge_agent.workshop.train.detector.graph import ConvLayer, Size, Tensors, layers

Array = npt.NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]
TYPES = {"float32": 0, "float16": 1, "int32": 2, "int8": 9}
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "ADD": "AddOptions",
    "PAD": "PadOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "RESHAPE": "ReshapeOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "QUANTIZE": "QuantizeOptions",
    "MUL": "MulOptions",
}
VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 3, "PAD": 2, "ADD": 2}
"""the versions that int8 asks for, and a few operators at all; others are 1, with int8 2"""
SAME, VALID, RELU = 0, 1, 1


class TfliteParts(Protocol):
    """What a model is put together from: the schema's objects, in the order of their indices."""

    schema: Any
    tensors: list[Any]
    operators: list[Any]
    codes: dict[tuple[str, int], int]
    """(operator, version) -> its index"""
    buffers: list[bytes]


def packed(parts: TfliteParts, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    """The file: one graph from the tensors `inputs` to the tensors `outputs`."""
    import flatbuffers

    s = parts.schema
    graph, model = s.SubGraphT(), s.ModelT()
    graph.name, graph.tensors, graph.operators = "main", parts.tensors, parts.operators
    graph.inputs, graph.outputs = list(inputs), list(outputs)
    model.version, model.description, model.subgraphs = 3, "edge-agent", [graph]
    model.operatorCodes, model.buffers = [], []
    for kind, version in parts.codes:
        code = s.OperatorCodeT()
        number = getattr(s.BuiltinOperator, kind)
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        model.operatorCodes.append(code)
    for data in parts.buffers:
        buffer = s.BufferT()
        buffer.data = np.frombuffer(data, np.uint8) if data else None
        model.buffers.append(buffer)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _File:
    """Tensors and operators while the file is written; a tensor is its index."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.buffers: list[bytes] = [b""]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[str, int], int] = {}

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str, data: Array | None = None, scale: Any = None, zero: Any = 0
    ) -> int:
        """`scale`: one number, or one for each index of the last axis (the first one for a convolution's weights)."""
        t = self.schema.TensorT()
        t.name, t.type, t.shape = name, TYPES[dtype], list(shape)
        if data is not None:
            t.buffer = len(self.buffers)
            self.buffers.append(np.ascontiguousarray(data, dtype).tobytes())
        if scale is not None:
            q = self.schema.QuantizationParametersT()
            q.scale = np.atleast_1d(np.asarray(scale, np.float32))
            q.zeroPoint = np.full(len(q.scale), zero, np.int64)
            t.quantization = q
        self.tensors.append(t)
        return len(self.tensors) - 1

    def op(self, kind: str, inputs: Sequence[int], output: int, **options: Any) -> None:
        version = VERSIONS.get(kind, 2 if self.tensors[output].type == TYPES["int8"] else 1)
        o = self.schema.OperatorT()
        o.opcodeIndex = self.codes.setdefault((kind, version), len(self.codes))
        o.inputs, o.outputs = list(inputs), [output]
        if kind in OPTIONS:
            o.builtinOptionsType = getattr(self.schema.BuiltinOptions, OPTIONS[kind])
            o.builtinOptions = getattr(self.schema, OPTIONS[kind] + "T")()
        for key, value in options.items():
            setattr(o.builtinOptions, key, value)
        self.operators.append(o)


def to_tflite(
    tensors: Tensors, size: Size, precision: Literal["fp32", "fp16", "int8"], ranges: Ranges | None = None
) -> bytes:
    """`images` (1, height, width, 3) float32 BGR 0..255 -> `boxes` (1, N, 4), `logits` (1, N, C) float32.

    `ranges`: least and greatest value of each layer's output, for "int8" (`quantize_int8.ranges`).
    """
    made = layers(tensors, size)
    file = _File()
    shares = _shared_ranges(made, ranges or {}) if precision == "int8" else {}
    inside = {layer.output for layer in made if layer.output in shares}
    given = [1, size[1], size[0], 3]
    at: dict[str, int] = {"images": file.tensor("images", given, "float32")}
    start = at["images"]
    if precision == "int8":
        scale, zero = _scale(*shares["images"])
        at["images"] = file.tensor("images.int8", given, "int8", scale=scale, zero=zero)
        file.op("QUANTIZE", [start], at["images"])
    for layer in made:
        out = _tensor(file, layer.output, layer.shape, shares)
        inputs = [at[name] for name in layer.inputs]
        if precision == "int8" and layer.output not in inside and layer.inputs[0] in inside:
            inputs = [_as_float(file, index) for index in inputs]
        _write(file, layer, inputs, out, tensors, precision, shares)
        at[layer.output] = out
    return packed(file, [start], [at["boxes"], at["logits"]])


def _tensor(file: _File, name: str, shape: tuple[int, ...], shares: Ranges) -> int:
    """A tensor of one picture: int8 where its range is known, else float."""
    if name not in shares:
        return file.tensor(name, [1, *shape], "float32")
    scale, zero = _scale(*shares[name])
    return file.tensor(name, [1, *shape], "int8", scale=scale, zero=zero)


def _write(
    file: _File, layer: ConvLayer, inputs: list[int], out: int, tensors: Tensors, precision: str, shares: Ranges
) -> None:
    if layer.kind == "conv" and layer.act == "silu":
        raw, gate = (_tensor(file, f"{layer.output}.{part}", layer.shape, shares) for part in ("raw", "gate"))
        _conv(file, layer, inputs[0], raw, tensors, precision)
        file.op("LOGISTIC", [raw], gate)
        file.op("MUL", [raw, gate], out)
    elif layer.kind == "conv":
        _conv(file, layer, inputs[0], out, tensors, precision)
    elif layer.kind == "add":
        file.op("ADD", inputs, out)
    elif layer.kind == "concat":
        file.op("CONCATENATION", inputs, out, axis=3)
    elif layer.kind == "pool":
        file.op("MAX_POOL_2D", inputs, out, padding=SAME, strideW=1, strideH=1, filterWidth=5, filterHeight=5)
    elif layer.kind == "double":
        side = file.tensor(f"{layer.output}.size", [2], "int32", np.array(layer.shape[:2]))
        # asymmetric coordinates, rounded down: neither of the two options
        file.op("RESIZE_NEAREST_NEIGHBOR", [inputs[0], side], out)
    elif layer.kind == "cells":
        shape = np.array([1, *layer.shape])
        file.op("RESHAPE", [inputs[0], file.tensor(f"{layer.output}.shape", [3], "int32", shape)], out, newShape=shape)
    else:
        joined = file.tensor(f"{layer.output}.raw", [1, *layer.shape], "float32") if layer.act else out
        file.op("CONCATENATION", inputs, joined, axis=1)  # its fused activation is ignored by the runtimes
        if layer.act:
            file.op("RELU", [joined], out)


def _conv(file: _File, layer: ConvLayer, x: int, out: int, tensors: Tensors, precision: str) -> None:
    weight, bias = tensors[layer.weight], tensors[layer.weight.replace(".weight", ".bias")]
    kernel, pad = weight.shape[2], (weight.shape[2] - 1) // 2
    if layer.stride > 1 and pad:
        # SAME pads only the far side at stride 2 where the network pads both
        given = file.tensors[x]
        high, wide = given.shape[1] + 2 * pad, given.shape[2] + 2 * pad
        padded = file.tensor(f"{layer.output}.padded", [1, high, wide, given.shape[3]], "float32")
        file.tensors[padded].type, file.tensors[padded].quantization = given.type, given.quantization
        amount = file.tensor(f"{layer.output}.pads", [4, 2], "int32", np.array([[0, 0], [pad] * 2, [pad] * 2, [0, 0]]))
        file.op("PAD", [x, amount], padded)
        x = padded
    depthwise = layer.groups > 1
    # OHWI, and 1HWO for a depthwise one
    data = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
    if file.tensors[out].type == TYPES["int8"]:
        w, b = _int8_weights(file, layer, x, data, bias, 3 if depthwise else 0)
    else:
        b = file.tensor(f"{layer.output}.bias", bias.shape, "float32", bias)
        if precision == "fp16":
            half = file.tensor(f"{layer.weight}.half", data.shape, "float16", data)
            w = file.tensor(layer.weight, data.shape, "float32")
            file.op("DEQUANTIZE", [half], w)
        else:
            w = file.tensor(layer.weight, data.shape, "float32", data)
    options: dict[str, Any] = {
        "padding": VALID if layer.stride > 1 or kernel == 1 else SAME,
        "strideW": layer.stride,
        "strideH": layer.stride,
        "fusedActivationFunction": RELU if layer.act == "relu" else 0,
    }
    if depthwise:
        options["depthMultiplier"] = 1
    file.op("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", [x, w, b], out, **options)


def _int8_weights(file: _File, layer: ConvLayer, x: int, data: Array, bias: Array, axis: int) -> tuple[int, int]:
    """Weights int8, symmetric, one scale an output channel (`axis` of `data`); bias int32 in the product's scale."""
    others = tuple(i for i in range(data.ndim) if i != axis)
    given = float(file.tensors[x].quantization.scale[0])
    # a channel of next to no weights still needs a scale in which its bias fits an int32
    scale = np.maximum(np.abs(data).max(axis=others) / 127, np.abs(bias) / given / 2**30 + 1e-12)
    spread = scale.reshape([-1 if i == axis else 1 for i in range(data.ndim)])
    whole = np.clip(np.rint(data / spread), -127, 127)
    w = file.tensor(layer.weight, data.shape, "int8", whole, scale)
    file.tensors[w].quantization.quantizedDimension = axis
    product = scale * given
    b = file.tensor(f"{layer.output}.bias", bias.shape, "int32", np.rint(bias / product), product)
    return w, b


def _as_float(file: _File, index: int) -> int:
    """The float tensor beside an int8 one."""
    given = file.tensors[index]
    name = f"{given.name}.float"
    for at, tensor in enumerate(file.tensors):
        if tensor.name == name:
            return at
    out = file.tensor(name, given.shape, "float32")
    file.op("DEQUANTIZE", [index], out)
    return out


def _scale(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of int8 for values from `low` to `high`; 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-6) / 255
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


def _shared_ranges(made: list[ConvLayer], ranges: Ranges) -> dict[str, tuple[float, float]]:
    """The range of each int8 tensor. One range for what pooling, doubling and joining of channels tie together, as
    these kernels only move numbers. What follows the last convolutions' inputs has no range: it stays float.
    """
    tied: dict[str, str] = {}

    def root(name: str) -> str:
        while name in tied:
            name = tied[name]
        return name

    for layer in made:
        if layer.kind in ("pool", "double", "concat"):
            for name in layer.inputs:
                if root(name) != root(layer.output):
                    tied[root(name)] = root(layer.output)
    inner = ["images", *(a.output for a in made if a.kind in ("conv", "add", "pool", "double", "concat"))]
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
