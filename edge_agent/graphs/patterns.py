"""What the patterns that are rewritten are made of: convolutions, and what passes their channels on."""

from __future__ import annotations

from collections import Counter

import numpy as np

from edge_agent.graphs.nodes import Graph, Node

ACTIVATIONS = {"HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "Relu", "Sigmoid", "Tanh"}
"""operators that treat every channel alike, when all that they take comes from one convolution"""
KEEP_CHANNELS = {"Add", "AveragePool", "Clip", "MaxPool", "Mul", "Resize", "Upsample", *ACTIVATIONS}
"""operators whose result has the channels of what they take first"""


def is_plain(graph: Graph, node: Node) -> bool:
    """Whether it is a convolution of a picture, of all its channels at once, whose weights are known."""
    known = all(name in graph.tensors and graph.tensors[name].dtype == np.float32 for name in node.inputs[1:])
    whole = not node.rest and node.one("group", 1) == 1
    return node.op == "Conv" and known and whole and graph.tensors[node.inputs[1]].ndim == 4


def is_dense(graph: Graph, node: Node) -> bool:
    """Whether it is such a convolution, of pixels side by side."""
    return is_plain(graph, node) and set(node.some("dilations", [1])) == {1}


def is_centred(node: Node) -> bool:
    """Whether it takes the maximum over an odd square around each pixel, and keeps the size."""
    side, *others = node.some("kernel_shape", [0])
    plain = not node.rest and len(node.outputs) == 1 and node.one("ceil_mode", 0) == node.one("storage_order", 0) == 0
    still = set(node.some("strides", [1])) == set(node.some("dilations", [1])) == {1}
    square = others == [side] and side % 2 == 1 and node.some("pads", [0]) == [side // 2] * 4
    return node.op == "MaxPool" and plain and still and square


def activated(graph: Graph, name: str) -> list[Node]:
    """The convolution that `name` comes from and the activation between, in order; empty where it is not so."""
    chain: list[Node] = []
    todo = [name]
    while todo:
        node = graph.maker(todo.pop())
        if node is None or node in chain:
            continue
        if node.op not in ACTIVATIONS and not is_plain(graph, node):
            return []
        chain.append(node)
        todo += node.inputs if node.op in ACTIVATIONS else ()
    if sum(node.op == "Conv" for node in chain) != 1 or not _is_closed(graph, chain, name):
        return []
    return sorted(chain, key=graph.nodes.index)


def _is_closed(graph: Graph, chain: list[Node], name: str) -> bool:
    """Whether nothing of a chain but `name` is taken elsewhere, and its activations take nothing from elsewhere."""
    inside = Counter(given for node in chain for given in node.inputs)
    users = graph.users()
    made = {output for node in chain for output in node.outputs}
    own = {given for node in chain if node.op in ACTIVATIONS for given in node.inputs}
    return own <= made and all(users[output] == inside[output] for output in made - {name})


def part_sizes(graph: Graph, node: Node, channels: int) -> list[int]:
    """Of the parts of a Split."""
    if len(node.inputs) > 1 and node.inputs[1]:
        given = graph.tensors.get(node.inputs[1])
        return [] if given is None else [int(size) for size in given]
    count = len(node.outputs)
    return node.some("split", []) or ([channels // count] * count if channels % count == 0 else [])


def channels_of(graph: Graph, name: str) -> int:
    """Of a tensor within the network, found behind its convolution; 0: not known."""
    node = graph.maker(name)
    while node is not None and node.op in KEEP_CHANNELS:
        node = graph.maker(node.inputs[0])
    if node is None or node.inputs[1:2] == () or node.inputs[1] not in graph.tensors:
        return 0
    return len(graph.tensors[node.inputs[1]]) if node.op == "Conv" else 0


def every_second(graph: Graph, name: str) -> tuple[str, int, int] | None:
    """The picture of which `name` is every second row and column, and the first of them; None where it is not."""
    starts: dict[int, int] = {}
    while (node := graph.maker(name)) is not None and node.op == "Slice" and len(node.inputs) == 5:
        for start, axis, step in _slices(graph, node):
            if step != 2 or axis in starts or start not in (0, 1):
                return None
            starts[axis] = start
        name = node.inputs[0]
    return (name, starts[2], starts[3]) if set(starts) == {2, 3} else None


def _slices(graph: Graph, node: Node) -> list[tuple[int, int, int]]:
    """(start, axis, step) of each axis that a Slice cuts; a step of 0 where that is not known."""
    if any(given not in graph.tensors for given in node.inputs[1:]):
        return [(0, 0, 0)]
    rows = zip(*(graph.tensors[given].tolist() for given in node.inputs[1:]), strict=True)
    return [(start, axis, step) for start, _, axis, step in rows]
