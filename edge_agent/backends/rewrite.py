"""The same network with fewer passes over memory: what ONNX Runtime does not rewrite by itself, done in the ONNX file.

Its convolutions work on blocks of channels, and every operator that cannot makes it put them back in order before and
into blocks again behind it. Three patterns of detectors go, none of which multiplies more or less than before:

- a convolution, and what activates it, whose channels are then split: one convolution for each part
- channels of several tensors joined for one convolution: one convolution for each, their results added (the runtime
  adds while it writes)
- every second pixel of the picture, four times, joined (YOLOv5's and YOLOX's focus): a convolution of twice the size
  and stride on the picture itself

The numbers are the same but for the order in which they are added up. Only float32 weights that lie in the file are
touched; what does not fit a pattern stays as it is.

Format: onnx.proto (GraphProto, NodeProto, AttributeProto, TensorProto).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.backends.protobuf import block, fields, integer, numbers, text
from edge_agent.errors import RefusedError

Array = npt.NDArray[Any]

DTYPES: dict[int, str] = {1: "<f4", 7: "<i8"}
"""TensorProto.DataType: float32 and int64"""
INT, INTS = 2, 7
"""AttributeProto.AttributeType"""
ACTIVATIONS = {"HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "Relu", "Sigmoid", "Tanh"}
"""operators that treat every channel alike, when all that they take comes from one convolution"""
KEEP_CHANNELS = {"Add", "AveragePool", "Clip", "MaxPool", "Mul", "Resize", "Upsample", *ACTIVATIONS}
"""operators whose result has the channels of what they take first"""


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


def rewrite(path: Path, out: Path) -> str:
    """Write the network in `path` to `out` with the patterns gone: how many of each, one line.

    "" where there are none, and nothing is written. Raises RefusedError, one line, for a file that cannot be read.
    """
    try:
        graph = Graph(path)
        counts = {"split channels": graph.split(), "focus": graph.focus(), "joined channels": graph.join()}
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise RefusedError(f"{path}: not a readable ONNX model ({error})") from None
    if any(counts.values()):
        graph.write(out)
    return ", ".join(f"{count} of {what}" for what, count in counts.items() if count)


class Graph:
    """A graph that is being changed: its nodes in order, and its constants."""

    def __init__(self, path: Path) -> None:
        self.data = memoryview(path.read_bytes())
        (graph,) = [(a, e) for n, _, a, e in fields(self.data, 0, len(self.data)) if n == 7]
        self.graph = graph
        self.nodes: list[Node] = []
        self.tensors: dict[str, Array] = {}
        self.added: dict[str, Array] = {}
        self.given: set[str] = set()
        self.outputs: list[str] = []
        for number, _, a, e in fields(self.data, *graph):
            if number == 1:
                self._read_node(a, e)
            elif number == 5:
                self._read_tensor(a, e)
            elif number in (11, 12):
                names = [text(self.data, b, f) for n, _, b, f in fields(self.data, a, e) if n == 1]
                self.given |= set(names) if number == 11 else set()
                self.outputs += names if number == 12 else []

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

    def _read_tensor(self, at: int, end: int, name: str = "") -> None:
        """Take note of a constant, where it is float32 or int64 and lies in the file."""
        inside = list(fields(self.data, at, end))
        shape = [value for field in inside if field[0] == 1 for value in numbers(self.data, field)]
        kind = next((value for field in inside if field[0] == 2 for value in numbers(self.data, field)), 0)
        name = name or "".join(text(self.data, b, f) for n, _, b, f in inside if n == 8)
        raw = next((self.data[b:f] for n, _, b, f in inside if n == 9), None)
        if kind in DTYPES and raw is not None:
            self.tensors[name] = np.frombuffer(raw, DTYPES[kind]).reshape(shape)
        elif kind == 7 and any(field[0] == 7 for field in inside):
            values = [value for field in inside if field[0] == 7 for value in numbers(self.data, field)]
            self.tensors[name] = np.array(values, np.int64).reshape(shape)

    # ── the patterns ─────────────────────────────────────────────────────────────────────────────────────

    def split(self) -> int:
        """Convolution, activation, split of its channels -> a convolution and an activation for each part."""
        found = 0
        for last in [node for node in self.nodes if node.op == "Split" and node.one("axis", 0) == 1]:
            chain = self._activated(last.inputs[0])
            if not chain or self._users()[last.inputs[0]] != 1:
                continue
            conv, weight = chain[0], self.tensors[chain[0].inputs[1]]
            sizes = self._sizes(last, len(weight))
            if sum(sizes) != len(weight):
                continue
            made: list[Node] = []
            ends = np.cumsum(sizes)[:-1]
            weights = np.split(weight, ends)
            biases = np.split(self.tensors[conv.inputs[2]], ends) if len(conv.inputs) > 2 else None
            for number, output in enumerate(last.outputs):
                names = {name: f"{name}/part{number}" for node in chain for name in node.outputs}
                names[last.inputs[0]] = output
                constants = [self._constant(f"{conv.inputs[1]}/part{number}", weights[number])]
                if biases is not None:
                    constants.append(self._constant(f"{conv.inputs[2]}/part{number}", biases[number]))
                for node in chain:
                    inputs = (node.inputs[0], *constants) if node is conv else node.inputs
                    made.append(
                        replace(
                            node,
                            inputs=tuple(names.get(name, name) for name in inputs),
                            outputs=tuple(names[name] for name in node.outputs),
                        )
                    )
            self._put(made, last, chain)
            found += 1
        return found

    def join(self) -> int:
        """Join of channels, convolution -> a convolution of each tensor, and additions."""
        found = 0
        for first in [node for node in self.nodes if node.op == "Concat" and node.one("axis", 0) == 1]:
            convs = [node for node in self.nodes if first.outputs[0] in node.inputs]
            sizes = [self._channels(name) for name in first.inputs]
            fits = [self._is_plain(conv) and sum(sizes) == self.tensors[conv.inputs[1]].shape[1] for conv in convs]
            if 0 in sizes or not fits or not all(fits) or first.outputs[0] in self.outputs or len(sizes) < 2:
                continue
            for conv in convs:
                weights = np.split(self.tensors[conv.inputs[1]], np.cumsum(sizes)[:-1], axis=1)
                made: list[Node] = []
                before = ""
                for number, (name, weight) in enumerate(zip(first.inputs, weights, strict=True)):
                    constant = self._constant(f"{conv.inputs[1]}/of{number}", weight)
                    term = f"{conv.outputs[0]}/of{number}"
                    bias = conv.inputs[2:] if number == 0 else ()
                    made.append(replace(conv, inputs=(name, constant, *bias), outputs=(term,)))
                    if number:
                        end = number == len(weights) - 1
                        total = conv.outputs[0] if end else f"{conv.outputs[0]}/to{number}"
                        made.append(Node("Add", (before, term), (total,), {}))
                        term = total
                    before = term
                self._put(made, conv, [conv])
            self.nodes.remove(first)
            found += 1
        return found

    def focus(self) -> int:
        """Every second pixel joined, convolution -> a convolution of twice the kernel, stride and padding."""
        found = 0
        for first in [node for node in self.nodes if node.op == "Concat" and node.one("axis", 0) == 1]:
            convs = [node for node in self.nodes if first.outputs[0] in node.inputs]
            places = [self._every_second(name) for name in first.inputs]
            sources = {place[0] for place in places if place is not None}
            if len(convs) != 1 or len(places) != 4 or None in places or len(sources) != 1:
                continue
            (conv,) = convs
            (source,) = sources
            if not self._is_plain(conv) or set(conv.some("dilations", [1])) != {1} or not sources <= self.given:
                continue
            old = self.tensors[conv.inputs[1]]
            count, (high, wide) = old.shape[1] // 4, old.shape[2:]
            new = np.zeros((len(old), count, 2 * high, 2 * wide), np.float32)
            for number, place in enumerate(places):
                if place is not None:
                    new[:, :, place[1] :: 2, place[2] :: 2] = old[:, number * count : (number + 1) * count]
            doubled = {
                "kernel_shape": [2 * high, 2 * wide],
                "pads": [2 * pad for pad in conv.some("pads", [0] * 4)],
                "strides": [2 * step for step in conv.some("strides", [1] * 2)],
            }
            constant = self._constant(f"{conv.inputs[1]}/whole", new)
            made = replace(conv, inputs=(source, constant, *conv.inputs[2:]), ints={**conv.ints, **doubled})
            self._put([made], conv, [conv, first])
            self._drop_unused()
            found += 1
        return found

    # ── what the patterns are made of ────────────────────────────────────────────────────────────────────

    def _maker(self, name: str) -> Node | None:
        return next((node for node in self.nodes if name in node.outputs), None)

    def _users(self) -> Counter[str]:
        """How often each tensor is taken."""
        return Counter([name for node in self.nodes for name in node.inputs] + self.outputs)

    def _is_plain(self, node: Node) -> bool:
        """Whether it is a convolution of a picture, of all its channels at once, whose weights are known."""
        known = all(name in self.tensors and self.tensors[name].dtype == np.float32 for name in node.inputs[1:])
        whole = not node.rest and node.one("group", 1) == 1
        return node.op == "Conv" and known and whole and self.tensors[node.inputs[1]].ndim == 4

    def _activated(self, name: str) -> list[Node]:
        """The convolution that `name` comes from and the activation between, in order; empty where it is not so."""
        chain: list[Node] = []
        todo = [name]
        while todo:
            node = self._maker(todo.pop())
            if node is None or node in chain:
                continue
            if node.op not in ACTIVATIONS and not self._is_plain(node):
                return []
            chain.append(node)
            todo += node.inputs if node.op in ACTIVATIONS else ()
        if sum(node.op == "Conv" for node in chain) != 1:
            return []
        inside = Counter(given for node in chain for given in node.inputs)
        users = self._users()
        made = {output for node in chain for output in node.outputs}
        alone = all(users[output] == inside[output] for output in made - {name})
        own = all(given in made for node in chain if node.op in ACTIVATIONS for given in node.inputs)
        return sorted(chain, key=self.nodes.index) if alone and own else []

    def _sizes(self, node: Node, channels: int) -> list[int]:
        """Of the parts of a Split."""
        if len(node.inputs) > 1 and node.inputs[1]:
            given = self.tensors.get(node.inputs[1])
            return [] if given is None else [int(size) for size in given]
        count = len(node.outputs)
        return node.some("split", []) or ([channels // count] * count if channels % count == 0 else [])

    def _channels(self, name: str) -> int:
        """Of a tensor within the network, found behind its convolution; 0: not known."""
        node = self._maker(name)
        while node is not None and node.op in KEEP_CHANNELS:
            node = self._maker(node.inputs[0])
        if node is None or node.inputs[1:2] == () or node.inputs[1] not in self.tensors:
            return 0
        return len(self.tensors[node.inputs[1]]) if node.op == "Conv" else 0

    def _every_second(self, name: str) -> tuple[str, int, int] | None:
        """The picture of which `name` is every second row and column, and the first of them; None where it is not."""
        starts: dict[int, int] = {}
        while (node := self._maker(name)) is not None and node.op == "Slice" and len(node.inputs) == 5:
            if any(given not in self.tensors for given in node.inputs[1:]):
                return None
            for start, _, axis, step in zip(*(self.tensors[given].tolist() for given in node.inputs[1:]), strict=True):
                if step != 2 or axis in starts or start not in (0, 1):
                    return None
                starts[axis] = start
            name = node.inputs[0]
        return (name, starts[2], starts[3]) if set(starts) == {2, 3} else None

    def _constant(self, name: str, value: Array) -> str:
        """A new constant, under that name."""
        self.tensors[name] = self.added[name] = np.ascontiguousarray(value)
        return name

    def _put(self, made: Sequence[Node], place: Node, gone: Sequence[Node]) -> None:
        """Nodes in the place of one, and without those that are gone."""
        at = self.nodes.index(place)
        self.nodes[at : at + 1] = made
        self.nodes = [node for node in self.nodes if node not in gone]

    def _drop_unused(self) -> None:
        """Leave out the nodes that nobody asks for any more."""
        while True:
            users = self._users()
            kept = [node for node in self.nodes if any(users[name] for name in node.outputs)]
            if len(kept) == len(self.nodes):
                return
            self.nodes = kept

    # ── back into a file ─────────────────────────────────────────────────────────────────────────────────

    def write(self, out: Path) -> None:
        """Write the model; constants that nobody takes any more are left out."""
        users = self._users()
        graph = bytearray(b"".join(block(1, _node(node)) for node in self.nodes))
        for number, at, a, e in fields(self.data, *self.graph):
            inside = fields(self.data, a, e) if number == 5 else ()
            name = "".join(text(self.data, b, f) for n, _, b, f in inside if n == 8)
            # shapes of tensors between operators (13) are worked out anew when it is opened
            if number not in (1, 13) and (number != 5 or users[name]):
                graph += self.data[at:e]
        for name, value in self.added.items():
            if users[name]:
                shape = b"".join(integer(1, axis) for axis in value.shape)
                graph += block(5, shape + integer(2, 1) + block(8, name.encode()) + block(9, value.tobytes()))
        with out.open("wb") as file:
            for number, at, _, e in fields(self.data, 0, len(self.data)):
                file.write(block(7, bytes(graph)) if number == 7 else self.data[at:e])


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
