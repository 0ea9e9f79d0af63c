"""A graph of an ONNX file: read into nodes and constants, changed, and written again, without the onnx package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.graphs.onnx_proto import (
    Array,
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    SparseTensorProto,
    TensorProto,
    TensorShapeProto,
    TypeProto,
    ValueInfoProto,
    tensor_proto,
    value_info,
    values,
)
from edge_agent.graphs.protobuf import Buffer, Field, Message, block, integer, text

EDITED = (TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT64)
"""types of the constants that are looked at"""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ints: dict[str, int | list[int]]
    """its attributes that are a whole number, or several"""
    rest: bytes = b""
    """its other attributes and its domain, as they stand in the file"""

    def one(self, name: str, default: int) -> int:
        """An attribute of one number."""
        value = self.ints.get(name, default)
        return value if isinstance(value, int) else default

    def some(self, name: str, default: list[int]) -> list[int]:
        """An attribute of several numbers."""
        value = self.ints.get(name, default)
        return value if isinstance(value, list) else default


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """RefusedError, one line, for what is found to be broken in the file while it is read and looked through."""
    try:
        yield
    except (IndexError, ValueError) as error:
        raise RefusedError(f"{path}: not a readable ONNX model ({error})") from None


class Graph:
    """A graph that is being changed: its nodes in order, and its constants."""

    def __init__(self, path: Path) -> None:
        """Read it. ValueError where it is broken, RefusedError where it holds what cannot be looked through."""
        self.model = Buffer(path.read_bytes()).message()
        graphs = list(self.model.messages(ModelProto.GRAPH))
        if len(graphs) != 1:
            raise ValueError(f"{len(graphs)} graphs in it")
        (self.graph,) = graphs
        self.path = path
        self.tensors: dict[str, Array] = {}
        self.added: dict[str, Array] = {}
        self._names: set[str] = set()
        self.interleaved = ""
        """the input that has its channels last now"""
        self.shapes: dict[str, list[int]] = {}
        """inputs of float32 that have another shape now"""
        self.element = TensorProto.FLOAT
        """of which type its numbers are, TensorProto.DataType"""
        self.imported: dict[str, int] = {}
        """operators that are not ONNX's own and that were brought in: their domain, and its version"""
        self.ends: tuple[str, ...] = ()
        """tensors of float32 that it ends in instead of what the file says"""
        for tensor in self.graph.messages(GraphProto.INITIALIZER):
            self._keep(tensor, tensor.text(TensorProto.NAME))
        self.nodes = [self._node(node) for node in self.graph.messages(GraphProto.NODE)]
        self.given = {i.text(ValueInfoProto.NAME): _shape(i) for i in self.graph.messages(GraphProto.INPUT)}
        self.outputs = tuple(o.text(ValueInfoProto.NAME) for o in self.graph.messages(GraphProto.OUTPUT))

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators; 0 where the file does not say."""
        sets = self.model.messages(ModelProto.OPSET_IMPORT)
        own = [one for one in sets if not one.text(OperatorSetIdProto.DOMAIN)]
        return own[0].number(OperatorSetIdProto.VERSION) if own else 0

    def _node(self, node: Message) -> Node:
        ints: dict[str, int | list[int]] = {}
        rest = bytearray()
        constant: Message | None = None
        for field in node.fields:
            if field[0] == NodeProto.ATTRIBUTE:
                attribute = node.inside(field)
                if attribute.has(AttributeProto.G, AttributeProto.GRAPHS):
                    raise RefusedError(f"{self.path}: a node of it holds a graph of its own; it is left as it is")
                constant = next(attribute.messages(AttributeProto.T), constant)
                several, single = attribute.numbers(AttributeProto.INTS), attribute.numbers(AttributeProto.INT)
                if several or single:
                    ints[attribute.text(AttributeProto.NAME)] = several or single[-1]
                    continue
            if field[0] not in (NodeProto.INPUT, NodeProto.OUTPUT, NodeProto.OP_TYPE, NodeProto.NAME):
                rest += node.copied(field)
        inputs, outputs = node.texts(NodeProto.INPUT), node.texts(NodeProto.OUTPUT)
        made = Node(node.text(NodeProto.OP_TYPE), tuple(inputs), tuple(outputs), ints, bytes(rest))
        if made.op == "Constant" and constant is not None:
            self._keep(constant, made.outputs[0])
        return made

    def _keep(self, tensor: Message, name: str) -> None:
        """Take note of a constant, where it is float32, int8 or int64 and lies in the file."""
        held = values(tensor) if tensor.number(TensorProto.DATA_TYPE) in EDITED else None
        if held is not None:
            self.tensors[name] = held.reshape(tensor.numbers(TensorProto.DIMS))

    # ── what is changed ──────────────────────────────────────────────────────────────────────────────────────

    def maker(self, name: str) -> Node | None:
        return next((node for node in self.nodes if name in node.outputs), None)

    def users(self) -> Counter[str]:
        """How often each tensor is taken."""
        return Counter([*(name for node in self.nodes for name in node.inputs), *self.outputs])

    def fresh(self, wanted: str) -> str:
        """A name for a new tensor: the one that is wanted, or with a number behind it where that is taken."""
        if not self._names:
            self._names = {*self.tensors, *self.given, *self.outputs}
            self._names |= {name for node in self.nodes for name in (*node.inputs, *node.outputs)}
        name, number = wanted, 0
        while name in self._names:
            number += 1
            name = f"{wanted}.{number}"
        self._names.add(name)
        return name

    def constant(self, wanted: str, value: Array) -> str:
        """A new constant; its name, see `fresh`."""
        name = self.fresh(wanted)
        self.exchange(name, value)
        return name

    def exchange(self, name: str, value: Array) -> None:
        """Another value for a constant."""
        self.tensors[name] = self.added[name] = np.ascontiguousarray(value)

    def put(self, made: Sequence[Node], place: Node, gone: Sequence[Node]) -> None:
        """Nodes in the place of one, and without those that are gone."""
        at = self.nodes.index(place)
        self.nodes[at : at + 1] = made
        self.nodes = [node for node in self.nodes if node not in gone]

    def drop_unused(self) -> None:
        """Leave out the nodes that nobody asks for any more."""
        while True:
            users = self.users()
            kept = [node for node in self.nodes if any(users[name] for name in node.outputs)]
            if len(kept) == len(self.nodes):
                return
            self.nodes = kept

    # ── back into a file ─────────────────────────────────────────────────────────────────────────────────

    def write(self, out: Path) -> None:
        """Write the model; constants that nobody takes any more are left out."""
        users = self.users()
        parts: list[bytes | memoryview] = [block(GraphProto.NODE, _written(node)) for node in self.nodes]
        parts += [part for field in self.graph.fields for part in self._kept(field, users)]
        parts += [block(GraphProto.INITIALIZER, tensor_proto(n, value)) for n, value in self.added.items() if users[n]]
        parts += [block(GraphProto.OUTPUT, value_info(name, TensorProto.FLOAT)) for name in self.ends]
        graph = block(ModelProto.GRAPH, b"".join(parts))
        with out.open("wb") as file:
            for field in self.model.fields:
                file.write(graph if field[0] == ModelProto.GRAPH else self.model.copied(field))
            for domain, version in self.imported.items():
                operators = text(OperatorSetIdProto.DOMAIN, domain) + integer(OperatorSetIdProto.VERSION, version)
                file.write(block(ModelProto.OPSET_IMPORT, operators))

    def _kept(self, field: Field, users: Counter[str]) -> Iterator[bytes | memoryview]:
        """What is written of a field that the graph had in the file."""
        number = field[0]
        if number == GraphProto.INPUT and (self.interleaved or self.shapes):
            yield self._input(field)
            return
        if number in (GraphProto.INITIALIZER, GraphProto.SPARSE_INITIALIZER):
            if not users[_name_of(self.graph.inside(field), number)]:
                return
        elif number in REPLACED or (self.ends and number in OF_OUTPUTS):
            return
        yield self.graph.copied(field)

    def _input(self, field: Field) -> bytes | memoryview:
        """An input, with its channels last or another shape where that was asked for."""
        name = self.graph.inside(field).text(ValueInfoProto.NAME)
        if name == self.interleaved:
            _, _, high, wide = self.given[name]
            return block(GraphProto.INPUT, value_info(name, self.element, [1, high, wide, 3]))
        if name in self.shapes:
            return block(GraphProto.INPUT, value_info(name, TensorProto.FLOAT, self.shapes[name]))
        return self.graph.copied(field)


REPLACED = (GraphProto.NODE, GraphProto.VALUE_INFO)
"""the shapes of tensors between operators are worked out anew when it is opened"""
OF_OUTPUTS = (GraphProto.OUTPUT, GraphProto.QUANTIZATION_ANNOTATION)
"""fields of a graph that say of tensors what is not so where it ends elsewhere"""


def _name_of(tensor: Message, number: int) -> str:
    """Of an initializer, or of the values of a sparse one."""
    if number == GraphProto.SPARSE_INITIALIZER:
        return next((t.text(TensorProto.NAME) for t in tensor.messages(SparseTensorProto.VALUES)), "")
    return tensor.text(TensorProto.NAME)


def _shape(value: Message) -> list[int]:
    """Of a ValueInfoProto: an axis that is not fixed is 0; empty where it is no tensor of float32."""
    for kind in value.messages(ValueInfoProto.TYPE):
        for tensor in kind.messages(TypeProto.TENSOR_TYPE):
            if tensor.number(TypeProto.ELEM_TYPE) != TensorProto.FLOAT:
                return []
            shapes = tensor.messages(TypeProto.SHAPE)
            axes = [axis for shape in shapes for axis in shape.messages(TensorShapeProto.DIM)]
            return [axis.number(TensorShapeProto.DIM_VALUE) for axis in axes]
    return []


def _written(node: Node) -> bytes:
    """NodeProto."""
    names = [text(NodeProto.INPUT, name) for name in node.inputs]
    names += [text(NodeProto.OUTPUT, name) for name in node.outputs]
    ints = [block(NodeProto.ATTRIBUTE, _attribute(name, values)) for name, values in node.ints.items()]
    return b"".join([*names, text(NodeProto.OP_TYPE, node.op), *ints, node.rest])


def _attribute(name: str, value: int | list[int]) -> bytes:
    """AttributeProto."""
    if isinstance(value, int):
        numbers, kind = integer(AttributeProto.INT, value), AttributeProto.TYPE_INT
    else:
        numbers, kind = b"".join(integer(AttributeProto.INTS, one) for one in value), AttributeProto.TYPE_INTS
    return text(AttributeProto.NAME, name) + numbers + integer(AttributeProto.TYPE, kind)
