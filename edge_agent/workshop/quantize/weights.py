"""Weights in fewer bits, widened in each run; activations stay float."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.errors import RefusedError
from edge_agent.workshop.graph import names
from edge_agent.workshop.quantize.graph import attribute, constants, layers

BLOCK = 32
"""weights that share one scale in four bits"""


def _axis(op: str) -> int:
    """The axis of a weight that counts the outputs."""
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}[op]


def small(model: onnx.ModelProto, per_channel: bool, keep: tuple[str, ...]) -> onnx.ModelProto:
    """S8 weights behind a DequantizeLinear, step = max|w| / 127 of a channel or a tensor; all else stays float."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    values, done, name_of = constants(model), set(), names.fresh(names.of(model.graph))
    nodes: list[onnx.NodeProto] = []
    transposed = _transposed(model)
    for layer in layers(model):
        weight = np.asarray(values[layer.weight], np.float32)
        if layer.name in keep or layer.weight in done or weight.ndim < 2:
            continue
        done.add(layer.weight)
        axis = (0 if layer.name in transposed else _axis(layer.op)) % weight.ndim
        q, scale = _rounded(weight, axis if per_channel else None)
        given = [name_of(f"{layer.weight}_q"), name_of(f"{layer.weight}_scale")]
        _replace(made, layer.weight, [numpy_helper.from_array(q, given[0]), numpy_helper.from_array(scale, given[1])])
        real = name_of(f"{layer.weight}_real")
        nodes.append(helper.make_node("DequantizeLinear", given, [layer.weight], name=real, axis=axis))
    if not nodes:
        raise RefusedError("no layer with weights is left to quantize: all are kept in float")
    return tables(_in_front(made, nodes), keep)


def _transposed(model: onnx.ModelProto) -> set[str]:
    """Names of the Gemm whose weight is (outputs, inputs)."""
    gemms = [node for node in model.graph.node if node.op_type == "Gemm"]
    return {node.name for node in gemms if any(a.name == "transB" and a.i for a in node.attribute)}


