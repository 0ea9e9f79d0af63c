"""An ONNX file as a `Graph`, without the onnx package: a reader of the protobuf fields that inspection asks for.

The file is hostile until proven otherwise: every length is checked against the message that it stands in, weights
are stepped over and never read, and the number of fields is bounded.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from edge_agent.graphs.graph import MAX_WORDS, SHORT, FileGraph, FileNode

MAX_FIELDS = 2_000_000
MAX_TEXT = 4096
"""bytes of a tensor's or operator's name"""
STRUCT_LETTERS = {1: "f", 2: "B", 3: "b", 4: "H", 5: "h", 6: "i", 7: "q", 11: "d", 12: "I", 13: "Q", 10: "e"}
"""TensorProto.DataType -> struct's letter"""
INTEGER = {2: "uint8", 3: "int8"}


def read(path: Path) -> FileGraph:
    """Read the file. ValueError where it is no protobuf of an ONNX model, or one with too many fields.

    Format: onnx.proto (ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto, StringStringEntryProto) and
    the protobuf encoding (varint; wire types 0, 1, 2, 5).
    """
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(data).model()


Field = tuple[int, int, int, int]
"""number, value (of a varint, else -1), begin and end (of bytes)"""


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.left = data, MAX_FIELDS
        self.constants: dict[str, tuple[float, ...]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.scales: dict[str, tuple[float, int, str]] = {}

    def model(self) -> FileGraph:
        meta: dict[str, str] = {}
        producer, nodes = "", []
        for number, _, at, end in self.fields(0, len(self.data)):
            if number == 2:
                producer = self.text(at, end)
            elif number == 14 and end - at <= MAX_WORDS and len(meta) < 256:
                pair = {n: (a, e) for n, _, a, e in self.fields(at, end)}
                if 1 in pair and 2 in pair:
                    meta[self.text(*pair[1])] = self.data[slice(*pair[2])].decode(errors="replace")
            elif number == 7:
                for inner, _, a, e in self.fields(at, end):
                    if inner == 1:
                        nodes.append(self.node(a, e))
                    elif inner == 5:
                        self.tensor(a, e, "")
        return FileGraph(tuple(nodes), self.constants, self.shapes, self.scales, meta, {}, producer)

    def fields(self, at: int, end: int) -> Iterator[Field]:
        """The fields of the message at `at`..`end`."""
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise ValueError(f"more than {MAX_FIELDS} fields")
            key, at = self.varint(at, end)
            number, wire, value, begin = key >> 3, key & 7, -1, at
            if wire == 0:
                value, at = self.varint(at, end)
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            elif wire == 2:
                size, begin = self.varint(at, end)
                at = begin + size
            else:
                raise ValueError(f"protobuf wire type {wire} at byte {begin}")
            if at > end:
                raise ValueError(f"a protobuf field at byte {begin} ends beyond its message")
            yield number, value, begin, at

    def varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise ValueError(f"cut short at byte {at}")
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (1 << 64) - 1, at
        raise ValueError(f"protobuf integer too long at byte {at}")

    def text(self, at: int, end: int) -> str:
        return self.data[at : min(end, at + MAX_TEXT)].decode(errors="replace")

    def node(self, at: int, end: int) -> FileNode:
        inputs, outputs, op, ints = [], [], "", []
        tensors = []
        for number, _, a, e in self.fields(at, end):
            if number == 1:
                inputs.append(self.text(a, e))
            elif number == 2:
                outputs.append(self.text(a, e))
            elif number == 4:
                op = self.text(a, e)
            elif number == 5:
                for inner, value, begin, stop in self.fields(a, e):
                    if inner == 5:
                        tensors.append((begin, stop))
                    elif inner == 8:
                        ints += self.varints(value, begin, stop)
        if op == "Constant" and tensors and outputs:
            self.tensor(*tensors[0], outputs[0])
        return FileNode(op, tuple(inputs), tuple(outputs), tuple(ints[:SHORT]))

    def varints(self, value: int, at: int, end: int) -> list[int]:
        """A repeated integer: packed, or one at a time (`value`)."""
        if value >= 0:
            return [value]
        if end - at > 10 * SHORT:
            return []
        found = []
        while at < end:
            number, at = self.varint(at, end)
            found.append(number)
        return found

    def tensor(self, at: int, end: int, name: str) -> None:
        """Keep a constant's dimensions, and its numbers when they are few."""
        dims: list[int] = []
        kind, raw, words = 0, (0, 0), []
        for number, value, a, e in self.fields(at, end):
            if number == 1:
                dims += self.varints(value, a, e)
            elif number == 2:
                kind = value
            elif number == 8:
                name = name or self.text(a, e)
            elif number == 9:
                raw = (a, e)
            elif number in (4, 5, 7, 10):
                words.append((number, value, a, e))
        count = 1
        for size in dims:
            count = min(count * size, 1 << 62)
        self.shapes[name] = tuple(dims)
        if count > SHORT:
            return
        numbers = self.raw(kind, *raw) or self.typed(kind, words)
        if len(numbers) == count:
            self.constants[name] = tuple(numbers)
            if kind in INTEGER and count == 1:
                self.scales[name] = (0.0, int(numbers[0]), INTEGER[kind])

    def raw(self, kind: int, at: int, end: int) -> list[float]:
        letter = STRUCT_LETTERS.get(kind, "")
        size = struct.calcsize(f"<{letter}") if letter else 0
        if not size or end == at or (end - at) % size:
            return []
        return [float(v) for v in struct.unpack(f"<{(end - at) // size}{letter}", self.data[at:end])]

    def typed(self, kind: int, words: list[Field]) -> list[float]:
        found: list[float] = []
        for number, value, a, e in words:
            if number in (4, 10):
                size, letter = (4, "f") if number == 4 else (8, "d")
                if e - a <= SHORT * size and not (e - a) % size:
                    found += [float(v) for v in struct.unpack(f"<{(e - a) // size}{letter}", self.data[a:e])]
            else:
                found += [float(v - (1 << 64) if v >> 63 else v) for v in self.varints(value, a, e)]
        return found if kind != 10 else []
