"""Weights in fewer bits, widened in each run; activations stay float."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_agent.errors import RefusedError
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, numbers

BLOCK = 32
"""weights that share one scale in four bits"""
OUTPUTS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}
"""the axis of a weight that counts the outputs"""


def small(model: ir.Model, keep: tuple[str, ...]) -> ir.Model:
    """S8 weights behind a DequantizeLinear, step = max|w| / 127 of an output channel; all else stays float."""
    made, count = model.clone(), 0
    graph = made.graph
    for node in [node for node in net.layers(made, inside=True) if node.name not in keep]:
        weight, name = numbers(node.inputs[1]), str(node.inputs[1].name)
        axis = OUTPUTS[node.op_type] % weight.ndim
        q, step = rounded(weight, axis)
        given = [net.hold(graph, f"{name}_q", q), net.hold(graph, f"{name}_scale", step.reshape(-1))]
        node.replace_input_with(1, net.add(graph[0], "DequantizeLinear", given, f"{name}_real", axis=axis))
        count += 1
    if not count:
        raise RefusedError("no layer with weights is left to quantize: all are kept in float")
    return tables(made, keep)


def rounded(weight: Array, axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """A weight as S8, and its step, one for each index of `axis`; its axes stay."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    step = (np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12) / 127).astype(np.float32)
    return np.clip(np.rint(weight / step), -127, 127).astype(np.int8), step


def half(model: ir.Model) -> ir.Model:
    """float16 weights behind a Cast: half the file, and a processor that has no float16 computes as before."""
    made, count = model.clone(), 0
    for value in made.graph.initializers.values():
        weight = numbers(value)
        if weight.dtype == np.float32 and weight.size >= 256 and np.abs(weight).max() <= 65504:
            value.meta[net.HALF] = True
            count += 1
    if not count:
        raise RefusedError("it has no float32 weights to halve")
    return made


def four_bits(model: ir.Model, keep: tuple[str, ...]) -> ir.Model:
    """MatMul's weights in four bits, a scale for each block of 32 down a column: MatMulNBits of com.microsoft."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    nodes = [node for node in net.layers(model) if node.op_type == "MatMul" and node.name not in keep]
    wanted = {node for node in nodes if numbers(node.inputs[1]).ndim == 2}
    if not wanted:
        raise RefusedError("4-bit weights are for the MatMul of text models, of which it has none; use --bits 8")
    others = [str(node.name) for node in model.graph if node not in wanted]
    given = net.proto(model, merge=False)
    tool = MatMulNBitsQuantizer(given, block_size=BLOCK, is_symmetric=True, nodes_to_exclude=others)
    tool.process()
    return tables(net.of(tool.model.model), keep)


def tables(made: ir.Model, keep: tuple[str, ...]) -> ir.Model:
    """Tables of float vectors that a Gather reads by rows, as S8 with one step a row: max|w| / 127. Changes `made`."""
    for node in [node for node in made.graph if is_lookup(node) and node.name not in keep]:
        table, name = numbers(node.inputs[0]), str(node.name)
        if table.dtype != np.float32:
            continue
        q, step = rounded(table, 0)
        pair = [net.hold(made.graph, f"{name}_q", q), net.hold(made.graph, f"{name}_step", step)]
        rows, steps = (net.add(node, "Gather", [one, node.inputs[1]], f"{one.name}_rows") for one in pair)
        real = net.add(node, "Cast", [rows], f"{name}_real", to=onnx.TensorProto.FLOAT)
        net.exchange(node.outputs[0], net.add(node, "Mul", [real, steps], name))
    return made


def is_lookup(node: ir.Node) -> bool:
    """Whether it is a Gather of the rows of a constant table."""
    table = net.constant(node, 0) if node.op_type == "Gather" else None
    return table is not None and table.ndim == 2 and not node.attributes.get_int("axis", 0)
