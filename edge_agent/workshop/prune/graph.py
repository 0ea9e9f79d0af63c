"""An ONNX file as it is changed by pruning: nodes in order, constants as arrays, shapes where they are known.

Constants that a `Constant` node or a `Cast` of a stored half give are plain arrays here; those that were stored in
half are so again in the file that is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edge_agent.errors import ModelError
from edge_agent.workshop.graph import names
from edge_agent.workshop.quantize.prepare import constants_alone, plain_products

Array: TypeAlias = npt.NDArray[Any]
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger")
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""operators whose weights are pruned"""


@dataclass(slots=True)
class PruneGraph:
    """A network. `values` may be exchanged by name; nodes stay as many and as they are ordered."""

    model: onnx.ModelProto
    """without nodes and constants: names, inputs, outputs, opsets"""
    nodes: list[onnx.NodeProto]
    values: dict[str, Array]
    """initialisers"""
    shapes: dict[str, tuple[int | None, ...]]
    """of each tensor whose rank is known; None where an axis is open"""
    halves: set[str] = field(default_factory=set)
    """initialisers that the file stores as float16"""

    @property
    def inputs(self) -> list[str]:
        """Names of what is fed."""
        return [i.name for i in self.model.graph.input if i.name not in self.values]

    @property
    def outputs(self) -> list[str]:
        """Names of what comes out."""
        return [o.name for o in self.model.graph.output]

    def layers(self) -> list[int]:
        """Numbers of the nodes that have a float weight of two axes or more: what pruning is about."""
        return [i for i, node in enumerate(self.nodes) if (at := weight_at(node, self.values)) and at > 0]

    def last_reads(self) -> dict[str, int]:
        """Tensor -> the number of the last node that reads it."""
        return {name: number for number, node in enumerate(self.nodes) for name in node.input}

    def fed(self, node: onnx.NodeProto) -> list[str]:
        """What a node reads that is no constant."""
        return [name for name in dict.fromkeys(node.input) if name and name not in self.values]

    def own(self, number: int, place: int) -> str:
        """The name of the constant that node `number` reads there, and nothing else: a copy, where others read it."""
        node = self.nodes[number]
        name = node.input[place]
        if sum(list(each.input).count(name) for each in self.nodes) + self.outputs.count(name) > 1:
            taken = {name for each in self.nodes for name in (*each.input, *each.output)}
            own = names.fresh(taken | {*self.values, *self.inputs, *self.outputs})(name)
            self.values[own], self.shapes[own] = self.values[name], self.values[name].shape
            if name in self.halves:
                self.halves.add(own)
            node.input[place] = name = own
        return str(name)

    def weight(self, number: int) -> Array:
        """The weight of layer `number`."""
        node = self.nodes[number]
        return self.values[node.input[weight_at(node, self.values)]]


def weight_at(node: onnx.NodeProto, values: dict[str, Array]) -> int:
    """Which input of a layer is its weight; 0: this node is no layer (or has its constant on the left)."""
    if node.op_type not in LAYERS or len(node.input) < 2 or node.input[1] not in values:
        return 0
    weight = values[node.input[1]]
    return 1 if weight.ndim >= 2 and weight.dtype.kind == "f" else 0


def input_at(node: onnx.NodeProto, place: int) -> str:
    """The name of an input; "" where it is left out."""
    return str(node.input[place]) if len(node.input) > place else ""


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Name -> value."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Replace one attribute."""
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def read(path: Path) -> PruneGraph:
    """Read a file. ModelError, one line, for what is no ONNX, is quantized already, or has nothing to prune."""
    try:
        model = plain_products(constants_alone(onnx.load(str(path))))
        shaped = shape_inference.infer_shapes(model, data_prop=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX file, or cut short") from None
    except shape_inference.InferenceError as error:
        raise ModelError(f"{path}: its shapes do not fit each other ({' '.join(str(error).split())[:160]})") from None
    return taken(shaped, str(path))


def taken(model: onnx.ModelProto, name: str) -> PruneGraph:
    """A model with inferred shapes as a PruneGraph; ModelError as `read`."""
    kinds = {node.op_type for node in model.graph.node}
    if kinds & set(QUANTIZED):
        raise ModelError(f"{name}: is int8 already; prune the float file that it was made from, then quantize that")
    if kinds & {"If", "Loop", "Scan"} or len(model.functions):
        raise ModelError(f"{name}: has branches, loops or functions of its own; export it without them")
    nodes, values, halves = _constants(model.graph)
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    for part in (shell.graph.node, shell.graph.initializer, shell.graph.value_info):
        del part[:]
    graph = PruneGraph(shell, nodes, values, _shapes(model.graph, values), halves)
    if not graph.layers():
        raise ModelError(f"{name}: no convolution or matrix product with weights in it, so nothing to prune")
    return graph


def _constants(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], dict[str, Array], set[str]]:
    """The nodes that are left where all constants that are used are arrays, these, and which are stored in half."""
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    nodes, halves = [], set()
    for node in graph.node:
        value = _value_of(node, values)
        if value is None:
            nodes.append(node)
            continue
        values[node.output[0]] = value
        if node.op_type == "Cast" and values[node.input[0]].dtype == np.float16:
            halves.add(node.output[0])
    return nodes, _used(values, nodes, graph), halves


