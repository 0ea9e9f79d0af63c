"""edge-bert's encoder as TFLite, written op by op: int8 matrices and tables, float activations (dynamic range).

Format: the TFLite schema (tensorflow/compiler/mlir/lite/schema/schema.fbs), through the classes that ai-edge-litert
brings. One text at a time, of any length up to the longest: places are counted from the mask, so that each shape
follows from the input's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.workshop.train.bert.net import EPS, Bert
from edge_agent.workshop.train.bert.onnx import BLOCKED
from edge_agent.workshop.train.tflite import packed

TYPES = {"float32": 0, "int32": 2, "int8": 9}


class _Graph:
    """Tensors and ops while the model is written; a tensor is its index."""

    def __init__(self, net: Bert) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.weights = {k: v.detach().cpu().float().numpy() for k, v in net.state_dict().items()}
        self.buffers: list[bytes] = [b""]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[str, int], int] = {}

    def tensor(self, name: str, shape: Sequence[int], dtype: str = "float32", data: NDArray[Any] | None = None) -> int:
        """`shape` may have -1, which stands as 1 until the input is resized."""
        t = self.schema.TensorT()
        t.name, t.type = name, TYPES[dtype]
        t.shape = [max(1, n) for n in shape]
        if -1 in shape:
            t.shapeSignature = list(shape)
        if data is not None:
            t.buffer = len(self.buffers)
            self.buffers.append(np.ascontiguousarray(data, dtype).tobytes())
        self.tensors.append(t)
        return len(self.tensors) - 1

    def constant(self, name: str, value: Any, dtype: str = "float32") -> int:
        array = np.asarray(value, dtype)
        return self.tensor(name, array.shape, dtype, array)

    def int8(self, name: str, per_row: bool) -> int:
        """A weight as int8, symmetric: one scale a row, or one for all."""
        array = self.weights[name]
        most = np.abs(array).max(axis=1) if per_row else np.abs(array).max()[None]
        scale = np.maximum(most, 1e-8).astype(np.float32) / 127
        at = self.tensor(name, array.shape, "int8", np.clip(np.rint(array / scale[:, None]), -127, 127))
        q = self.schema.QuantizationParametersT()
        q.scale, q.zeroPoint, q.quantizedDimension = scale, np.zeros(len(scale), np.int64), 0
        self.tensors[at].quantization = q
        return at

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        dtype: str = "float32",
        name: str = "",
        **options: Any,
    ) -> int:
        """`kind` as in BuiltinOperator; `options` are the fields of its options table."""
        out = self.tensor(name or f"{kind.lower()}_{len(self.operators)}", shape, dtype)
        version = {"FULLY_CONNECTED": 9, "BATCH_MATMUL": 2, "DEQUANTIZE": 2, "GATHER": 2, "SUM": 1}.get(kind, 1)
        o = self.schema.OperatorT()
        o.opcodeIndex = self.codes.setdefault((kind, version), len(self.codes))
        o.inputs, o.outputs = list(inputs), [out]
        table = OPTIONS.get(kind)
        if table:
            o.builtinOptionsType = getattr(self.schema.BuiltinOptions, table)
            o.builtinOptions = getattr(self.schema, f"{table}T")()
            for key, value in options.items():
                setattr(o.builtinOptions, key, value)
        self.operators.append(o)
        return out

    def dense(self, x: int, name: str, shape: Sequence[int]) -> int:
        parts = [
            x,
            self.int8(f"{name}.weight", per_row=True),
            self.constant(f"{name}.bias", self.weights[f"{name}.bias"]),
        ]
        return self.op("FULLY_CONNECTED", parts, shape, keepNumDims=len(shape) > 2)

    def norm(self, x: int, name: str, shape: Sequence[int], out: str = "") -> int:
        axis, thin = self.constant(f"{name}.axis", [-1], "int32"), [*shape[:-1], 1]
        mean = self.op("MEAN", [x, axis], thin, keepDims=True)
        spread = self.op("MEAN", [self.op("SQUARED_DIFFERENCE", [x, mean], shape), axis], thin, keepDims=True)
        length = self.op("RSQRT", [self.op("ADD", [spread, self.constant(f"{name}.eps", EPS)], thin)], thin)
        y = self.op("MUL", [self.op("SUB", [x, mean], shape), length], shape)
        y = self.op("MUL", [y, self.constant(f"{name}.weight", self.weights[f"{name}.weight"])], shape)
        return self.op("ADD", [y, self.constant(f"{name}.bias", self.weights[f"{name}.bias"])], shape, name=out)

    def look_up(self, name: str, ids: int, shape: Sequence[int]) -> int:
        found = self.op("GATHER", [self.int8(name, per_row=False), ids], shape, "int8", axis=0)
        self.tensors[found].quantization = self.tensors[-2].quantization
        return self.op("DEQUANTIZE", [found], shape)


OPTIONS = {
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "GATHER": "GatherOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "SOFTMAX": "SoftmaxOptions",
    "GELU": "GeluOptions",
    "RESHAPE": "ReshapeOptions",
    "TRANSPOSE": "TransposeOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
    "CAST": "CastOptions",
    "CUMSUM": "CumsumOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "L2_NORMALIZATION": "L2NormOptions",
}


def encoder(net: Bert) -> bytes:
    """input_ids, attention_mask, token_type_ids [1, L] int32 -> hidden [1, L, H], embedding [1, E]; L is resizable."""
    g, shape = _Graph(net), net.shape
    heads, each = shape.heads, shape.width // shape.heads
    row, wide, split = [1, -1], [1, -1, shape.width], [1, -1, heads, each]
    ids, mask, types = (g.tensor(n, row, "int32") for n in ("input_ids", "attention_mask", "token_type_ids"))
    one = g.constant("one", 1, "int32")
    at = g.op("CUMSUM", [mask, one], row, "int32", exclusive=False, reverse=False)
    at = g.op("SUB", [at, one], row, "int32")
    narrow = [1, -1, shape.token]
    x = g.op("ADD", [g.look_up("token.weight", ids, narrow), g.look_up("position.weight", at, narrow)], narrow)
    x = g.op("ADD", [x, g.look_up("segment.weight", types, narrow)], narrow)
    x = g.dense(g.norm(x, "norm0", narrow), "widen", wide)
    seen = g.op("CAST", [mask], row, inDataType=TYPES["int32"], outDataType=TYPES["float32"])
    blocked = g.op("MUL", [g.op("SUB", [g.constant("seen", 1.0), seen], row), g.constant("blocked", BLOCKED)], row)
    blocked = g.op("RESHAPE", [blocked, g.constant("row", [1, 1, 1, -1], "int32")], [1, 1, 1, -1])
    to_heads, to_row = g.constant("split", split, "int32"), g.constant("join", wide, "int32")
    swap, turn = g.constant("swap", [0, 2, 1, 3], "int32"), g.constant("turn", [0, 2, 3, 1], "int32")
    scale = g.constant("scale", each**-0.5)
    headed, square = [1, heads, -1, each], [1, heads, -1, -1]
    for layer in range(shape.layers):
        own = f"layers.{layer}"
        y = g.norm(x, f"{own}.norm1", wide)
        q, k, v = (
            g.op("RESHAPE", [g.dense(y, f"{own}.{part}", wide), to_heads], split) for part in ("query", "key", "value")
        )
        q, v = (g.op("TRANSPOSE", [t, swap], headed) for t in (g.op("MUL", [q, scale], split), v))
        scores = g.op("BATCH_MATMUL", [q, g.op("TRANSPOSE", [k, turn], [1, heads, each, -1])], square)
        y = g.op("SOFTMAX", [g.op("ADD", [scores, blocked], square)], square, beta=1.0)
        y = g.op("TRANSPOSE", [g.op("BATCH_MATMUL", [y, v], headed), swap], split)
        x = g.op("ADD", [x, g.dense(g.op("RESHAPE", [y, to_row], wide), f"{own}.out", wide)], wide)
        deep = [1, -1, shape.inner]
        y = g.op("GELU", [g.dense(g.norm(x, f"{own}.norm2", wide), f"{own}.up", deep)], deep, approximate=True)
        x = g.op("ADD", [x, g.dense(y, f"{own}.down", wide)], wide)
    hidden = g.norm(x, "norm", wide, "hidden")
    here = g.op("RESHAPE", [seen, g.constant("column", [1, -1, 1], "int32")], [1, -1, 1])
    axis = g.constant("axis", [1], "int32")
    total = g.op("SUM", [g.op("MUL", [hidden, here], wide), axis], [1, shape.width], keepDims=False)
    mean = g.op("DIV", [total, g.op("SUM", [seen, axis], [1, 1], keepDims=True)], [1, shape.width])
    vector = g.dense(mean, "project", [1, shape.embedding])
    embedding = g.op("L2_NORMALIZATION", [vector], [1, shape.embedding], name="embedding")
    return packed(g, [ids, mask, types], [hidden, embedding])
