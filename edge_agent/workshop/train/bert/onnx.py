"""edge-bert as ONNX, written node by node: one graph for the encoder, one for each head.

Weights keep their names of `net.Bert`, matrices stand as (in, out). Opset 20 for Gelu; onnxruntime 1.17 or later.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edge_agent.workshop.train.bert.net import EPS, Bert
from edge_agent.workshop.train.nodes import Nodes

OPSET, IR = 20, 9
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BLOCKED = -10000.0
"""added to the score of a padding token: far below any score, far from the end of float16"""


class _Graph(Nodes):
    """The parts of a BERT; each method adds nodes and returns the name of their output."""

    def __init__(self, net: Bert) -> None:
        super().__init__()
        self.weights = {k: v.detach().cpu().float().numpy() for k, v in net.state_dict().items()}

    def weight(self, name: str) -> str:
        array = self.weights[name]
        matrix = array.ndim == 2 and name.rsplit(".", 2)[0] not in ("token", "position", "segment")
        self.constants[name] = np.ascontiguousarray(array.T) if matrix else array
        return name

    def dense(self, x: str, name: str) -> str:
        return self.op("Add", [self.op("MatMul", [x, self.weight(f"{name}.weight")]), self.weight(f"{name}.bias")])

    def norm(self, x: str, name: str, out: str = "") -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op("LayerNormalization", [x, scale, bias], out, axis=-1, epsilon=EPS)

    def gelu(self, x: str) -> str:
        return self.op("Gelu", [x], approximate="tanh")


def encoder(net: Bert, rows: int | str = "B") -> onnx.ModelProto:
    """input_ids, attention_mask, token_type_ids (B, L) int64 -> hidden (B, L, H), embedding (B, E) of length 1.

    `rows` fixes B.
    """
    g, shape, size = _Graph(net), net.shape, [rows, "L"]
    hidden, seen = _hidden(g, net)
    axes = g.constant("axes_1", [1], np.int64)
    here = g.op("Unsqueeze", [seen, g.constant("axes_2", [2], np.int64)])
    total = g.op("ReduceSum", [g.op("Mul", [hidden, here]), axes], keepdims=0)
    mean = g.op("Div", [total, g.op("ReduceSum", [seen, axes], keepdims=1)])
    vector = g.dense(mean, "project")
    long = g.op("Sqrt", [g.op("ReduceSum", [g.op("Mul", [vector, vector]), axes], keepdims=1)])
    g.op("Div", [vector, g.op("Max", [long, g.constant("least", 1e-9, np.float32)])], "embedding")
    return g.model(
        "edge-bert",
        dict.fromkeys(INPUTS, size),
        {"hidden": [*size, shape.width], "embedding": [rows, shape.embedding]},
        OPSET,
        IR,
        TensorProto.INT64,
    )


def tagger(net: Bert, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> onnx.ModelProto:
    """The encoder's inputs -> logits (B, L, K) of each piece's tag, by `weight` (H, K) and `bias` (K,)."""
    g = _Graph(net)
    hidden, _ = _hidden(g, net)
    out = g.op("MatMul", [hidden, g.constant("tag.weight", weight, np.float32)])
    g.op("Add", [out, g.constant("tag.bias", bias, np.float32)], "logits")
    given, made = dict.fromkeys(INPUTS, ("B", "L")), {"logits": ["B", "L", len(bias)]}
    return g.model("edge-bert-tagger", given, made, OPSET, IR, TensorProto.INT64)


def _hidden(g: _Graph, net: Bert) -> tuple[str, str]:
    """The encoder up to its last layer: the names of hidden (B, L, H), and of the mask in float."""
    shape = net.shape
    ids, mask, types = INPUTS
    # places by the mask, so that every shape follows from the inputs'
    one = g.constant("one", 1, np.int64)
    at = g.op("Sub", [g.op("CumSum", [mask, one]), one])
    places = g.op("Gather", [g.weight("position.weight"), at])
    x = g.op("Add", [g.op("Gather", [g.weight("token.weight"), ids]), places])
    x = g.op("Add", [x, g.op("Gather", [g.weight("segment.weight"), types])])
    x = g.dense(g.norm(x, "norm0"), "widen")
    seen = g.op("Cast", [mask], to=TensorProto.FLOAT)
    blocked = g.op(
        "Mul", [g.op("Sub", [g.constant("seen", 1.0, np.float32), seen]), g.constant("blocked", BLOCKED, np.float32)]
    )
    blocked = g.op("Unsqueeze", [blocked, g.constant("axes_12", [1, 2], np.int64)])
    split = g.constant("split", [0, 0, shape.heads, shape.width // shape.heads], np.int64)
    join = g.constant("join", [0, 0, shape.width], np.int64)
    scale = g.constant("scale", (shape.width // shape.heads) ** -0.5, np.float32)
    for layer in range(shape.layers):
        own = f"layers.{layer}"
        y = g.norm(x, f"{own}.norm1")
        q, k, v = (g.op("Reshape", [g.dense(y, f"{own}.{part}"), split]) for part in ("query", "key", "value"))
        q, v = (g.op("Transpose", [t], perm=[0, 2, 1, 3]) for t in (q, v))
        scores = g.op("MatMul", [g.op("Mul", [q, scale]), g.op("Transpose", [k], perm=[0, 2, 3, 1])])
        y = g.op("MatMul", [g.op("Softmax", [g.op("Add", [scores, blocked])], axis=-1), v])
        y = g.op("Reshape", [g.op("Transpose", [y], perm=[0, 2, 1, 3]), join])
        x = g.op("Add", [x, g.dense(y, f"{own}.out")])
        y = g.gelu(g.dense(g.norm(x, f"{own}.norm2"), f"{own}.up"))
        x = g.op("Add", [x, g.dense(y, f"{own}.down")])
    return g.norm(x, "norm", "hidden"), seen


def mlm(net: Bert) -> onnx.ModelProto:
    """hidden (B, L, H) -> logits (B, L, V): what could stand in each place."""
    g, shape = _Graph(net), net.shape
    y = g.norm(g.gelu(g.dense("hidden", "mlm")), "mlm_norm")
    g.constants["decoder.weight"] = np.ascontiguousarray(g.weights["token.weight"].T)
    g.op("Add", [g.op("MatMul", [y, "decoder.weight"]), g.weight("mlm_bias")], "logits")
    return _head("edge-bert-mlm", g, ["B", "L", shape.width], ["B", "L", shape.vocabulary])


def nsp(net: Bert) -> onnx.ModelProto:
    """hidden (B, L, H) -> logits (B, 2): index 0, the second text follows the first; index 1, it does not."""
    g, shape = _Graph(net), net.shape
    first = g.op("Gather", ["hidden", g.constant("first", 0, np.int64)], axis=1)
    y = g.op("Tanh", [g.dense(first, "pool")])
    out = g.op("MatMul", [y, g.weight("nsp.weight")])
    g.op("Add", [out, g.weight("nsp.bias")], "logits")
    return _head("edge-bert-nsp", g, ["B", "L", shape.width], ["B", 2])


def _head(name: str, g: _Graph, shape_in: list[Any], shape_out: list[Any]) -> onnx.ModelProto:
    return g.model(name, {"hidden": shape_in}, {"logits": shape_out}, OPSET, IR)


def weights_of(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """The weights that `encoder`, `mlm` or `nsp` wrote, named and shaped as in the network.

    Stored in half they are widened; matrices that `quantize_dynamic` made int8 are scaled back.
    """
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    found = {}
    for full, value in stored.items():
        name = full.removesuffix(".half").removesuffix("_quantized")
        if name != "mlm_bias" and not name.endswith((".weight", ".bias")):
            continue
        if value.dtype == np.int8:
            zero, scale = stored[f"{name}_zero_point"], stored[f"{name}_scale"]
            array = (value.astype(np.float32) - zero.astype(np.float32)) * scale
        else:
            array = value.astype(np.float32)
        matrix = array.ndim == 2 and name.rsplit(".", 2)[0] not in ("token", "position", "segment")
        found[name] = array.T if matrix else array
    return found
