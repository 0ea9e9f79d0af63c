"""What a quantized file holds, read off the file: no report says of it what the plan only meant to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from edge_agent.workshop.graph import net, tflite
from edge_agent.workshop.graph.net import Array
from edge_agent.workshop.quantize.build import is_lookup

FLOATS = ("fp32", "fp16")
TABLES = ("Gather", *tflite.TABLES)


@dataclass(frozen=True, slots=True)
class Contents:
    """The layers of a file that have weights."""

    layers: dict[str, tuple[str, str]]
    """name -> operator, and what it computes with: fp32, fp16 (stored so), int8, dynamic-int8, int8-weights"""

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
    """Of an ONNX file, as `build` makes them."""
    kinds = [(node, _kind(node)) for node in net.of(onnx.ModelProto.FromString(data)).graph.all_nodes()]
    ops = {node: node.op_type.removesuffix("Integer") for node, _ in kinds}
    return Contents({str(node.name): (ops[node], kind) for node, kind in kinds if kind})


def _kind(node: ir.Node) -> str:
    """As `Contents` has it, of the weights of a node; "" for one without."""
    op = node.op_type
    if op == "Gather":
        return "int8-weights" if is_lookup(node) and net.numbers(node.inputs[0]).dtype == np.int8 else ""
    held = _origin(node.inputs[1]) if op in (*net.WEIGHTED, "MatMulInteger") else None
    return "" if held is None else "dynamic-int8" if op == "MatMulInteger" else _of_layer(node, held)


def _of_layer(node: ir.Node, held: Array) -> str:
    """The same of one that multiplies by the constant `held`, in whatever form that lies in the file."""
    if held.dtype.kind == "f":
        return "fp16" if node.inputs[1].meta.get(net.HALF) or held.dtype == np.float16 else "fp32"
    before = node.inputs[0].producer()
    return "int8" if before is not None and before.op_type == "DequantizeLinear" else "int8-weights"


def _origin(value: ir.Value) -> Array | None:
    """The constant that weights are, widened or turned perhaps; None where they are computed from what comes in."""
    node = value.producer()
    if node is None:
        return net.held(value)
    return _origin(node.inputs[0]) if node.op_type in ("DequantizeLinear", "Cast", "Transpose", "Reshape") else None


def of_tflite(data: bytes) -> Contents:
    """Of a TFLite file."""
    return Contents({one.name: (one.op, one.kind) for one in tflite.operators(tflite.unpacked(data)) if one.kind})
