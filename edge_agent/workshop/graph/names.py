"""New names in an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx

Fresh = Callable[[str], str]


def fresh(taken: Iterable[str]) -> Fresh:
    """A function that gives the name that is wanted, with a number behind it where that is taken, and no name twice."""
    known = set(taken)

    def give(wanted: str) -> str:
        name, number = wanted, 0
        while name in known:
            number += 1
            name = f"{wanted}.{number}"
        known.add(name)
        return name

    return give


def of(graph: onnx.GraphProto) -> set[str]:
    """All names in a graph: of tensors, and of nodes."""
    return {
        *(one.name for part in (graph.input, graph.output, graph.initializer, graph.node) for one in part),
        *(name for node in graph.node for name in node.output),
        *read(graph),
    }


def read(graph: onnx.GraphProto) -> set[str]:
    """Tensors that an operator takes, in branches and loops too, or that come out."""
    found = {one.name for one in graph.output}
    for node in graph.node:
        found.update(node.input)
        for given in node.attribute:
            for inner in (given.g, *given.graphs):
                found |= read(inner) if inner.node or inner.output else set()
    return found


def twice(graph: onnx.GraphProto) -> str:
    """A tensor that two constants or operators give; "" where there is none."""
    seen: set[str] = set()
    outputs: list[str] = [name for node in graph.node for name in node.output if name]
    for name in [*(str(one.name) for one in graph.initializer), *outputs]:
        if name in seen:
            return name
        seen.add(name)
    return ""
