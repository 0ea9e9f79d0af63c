"""What a quantized file holds, read off the file: no report says of it what the plan only meant to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edge_agent.workshop.graph.tflite import WEIGHTED as TFLITE_WEIGHTED
from edge_agent.workshop.quantize.graph import WEIGHTED, constants, makers

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
        counts = Counter(kind for op, kind in self.layers.values() if op not in TABLES)
        counts = Counter({kind: count for kind, count in counts.items() if kind not in FLOATS})
        if not counts and self.quantized:
            return next(kind for _, kind in self.layers.values() if kind not in FLOATS)
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
            return f"int{next(a.i for a in node.attribute if a.name == 'bits')}-weights"
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
    axis = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"), 0)
    table = values.get(node.input[0])
    return table is not None and table.dtype == np.int8 and table.ndim == 2 and axis == 0


def of_tflite(data: bytes) -> Contents:
    """Of a TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    graph, types = model.subgraphs[0], schema.TensorType
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    small = {types.INT8: 8, types.UINT8: 8, types.INT4: 4}
    floats = {types.FLOAT16: "fp16", types.FLOAT32: "fp32"}

    def op_of(op: Any) -> str:
        code = model.operatorCodes[op.opcodeIndex]
        return str(kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM"))

    def constant(index: int) -> bool:
        data = model.buffers[graph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    widened = {int(op.outputs[0]): int(op.inputs[0]) for op in graph.operators if op_of(op) == "DEQUANTIZE"}
    layers = {}
    for op in graph.operators:
        place = TFLITE_WEIGHTED.get(op_of(op), len(op.inputs))
        if place >= len(op.inputs):
            continue
        index = int(op.inputs[place])
        computed, index = index in widened, widened.get(index, index)
        if not constant(index):
            continue
        held, out = graph.tensors[index].type, graph.tensors[int(op.outputs[0])].type
        if held in small:
            alone = computed or op_of(op) in TABLES
            form = "weights" if alone else {types.FLOAT32: "dynamic", types.INT16: "int16"}.get(out, "int8")
            kind = {"weights": f"int{small[held]}-weights", "dynamic": f"dynamic-int{small[held]}"}.get(form, form)
        elif held in floats:
            kind = floats[held]
        else:
            continue
        layers[f"{graph.tensors[int(op.outputs[0])].name.decode()}#{op.outputs[0]}"] = (op_of(op), kind)
    return Contents(layers)


OF = {"onnx": of_onnx, "tflite": of_tflite}
