"""edge-bert's encoder as TFLite, written op by op: int8 matrices and tables, float activations (dynamic range).

Format: the TFLite schema (tensorflow/compiler/mlir/lite/schema/schema.fbs), through the classes that ai-edge-litert
brings. One text at a time, of any length up to the longest: places are counted from the mask, so that each shape
follows from the input's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_agent.workshop.train.bert.net import EPS, Bert
from edge_agent.workshop.train.bert.onnx import BLOCKED
from edge_agent.workshop.train.tflite import TYPES, TfliteFile


class _EncoderFile(TfliteFile):
    """The file while operators are added to it; each method returns the tensor that its last operator gives."""

    def __init__(self, net: Bert) -> None:
        super().__init__({"FULLY_CONNECTED": 9, "BATCH_MATMUL": 2, "DEQUANTIZE": 2, "GATHER": 2})
        self.weights = {k: v.detach().cpu().float().numpy() for k, v in net.state_dict().items()}

    def constant(self, name: str, value: Any, dtype: str = "float32") -> int:
        array = np.asarray(value, dtype)
        return self.tensor(name, array.shape, dtype, array)

    def int8(self, name: str, per_row: bool) -> int:
        """A weight as int8, symmetric: one scale a row, or one for all."""
        array = self.weights[name]
        most = np.abs(array).max(axis=1) if per_row else np.abs(array).max()[None]
        scale = np.maximum(most, 1e-8).astype(np.float32) / 127
        stored = np.clip(np.rint(array / scale[:, None]), -127, 127)
        return self.quantize(self.tensor(name, array.shape, "int8", stored), scale)

    def made(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        dtype: str = "float32",
        name: str = "",
        **options: Any,
    ) -> int:
        """A new tensor, the output of a new operator."""
        out = self.tensor(name or f"{kind.lower()}_{len(self.operators)}", shape, dtype)
        self.op(kind, inputs, out, **options)
        return out

    def dense(self, x: int, name: str, shape: Sequence[int]) -> int:
        parts = [
            x,
            self.int8(f"{name}.weight", per_row=True),
            self.constant(f"{name}.bias", self.weights[f"{name}.bias"]),
        ]
        return self.made("FULLY_CONNECTED", parts, shape, keepNumDims=len(shape) > 2)

    def norm(self, x: int, name: str, shape: Sequence[int], out: str = "") -> int:
        axis, thin = self.constant(f"{name}.axis", [-1], "int32"), [*shape[:-1], 1]
        mean = self.made("MEAN", [x, axis], thin, keepDims=True)
        spread = self.made("MEAN", [self.made("SQUARED_DIFFERENCE", [x, mean], shape), axis], thin, keepDims=True)
        length = self.made("RSQRT", [self.made("ADD", [spread, self.constant(f"{name}.eps", EPS)], thin)], thin)
        y = self.made("MUL", [self.made("SUB", [x, mean], shape), length], shape)
        y = self.made("MUL", [y, self.constant(f"{name}.weight", self.weights[f"{name}.weight"])], shape)
        return self.made("ADD", [y, self.constant(f"{name}.bias", self.weights[f"{name}.bias"])], shape, name=out)

    def look_up(self, name: str, ids: int, shape: Sequence[int]) -> int:
        found = self.made("GATHER", [self.int8(name, per_row=False), ids], shape, "int8", axis=0)
        self.tensors[found].quantization = self.tensors[-2].quantization
        return self.made("DEQUANTIZE", [found], shape)


def encoder(net: Bert) -> bytes:
    """input_ids, attention_mask, token_type_ids [1, L] int32 -> hidden [1, L, H], embedding [1, E]; L is resizable."""
    g, shape = _EncoderFile(net), net.shape
    heads, each = shape.heads, shape.width // shape.heads
    row, wide, split = [1, -1], [1, -1, shape.width], [1, -1, heads, each]
    ids, mask, types = (g.tensor(n, row, "int32") for n in ("input_ids", "attention_mask", "token_type_ids"))
    one = g.constant("one", 1, "int32")
    at = g.made("CUMSUM", [mask, one], row, "int32", exclusive=False, reverse=False)
    at = g.made("SUB", [at, one], row, "int32")
    narrow = [1, -1, shape.token]
    x = g.made("ADD", [g.look_up("token.weight", ids, narrow), g.look_up("position.weight", at, narrow)], narrow)
    x = g.made("ADD", [x, g.look_up("segment.weight", types, narrow)], narrow)
    x = g.dense(g.norm(x, "norm0", narrow), "widen", wide)
    seen = g.made("CAST", [mask], row, inDataType=TYPES["int32"], outDataType=TYPES["float32"])
    blocked = g.made("MUL", [g.made("SUB", [g.constant("seen", 1.0), seen], row), g.constant("blocked", BLOCKED)], row)
    blocked = g.made("RESHAPE", [blocked, g.constant("row", [1, 1, 1, -1], "int32")], [1, 1, 1, -1])
    to_heads, to_row = g.constant("split", split, "int32"), g.constant("join", wide, "int32")
    swap, turn = g.constant("swap", [0, 2, 1, 3], "int32"), g.constant("turn", [0, 2, 3, 1], "int32")
    scale = g.constant("scale", each**-0.5)
    headed, square = [1, heads, -1, each], [1, heads, -1, -1]
    for layer in range(shape.layers):
        own = f"layers.{layer}"
        y = g.norm(x, f"{own}.norm1", wide)
        parts = (g.dense(y, f"{own}.{part}", wide) for part in ("query", "key", "value"))
        q, k, v = (g.made("RESHAPE", [part, to_heads], split) for part in parts)
        q, v = (g.made("TRANSPOSE", [t, swap], headed) for t in (g.made("MUL", [q, scale], split), v))
        scores = g.made("BATCH_MATMUL", [q, g.made("TRANSPOSE", [k, turn], [1, heads, each, -1])], square)
        y = g.made("SOFTMAX", [g.made("ADD", [scores, blocked], square)], square, beta=1.0)
        y = g.made("TRANSPOSE", [g.made("BATCH_MATMUL", [y, v], headed), swap], split)
        x = g.made("ADD", [x, g.dense(g.made("RESHAPE", [y, to_row], wide), f"{own}.out", wide)], wide)
        deep = [1, -1, shape.inner]
        y = g.made("GELU", [g.dense(g.norm(x, f"{own}.norm2", wide), f"{own}.up", deep)], deep, approximate=True)
        x = g.made("ADD", [x, g.dense(y, f"{own}.down", wide)], wide)
    hidden = g.norm(x, "norm", wide, "hidden")
    here = g.made("RESHAPE", [seen, g.constant("column", [1, -1, 1], "int32")], [1, -1, 1])
    axis = g.constant("axis", [1], "int32")
    total = g.made("SUM", [g.made("MUL", [hidden, here], wide), axis], [1, shape.width], keepDims=False)
    mean = g.made("DIV", [total, g.made("SUM", [seen, axis], [1, 1], keepDims=True)], [1, shape.width])
    vector = g.dense(mean, "project", [1, shape.embedding])
    embedding = g.made("L2_NORMALIZATION", [vector], [1, shape.embedding], name="embedding")
    return g.packed([ids, mask, types], [hidden, embedding])
