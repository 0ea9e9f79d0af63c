"""Weights that lie as int8 and are widened for each run -> products of int8, as dynamic quantization has them.

Weight-only files are small, but slow: their weights become float32 again in every run (and stay so in memory, where the
runtime does it once). Here what comes in is quantized as it comes, DynamicQuantizeLinear, and multiplied as integers,
MatMulInteger (operators of ONNX since opset 11 and 10). That rounds what goes in to 8 bits, so the numbers are others,
and on processors whose u8 x s8 products saturate they may be quite others: a caller has to compare the answers.
Tables that rows are looked up in have only these rows widened; that gives the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_agent.graphs.nodes import Graph, Node, readable
from edge_agent.graphs.onnx_proto import Array, TensorProto

LEAST_OPSET = 11
"""that has DynamicQuantizeLinear"""
WIDEN: dict[str, int | list[int]] = {"to": TensorProto.FLOAT}
"""attributes of a Cast to float32"""


class Widened(NamedTuple):
    """Weights that a network widens in each run: names of constants."""

    weight: str
    """int8 (K, N)"""
    scale: str
    """float32, one or one for each index of an axis"""


def dynamic(path: Path, out: Path) -> int:
    """Write the network in `path` to `out` with its products of widened int8 weights done in int8: how many there are.

    0: nothing is written. Raises RefusedError, one line, for a file that cannot be read.
    """
    with readable(path):
        graph = Graph(path)
        if graph.opset < LEAST_OPSET:
            return 0
        found = _with_weights(graph, [node for node in graph.nodes if node.op == "MatMul"], 1)
        tables = _with_weights(graph, [node for node in graph.nodes if _is_lookup(node)], 0)
    if not found:
        return 0
    quantized: dict[str, tuple[str, ...]] = {}
    for node, held in found:
        graph.put(_product(graph, node, held, quantized), node, [node])
    for node, held in tables:
        graph.put(_lookup(graph, node, held), node, [node])
    graph.drop_unused()
    graph.write(out)
    return len(found)


def _product(graph: Graph, node: Node, held: Widened, quantized: dict[str, tuple[str, ...]]) -> list[Node]:
    """A MatMul in int8. `quantized`: what was quantized already, and the result's names; it is added to."""
    (given, _), (result,) = node.inputs, node.outputs
    made: list[Node] = []
    if given not in quantized:
        # what several products take is quantized once, before the first of them
        quantized[given] = tuple(graph.fresh(f"{given}/{what}") for what in ("u8", "scale", "zero point"))
        made.append(Node("DynamicQuantizeLinear", (given,), quantized[given], {}))
    small, step, zero = quantized[given]
    whole, real, factor = (graph.fresh(f"{result}/{what}") for what in ("sum", "float", "scale"))
    # in this order, and with the scales multiplied first, the runtime makes one operator of it
    return [
        *made,
        Node("MatMulInteger", (small, held.weight, zero), (whole,), {}),
        Node("Cast", (whole,), (real,), WIDEN),
        Node("Mul", (step, held.scale), (factor,), {}),
        Node("Mul", (real, factor), (result,), {}),
    ]


def _lookup(graph: Graph, node: Node, held: Widened) -> list[Node]:
    """A Gather of rows that are widened after it."""
    ids, (result,), steps = node.inputs[1], node.outputs, graph.tensors[held.scale]
    rows, row = graph.fresh(f"{result}/rows"), graph.fresh(f"{result}/row")
    made = [Node("Gather", (held.weight, ids), (rows,), {}), Node("Cast", (rows,), (row,), WIDEN)]
    factor = held.scale
    if steps.size > 1:
        column = graph.constant(f"{result}/steps", steps.reshape(-1, 1))
        factor = graph.fresh(f"{result}/step")
        made.append(Node("Gather", (column, ids), (factor,), {}))
    return [*made, Node("Mul", (row, factor), (result,), {})]


def _is_lookup(node: Node) -> bool:
    return node.op == "Gather" and node.one("axis", 0) == 0


def _with_weights(graph: Graph, nodes: list[Node], at: int) -> list[tuple[Node, Widened]]:
    """Those of the nodes whose input `at` is widened weights, each with these; their scale is of that axis, too."""
    return [(node, held) for node in nodes if (held := _widened(graph, node.inputs[at], at))]


def _widened(graph: Graph, name: str, axis: int) -> Widened | None:
    """The weights that `name` is the product of, their scale one or one for each index of `axis`; or None."""
    last = graph.maker(name)
    if last is None or last.rest:
        return None
    held = _dequantized(graph, last, axis) if last.op == "DequantizeLinear" else _multiplied(graph, last)
    return held if held is not None and _fits(graph, held, axis, last.op) else None


def _fits(graph: Graph, held: Widened, axis: int, op: str) -> bool:
    """Whether these are int8 (K, N), and the scale float32 of a shape that goes with them."""
    small, steps = graph.tensors.get(held.weight), graph.tensors.get(held.scale)
    if small is None or steps is None or small.dtype != np.int8 or small.ndim != 2 or steps.dtype != np.float32:
        return False
    return steps.shape in _shapes(small, axis, op)


def _shapes(weight: Array, axis: int, op: str) -> set[tuple[int, ...]]:
    """Those that a scale may have."""
    many = weight.shape[axis]
    shapes: set[tuple[int, ...]] = {(), (1,), (1, 1), (1, many) if axis else (many, 1)}
    return shapes | {(many,)} if axis or op == "DequantizeLinear" else shapes


def _dequantized(graph: Graph, last: Node, axis: int) -> Widened | None:
    """By one operator, around 0."""
    zero = graph.tensors.get(last.inputs[2]) if len(last.inputs) > 2 else np.zeros(1)
    if zero is None or zero.any() or last.one("block_size", 0) or last.one("axis", 1) not in (axis, axis - 2):
        return None
    return Widened(*last.inputs[:2])


def _multiplied(graph: Graph, last: Node) -> Widened | None:
    """By a Cast, then a Mul."""
    makers = [graph.maker(given) for given in last.inputs]
    casts = [(at, node) for at, node in enumerate(makers) if node is not None and node.op == "Cast"]
    if last.op != "Mul" or len(casts) != 1:
        return None
    ((at, cast),) = casts
    return Widened(cast.inputs[0], last.inputs[1 - at])
