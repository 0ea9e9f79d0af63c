"""A TFLite file as a `FileGraph`, without any runtime: a reader of the flatbuffer fields that inspection asks for.

Sources of the formats: TensorFlow Lite's schema.fbs (identifier TFL3) and metadata_schema.fbs (M001); the zip of
associated files stands behind the flatbuffer. Every offset is checked against the file, every vector against a
bound, and a packed file is read up to a bound whatever its header says.
"""

from __future__ import annotations

import ast
import json
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_agent.graphs.graph import MAX_WORDS, SHORT, FileGraph, FileNode

MAX_ITEMS = 200_000
"""elements that are looked at in all vectors together"""
MAX_FILES = 64
OPS = {
    0: "Add", 2: "Concat", 3: "Conv", 4: "Conv", 6: "DequantizeLinear", 7: "Gather", 9: "Gemm", 14: "Sigmoid",
    18: "Mul", 22: "Reshape", 25: "Softmax", 34: "Pad", 36: "Gather", 39: "Transpose", 41: "Sub", 42: "Div",
    43: "Squeeze", 45: "Slice", 53: "Cast", 60: "Pad", 114: "QuantizeLinear", 126: "MatMul",
}  # fmt: skip
"""BuiltinOperator -> ONNX name, of those that inspection asks for"""
TYPES = {0: "f", 1: "e", 2: "i", 3: "B", 4: "q", 9: "b", 10: "d"}
"""TensorType -> struct's letter"""
BYTES = {3: "uint8", 9: "int8"}
"""TensorType of quantized tensors"""
CUSTOM = 32
IMAGE_PROPERTIES, NORMALIZATION_OPTIONS = 2, 1
"""of the unions ContentProperties and ProcessUnitOptions"""
SPACES = {1: "RGB", 2: "GRAYSCALE"}


def read(path: Path) -> FileGraph:
    """Read the file. ValueError where it is no TFLite model or its offsets lead out of it."""
    if path.stat().st_size < 8:
        raise ValueError("the file is too short")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[4:8] != b"TFL3":
            raise ValueError('the identifier "TFL3" is missing')
        try:
            graph, meta = _model(_Buffer(data))
        except struct.error as error:
            raise ValueError(f"an offset leads out of the file ({error})") from None
    files = packed(path)
    for name in [n for n in files if n in ("temp_meta.txt", "metadata.json")]:
        meta |= _exporter(files.pop(name))
    return FileGraph(*graph, meta, files, meta.get("producer", ""))


class _Buffer:
    """A flatbuffer, and how much of it may still be looked at."""

    def __init__(self, data: Any) -> None:
        self.data, self.left = data, MAX_ITEMS

    def number(self, letter: str, at: int) -> Any:
        if at < 0:
            raise ValueError("an offset leads out of the file")
        return struct.unpack_from(f"<{letter}", self.data, at)[0]

    def root(self) -> int:
        return int(self.number("I", 0))

    def field(self, table: int, index: int) -> int:
        """Place of a table's field; 0 when it is absent."""
        vtable = table - self.number("i", table)
        if 4 + 2 * index + 2 > self.number("H", vtable):
            return 0
        offset = self.number("H", vtable + 4 + 2 * index)
        return table + offset if offset else 0

    def scalar(self, table: int, index: int, letter: str, default: Any = 0) -> Any:
        at = self.field(table, index)
        return self.number(letter, at) if at else default

    def table(self, table: int, index: int) -> int:
        at = self.field(table, index)
        return int(at + self.number("I", at)) if at else 0

    def vector(self, table: int, index: int, size: int) -> tuple[int, int]:
        """First element and count of a vector whose elements take `size` bytes."""
        at = self.table(table, index)
        count = self.number("I", at) if at else 0
        if at + 4 + count * size > len(self.data):
            raise ValueError("a vector is longer than the file")
        return at + 4, int(count)

    def tables(self, table: int, index: int) -> list[int]:
        at, count = self.vector(table, index, 4)
        self.left -= count
        if self.left < 0:
            raise ValueError(f"more than {MAX_ITEMS} elements")
        return [at + 4 * i + self.number("I", at + 4 * i) for i in range(count)]

    def numbers(self, table: int, index: int, letter: str, most: int = SHORT) -> tuple[Any, ...]:
        """A vector of numbers; () when it is absent or has more than `most`."""
        at, count = self.vector(table, index, struct.calcsize(f"<{letter}"))
        self.left -= min(count, most)
        if count > most or self.left < 0:
            return ()
        return struct.unpack_from(f"<{count}{letter}", self.data, at)

    def text(self, table: int, index: int, most: int = 4096) -> str:
        at, count = self.vector(table, index, 1)
        return bytes(self.data[at : at + min(count, most)]).decode(errors="replace")


GraphParts = tuple[
    tuple[FileNode, ...], dict[str, tuple[float, ...]], dict[str, tuple[int, ...]], dict[str, tuple[float, int, str]]
]


def _model(fb: _Buffer) -> tuple[GraphParts, dict[str, str]]:
    model = fb.root()
    ops = []
    for code in fb.tables(model, 1):
        builtin = max(fb.scalar(code, 0, "b"), fb.scalar(code, 3, "i"))
        ops.append(fb.text(code, 1) if builtin == CUSTOM else OPS.get(builtin, f"builtin {builtin}"))
    buffers = fb.tables(model, 4)
    meta = {"description": fb.text(model, 3)}
    for entry in fb.tables(model, 6):
        index = fb.scalar(entry, 1, "I")
        if fb.text(entry, 0) == "TFLITE_METADATA" and index < len(buffers):
            at, count = fb.vector(buffers[index], 0, 1)
            if count <= MAX_WORDS:
                meta |= _metadata(_Buffer(bytes(fb.data[at : at + count])))
    graphs = fb.tables(model, 2)
    return (_graph(fb, graphs[0], ops, buffers) if graphs else ((), {}, {}, {})), meta