def _used(values: dict[str, Array], nodes: list[onnx.NodeProto], graph: onnx.GraphProto) -> dict[str, Array]:
    """Those that these nodes read or the graph gives."""
    used = {name for node in nodes for name in node.input} | {o.name for o in graph.output}
    return {key: value for key, value in values.items() if key in used}


def _value_of(node: onnx.NodeProto, values: dict[str, Array]) -> Array | None:
    """What a node gives that is a constant, or widens one; None for any other."""
    given = attributes(node)
    if node.op_type == "Cast" and node.input[0] in values and given["to"] == TensorProto.FLOAT:
        widened: Array = values[node.input[0]].astype(np.float32)
        return widened
    if node.op_type != "Constant":
        return None
    if "value" in given:
        held: Array = numpy_helper.to_array(given["value"])
        return held
    plain = [key for key in given if key in ("value_float", "value_int", "value_floats", "value_ints")]
    return np.array(given[plain[0]], np.float32 if "float" in plain[0] else np.int64) if plain else None


def _shapes(graph: onnx.GraphProto, values: dict[str, Array]) -> dict[str, tuple[int | None, ...]]:
    """Of all tensors that the graph says it of."""
    shapes: dict[str, tuple[int | None, ...]] = {key: value.shape for key, value in values.items()}
    for info in [*graph.input, *graph.value_info, *graph.output]:
        if info.type.tensor_type.HasField("shape"):
            dims = info.type.tensor_type.shape.dim
            shapes.setdefault(info.name, tuple(d.dim_value if d.HasField("dim_value") else None for d in dims))
    return shapes


def copy(graph: PruneGraph) -> PruneGraph:
    """Another graph that may be changed without changing this one; arrays are shared until they are exchanged."""
    nodes = []
    for node in graph.nodes:
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        nodes.append(twin)
    return PruneGraph(graph.model, nodes, dict(graph.values), dict(graph.shapes), set(graph.halves))


def proto(graph: PruneGraph, extra: Iterable[str] = (), halves: bool = True) -> onnx.ModelProto:
    """The graph as a model; `extra` tensors become outputs too. `halves`: store in half what was stored so."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    used = {name for node in graph.nodes for name in (*node.input, *node.output)} | set(graph.outputs)
    casts = []
    name_of = names.fresh({*graph.values, *names.of(model.graph)} | {n.name for n in graph.nodes} | used)
    for name, value in graph.values.items():
        if name not in used:
            continue
        if halves and name in graph.halves:
            value, half = value.astype(np.float16), name_of(f"{name}.half")
            casts.append(helper.make_node("Cast", [half], [name], name=name_of(f"{name}.cast"), to=TensorProto.FLOAT))
            name = half
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    model.graph.node.extend([*casts, *graph.nodes])
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in extra)
    return model


def checked(graph: PruneGraph) -> bytes:
    """The file's bytes. ModelError where the ONNX checker finds fault, so that no broken file is ever written."""
    model = proto(graph)
    if name := names.twice(model.graph):
        raise ModelError(f'the pruned graph is not valid: two of its tensors are called "{name}"; not written')
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise ModelError(f"the pruned graph is not valid ({' '.join(str(error).split())[:200]}); not written") from None
    data: bytes = model.SerializeToString()
    return data


def shaped_again(graph: PruneGraph) -> PruneGraph:
    """The same graph with its shapes inferred anew, after channels went."""
    return taken(shape_inference.infer_shapes(proto(graph), data_prop=True), "the pruned graph")


def weights(graph: PruneGraph) -> int:
    """Numbers in the layers' weights."""
    return sum(graph.weight(i).size for i in graph.layers())


def multiplications(graph: PruneGraph) -> float:
    """Millions of multiplications of one sample in the layers."""
    return sum(f * graph.weight(n).size for f, n in zip(per_weight(graph), graph.layers(), strict=True))


def per_weight(graph: PruneGraph, length: int = 32) -> list[float]:
    """Of each layer how often one weight is multiplied for a sample, in millions; an open axis counts as `length`."""
    found = []
    for number in graph.layers():
        node = graph.nodes[number]
        shape = graph.shapes.get(node.output[0] if node.op_type != "ConvTranspose" else node.input[0], ())
        dims = [d if d else (1 if axis == 0 else length) for axis, d in enumerate(shape)]
        cells = dims[2:] if node.op_type in ("Conv", "ConvTranspose") else dims[:-1]
        found.append(float(np.prod(cells)) / 1e6)
    return found
