"""Weights that lie as int8 and are widened for each run -> products of int8, as dynamic quantization has them.

Weight-only files are small, but slow: their weights become float32 again in every run (and stay so in memory, where the
runtime does it once). Here what comes in is quantized as it comes, DynamicQuantizeLinear, and multiplied as integers,
MatMulInteger (operators of ONNX since opset 11 and 10). That rounds what goes in to 8 bits, so the numbers are others,
and on processors whose u8 x s8 products saturate they may be quite others: who uses it has to compare the answers.
Tables that rows are looked up in have only these rows widened; that gives the same numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.graphs.nodes import FLOAT, Graph, Node

LEAST_OPSET = 11
"""that has DynamicQuantizeLinear"""


def dynamic(path: Path, out: Path) -> int:
    """Write the network in `path` to `out` with its products of widened int8 weights done in int8: how many there are.

    0: nothing is written. Raises RefusedError, one line, for a file that cannot be read.
    """
    try:
        graph = Graph(path)
        if graph.opset < LEAST_OPSET:
            return 0
        found = [(n, held) for n in graph.nodes if n.op == "MatMul" and (held := _held(graph, n.inputs[1], 1))]
        tables = [(n, held) for n in graph.nodes if _is_lookup(n) and (held := _held(graph, n.inputs[0], 0))]
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise RefusedError(f"{path}: not a readable ONNX model ({error})") from None
    quantized: dict[str, tuple[str, ...]] = {}
    for node, (weight, scale) in found:
        (given, _), (result,) = node.inputs, node.outputs
        made: list[Node] = []
        if given not in quantized:
            # what several products take is quantized once, before the first of them
            quantized[given] = tuple(graph.fresh(f"{given}/{what}") for what in ("u8", "scale", "zero point"))
            made.append(Node("DynamicQuantizeLinear", (given,), quantized[given], {}))
        small, step, zero = quantized[given]
        whole, real, factor = (graph.fresh(f"{result}/{what}") for what in ("sum", "float", "scale"))
        # in this order, and with the scales multiplied first, the runtime makes one operator of it
        made += [
            Node("MatMulInteger", (small, weight, zero), (whole,), {}),
            Node("Cast", (whole,), (real,), {"to": FLOAT}),
            Node("Mul", (step, scale), (factor,), {}),
            Node("Mul", (real, factor), (result,), {}),
        ]
        graph.put(made, node, [node])
    for node, (weight, scale) in tables if found else ():
        ids, (result,), steps = node.inputs[1], node.outputs, graph.tensors[scale]
        rows, row = graph.fresh(f"{result}/rows"), graph.fresh(f"{result}/row")
        made = [Node("Gather", (weight, ids), (rows,), {}), Node("Cast", (rows,), (row,), {"to": FLOAT})]
        factor = scale
        if steps.size > 1:
            column = graph.constant(f"{result}/steps", steps.reshape(-1, 1))
            factor = graph.fresh(f"{result}/step")
            made.append(Node("Gather", (column, ids), (factor,), {}))
        graph.put([*made, Node("Mul", (row, factor), (result,), {})], node, [node])
    if found:
        graph.drop_unused()
        graph.write(out)
    return len(found)


def _is_lookup(node: Node) -> bool:
    return node.op == "Gather" and node.one("axis", 0) == 0


def _held(graph: Graph, name: str, axis: int) -> tuple[str, str] | None:
    """The int8 weights (K, N) and their scale, one or one for each index of `axis`, that `name` is the product of; or
    None.
    """
    last = graph.maker(name)
    if last is None or last.rest:
        return None
    if last.op == "DequantizeLinear":
        weight, scale = last.inputs[:2]
        zero = graph.tensors.get(last.inputs[2]) if len(last.inputs) > 2 else np.zeros(1)
        if zero is None or zero.any() or last.one("block_size", 0) or last.one("axis", 1) not in (axis, axis - 2):
            return None
    elif last.op == "Mul":
        widened = [graph.maker(given) for given in last.inputs]
        casts = [number for number, node in enumerate(widened) if node is not None and node.op == "Cast"]
        if len(casts) != 1:
            return None
        cast = widened[casts[0]]
        assert cast is not None
        weight, scale = cast.inputs[0], last.inputs[1 - casts[0]]
    else:
        return None
    small, steps = graph.tensors.get(weight), graph.tensors.get(scale)
    if small is None or steps is None or small.dtype != np.int8 or small.ndim != 2 or steps.dtype != np.float32:
        return None
    many = small.shape[axis]
    shapes = {(), (1,), (1, 1), (1, many) if axis else (many, 1)}
    if axis or last.op == "DequantizeLinear":
        shapes.add((many,))
    return (weight, scale) if steps.shape in shapes else None