def _graph(fb: _Buffer, graph: int, ops: list[str], buffers: list[int]) -> GraphParts:
    names: list[str] = []
    constants: dict[str, tuple[float, ...]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    scales: dict[str, tuple[float, int, str]] = {}
    for index, tensor in enumerate(fb.tables(graph, 0)):
        name = fb.text(tensor, 3) or f"tensor {index}"
        names.append(name)
        kind, buffer = fb.scalar(tensor, 1, "b"), fb.scalar(tensor, 2, "I")
        if (scale := _scale(fb, tensor, kind)) is not None:
            scales[name] = scale
        at, count = fb.vector(buffers[buffer], 0, 1) if 0 < buffer < len(buffers) else (0, 0)
        if count:
            shapes[name] = fb.numbers(tensor, 0, "i")
            if found := _short_constant(fb, kind, at, count):
                step, zero, _ = scales.get(name, (1.0, 0, ""))
                constants[name] = tuple(float((value - zero) * step) for value in found)
    nodes = [_node(fb, step, ops, names, constants) for step in fb.tables(graph, 3)]
    return tuple(nodes), constants, shapes, scales


def _scale(fb: _Buffer, tensor: int, kind: int) -> tuple[float, int, str] | None:
    """Scale, zero point and type of a tensor of bytes that has one of each."""
    table = fb.table(tensor, 4)
    if not table or kind not in BYTES:
        return None
    scale, zero = fb.numbers(table, 2, "f"), fb.numbers(table, 3, "q")
    return (float(scale[0]), int(zero[0]), BYTES[kind]) if len(scale) == len(zero) == 1 else None


def _short_constant(fb: _Buffer, kind: int, at: int, count: int) -> tuple[Any, ...]:
    """The numbers in `count` bytes at `at`; () where they are too many, or of another type."""
    letter = TYPES.get(kind, "")
    size = struct.calcsize(f"<{letter}") if letter else 0
    if not size or count > SHORT * size or count % size:
        return ()
    return struct.unpack_from(f"<{count // size}{letter}", fb.data, at)


def _node(
    fb: _Buffer, step: int, ops: list[str], names: list[str], constants: Mapping[str, tuple[float, ...]]
) -> FileNode:
    code = fb.scalar(step, 0, "I")
    inputs, outputs = (
        tuple(names[i] for i in fb.numbers(step, side, "i", 4096) if 0 <= i < len(names)) for side in (1, 2)
    )
    op = ops[code] if code < len(ops) else ""
    perm = constants.get(inputs[1], ()) if op == "Transpose" and len(inputs) > 1 else ()
    return FileNode(op, inputs, outputs, tuple(int(v) for v in perm))


def _metadata(fb: _Buffer) -> dict[str, str]:
    """ModelMetadata as key -> value: name, description, author, licence, the first input's colours, mean and std."""
    if bytes(fb.data[4:8]) != b"M001":
        return {}
    try:
        root = fb.root()
        found = {key: fb.text(root, i) for i, key in ((0, "name"), (1, "description"), (4, "author"), (5, "license"))}
        for tensor in [t for sub in fb.tables(root, 3)[:1] for t in fb.tables(sub, 2)[:1]]:
            found |= _input_metadata(fb, tensor)
        return {key: value for key, value in found.items() if value}
    except (struct.error, ValueError):
        return {}


def _input_metadata(fb: _Buffer, tensor: int) -> dict[str, str]:
    """TensorMetadata of an input: its colours, mean and std."""
    found = {}
    content = fb.table(tensor, 3)
    if content and fb.scalar(content, 0, "B") == IMAGE_PROPERTIES:
        image = fb.table(content, 1)
        found["color_space"] = SPACES.get(fb.scalar(image, 0, "b"), "") if image else ""
    for unit in fb.tables(tensor, 4):
        options = fb.table(unit, 1)
        if options and fb.scalar(unit, 0, "B") == NORMALIZATION_OPTIONS:
            for i, key in ((0, "mean"), (1, "std")):
                found[key] = json.dumps([float(v) for v in fb.numbers(options, i, "f")])
    return found


def _exporter(text: str) -> dict[str, str]:
    """The dict that Ultralytics packs beside the model, as JSON or as Python writes it."""
    parsers: tuple[Callable[[str], Any], ...] = (json.loads, ast.literal_eval)
    for parse in parsers:
        try:
            table = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        if isinstance(table, dict):
            return {str(k)[:64]: v if isinstance(v, str) else repr(v) for k, v in list(table.items())[:256]}
    return {}


def packed(path: Path) -> dict[str, str]:
    """The text files in the zip behind the model, each of at most MAX_WORDS bytes; {} when there is none.

    A header may lie about a file's size: no more than the bound is ever unpacked.
    """
    found: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist()[:MAX_FILES]:
                if not entry.filename.lower().endswith((".txt", ".json")) or entry.file_size > MAX_WORDS:
                    continue
                with archive.open(entry) as file:
                    body = file.read(MAX_WORDS + 1)
                if len(body) <= MAX_WORDS:
                    found[Path(entry.filename).name] = body.decode(errors="replace")
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, struct.error, zlib.error):
        return found
    return found
