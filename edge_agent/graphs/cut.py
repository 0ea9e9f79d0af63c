"""Stops an ONNX detector before its tail: the maps that its last convolutions give, and nothing after them.

What comes after them (sigmoid, softmax, grids, concatenation) is done for every cell of the picture, and nearly all
of it is thrown away by the threshold; ``families/maps.py`` does it for the cells that pass. Nodes that are not needed
are left out, and with them the weights that only they take. A network whose nodes hold graphs of their own (If, Loop,
Scan) is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.graphs.nodes import Graph, Node, readable

TAIL = {
    "Add", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "DequantizeLinear", "Div", "Exp", "Expand",
    "Flatten", "Gather", "Identity", "Mul", "Pow", "QuantizeLinear", "Range", "Relu", "Reshape", "Shape", "Sigmoid",
    "Slice", "Softmax", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
"""operators that a tail is made of"""
FOLDED = ("Softmax", "Transpose", "Reshape", "Slice")
"""a convolution behind one of these belongs to the tail: it takes the mean of a distribution (DFL)"""
MOST_MAPS = 16


class Cuttable:
    """An ONNX file, read for cutting. RefusedError, one line, for what cannot be cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with readable(path):
            self.graph = Graph(path)
        self.makers = {name: node for node in self.graph.nodes for name in node.outputs}

    def maps(self) -> list[str]:
        """The tensors before the tail, in the order in which the outputs are put together from them.

        Found by structure alone: from each output back through operators of a tail to the first convolutions, those
        of a distribution's mean looked through. RefusedError where another operator stands in between.
        """
        found: list[str] = []
        seen: set[str] = set()
        todo = list(reversed(self.graph.outputs))
        while todo:
            name = todo.pop()
            if name in seen or name not in self.makers:
                continue
            seen.add(name)
            node = self.makers[name]
            if self._is_last(node):
                found.append(name)
            elif node.op in TAIL:
                todo += reversed(node.inputs)
            else:
                raise RefusedError(f"{self.path}: {node.op} stands in its tail, which is not known there")
        if not found or len(found) > MOST_MAPS or set(found) & set(self.graph.outputs):
            raise RefusedError(f"{self.path}: no tail of a known form in it")
        return found

    def _is_last(self, node: Node) -> bool:
        """Whether it is a convolution before the tail."""
        before = self.makers.get(node.inputs[0]) if node.inputs else None
        return node.op == "Conv" and (before is None or before.op not in FOLDED)

    def write(self, out: Path, names: Mapping[str, str], constants: Mapping[str, Sequence[float]] = {}) -> None:
        """Write the graph that ends in the tensors of `names`, each under its new name, to `out`.

        `constants`: further outputs, one row of float32 numbers each, that say what the maps do not.
        """
        ends = (*names.values(), *constants)
        taken = {name for node in self.graph.nodes for name in (*node.inputs, *node.outputs)} & {*ends}
        if taken:
            raise RefusedError(f'{self.path}: its tensor "{min(taken)}" has the name of a map')
        cut = copy(self.graph)
        cut.nodes = [self._renamed(node, names) for node in self._needed(names)]
        cut.added = {name: np.array(numbers, np.float32) for name, numbers in constants.items()}
        cut.ends = cut.outputs = ends
        cut.write(out)

    def _needed(self, names: Mapping[str, str]) -> list[Node]:
        """The nodes that the tensors of `names` need, in order."""
        kept: set[int] = set()
        todo = list(names)
        while todo:
            node = self.makers.get(todo.pop())
            if node is not None and id(node) not in kept:
                kept.add(id(node))
                todo += node.inputs
        return [node for node in self.graph.nodes if id(node) in kept]

    def _renamed(self, node: Node, names: Mapping[str, str]) -> Node:
        """With the tensors of `names` under their new names."""
        inputs, outputs = (tuple(names.get(name, name) for name in side) for side in (node.inputs, node.outputs))
        return replace(node, inputs=inputs, outputs=outputs)
