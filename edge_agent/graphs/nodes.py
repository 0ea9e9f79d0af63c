"""A graph of an ONNX file: read into nodes and constants, changed, and written again, without the onnx package.

Format: onnx.proto (GraphProto, NodeProto, AttributeProto, TensorProto, ValueInfoProto).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.graphs.protobuf import block, fields, integer, numbers, text

Array = npt.NDArray[Any]

DTYPES: dict[int, str] = {1: "<f4", 3: "|i1", 7: "<i8"}
"""TensorProto.DataType: float32, int8 and int64"""
DATA_TYPES = {dtype: kind for kind, dtype in DTYPES.items()}
FLOAT, UINT8 = 1, 2
INT, INTS = 2, 7
"""AttributeProto.AttributeType"""


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


class Graph:
    """A graph that is being changed: its nodes in order, and its constants."""

    def __init__(self, path: Path) -> None:
        self.data = memoryview(path.read_bytes())
        (graph,) = [(a, e) for n, _, a, e in fields(self.data, 0, len(self.data)) if n == 7]
        self.graph = graph
        self.nodes: list[Node] = []
        self.tensors: dict[str, Array] = {}
        self.added: dict[str, Array] = {}
        self._names: set[str] = set()
        self.given: dict[str, list[int]] = {}
        self.interleaved = ""
        """the input that has its channels last now"""
        self.element = FLOAT
        """of which type its numbers are, TensorProto.DataType"""
        self.imported: dict[str, int] = {}
        """operators that are not ONNX's own and that were brought in: their domain, and its version"""
        self.opset = self._opset()
        self.outputs: list[str] = []
        for number, _, a, e in fields(self.data, *graph):
            if number == 1:
                self._read_node(a, e)
            elif number == 5:
                self._read_tensor(a, e)
            elif number in (11, 12):
                (name,) = [text(self.data, b, f) for n, _, b, f in fields(self.data, a, e) if n == 1]
                if number == 12:
                    self.outputs.append(name)
                else:
                    self.given[name] = self._shape(a, e)

    def _opset(self) -> int:
        """The version of ONNX's own operators; 0 where the file does not say."""
        for at, end in self._inside(0, len(self.data), 8):
            inside = list(fields(self.data, at, end))
            if not any(n == 1 and b < e for n, _, b, e in inside):
                return next((v for field in inside if field[0] == 2 for v in numbers(self.data, field)), 0)
        return 0

    def _read_node(self, at: int, end: int) -> None:
        names: dict[int, list[str]] = {1: [], 2: [], 4: []}
        ints: dict[str, int | list[int]] = {}
        rest = bytearray()
        held: list[tuple[int, int]] = []
        for number, begin, a, e in fields(self.data, at, end):
            if number in names:
                names[number].append(text(self.data, a, e))
            elif number == 5:
                inside = list(fields(self.data, a, e))
                if any(n in (6, 11) for n, *_ in inside):
                    raise ValueError("a node of it holds a graph of its own")
                held += [(b, f) for n, _, b, f in inside if n == 5]
                name = "".join(text(self.data, b, f) for n, _, b, f in inside if n == 1)
                several = [value for field in inside if field[0] == 8 for value in numbers(self.data, field)]
                single = [value for field in inside if field[0] == 3 for value in numbers(self.data, field)]
                if several or single:
                    ints[name] = several or single[0]
                else:
                    rest += self.data[begin:e]
            elif number != 3:
                rest += self.data[begin:e]
        node = Node("".join(names[4]), tuple(names[1]), tuple(names[2]), ints, bytes(rest))
        self.nodes.append(node)
        if node.op == "Constant":
            for b, f in held:
                self._read_tensor(b, f, node.outputs[0])

    def _shape(self, at: int, end: int) -> list[int]:
        """Of a ValueInfoProto: an axis that is not fixed is 0; empty where it is no tensor of float32."""
        types = [self._inside(b, f, 1) for n, _, b, f in fields(self.data, at, end) if n == 2]
        for b, f in [place for tensors in types for place in tensors]:
            kinds = [value for field in fields(self.data, b, f) if field[0] == 1 for value in numbers(self.data, field)]
            dims = [dim for shape in self._inside(b, f, 2) for dim in self._inside(*shape, 1)]
            known = [[v for x in fields(self.data, *dim) if x[0] == 1 for v in numbers(self.data, x)] for dim in dims]
            return [value[0] if value else 0 for value in known] if kinds == [FLOAT] else []
        return []

    def _inside(self, at: int, end: int, number: int) -> list[tuple[int, int]]:
        """Where the payloads of a message's fields of this number lie."""
        return [(b, f) for n, _, b, f in fields(self.data, at, end) if n == number]

    def _read_tensor(self, at: int, end: int, name: str = "") -> None:
        """Take note of a constant, where it is float32, int8 or int64 and lies in the file."""
        inside = list(fields(self.data, at, end))
        shape = [value for field in inside if field[0] == 1 for value in numbers(self.data, field)]
        kind = next((value for field in inside if field[0] == 2 for value in numbers(self.data, field)), 0)
        name = name or "".join(text(self.data, b, f) for n, _, b, f in inside if n == 8)
        raw = next((self.data[b:f] for n, _, b, f in inside if n == 9), None)
        if kind in DTYPES and raw is not None:
            self.tensors[name] = np.frombuffer(raw, DTYPES[kind]).reshape(shape)
        elif kind == 1 and any(field[0] == 4 for field in inside):
            floats = b"".join(self.data[b:f] for n, _, b, f in inside if n == 4)
            self.tensors[name] = np.frombuffer(floats, "<f4").reshape(shape)
        elif held := {3: 5, 7: 7}.get(kind):
            values = [value for field in inside if field[0] == held for value in numbers(self.data, field)]
            if values:
                self.tensors[name] = np.array(values, DTYPES[kind]).reshape(shape)

    # ── what is changed ──────────────────────────────────────────────────────────────────────────────────────

    def maker(self, name: str) -> Node | None:
        return next((node for node in self.nodes if name in node.outputs), None)

    def users(self) -> Counter[str]:
        """How often each tensor is taken."""
        return Counter([name for node in self.nodes for name in node.inputs] + self.outputs)

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

    def _is_interleaved(self, at: int, end: int) -> bool:
        """Whether an input of the file is the picture that has its channels last now."""
        return any(text(self.data, *place) == self.interleaved for place in self._inside(at, end, 1))

    # ── back into a file ─────────────────────────────────────────────────────────────────────────────────

    def write(self, out: Path) -> None:
        """Write the model; constants that nobody takes any more are left out."""
        users = self.users()
        graph = bytearray(b"".join(block(1, _node(node)) for node in self.nodes))
        for number, at, a, e in fields(self.data, *self.graph):
            inside = fields(self.data, a, e) if number == 5 else ()
            name = "".join(text(self.data, b, f) for n, _, b, f in inside if n == 8)
            # shapes of tensors between operators (13) are worked out anew when it is opened
            if number == 11 and self._is_interleaved(a, e):
                _, _, high, wide = self.given[self.interleaved]
                graph += block(11, _picture(self.interleaved, [1, high, wide, 3], self.element))
            elif number not in (1, 13) and (number != 5 or users[name]):
                graph += self.data[at:e]
        for name, value in self.added.items():
            if users[name]:
                shape = b"".join(integer(1, axis) for axis in value.shape)
                kind = integer(2, DATA_TYPES[value.dtype.str])
                graph += block(5, shape + kind + block(8, name.encode()) + block(9, value.tobytes()))
        with out.open("wb") as file:
            for number, at, _, e in fields(self.data, 0, len(self.data)):
                file.write(block(7, bytes(graph)) if number == 7 else self.data[at:e])
            for domain, version in self.imported.items():
                file.write(block(8, block(1, domain.encode()) + integer(2, version)))


def _picture(name: str, shape: list[int], element: int) -> bytes:
    """ValueInfoProto of a tensor."""
    axes = b"".join(block(1, integer(1, axis)) for axis in shape)
    return block(1, name.encode()) + block(2, block(1, integer(1, element) + block(2, axes)))


def _node(node: Node) -> bytes:
    """NodeProto."""
    names = [block(1, name.encode()) for name in node.inputs] + [block(2, name.encode()) for name in node.outputs]
    ints = [block(5, _attribute(name, values)) for name, values in node.ints.items()]
    return b"".join([*names, block(4, node.op.encode()), *ints, node.rest])


def _attribute(name: str, value: int | list[int]) -> bytes:
    """AttributeProto."""
    if isinstance(value, int):
        return block(1, name.encode()) + integer(3, value) + integer(20, INT)
    return block(1, name.encode()) + b"".join(integer(8, one) for one in value) + integer(20, INTS)
