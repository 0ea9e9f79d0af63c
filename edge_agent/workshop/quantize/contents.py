"""What a quantized file holds, read off the file: no report says of it what the plan only meant to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from edge_agent.workshop.graph.tflite import WEIGHTED as TFLITE_WEIGHTED
from edge_agent.workshop.graph.tflite import is_constant, numbered
from edge_agent.workshop.quantize.graph import WEIGHTED, attribute, constants, makers

FLOATS = ("fp32", "fp16")
STATIC = ("QLinearConv", "QLinearMatMul", "QGemm")
TABLES = ("Gather", "GATHER", "EMBEDDING_LOOKUP")
DYNAMIC = ("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")


@dataclass(frozen=True, slots=True)
class Contents:
    """The layers of a file that have weights."""

    layers: dict[str, tuple[str, str]]
    """name -> operator, and what it computes with: fp32, fp16 (stored so), int8, int16 (activations), dynamic-int8,
    int8-weights, int4-weights
    """

    @property
    def quantized(self) -> int:
        """How many layers have weights of 8 bits or fewer."""
        return sum(kind not in FLOATS for _, kind in self.layers.values())

    @property
    def floats(self) -> int:
        """How many compute with float32 weights."""
        return sum(kind == "fp32" for _, kind in self.layers.values())

    @property
    def precision(self) -> str:
        """As a manifest names it: what most of the layers that are quantized compute with, before tables of rows."""
        small = [(op, kind) for op, kind in self.layers.values() if kind not in FLOATS]
        counts = Counter(kind for op, kind in small if op not in TABLES) or Counter(kind for _, kind in small[:1])
        if counts:
            return counts.most_common(1)[0][0]
        return "fp16" if any(kind == "fp16" for _, kind in self.layers.values()) else "fp32"

    def text(self) -> str:
        """``int8: 12 Conv, 3 MatMul; float: 1 Conv``."""
        counts = Counter(self.layers.values())
        kinds = dict.fromkeys(kind for _, kind in sorted(counts, key=lambda key: (key[1] in FLOATS, -counts[key])))
        told = []
        for kind in kinds:
            ops = [f"{count} {op}" for (op, of), count in sorted(counts.items()) if of == kind]
            told.append(f"{'float' if kind == 'fp32' else kind}: {', '.join(ops)}")
        return "; ".join(told)


def of_onnx(data: bytes) -> Contents:
    """Of an ONNX file."""
    model = onnx.ModelProto.FromString(data)
    reader = _OnnxKinds(constants(model), makers(model))
    kinds = [(node, reader.kind(node)) for node in model.graph.node]
    return Contents({node.name or node.output[0]: (_name(node.op_type), kind) for node, kind in kinds if kind})


@dataclass(frozen=True, slots=True)
class _OnnxKinds:
    """What the weights of nodes are. `values`: constants, `made`: the makers of all else."""

    values: dict[str, Any]
    made: dict[str, onnx.NodeProto]

    def kind(self, node: onnx.NodeProto) -> str:
        """As `Contents` has it; "" for a node without weights."""
        if node.op_type in STATIC:
            return "int8"
        if node.op_type in DYNAMIC and (node.input[1] in self.values or node.input[1] in self.made):
            return "dynamic-int8"
        if node.op_type == "MatMulNBits":
            return f"int{attribute(node, 'bits', 4)}-weights"
        if node.op_type in WEIGHTED:
            held = self.held(node.input[1])
            return self.between(node, held) if held == "int8-weights" else held
        return "int8-weights" if node.op_type == "Gather" and _is_table(node, self.values) else ""

    def held(self, name: str) -> str:
        """What weights `name` are; "" where they are computed from what comes in."""
        if name in self.values:
            return "fp16" if self.values[name].dtype == np.float16 else "fp32"
        node = self.made.get(name)
        if node is None:
            return ""
        given = node.input[0]
        if given not in self.values:
            return self.held(given) if node.op_type in ("Transpose", "Reshape") else ""
        if node.op_type == "DequantizeLinear":
            return "int8-weights"
        return "fp16" if node.op_type == "Cast" and self.values[given].dtype == np.float16 else ""

    def between(self, node: onnx.NodeProto, held: str) -> str:
        """What a layer of widened int8 is where its input is widened, too; else `held`."""
        before = self.made.get(node.input[0])
        if before is None or before.op_type != "DequantizeLinear":
            return held
        zero = self.values.get(before.input[2]) if len(before.input) > 2 else None
        return "int8" if zero is None else f"int{8 * zero.dtype.itemsize}"


def _name(op: str) -> str:
    """The float operator that one stands for."""
    for name in ("ConvTranspose", "Conv", "MatMul", "Gemm"):
        if name in op:
            return name
    return op


def _is_table(node: onnx.NodeProto, values: dict[str, Any]) -> bool:
    """Whether it looks rows up in a table of eight bits."""
    table = values.get(node.input[0])
    return table is not None and table.dtype == np.int8 and table.ndim == 2 and attribute(node, "axis", 0) == 0


SMALL = {"INT8": 8, "UINT8": 8, "INT4": 4}
"""TFLite's types of quantized weights -> bits"""


def _tflite_kind(held: str, out: str, widened: bool) -> str:
    """As `Contents` has it, of a layer with weights and output of these types; "" for weights of any other.

    `widened`: its weights are made float before they are used.
    """
    if held not in SMALL:
        return {"FLOAT16": "fp16", "FLOAT32": "fp32"}.get(held, "")
    if widened:
        return f"int{SMALL[held]}-weights"
    return {"FLOAT32": f"dynamic-int{SMALL[held]}", "INT16": "int16"}.get(out, "int8")


def of_tflite(data: bytes) -> Contents:
    """Of a TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    graph = model.subgraphs[0]
    kinds, types = numbered(schema.BuiltinOperator), numbered(schema.TensorType)

    def op_of(op: Any) -> str:
        code = model.operatorCodes[op.opcodeIndex]
        return str(kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM"))

    widened = {int(op.outputs[0]): int(op.inputs[0]) for op in graph.operators if op_of(op) == "DEQUANTIZE"}
    layers = {}
    for op in graph.operators:
        place = TFLITE_WEIGHTED.get(op_of(op), len(op.inputs))
        if place >= len(op.inputs):
            continue
        index = int(op.inputs[place])
        computed, index = index in widened, widened.get(index, index)
        if not is_constant(model, graph, index):
            continue
        out = graph.tensors[int(op.outputs[0])]
        kind = _tflite_kind(
            types.get(graph.tensors[index].type, ""), types.get(out.type, ""), computed or op_of(op) in TABLES
        )
        if kind:
            layers[f"{out.name.decode()}#{op.outputs[0]}"] = (op_of(op), kind)
    return Contents(layers)
