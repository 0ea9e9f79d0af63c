"""A network as the workshop changes it: an onnx_ir model, in one shape whatever its exporter wrote.

Every constant is an initialiser, and none is an input too; functions are written out; a constant that lies as float16
behind a Cast is float32 here and lies so again in the file. Tensors are objects, so that nothing hangs on their names:
these are made unique when the file is written, whatever was added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes import common

from edge_agent.errors import RefusedError

Array: TypeAlias = npt.NDArray[Any]
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""operators that hold the weights and cost the time"""
QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "MatMulNBits"),
    *("QLinearConv", "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention"),
)
"""operators that only a quantized network has"""
BRANCHES = ("If", "Loop", "Scan")
BETA = ir.AttrFloat32("beta", 1.0)
HALF = "half"
"""of a constant's `meta`: it is stored as float16"""
FAULTS = (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError)


# ── from a file, into a file ─────────────────────────────────────────────────────────────────────────────


def load(path: Path) -> onnx.ModelProto:
    """The file, checked. RefusedError, one line, for what is no ONNX model."""
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read ({error.strerror})") from None
    except (*FAULTS, DecodeError) as error:
        raise RefusedError(f"{path}: not a readable ONNX model ({line(error)})") from None
    return model


def of(model: onnx.ModelProto) -> ir.Model:
    """A checked model, with the shapes of its tensors. RefusedError where these do not fit each other."""
    try:
        made = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    except FAULTS as error:
        raise RefusedError(f"its operators do not fit each other ({line(error)})") from None
    common.InlinePass()(made)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(made)
    common.RemoveInitializersFromInputsPass()(made)
    made.ir_version = max(made.ir_version, 4)  # older ones want each constant among the inputs
    for node in list(made.graph):
        if node.op_type == "Cast" and node.attributes.get_int("to") == onnx.TensorProto.FLOAT:
            small = held(node.inputs[0])
            if small is not None and small.dtype == np.float16:
                wide = hold(made.graph, node.outputs[0].name, small.astype(np.float32))
                wide.meta[HALF] = True
                node.outputs[0].replace_all_uses_with(wide, replace_graph_outputs=True)
                made.graph.remove(node, safe=True)
    for number, node in enumerate(made.graph.all_nodes()):
        node.name = node.name or f"{node.op_type}_{number}"
    common.NameFixPass()(made)
    return made


def read(path: Path) -> ir.Model:
    """A file. RefusedError, one line, for what is no ONNX model."""
    return of(load(path))


def proto(model: ir.Model, merge: bool = True) -> onnx.ModelProto:
    """The model as ONNX has it: nothing in it that nobody reads, every name once; with `merge` no constant twice."""
    made = model.clone()
    common.RemoveUnusedNodesPass()(made)
    if merge:
        _merge(made.graph)
    for value in [one for one in made.graph.initializers.values() if one.meta.get(HALF)]:
        small = hold(made.graph, f"{value.name}.half", numbers(value).astype(np.float16))
        exchange(value, add(made.graph[0], "Cast", [small], value.name, to=onnx.TensorProto.FLOAT))
    made.graph.sort()
    common.NameFixPass()(made)
    whole: onnx.ModelProto = ir.to_proto(made)
    del whole.graph.value_info[:]  # shapes as they were before something was changed
    return whole


def data(model: ir.Model, merge: bool = True) -> bytes:
    """The file's bytes, `merge` as of `proto`. RefusedError where ONNX finds fault, so that no broken file is ever
    written.
    """
    made = proto(model, merge)
    check(made)
    return bytes(made.SerializeToString())


def check(model: onnx.ModelProto) -> None:
    """RefusedError, one line, for a network that ONNX does not allow."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except FAULTS as error:
        raise RefusedError(f"what came of it is no valid network ({line(error)})") from None


def line(error: BaseException) -> str:
    """A library's complaint in one line."""
    return " ".join(str(error).split())[:200]


def _merge(graph: ir.Graph) -> None:
    """One constant in the place of equal ones, but for bytes with a sign: for x86 without VNNI the runtime makes others
    of these for each product, under a name made of theirs, and fails where two products share one.
    """
    first: dict[tuple[object, ...], ir.Value] = {}
    for value in list(graph.initializers.values()):
        array = numbers(value)
        if array.dtype == np.int8:
            continue
        key = (array.dtype.str, array.shape, bool(value.meta.get(HALF)), array.tobytes())
        if first.setdefault(key, value) is not value and not value.is_graph_output():
            exchange(value, first[key])


# ── constants ────────────────────────────────────────────────────────────────────────────────────────────


