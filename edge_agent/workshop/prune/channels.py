"""Which channels of an ONNX graph go together, so that one can be taken out and the graph still fits.

Each layer's output channels are new atoms. They are followed through the graph, axis by axis, to every constant that
has an entry for them; where two tensors meet (a sum, a product) their atoms are made one. Atoms that reach the graph's
output, a normalisation over channels, or an operator that is not known here, are fixed. What is left are groups of
atoms that can go together (Fang et al., "DepGraph: Towards Any Structural Pruning", arXiv 2301.12900, has the idea).
The rules by operator are in rules.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from edge_agent.errors import ModelError
from edge_agent.workshop.graph import names
from edge_agent.workshop.prune.axes import Atoms, Traced, Use
from edge_agent.workshop.prune.graph import Array, PruneGraph, attributes, copy, set_attribute, shaped_again


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Groups of channels that the same layers make; each group can go alone."""

    roots: Atoms
    name: str
    """the layers that make them"""
    block: int
    """how many should stay a multiple of this: vector units take 8 at a time; 1 for heads of an attention"""


def trace(graph: PruneGraph) -> Traced:
    """Follow all channels."""
    from edge_agent.workshop.prune.rules import follow

    traced = Traced()
    for name in graph.inputs:
        traced.axes[name] = [None] * len(graph.shapes.get(name, ()))
    for number in range(len(graph.nodes)):
        follow(graph, traced, number)
    for name in graph.outputs:
        traced.fix_all(traced.axes.get(name))
    return traced


def families(graph: PruneGraph, traced: Traced) -> list[ChannelGroup]:
    """What can be pruned. Groups that nothing reads, or of which there is but one, are left out."""
    made, read = _made(graph, traced), _read(traced)
    found: dict[tuple[int, ...], list[int]] = {}
    for root, makers in made.items():
        if root in read and not traced.fixed[root]:
            found.setdefault(tuple(sorted(makers)), []).append(root)
    named = []
    for by, group in found.items():
        if len(group) > 1:
            name = " + ".join(layer_name(graph, traced.uses[m].node) for m in by)
            one_each = max(made[group[0]].values()) == 1
            named.append(ChannelGroup(np.array(sorted(group)), name, 8 if one_each else 1))
    return named


def _made(graph: PruneGraph, traced: Traced) -> dict[int, dict[int, int]]:
    """Root -> the uses that make its channels, and how many of them each makes."""
    made: dict[int, dict[int, int]] = {}
    for index, use in enumerate(traced.uses):
        if use.role == "out" and graph.values[graph.nodes[use.node].input[use.place]].ndim > 1:
            for root, count in zip(*np.unique(traced.roots(use.atoms), return_counts=True), strict=True):
                made.setdefault(int(root), {})[index] = int(count)
    return made


def _read(traced: Traced) -> set[int]:
    """Roots of the channels that a layer reads."""
    return {int(root) for use in traced.uses if use.role == "in" for root in traced.roots(use.atoms)}


def layer_name(graph: PruneGraph, number: int) -> str:
    """What people find a layer by: its weight's name where that says something, else its own."""
    node = graph.nodes[number]
    weight = node.input[1] if len(node.input) > 1 else ""
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight").removesuffix(".conv")
    return node.name or f"{node.op_type.lower()} {node.output[0]}"


def sizes(graph: PruneGraph, traced: Traced) -> list[list[Array | int]]:
    """Of each layer's weight the axes: as roots where entries can go, else as their number."""
    found: dict[int, list[Array | int]] = {n: list(graph.weight(n).shape) for n in graph.layers()}
    for use in traced.uses:
        if use.node in found and use.place == 1:
            found[use.node][use.axis] = traced.roots(use.atoms)
    return list(found.values())


def removed(graph: PruneGraph, traced: Traced, gone: set[int]) -> tuple[PruneGraph, dict[int, Array]]:
    """The graph without the groups `gone` (roots), and for each layer the numbers of its output channels that stay.

    Nothing is fitted: what the remaining channels compute is what they computed. Raises ModelError for a group that
    may not go.
    """
    fixed = [root for root in gone if traced.fixed[root]]
    if fixed:
        raise ModelError(f"{len(fixed)} channels reach the output or something that cannot shrink; they must stay")
    table = np.zeros(len(traced.parent), bool)
    table[sorted(gone)] = True
    stays: dict[int, Array] = {}
    new, cut = copy(graph), _Cut(graph)
    for use in traced.uses:
        keep = ~table[traced.roots(use.atoms)]
        if _makes(graph, use):
            stays[use.node] = np.flatnonzero(keep)
        if not keep.all():
            cut.take(use.node, use.place, use.axis, keep)
    for count in traced.counts:
        left = int((~table[traced.roots(count.atoms)]).sum())
        if left == len(count.atoms):
            continue
        if isinstance(count.place, int):
            cut.put(count.node, count.place, count.index, left)
        else:
            _count(new.nodes[count.node], count.place, count.index, left)
    cut.write(new)
    return shaped_again(new), stays


def _makes(graph: PruneGraph, use: Use) -> bool:
    """Whether these are the output channels of a layer, along its weight."""
    depthwise = graph.nodes[use.node].op_type == "Conv" and use.role == "own"
    return use.place == 1 and (use.role == "out" or depthwise)


def _count(node: onnx.NodeProto, name: str, index: int, left: int) -> None:
    """Write how many channels are left into an attribute, or into one of its numbers; -1: it has but one."""
    if index < 0:
        set_attribute(node, name, left)
    else:
        value = attributes(node)[name]
        set_attribute(node, name, [*value[:index], left, *value[index + 1 :]])


@dataclass(slots=True)
class _Cut:
    """New values of constants, by node and input; a constant that several nodes read may become several."""

    graph: PruneGraph
    values: dict[tuple[int, int], Array] = field(default_factory=dict)

    def value(self, node: int, place: int) -> Array:
        return self.values.get((node, place), self.graph.values[self.graph.nodes[node].input[place]])

    def take(self, node: int, place: int, axis: int, keep: Array) -> None:
        self.values[node, place] = np.compress(keep, self.value(node, place), axis=axis)

    def put(self, node: int, place: int, index: int, number: int) -> None:
        value = self.value(node, place).copy()
        value[index] = number
        self.values[node, place] = value

    def write(self, new: PruneGraph) -> None:
        name_of = names.fresh(
            {*new.values, *new.inputs, *(name for node in new.nodes for name in (*node.input, *node.output))}
        )
        for name, places in self._users().items():
            versions: list[tuple[Array, str]] = []
            for number, place in places:
                value = self.value(number, place)
                known = next((n for v, n in versions if v is value or np.array_equal(v, value)), "")
                if not known:
                    known = name_of(name) if versions else name
                    versions.append((value, known))
                    self._put(new, name, known, value)
                new.nodes[number].input[place] = known

    def _users(self) -> dict[str, list[tuple[int, int]]]:
        """Constant -> the nodes that read it, and where."""
        users: dict[str, list[tuple[int, int]]] = {}
        for number, node in enumerate(self.graph.nodes):
            for place, name in enumerate(node.input):
                if name in self.graph.values:
                    users.setdefault(name, []).append((number, place))
        return users

    def _put(self, new: PruneGraph, name: str, known: str, value: Array) -> None:
        """Give a constant that was called `name` its new value and name."""
        new.values[known] = value
        if name in self.graph.halves:
            new.halves.add(known)
