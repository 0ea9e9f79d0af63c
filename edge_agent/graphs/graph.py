"""A network's graph as both file formats are read into it, and what its two ends say.

Operators go by their ONNX names, TFLite's too. Only what inspection asks for is kept: wiring, small constants, the
dimensions of weights, the quantization of tensors, and the words that an exporter left in the file.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

MAX_WORDS = 1 << 20
"""bytes of one metadata value or associated file; a longer one is left out"""
MAX_NAME = 100
"""characters of a class name, licence or description that is shown"""
SHORT = 16
"""most numbers of a constant that is kept"""
IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""R, G, B on 0..255"""
THROUGH = ("Cast", "Identity", "QuantizeLinear", "DequantizeLinear", "Reshape", "Squeeze", "Unsqueeze", "Pad")
AFFINE = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True, slots=True)
class FileNode:
    """One operator."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ints: tuple[int, ...] = ()
    """its list of whole numbers, e.g. the permutation of a Transpose"""


@dataclass(frozen=True, slots=True)
class FileGraph:
    """What one file holds, as far as inspection goes."""

    nodes: tuple[FileNode, ...] = ()
    constants: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """constants of at most SHORT numbers"""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """dimensions of every constant"""
    scales: Mapping[str, tuple[float, int, str]] = field(default_factory=dict)
    """tensor -> scale, zero point and integer type, where it has one of each"""
    meta: Mapping[str, str] = field(default_factory=dict)
    """what the exporter wrote: key -> value"""
    files: Mapping[str, str] = field(default_factory=dict)
    """text files packed into the model"""
    producer: str = ""
    told: Mapping[str, str] = field(default_factory=dict)
    """what the user says of its input: scale, mean, std, channels"""


@dataclass(frozen=True, slots=True)
class Leading:
    """What the graph does to its input before the first layer: x * gain + offset, per channel of that layer."""

    ops: tuple[str, ...] = ()
    gain: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    perm: tuple[int, ...] = ()
    flips: bool = False
    """whether it reverses the channels (a Gather of 2, 1, 0)"""
    layer: str = ""
    """the first operator that is none of these"""


def leading(graph: FileGraph, name: str) -> Leading:
    """Follow the input `name` to the first layer."""
    lead = Leading()
    for _ in range(32):
        users = [node for node in graph.nodes if name in node.inputs]
        if len(users) != 1 or not users[0].outputs:
            return replace(lead, layer=users[0].op if users else "")
        (node,) = users
        step = _step(graph, lead, node, name)
        if step is None:
            return lead
        lead, name = step, node.outputs[0]
        if lead.layer:
            return lead
    return lead


def _step(graph: FileGraph, lead: Leading, node: FileNode, name: str) -> Leading | None:
    """What is done up to and with a `node` that takes `name`, the layer named where it is one; None where it cannot be
    followed.
    """
    if node.op in THROUGH:
        return lead
    if node.op in AFFINE:
        return _affine(graph, lead, node, name)
    if node.op == "Transpose":
        return replace(lead, perm=node.ints, ops=(*lead.ops, f"Transpose {list(node.ints)}"))
    if node.op == "Gather" and constant(graph, node.inputs[-1]) == (2.0, 1.0, 0.0):
        turned = replace(lead, flips=not lead.flips, gain=lead.gain[::-1], offset=lead.offset[::-1])
        return replace(turned, ops=(*lead.ops, "Gather 2, 1, 0"))
    return replace(lead, layer=node.op)


def _affine(graph: FileGraph, lead: Leading, node: FileNode, name: str) -> Leading | None:
    """What is done up to and with a `node` that adds to `name` or multiplies it; None where that is not by constants,
    or divides by it.
    """
    by, first = _beside(graph, node, name), node.inputs[0] == name
    if not by or (node.op == "Div" and (0 in by or not first)):
        return None
    gain, offset = lead.gain, lead.offset
    if node.op == "Sub" and not first:
        gain, offset = _each(gain, (-1.0,), "Mul"), _each(_each(offset, (-1.0,), "Mul"), by, "Add")
    elif node.op in ("Mul", "Div"):
        gain, offset = _each(gain, by, node.op), _each(offset, by, node.op)
    else:
        offset = _each(offset, by, node.op)
    said = f"{node.op} {', '.join(f'{v:.6g}' for v in by)}"
    return replace(lead, ops=(*lead.ops, said), gain=gain, offset=offset)


def _beside(graph: FileGraph, node: FileNode, name: str) -> tuple[float, ...]:
    """The one constant beside `name`, one number or one a channel; () where there is none."""
    others = [constant(graph, other) for other in node.inputs if other != name]
    return others[0] if len(others) == 1 and len(others[0]) in (1, 3) else ()


CALCULATES: dict[str, Callable[[float, float], float]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
}


def _each(a: tuple[float, ...], b: tuple[float, ...], op: str) -> tuple[float, ...]:
    """Number by number, one of them for all where there is but one."""
    n = max(len(a), len(b))
    pairs = zip(a * n if len(a) == 1 else a, b * n if len(b) == 1 else b, strict=True)
    return tuple(CALCULATES[op](x, y) for x, y in pairs)


def constant(graph: FileGraph, name: str) -> tuple[float, ...]:
    """The numbers of a short constant, a Cast or DequantizeLinear before it looked through; () for anything else."""
    if name in graph.constants:
        return graph.constants[name]
    for node in graph.nodes:
        if name in node.outputs and node.op in ("Cast", "Identity") and node.inputs:
            return graph.constants.get(node.inputs[0], ())
    return ()


def behind(graph: FileGraph, name: str) -> list[FileNode]:
    """The chain of operators that ends in the output `name`, last one first, as long as it has one main input."""
    makers = {out: node for node in graph.nodes for out in node.outputs}
    chain: list[FileNode] = []
    while name in makers and len(chain) < 12:
        node = makers[name]
        chain.append(node)
        if not node.inputs or node.op in ("Concat", "Conv", "MatMul", "Gemm"):
            break
        name = node.inputs[0]
    return chain


def output_scale(graph: FileGraph, name: str) -> tuple[float, int, str] | None:
    """Scale, zero point and integer type of what an output holds, also where a DequantizeLinear stands behind it."""
    for node in behind(graph, name):
        if node.op == "DequantizeLinear" and node.inputs[0] in graph.scales:
            return graph.scales[node.inputs[0]]
        if node.op == "DequantizeLinear" and len(node.inputs) > 1:
            return _scale(graph, node)
        if node.op not in ("Reshape", "Transpose", "Identity", "Squeeze", "Cast"):
            break
    return graph.scales.get(name)


def input_scale(graph: FileGraph, name: str) -> tuple[float, int, str] | None:
    """Scale, zero point and integer type that the graph gives a float input before anything else."""
    users = [node for node in graph.nodes if name in node.inputs]
    if len(users) != 1 or users[0].op != "QuantizeLinear" or not users[0].outputs:
        return None
    return _scale(graph, users[0]) or graph.scales.get(users[0].outputs[0])


def _scale(graph: FileGraph, node: FileNode) -> tuple[float, int, str] | None:
    """What an ONNX QuantizeLinear or DequantizeLinear has as its second and third input."""
    scale = constant(graph, node.inputs[1]) if len(node.inputs) > 1 else ()
    zero = constant(graph, node.inputs[2]) if len(node.inputs) > 2 else (0.0,)
    if len(scale) != 1 or len(zero) != 1 or not scale[0] > 0:
        return None
    kind = graph.scales.get(node.inputs[2], (0.0, 0, "uint8"))[2] if len(node.inputs) > 2 else "uint8"
    return scale[0], int(zero[0]), kind


def embedding(graph: FileGraph, name: str) -> tuple[int, int] | None:
    """(words, width) of the table in which the token ids of input `name` are looked up."""
    names = {name}
    for node in graph.nodes:
        if not names & set(node.inputs):
            continue
        if node.op in ("Cast", "Identity", "Reshape", "Clip", "Max"):
            names |= set(node.outputs)
        elif node.op == "Gather" and len(node.inputs) > 1:
            shape = _table(graph, next((n for n in node.inputs[:2] if n not in names), ""))
            if len(shape) == 2 and shape[0] > 2:
                return shape[0], shape[1]
    return None


def _table(graph: FileGraph, name: str) -> tuple[int, ...]:
    """Dimensions of a table, a Cast or a DequantizeLinear before it looked through."""
    if shape := graph.shapes.get(name):
        return shape
    for node in graph.nodes:
        if name in node.outputs and node.inputs:
            return graph.shapes.get(node.inputs[0], ())
    return ()


def one_line(text: str, most: int = 500) -> str:
    """A sentence that may hold names out of a file: printable, at most `most` characters."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def clean(text: str, most: int = MAX_NAME) -> str:
    """Words out of a file for people: no control or direction characters, no line ends, at most `most` characters."""
    plain = "".join(c if c.isprintable() else " " for c in text[: 4 * most])
    return re.sub(r"\s+", " ", plain).strip()[:most].replace("; ", ", ")
