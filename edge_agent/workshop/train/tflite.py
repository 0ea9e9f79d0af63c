"""A TFLite file, put together tensor by tensor and operator by operator.

Format: the TFLite schema (tensorflow/compiler/mlir/lite/schema/schema.fbs), through the classes that ai-edge-litert
brings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

TYPES = {"float32": 0, "float16": 1, "int32": 2, "int8": 9}
OPTIONS = {
    "ADD": "AddOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "CUMSUM": "CumsumOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "QUANTIZE": "QuantizeOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TRANSPOSE": "TransposeOptions",
}
"""operator -> its table of options in the schema; others have none"""


class TfliteFile:
    """Tensors and operators while the file is written; a tensor is its index."""

    def __init__(self, versions: Mapping[str, int]) -> None:
        """`versions`: of the operators that need another one than 1, or 2 for an int8 output."""
        from ai_edge_litert import schema_py_generated as schema

        self.versions = versions
        self.schema: Any = schema
        self.buffers: list[bytes] = [b""]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[str, int], int] = {}

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str = "float32", data: npt.NDArray[Any] | None = None
    ) -> int:
        """A new tensor; `shape` may have -1, which stands as 1 until the input is resized."""
        t = self.schema.TensorT()
        t.name, t.type, t.shape = name, TYPES[dtype], [max(1, n) for n in shape]
        if -1 in shape:
            t.shapeSignature = list(shape)
        if data is not None:
            t.buffer = len(self.buffers)
            self.buffers.append(np.ascontiguousarray(data, dtype).tobytes())
        self.tensors.append(t)
        return len(self.tensors) - 1

    def quantize(self, tensor: int, scale: Any, zero: int = 0, axis: int = 0) -> int:
        """Say how a tensor is quantized, with one scale or with one for each index of `axis`. Returns the tensor."""
        q = self.schema.QuantizationParametersT()
        q.scale = np.atleast_1d(np.asarray(scale, np.float32))
        q.zeroPoint = np.full(len(q.scale), zero, np.int64)
        q.quantizedDimension = axis
        self.tensors[tensor].quantization = q
        return tensor

    def op(self, kind: str, inputs: Sequence[int], output: int, **options: Any) -> None:
        """Add an operator; `kind` as in BuiltinOperator, `options` are the fields of its table of options."""
        version = self.versions.get(kind, 2 if self.tensors[output].type == TYPES["int8"] else 1)
        o = self.schema.OperatorT()
        o.opcodeIndex = self.codes.setdefault((kind, version), len(self.codes))
        o.inputs, o.outputs = list(inputs), [output]
        if kind in OPTIONS:
            o.builtinOptionsType = getattr(self.schema.BuiltinOptions, OPTIONS[kind])
            o.builtinOptions = getattr(self.schema, f"{OPTIONS[kind]}T")()
        for key, value in options.items():
            setattr(o.builtinOptions, key, value)
        self.operators.append(o)

    def packed(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file: one graph from the tensors `inputs` to the tensors `outputs`."""
        import flatbuffers

        s = self.schema
        graph, model = s.SubGraphT(), s.ModelT()
        graph.name, graph.tensors, graph.operators = "main", self.tensors, self.operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model.version, model.description, model.subgraphs = 3, "edge-agent", [graph]
        model.operatorCodes, model.buffers = [], []
        for kind, version in self.codes:
            code = s.OperatorCodeT()
            number = getattr(s.BuiltinOperator, kind)
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
            model.operatorCodes.append(code)
        for data in self.buffers:
            buffer = s.BufferT()
            buffer.data = np.frombuffer(data, np.uint8) if data else None
            model.buffers.append(buffer)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
