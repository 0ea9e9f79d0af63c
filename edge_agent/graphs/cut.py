"""Stops an ONNX detector before its tail: the maps that its last convolutions give, and nothing after them.

What comes after them (sigmoid, softmax, grids, concatenation) is done for every cell of the picture, and nearly all
of it is thrown away by the threshold; ``families/maps.py`` does it for the cells that pass. The file is edited as what
it is, a protobuf: a node that is not needed is left out, everything else is copied as it stands, so that neither the
onnx package nor a copy of the weights in memory is asked for.

Format: onnx.proto (ModelProto, GraphProto, NodeProto, ValueInfoProto, TypeProto, TensorProto) and the protobuf
encoding. Nodes that hold a graph of their own (If, Loop, Scan) are not looked through: such a file is left alone.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import RefusedError
from edge_agent.graphs.protobuf import block, fields, integer, text

TAIL = {
    "Add", "Cast", "Clip", "Concat", "ConstantOfShape", "DequantizeLinear", "Div", "Exp", "Expand", "Flatten",
    "Gather", "Identity", "Mul", "Pow", "QuantizeLinear", "Range", "Relu", "Reshape", "Shape", "Sigmoid", "Slice",
    "Softmax", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
"""operators that a tail is made of"""
FOLDED = ("Softmax", "Transpose", "Reshape", "Slice")
"""a convolution behind one of these belongs to the tail: it takes the mean of a distribution (DFL)"""
MOST_MAPS = 16
FLOAT = 1
"""TensorProto.DataType"""


@dataclass(frozen=True, slots=True)
class _Node:
    at: int
    end: int
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Cuttable:
    """An ONNX file, read for cutting. RefusedError, one line, for what cannot be cut."""

    def __init__(self, path: Path) -> None:
        self.path, self.data = path, memoryview(path.read_bytes())
        try:
            self._read()
        except (IndexError, ValueError, UnicodeDecodeError) as error:
            raise RefusedError(f"{path}: not a readable ONNX model ({error})") from None

    def _read(self) -> None:
        graphs = [(a, e) for number, _, a, e in fields(self.data, 0, len(self.data)) if number == 7]
        if len(graphs) != 1:
            raise ValueError(f"{len(graphs)} graphs in it")
        self.graph = graphs[0]
        self.nodes: list[_Node] = []
        self.outputs: list[str] = []
        for number, _, a, e in fields(self.data, *self.graph):
            if number == 1:
                self.nodes.append(self._node(a, e))
            elif number == 12:
                self.outputs += [text(self.data, b, f) for n, _, b, f in fields(self.data, a, e) if n == 1]
        self.makers = {name: node for node in self.nodes for name in node.outputs}

    def _node(self, at: int, end: int) -> _Node:
        names: dict[int, list[str]] = {1: [], 2: [], 4: []}
        for number, _, a, e in fields(self.data, at, end):
            if number in names:
                names[number].append(text(self.data, a, e))
            elif number == 5 and any(n in (6, 11) for n, *_ in fields(self.data, a, e)):
                raise RefusedError(f"{self.path}: a node of it holds a graph of its own; it is left as it is")
        return _Node(at, end, "".join(names[4]), tuple(names[1]), tuple(names[2]))

    def maps(self) -> list[str]:
        """The tensors before the tail, in the order in which the outputs are put together from them.

        Found by structure alone: from each output back through operators of a tail to the first convolutions, those
        of a distribution's mean looked through. RefusedError where another operator stands in between.
        """
        found: list[str] = []
        seen: set[str] = set()
        todo = list(reversed(self.outputs))
        while todo:
            name = todo.pop()
            if name in seen or name not in self.makers:
                continue
            seen.add(name)
            node = self.makers[name]
            before = self.makers.get(node.inputs[0]) if node.inputs else None
            if node.op == "Conv" and (before is None or before.op not in FOLDED):
                found.append(name)
            elif node.op in TAIL or node.op in ("Conv", "Constant"):
                todo += reversed(node.inputs)
            else:
                raise RefusedError(f"{self.path}: {node.op} stands in its tail, which is not known there")
        if not found or len(found) > MOST_MAPS or set(found) & set(self.outputs):
            raise RefusedError(f"{self.path}: no tail of a known form in it")
        return found

    def write(self, out: Path, names: Mapping[str, str], constants: Mapping[str, Sequence[float]] = {}) -> None:
        """Write the graph that ends in the tensors of `names`, each under its new name, to `out`.

        `constants`: further outputs, one row of float32 numbers each, that say what the maps do not.
        """
        taken = {name for node in self.nodes for name in (*node.inputs, *node.outputs)} & {*names.values(), *constants}
        if taken:
            raise RefusedError(f'{self.path}: its tensor "{min(taken)}" has the name of a map')
        kept, needed = self._needed(names)
        graph = bytearray()
        for number, at, a, e in fields(self.data, *self.graph):
            if number == 1 and a in kept:
                graph += self._renamed(a, e, names)
            elif number in (5, 15) and self._tensor_name(number, a, e) not in needed:
                continue
            elif number not in (1, 12, 13, 14):
                graph += self.data[at:e]
        for name, numbers in constants.items():
            row = struct.pack(f"<{len(numbers)}f", *numbers)
            tensor = integer(1, len(numbers)) + integer(2, FLOAT) + block(8, name.encode()) + block(9, row)
            graph += block(5, tensor)
        for name in (*names.values(), *constants):
            graph += block(12, block(1, name.encode()) + block(2, block(1, integer(1, FLOAT))))
        with out.open("wb") as file:
            for number, at, _, e in fields(self.data, 0, len(self.data)):
                file.write(block(7, bytes(graph)) if number == 7 else self.data[at:e])

    def _needed(self, names: Mapping[str, str]) -> tuple[set[int], set[str]]:
        """Where the nodes begin that `names` need, and all tensors that they read."""
        kept: set[int] = set()
        needed: set[str] = set()
        todo = list(names)
        while todo:
            node = self.makers.get(todo.pop())
            if node is not None and node.at not in kept:
                kept.add(node.at)
                needed |= set(node.inputs)
                todo += node.inputs
        return kept, needed

    def _renamed(self, at: int, end: int, names: Mapping[str, str]) -> bytes:
        """The node at `at`..`end` as a field of the graph, the tensors of `names` under their new names."""
        node = bytearray()
        for number, begin, a, e in fields(self.data, at, end):
            name = names.get(text(self.data, a, e)) if number in (1, 2) else None
            node += self.data[begin:e] if name is None else block(number, name.encode())
        return block(1, bytes(node))

    def _tensor_name(self, number: int, at: int, end: int) -> str:
        """Of an initializer (5), or of the values of a sparse one (15)."""
        for n, _, a, e in fields(self.data, at, end):
            if number == 15 and n == 1:
                return self._tensor_name(5, a, e)
            if number == 5 and n == 8:
                return text(self.data, a, e)
        return ""
