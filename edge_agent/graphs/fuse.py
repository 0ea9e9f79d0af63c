"""Operators of a text network that ONNX Runtime leaves apart, done in one.

Attention whose three projections are products of int8 becomes com.microsoft.QAttention, which takes what was quantized
for all three, their weights side by side, and which tokens count; it multiplies the same integers
(microsoft/onnxruntime, docs/ContribOperators.md). What stands around it in a file differs from exporter to exporter, so
the shapes, the scale and the mask between the operators are not read but taken to be BERT's (Vaswani et al. 2017,
3.2.1): a caller has to compare the answers, of padded texts too.

GELU written as x times half of 1 + erf(x / sqrt 2) (Hendrycks & Gimpel 2016, section 2) becomes com.microsoft.Gelu.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.graphs.nodes import Graph, Node, readable
from edge_agent.graphs.onnx_proto import Array, NodeProto, TensorProto
from edge_agent.graphs.protobuf import text

DOMAIN = "com.microsoft"
IN_DOMAIN = text(NodeProto.DOMAIN, DOMAIN)
"""as a NodeProto has it"""


@dataclass(frozen=True, slots=True)
class _Projection:
    """Tokens -> queries, keys or values."""

    given: tuple[str, str, str]
    """the tokens as uint8, their scale and their zero point"""
    weight: Array
    """int8 [hidden, hidden]"""
    scale: Array
    """float32 [hidden]"""
    bias: Array
    """float32 [hidden]"""
    heads: int
    """0 where it does not say"""


def fuse(path: Path, out: Path) -> str:
    """Write the network in `path` to `out` with these patterns in one operator each: how many of each, one line.

    "" where there are none, and nothing is written. Raises RefusedError, one line, for a file that cannot be read.
    """
    with readable(path):
        graph = Graph(path)
        masks = [name for name in graph.given if "mask" in name.lower()]
        mask = graph.fresh("attention/mask") if masks else ""
        counts = _fused(graph, mask)
    if any(counts.values()):
        if masks and counts["attention"]:
            graph.nodes.insert(0, Node("Cast", (masks[0],), (mask,), {"to": TensorProto.INT32}))
        graph.imported[DOMAIN] = 1
        graph.drop_unused()
        graph.write(out)
    return ", ".join(f"{count} of {what}" for what, count in counts.items() if count)


def _fused(graph: Graph, mask: str) -> dict[str, int]:
    """Put one operator in the place of each pattern: how many of each. `mask`: which tokens count, "" for all."""
    return {
        "attention": sum([_attend(graph, node, mask) for node in graph.nodes if node.op == "Softmax"]),
        "GELU": sum([_gelu(graph, node) for node in graph.nodes if node.op == "Erf"]),
    }


def _attend(graph: Graph, softmax: Node, mask: str) -> bool:
    """Put one operator in the place of the whole attention around a Softmax; False where it is none that is known."""
    scores = _product(graph, softmax.inputs[0])
    mixed = _follow(graph, softmax.outputs[0], "MatMul", "Where")
    ends = _follow(graph, _follow_name(mixed), "Transpose")
    last = _follow(graph, _follow_name(ends), "Reshape")
    if scores is None or mixed is None or last is None:
        return False
    parts = _projections(graph, (*scores.inputs, mixed.inputs[1]))
    if not parts or not (heads := parts[2].heads):
        return False
    name = last.outputs[0]
    small, step, zero = parts[0].given
    inputs = (
        small,
        graph.constant(f"{name}/weights", np.concatenate([part.weight for part in parts], axis=1)),
        graph.constant(f"{name}/biases", np.concatenate([part.bias for part in parts])),
        step,
        graph.constant(f"{name}/scales", np.concatenate([part.scale for part in parts])),
        mask,
        zero,
    )
    graph.put([Node("QAttention", inputs, (name,), {"num_heads": heads}, IN_DOMAIN)], last, [])
    return True


def _projections(graph: Graph, names: tuple[str, ...]) -> list[_Projection]:
    """Queries, keys and values of the same tokens; none where one of them is anything else."""
    found = [_projection(graph, name) for name in names]
    parts = [part for part in found if part is not None]
    return parts if len(parts) == 3 and len({part.given for part in parts}) == 1 else []


def _gelu(graph: Graph, erf: Node) -> bool:
    """Put one operator in the place of what ends in two products behind an Erf; False where that is no GELU."""
    inner = graph.maker(erf.inputs[0])
    given = _times(graph, inner, 2**-0.5) if inner is not None else ""
    raised = _follow(graph, erf.outputs[0], "Add")
    if not given or raised is None or _number(graph, raised) != 1:
        return False
    one = _follow(graph, raised.outputs[0], "Mul")
    other = _follow(graph, _follow_name(one), "Mul")
    if one is None or other is None:
        return False
    # either of the two is the one by half
    half, whole = (one, other) if _number(graph, one) == 0.5 else (other, one)
    if _number(graph, half) != 0.5 or given not in whole.inputs:
        return False
    graph.put([Node("Gelu", (given,), other.outputs, {}, IN_DOMAIN)], other, [])
    return True


def _times(graph: Graph, node: Node, factor: float) -> str:
    """What a node multiplies by that number, or divides by one over it; "" where it does another thing."""
    number = _number(graph, node)
    if number is None or node.op not in ("Mul", "Div") or (node.op == "Div" and node.inputs[0] in graph.tensors):
        return ""
    near = math.isclose(number if node.op == "Mul" else 1 / number, factor, rel_tol=1e-4) if number else False
    return next((name for name in node.inputs if name not in graph.tensors), "") if near else ""


def _number(graph: Graph, node: Node) -> float | None:
    """The one constant number that a node takes."""
    held = [graph.tensors[name] for name in node.inputs if name in graph.tensors]
    return float(held[0].ravel()[0]) if len(held) == 1 and held[0].size == 1 else None


def _product(graph: Graph, name: str) -> Node | None:
    """The product that scores are, before they are masked and scaled."""
    node = graph.maker(name)
    while node is not None and node.op in ("Add", "Div", "Mul", "Where"):
        made = [maker for given in node.inputs if (maker := graph.maker(given)) is not None]
        node = next((maker for maker in made if maker.op in ("Add", "Div", "MatMul", "Mul", "Where")), None)
    return node if node is not None and node.op == "MatMul" else None


def _follow(graph: Graph, name: str, wanted: str, past: str = "") -> Node | None:
    """Who takes `name`, where that is a `wanted`; behind a `past`."""
    for node in graph.nodes:
        if name and name in node.inputs and node.op in (wanted, past):
            return node if node.op == wanted else _follow(graph, node.outputs[0], wanted)
    return None


def _follow_name(node: Node | None) -> str:
    return node.outputs[0] if node is not None else ""


def _projection(graph: Graph, name: str) -> _Projection | None:
    """What `name` is the rearranged and scaled result of; None where that is no product of int8 with a bias."""
    node, shape = _behind(graph, name)
    if node is None or node.op != "Add" or len(held := _held(graph, node)) != 1:
        return None
    bias = graph.tensors[held[0]]
    product, step = _operands(graph, graph.maker(_made(graph, node)[0]))
    if product is None or step is None or not _is_int8(graph, product):
        return None
    weight, scale = graph.tensors[product.inputs[1]], graph.tensors[_held(graph, step)[0]]
    size = weight.shape[1]
    if scale.size not in (1, size) or bias.shape != (size,):
        return None
    given = (product.inputs[0], _made(graph, step)[0], product.inputs[2])
    scale = np.broadcast_to(scale.ravel(), (size,)).astype(np.float32)
    return _Projection(given, weight, scale, bias, _heads(graph, shape, size))


def _behind(graph: Graph, name: str) -> tuple[Node | None, str]:
    """What makes the numbers of `name`, rearranging and scaling looked through; the shape that comes first, or ""."""
    shape, node = "", graph.maker(name)
    while node is not None and (node.op in ("Reshape", "Transpose") or _is_scale(graph, node)):
        if node.op == "Reshape":
            shape = node.inputs[1]
        held = _made(graph, node)
        node = graph.maker(held[0]) if held else None
    return node, shape


def _held(graph: Graph, node: Node) -> list[str]:
    """The constants that a node takes."""
    return [name for name in node.inputs if name in graph.tensors]


def _made(graph: Graph, node: Node) -> list[str]:
    """What a node takes that is no constant."""
    return [name for name in node.inputs if name not in graph.tensors]


def _operands(graph: Graph, scaled: Node | None) -> tuple[Node | None, Node | None]:
    """What a Mul multiplies: the product of integers behind a Cast, and the Mul of what was measured and a constant."""
    if scaled is None or scaled.op != "Mul":
        return None, None
    made = {node.op: node for name in scaled.inputs if (node := graph.maker(name)) is not None}
    cast, step = made.get("Cast"), made.get("Mul")
    if step is not None and (len(_held(graph, step)), len(_made(graph, step))) != (1, 1):
        step = None
    return graph.maker(cast.inputs[0]) if cast is not None else None, step


def _is_int8(graph: Graph, product: Node) -> bool:
    """Whether it multiplies what is quantized as it comes by weights of int8 around 0."""
    if product.op != "MatMulInteger" or len(product.inputs) < 3:
        return False
    weight = graph.tensors.get(product.inputs[1])
    return weight is not None and weight.dtype == np.int8 and _is_zero(graph, product.inputs[3:4])


def _is_zero(graph: Graph, zero_points: tuple[str, ...]) -> bool:
    """Whether the zero points are known to be 0, as they are where none are given."""
    return all(name in graph.tensors and not graph.tensors[name].any() for name in zero_points)


def _is_scale(graph: Graph, node: Node) -> bool:
    return node.op in ("Mul", "Div") and _number(graph, node) is not None


def _heads(graph: Graph, shape: str, size: int) -> int:
    """How many heads tokens of `size` are laid out for as [batch, tokens, heads, features]; 0 where it does not say."""
    node = graph.maker(shape)
    parts = node.inputs if node is not None and node.op == "Concat" else (shape,)
    sizes = [one for part in parts for one in graph.tensors.get(part, np.zeros(1, np.int64)).ravel().tolist()]
    if len(sizes) != 4:
        return 0
    _, _, heads, features = sizes
    return int(heads) if heads > 0 or features < 1 else int(size // features)