def held(value: ir.Value | None) -> Array | None:
    """The numbers of a constant; None for what is computed, or left out."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return numbers(value)


def constant(node: ir.Node, place: int) -> Array | None:
    """The numbers that a node is given as an input; None for what is computed, or left out."""
    return held(node.inputs[place]) if place < len(node.inputs) else None


def is_computed(value: ir.Value | None) -> bool:
    """Whether it is neither a constant nor left out."""
    return value is not None and held(value) is None


def numbers(value: ir.Value) -> Array:
    """Those of what is known to be a constant."""
    found: Array = value.const_value.numpy()
    return found


def hold(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new constant; another name where that one is taken."""
    wanted, count = name, 0
    while name in graph.initializers:
        count += 1
        name = f"{wanted}.{count}"
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(np.shape(array)), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def put(value: ir.Value, array: Array) -> None:
    """Other numbers for a constant."""
    value.const_value = ir.tensor(np.ascontiguousarray(array).reshape(np.shape(array)), name=value.name)
    value.shape, value.type = value.const_value.shape, ir.TensorType(value.const_value.dtype)


def one_each(model: ir.Model) -> ir.Model:
    """Every reader of a constant gets one of its own, so that it may be changed for that reader alone."""
    for value in list(model.graph.initializers.values()):
        for use in list(value.uses())[1:] if not value.is_graph_output() else list(value.uses()):
            own = hold(model.graph, value.name, numbers(value))
            own.meta.update(value.meta)
            use.node.replace_input_with(use.idx, own)
    common.NameFixPass()(model)
    return model


# ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────


def add(before: ir.Node, op: str, inputs: Sequence[ir.Value | None], name: str = "", **attributes: Any) -> ir.Value:
    """A new node in front of another one; its output."""
    node = ir.node(op, inputs, attributes, name=name or f"{op}_new")
    node.outputs[0].name = name or None
    before.graph.insert_before(before, node)
    return node.outputs[0]


def exchange(old: ir.Value, new: ir.Value) -> None:
    """`new`, which is not made of it, for all who read `old`, and in its place where it comes out; a constant goes."""
    graph, name = old.graph, str(old.name)
    if old.is_graph_output():
        old.name, new.name, new.shape, new.type = f"{name}.old", name, old.shape, old.type
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if old.is_initializer():
        del graph.initializers[old.name]


def plain(model: ir.Model) -> ir.Model:
    """Each Gemm (alpha * A' B' + beta * C) as A B + C, its factors and turns in constants of its own, C a vector."""
    for node in model.graph.all_nodes():
        if node.op_type == "Gemm" and constant(node, 1) is not None:
            _plain(model.graph, node)
    return model


def _plain(graph: ir.Graph, node: ir.Node) -> None:
    """One of them."""
    told, weight, bias = node.attributes, numbers(node.inputs[1]), constant(node, 2)
    weight = weight * np.asarray(told.get_float("alpha", 1.0), weight.dtype)
    _own(graph, node, 1, weight.T if told.get_int("transB", 0) else weight)
    if bias is not None and bias.shape[:-1] in ((), (1,)):
        _own(graph, node, 2, (bias * np.asarray(told.pop("beta", BETA).value, bias.dtype)).reshape(-1))
    if told.get_int("transA", 0):
        node.replace_input_with(0, add(node, "Transpose", [node.inputs[0]], f"{node.name}.turned", perm=[1, 0]))
    for name in ("alpha", "transA", "transB"):
        told.pop(name, None)


def _own(graph: ir.Graph, node: ir.Node, place: int, array: Array) -> None:
    """Another constant for one reader, where the numbers are others."""
    value = node.inputs[place]
    if not np.array_equal(array, numbers(value)):
        node.replace_input_with(place, hold(graph, f"{value.name}.plain", array))


def layers(model: ir.Model, inside: bool = False) -> list[ir.Node]:
    """The nodes with constant weights of two axes or more, in order; `inside`: those in branches too."""
    nodes = model.graph.all_nodes() if inside else model.graph
    return [node for node in nodes if is_layer(node)]


def is_layer(node: ir.Node) -> bool:
    """Whether it multiplies by a constant of two axes or more."""
    array = constant(node, 1) if node.op_type in WEIGHTED and not node.domain else None
    return array is not None and array.ndim >= 2 and array.dtype.kind == "f"


def has(model: ir.Model, *ops: str) -> list[str]:
    """Those of these operators that are in it."""
    return sorted({node.op_type for node in model.graph.all_nodes()} & set(ops))


def opset(model: ir.Model) -> int:
    """Version of ONNX's own operators."""
    return int(model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1)))


def ints(node: ir.Node, name: str, default: Sequence[int] = ()) -> list[int]:
    """An attribute of whole numbers, one or several."""
    found = node.attributes.get(name)
    return list(default) if found is None else list(np.atleast_1d(found.value))


def shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Of a tensor, None for an axis that is open; None where not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(axis if isinstance(axis, int) else None for axis in value.shape)


def behind(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that read it, and what reads these, each once."""
    todo, seen = list(value.consumers()), set[ir.Node]()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            yield node
            todo += [one for out in node.outputs for one in out.consumers()]