def _rounded(weight: npt.NDArray[np.float32], axis: int | None) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """A weight as S8, and its step: one for each index of `axis`, or for None one for all."""
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    step = (np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12) / 127).astype(np.float32)
    q = np.clip(np.rint(weight / step), -127, 127).astype(np.int8)
    return q, step.reshape(()) if axis is None else step.reshape(-1)


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """float16 weights behind a Cast: half the file, and a processor that has no float16 computes as before."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes, name_of = [], names.fresh(names.of(model.graph))
    for one in model.graph.initializer:
        value = numpy_helper.to_array(one)
        if one.data_type != TensorProto.FLOAT or value.size < 256 or np.abs(value).max() > 65504:
            continue
        half, real = name_of(f"{one.name}_half"), name_of(f"{one.name}_real")
        _replace(made, one.name, [numpy_helper.from_array(value.astype(np.float16), half)])
        nodes.append(helper.make_node("Cast", [half], [one.name], name=real, to=TensorProto.FLOAT))
    if not nodes:
        raise RefusedError("it has no float32 weights to halve")
    return _in_front(made, nodes)


def four_bits(model: onnx.ModelProto, keep: tuple[str, ...]) -> onnx.ModelProto:
    """MatMul's weights in four bits, a scale for each block of 32 down a column: MatMulNBits of com.microsoft.

    q = round(w / step) + 8 in 0..15, step = (the value of the greatest magnitude) / -8, so that it is met exactly
    (onnxruntime, docs/ContribOperators.md, com.microsoft.MatMulNBits).
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    values, count, name_of = constants(model), 0, names.fresh(names.of(model.graph))
    nodes = {node.name: node for node in made.graph.node}
    for layer in layers(model):
        weight = np.asarray(values[layer.weight], np.float32)
        if layer.op != "MatMul" or weight.ndim != 2 or layer.name in keep:
            continue
        deep, wide = weight.shape
        blocks = -(-deep // BLOCK)
        padded = np.zeros((blocks * BLOCK, wide), np.float32)
        padded[:deep] = weight
        cells = padded.T.reshape(wide, blocks, BLOCK)
        far = np.take_along_axis(cells, np.abs(cells).argmax(axis=2)[..., None], axis=2)
        step = (far / -8).astype(np.float32)
        q = np.clip(np.rint(cells / np.where(step == 0, 1, step)) + 8, 0, 15).astype(np.uint8)
        packed = q[..., 0::2] | (q[..., 1::2] << 4)
        node, own = nodes[layer.name], [name_of(f"{layer.weight}_q4"), name_of(f"{layer.weight}_scale")]
        made.graph.initializer.extend(
            [numpy_helper.from_array(packed, own[0]), numpy_helper.from_array(step.reshape(wide, blocks), own[1])]
        )
        given, taken = [node.input[0], *own], list(node.output)
        new = helper.make_node(
            "MatMulNBits",
            given,
            taken,
            name=node.name,
            domain="com.microsoft",
            K=deep,
            N=wide,
            bits=4,
            block_size=BLOCK,
        )
        node.CopyFrom(new)
        count += 1
    if not count:
        raise RefusedError("4-bit weights are for the MatMul of text models, of which it has none; use --bits 8")
    drop_unused(made)
    if not any(one.domain == "com.microsoft" for one in made.opset_import):
        made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return tables(made, keep)


def tables(made: onnx.ModelProto, keep: tuple[str, ...]) -> onnx.ModelProto:
    """Tables of float vectors that a Gather reads by rows, as S8 with one step a row: max|w| / 127."""
    values, new, name_of = constants(made), [], names.fresh(names.of(made.graph))
    tables: dict[str, tuple[str, str]] = {}
    for node in made.graph.node:
        if not _reads_rows(node, values) or node.name in keep:
            new.append(node)
            continue
        table, name, given = values[node.input[0]], node.input[0], node.input[1]
        if name not in tables:
            tables[name] = name_of(f"{name}_q"), name_of(f"{name}_step")
        small, steps = tables[name]
        step = (np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127).astype(np.float32)
        q = np.clip(np.rint(table / step), -127, 127).astype(np.int8)
        _replace(made, name, [numpy_helper.from_array(q, small), numpy_helper.from_array(step, steps)])
        rows = [name_of(f"{node.output[0]}_{what}") for what in ("q", "step", "real")]
        nodes = [name_of(f"{node.name}_{what}") for what in ("q", "step", "real")]
        new += [
            helper.make_node("Gather", [small, given], rows[:1], name=nodes[0]),
            helper.make_node("Gather", [steps, given], rows[1:2], name=nodes[1]),
            helper.make_node("Cast", rows[:1], rows[2:], name=nodes[2], to=TensorProto.FLOAT),
            helper.make_node("Mul", [rows[2], rows[1]], [node.output[0]], name=node.name),
        ]
    del made.graph.node[:]
    made.graph.node.extend(new)
    return made


def _reads_rows(node: onnx.NodeProto, values: Mapping[str, npt.NDArray[np.generic]]) -> bool:
    """Whether it is a Gather of the rows of a table of float32."""
    if node.op_type != "Gather" or node.input[0] not in values:
        return False
    table = values[node.input[0]]
    return table.dtype == np.float32 and table.ndim == 2 and not attribute(node, "axis", 0)


def _replace(model: onnx.ModelProto, name: str, by: list[onnx.TensorProto]) -> None:
    """Other initialisers in place of one."""
    kept = [one for one in model.graph.initializer if one.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *by])


def _in_front(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    return model


def drop_unused(model: onnx.ModelProto) -> None:
    """Leave out the initialisers that no node reads any more."""
    used = names.read(model.graph)
    kept = [one for one in model.graph.initializer if one.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
