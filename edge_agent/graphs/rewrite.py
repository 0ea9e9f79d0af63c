"""The same network with fewer passes over memory: what ONNX Runtime does not rewrite by itself, done in the ONNX file.

Its convolutions work on blocks of channels, and every operator that cannot makes it put them back in order before and
into blocks again behind it. Five patterns of detectors go, none of which multiplies more or less than before:

- a convolution, and what activates it, whose channels are then split: one convolution for each part
- channels of several tensors joined for one convolution: one convolution for each, their results added (the runtime
  adds while it writes)
- every second pixel of the picture, four times, joined (YOLOv5's and YOLOX's focus): a convolution of twice the size
  and stride on the picture itself
- maxima over ever larger windows of the same tensor (SPP): each taken over what the one before it gave
- a picture in three planes, for one convolution: the picture with its channels last, as cameras and files give it, for
  a convolution of one channel, three times as wide. The input then is [1, height, width, 3]; where all that is done
  with a pixel before is to multiply it, and to put RGB in order, the weights do that, and the input takes uint8 as
  frames have them

The numbers are the same but for how they are rounded: they are added up, and pixels multiplied, in another order. Only
float32 weights that lie in the file are touched; what does not fit a pattern stays as it is.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_agent.graphs import patterns
from edge_agent.graphs.nodes import Graph, Node, readable
from edge_agent.graphs.onnx_proto import Array, TensorProto
from edge_agent.manifest import Input


def rewrite(path: Path, out: Path, prepared: Input | None = None) -> str:
    """Write the network in `path` to `out` with the patterns gone: how many of each, one line.

    `prepared`: how a picture is made ready for it, which the result does itself where it says "pixels".
    "" where there are none, and nothing is written. Raises RefusedError, one line, for a file that cannot be read.
    """
    with readable(path):
        graph = Graph(path)
        counts = {"split channels": split(graph), "focus": focus(graph), "joined channels": join(graph)}
        counts["pools"] = pool(graph)
        counts["planes"] = interleave(graph)
        counts["pixels"] = pixels(graph, prepared)
    if any(counts.values()):
        graph.write(out)
    return ", ".join(f"{count} of {what}" for what, count in counts.items() if count)


def split(graph: Graph) -> int:
    """Convolution, activation, split of its channels -> a convolution and an activation for each part."""
    found = 0
    for last in [node for node in graph.nodes if node.op == "Split" and node.one("axis", 0) == 1]:
        chain = patterns.activated(graph, last.inputs[0])
        if not chain or graph.users()[last.inputs[0]] != 1:
            continue
        channels = len(graph.tensors[chain[0].inputs[1]])
        sizes = patterns.part_sizes(graph, last, channels)
        if sum(sizes) == channels:
            graph.put(_parts(graph, chain, last, sizes), last, chain)
            found += 1
    return found


def _parts(graph: Graph, chain: list[Node], last: Node, sizes: list[int]) -> list[Node]:
    """A convolution and what activates it, `chain`, once for each part of the Split `last`."""
    made: list[Node] = []
    conv, ends = chain[0], np.cumsum(sizes)[:-1]
    constants = [(name, np.split(graph.tensors[name], ends)) for name in conv.inputs[1:]]
    for number, output in enumerate(last.outputs):
        names = {name: graph.fresh(f"{name}/part{number}") for node in chain for name in node.outputs}
        names[last.inputs[0]] = output
        own = [graph.constant(f"{name}/part{number}", parts[number]) for name, parts in constants]
        for node in chain:
            taken = (node.inputs[0], *own) if node is conv else node.inputs
            inputs = tuple(names.get(name, name) for name in taken)
            made.append(replace(node, inputs=inputs, outputs=tuple(names[name] for name in node.outputs)))
    return made


def _joins(graph: Graph) -> list[tuple[Node, list[Node]]]:
    """Joins of channels, and the nodes that read them."""
    joins = [node for node in graph.nodes if node.op == "Concat" and node.one("axis", 0) == 1]
    return [(first, [node for node in graph.nodes if first.outputs[0] in node.inputs]) for first in joins]


def join(graph: Graph) -> int:
    """Join of channels, convolution -> a convolution of each tensor, and additions."""
    found = 0
    for first, convs in _joins(graph):
        sizes = [patterns.channels_of(graph, name) for name in first.inputs]
        if 0 in sizes or len(sizes) < 2 or not convs or first.outputs[0] in graph.outputs:
            continue
        if not all(_takes(graph, conv, sum(sizes)) for conv in convs):
            continue
        for conv in convs:
            graph.put(_sum(graph, conv, first.inputs, sizes), conv, [conv])
        graph.nodes.remove(first)
        found += 1
    return found


def _takes(graph: Graph, conv: Node, channels: int) -> bool:
    """Whether it is a plain convolution of so many channels."""
    return patterns.is_plain(graph, conv) and graph.tensors[conv.inputs[1]].shape[1] == channels


def _sum(graph: Graph, conv: Node, names: tuple[str, ...], sizes: list[int]) -> list[Node]:
    """A convolution of joined tensors as one of each, their results added."""
    weights = np.split(graph.tensors[conv.inputs[1]], np.cumsum(sizes)[:-1], axis=1)
    made: list[Node] = []
    total = ""
    for number, (name, weight) in enumerate(zip(names, weights, strict=True)):
        constant = graph.constant(f"{conv.inputs[1]}/of{number}", weight)
        term = graph.fresh(f"{conv.outputs[0]}/of{number}")
        bias = conv.inputs[2:] if number == 0 else ()
        made.append(replace(conv, inputs=(name, constant, *bias), outputs=(term,)))
        if number == 0:
            total = term
            continue
        before, total = total, graph.fresh(f"{conv.outputs[0]}/to{number}")
        made.append(Node("Add", (before, term), (total,), {}))
    made[-1] = replace(made[-1], outputs=conv.outputs)
    return made


def focus(graph: Graph) -> int:
    """Every second pixel joined, convolution -> a convolution of twice the kernel, stride and padding."""
    found = 0
    for first, convs in _joins(graph):
        source, places = _quarters(graph, first)
        if len(convs) != 1 or source not in graph.given or not patterns.is_dense(graph, convs[0]):
            continue
        (conv,) = convs
        weight = _doubled(graph.tensors[conv.inputs[1]], places)
        ints: dict[str, int | list[int]] = {
            "kernel_shape": [*weight.shape[2:]],
            "pads": [2 * pad for pad in conv.some("pads", [0] * 4)],
            "strides": [2 * step for step in conv.some("strides", [1] * 2)],
        }
        constant = graph.constant(f"{conv.inputs[1]}/whole", weight)
        made = replace(conv, inputs=(source, constant, *conv.inputs[2:]), ints={**conv.ints, **ints})
        graph.put([made], conv, [conv, first])
        graph.drop_unused()
        found += 1
    return found


def _quarters(graph: Graph, join: Node) -> tuple[str, list[tuple[int, int]]]:
    """The picture that is joined from four times every second pixel of it, and the first row and column of each time;
    "" for anything else that is joined.
    """
    places = [place for name in join.inputs if (place := patterns.every_second(graph, name)) is not None]
    sources = {name for name, _, _ in places}
    if len(places) != 4 or len(join.inputs) != 4 or len(sources) != 1:
        return "", []
    return sources.pop(), [(row, column) for _, row, column in places]


def _doubled(weight: Array, places: list[tuple[int, int]]) -> Array:
    """A kernel of every second pixel as one of all: (N, 4 C, h, w) -> (N, C, 2 h, 2 w)."""
    count, (high, wide) = weight.shape[1] // 4, weight.shape[2:]
    new = np.zeros((len(weight), count, 2 * high, 2 * wide), np.float32)
    for number, (row, column) in enumerate(places):
        new[:, :, row::2, column::2] = weight[:, number * count : (number + 1) * count]
    return new


def pool(graph: Graph) -> int:
    """Maxima over windows of 5, 9 and 13 of one tensor -> over 5 of it, over 5 of those, over 5 of these.

    What lies beyond the edge counts for nothing in a MaxPool, so that the numbers are the same there, too.
    """
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if patterns.is_centred(node):
            groups.setdefault(node.inputs[0], []).append(node)
    found = 0
    for group in groups.values():
        group.sort(key=lambda node: node.some("kernel_shape", []))
        for before, node in itertools.pairwise(group):
            side = node.some("kernel_shape", [])[0] - before.some("kernel_shape", [])[0] + 1
            at = graph.nodes.index(node)
            if side > 1 and any(before.outputs == one.outputs for one in graph.nodes[:at]):
                ints = {**node.ints, "kernel_shape": [side] * 2, "pads": [side // 2] * 4}
                graph.nodes[at] = replace(node, inputs=before.outputs, ints=ints)
                found += 1
    return found


def interleave(graph: Graph) -> int:
    """Picture in planes, convolution -> picture with its channels last, convolution of one channel."""
    for picture, shape in graph.given.items():
        convs = [node for node in graph.nodes if picture in node.inputs]
        if shape[:2] != [1, 3] or 0 in shape or len(shape) != 4 or graph.users()[picture] != 1:
            continue
        (conv,) = convs
        if not patterns.is_dense(graph, conv):
            continue
        weight = graph.tensors[conv.inputs[1]].transpose(0, 2, 3, 1)
        count, high, wide, _ = weight.shape
        top, left, bottom, right = conv.some("pads", [0] * 4)
        down, along = conv.some("strides", [1] * 2)
        ints = {"kernel_shape": [high, 3 * wide], "pads": [top, 3 * left, bottom, 3 * right]}
        rows = graph.constant(f"{picture}/rows", np.array([1, 1, shape[2], 3 * shape[3]]))
        constant = graph.constant(f"{conv.inputs[1]}/rows", weight.reshape(count, 1, high, 3 * wide))
        taken = graph.fresh(f"{picture}/as rows")
        made = replace(
            conv,
            inputs=(taken, constant, *conv.inputs[2:]),
            ints={**conv.ints, **ints, "strides": [down, 3 * along]},
        )
        graph.put([Node("Reshape", (picture, rows), (taken,), {}), made], conv, [conv])
        graph.interleaved = picture
        return 1
    return 0


def pixels(graph: Graph, prepared: Input | None) -> int:
    """Behind `interleave`: the first convolution takes uint8 BGR, its weights multiplied as each pixel was before.

    A mean cannot be taken in: beyond the edge the convolution sees the zeros of what was prepared.
    """
    picture = graph.interleaved
    if not picture or prepared is None or any(prepared.mean):
        return 0
    (rows,) = [node for node in graph.nodes if picture in node.inputs]
    (conv,) = [node for node in graph.nodes if rows.outputs[0] in node.inputs]
    weight = graph.tensors[conv.inputs[1]]
    of_channel = weight.reshape(*weight.shape[:3], -1, 3) * (prepared.scale / np.array(prepared.std))
    if prepared.channels == "RGB":
        of_channel = of_channel[..., ::-1]
    graph.exchange(conv.inputs[1], of_channel.reshape(weight.shape).astype(np.float32))
    widened = Node("Cast", (picture,), (graph.fresh(f"{picture}/as numbers"),), {"to": TensorProto.FLOAT})
    graph.put([widened, replace(rows, inputs=(*widened.outputs, *rows.inputs[1:]))], rows, [rows])
    graph.element = TensorProto.UINT8
    return 1
