"""An ONNX file as a `FileGraph`: what inspection asks for. Weights are stepped over and never read."""

from __future__ import annotations

import math
from pathlib import Path

from edge_agent.graphs.graph import MAX_WORDS, SHORT, FileGraph, FileNode
from edge_agent.graphs.onnx_proto import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    StringStringEntryProto,
    TensorProto,
    values,
)
from edge_agent.graphs.protobuf import Message, mapped

MAX_TEXT = 4096
"""bytes of a tensor's or operator's name"""
MAX_PAIRS = 256
"""of metadata"""
INTEGER = {TensorProto.UINT8: "uint8", TensorProto.INT8: "int8"}


def read(path: Path) -> FileGraph:
    """Read the file. ValueError where it is no protobuf of an ONNX model, or one with too many fields."""
    with mapped(path) as file:
        model, reader = file.message(), _Reader()
        nodes = [node for graph in model.messages(ModelProto.GRAPH) for node in reader.graph(graph)]
        producer = _text(model, ModelProto.PRODUCER_NAME)
        return FileGraph(tuple(nodes), reader.constants, reader.shapes, reader.scales, _metadata(model), {}, producer)


class _Reader:
    def __init__(self) -> None:
        self.constants: dict[str, tuple[float, ...]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.scales: dict[str, tuple[float, int, str]] = {}

    def graph(self, graph: Message) -> list[FileNode]:
        for tensor in graph.messages(GraphProto.INITIALIZER):
            self.tensor(tensor, _text(tensor, TensorProto.NAME))
        return [self.node(node) for node in graph.messages(GraphProto.NODE)]

    def node(self, node: Message) -> FileNode:
        op = _text(node, NodeProto.OP_TYPE)
        inputs, outputs = _texts(node, NodeProto.INPUT), _texts(node, NodeProto.OUTPUT)
        attributes = list(node.messages(NodeProto.ATTRIBUTE))
        if op == "Constant" and outputs:
            for tensor in [t for attribute in attributes for t in attribute.messages(AttributeProto.T)][:1]:
                self.tensor(tensor, outputs[0])
        ints = [number for attribute in attributes for number in attribute.numbers(AttributeProto.INTS, SHORT)]
        return FileNode(op, inputs, outputs, tuple(ints[:SHORT]))

    def tensor(self, tensor: Message, name: str) -> None:
        """Keep a constant's dimensions, and its numbers when they are few."""
        dims = tensor.numbers(TensorProto.DIMS, SHORT)
        self.shapes[name] = tuple(dims)
        count = math.prod(dims)
        found = values(tensor, SHORT + 1) if count <= SHORT else None
        if found is None or len(found) != count:
            return
        self.constants[name] = tuple(float(value) for value in found)
        kind = tensor.number(TensorProto.DATA_TYPE)
        if kind in INTEGER and count == 1:
            self.scales[name] = (0.0, int(found[0]), INTEGER[kind])


def _metadata(model: Message) -> dict[str, str]:
    """Key -> value of what the exporter wrote; values that are too long are left out."""
    key, value = StringStringEntryProto.KEY, StringStringEntryProto.VALUE
    short = [f for f in model.fields if f[0] == ModelProto.METADATA_PROPS and f[3] - f[2] <= MAX_WORDS][:MAX_PAIRS]
    pairs = [model.inside(field) for field in short]
    return {_text(pair, key): _text(pair, value, MAX_WORDS) for pair in pairs if pair.has(key) and pair.has(value)}


def _texts(message: Message, number: int, most: int = MAX_TEXT) -> tuple[str, ...]:
    """As much of them as is shown, whatever bytes they are."""
    return tuple(bytes(payload[:most]).decode(errors="replace") for payload in message.payloads(number))


def _text(message: Message, number: int, most: int = MAX_TEXT) -> str:
    return (_texts(message, number, most) or ("",))[-1]
