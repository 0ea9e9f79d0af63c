"""The same detector for pictures of another size: what its file states for one size is made to follow its input.

A graph of convolutions works at every size that its strides divide. What stands in the way is what an export wrote
down: the shape of the input and of the outputs, and the number of cells in the Reshapes before them. Where boxes are
decoded in the graph from a constant grid, there is no other size, which shows in the first run.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.graphs.nodes import Graph, readable

STRIDES = (4, 8, 16, 32, 64)
"""of the levels of a detector"""


def with_sides(path: Path, out: Path, width: int, height: int) -> None:
    """Write the network in `path` to `out` for a picture of `width` x `height` pixels. RefusedError, one line."""
    with readable(path):
        graph = Graph(path)
        pictures = {name: shape for name, shape in graph.given.items() if name not in graph.tensors}
        if len(pictures) != 1 or any(len(shape) != 4 or 0 in shape[1:] for shape in pictures.values()):
            raise RefusedError(f"{path}: does not take one picture of one size")
        ((name, shape),) = pictures.items()
        down, along = (2, 3) if shape[1] == 3 else (1, 2)
        _free(graph, _cells(shape[down], shape[along]))
        graph.shapes[name] = [*shape]
        graph.shapes[name][down], graph.shapes[name][along] = height, width
        graph.ends = graph.outputs
        graph.write(out)


def _free(graph: Graph, cells: list[int]) -> None:
    """Where a Reshape states a number of cells, let it be what is left."""
    for at, node in enumerate(graph.nodes):
        sizes = graph.tensors.get(node.inputs[1]) if node.op == "Reshape" else None
        if sizes is None or not (sizes > 0).all() or not np.isin(sizes, cells).any():
            continue
        free = sizes.copy()
        # a number of channels may be one of cells, too, but of a smaller level
        free[np.where(np.isin(sizes, cells), sizes, 0).argmax()] = -1
        made = graph.constant(f"{node.inputs[1]}/free", free)
        graph.nodes[at] = replace(node, inputs=(node.inputs[0], made))


def _cells(height: int, width: int) -> list[int]:
    """How many cells a level may have, or several that follow each other together."""
    levels = [-(-height // stride) * -(-width // stride) for stride in STRIDES]
    runs = itertools.combinations(range(len(levels) + 1), 2)
    return [sum(levels[first:last]) for first, last in runs]
