"""A network's channels: the axes of its tensors that go together, told apart in families, taken out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from edge_agent.errors import ModelError, RefusedError
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, ints, numbers, shape

Atoms: TypeAlias = Array
"""int64, one an entry of an axis"""
Axes: TypeAlias = "list[Atoms | None]"
"""of a tensor: the atoms of each axis; None: nothing of this axis can go"""


@dataclass(frozen=True, slots=True)
class Use:
    """A constant that has an entry for each of these atoms along one axis."""

    node: ir.Node
    place: int
    """which input of the node"""
    axis: int
    atoms: Atoms
    role: Literal["out", "in", "own"]
    """the layer makes these channels; it reads them; one number or one filter for each"""


@dataclass(frozen=True, slots=True)
class Count:
    """An integer that says how many of these atoms there are: a size in a Reshape, the groups of a convolution."""

    node: ir.Node
    place: int | str
    """which input of the node, or the name of the attribute"""
    index: int
    """entry of that; -1: the attribute is a single number"""
    atoms: Atoms


@dataclass(slots=True)
class Traced:
    """What following the channels found."""

    uses: list[Use] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    axes: dict[ir.Value, Axes] = field(default_factory=dict)
    """of each tensor that has any"""
    parent: list[int] = field(default_factory=list)
    fixed: list[bool] = field(default_factory=list)
    opsets: dict[str, int] = field(default_factory=dict)
    """versions of the network's operators"""

    def of(self, value: ir.Value | None) -> Axes:
        """The atoms of a tensor's axes."""
        known = None if value is None else self.axes.get(value)
        return known or [None] * len(shape(value) or ())

    def fresh(self, count: int, fixed: bool = False) -> Atoms:
        """New atoms."""
        first = len(self.parent)
        self.parent += range(first, first + count)
        self.fixed += [fixed] * count
        return np.arange(first, first + count)

    def root(self, atom: int) -> int:
        """The atom that stands for all that it is one with."""
        while self.parent[atom] != atom:
            self.parent[atom] = self.parent[self.parent[atom]]
            atom = self.parent[atom]
        return atom

    def roots(self, atoms: Atoms) -> Atoms:
        """Root of each."""
        return np.array([self.root(int(a)) for a in atoms], np.int64)

    def unite(self, one: Atoms, other: Atoms) -> None:
        """Make them one, entry by entry."""
        for a, b in zip(one, other, strict=True):
            a, b = self.root(int(a)), self.root(int(b))
            if a != b:
                self.parent[max(a, b)] = min(a, b)
                self.fixed[min(a, b)] |= self.fixed[max(a, b)]

    def meet(self, one: Atoms | None, other: Atoms | None) -> bool:
        """Make them one, as both are the same axis of a product or a sum; False where they cannot be."""
        if one is None or other is None:
            return one is other
        if len(one) == len(other):
            self.unite(one, other)
        return len(one) == len(other)

    def fix(self, axes: Axes) -> None:
        """Nothing of these may go."""
        for atom in (int(atom) for atoms in axes if atoms is not None for atom in atoms):
            self.fixed[self.root(atom)] = True


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Groups of channels that the same layers make; each group can go alone."""

    roots: Atoms
    name: str
    """the layers that make them"""
    block: int
    """how many should stay a multiple of this: vector units take 8 at a time; 1 for heads of an attention"""


def read(path: Path) -> ir.Model:
    """A file, each constant with one reader. RefusedError, one line, for what cannot be pruned."""
    model = net.read(path)
    if net.has(model, *net.QUANTIZED):
        raise RefusedError(f"{path}: is int8 already; prune the float file that it was made from, then quantize that")
    if net.has(model, *net.BRANCHES):
        raise RefusedError(f"{path}: has branches or loops; export it without them")
    if not net.layers(model):
        raise RefusedError(f"{path}: no convolution or matrix product with weights in it, so nothing to prune")
    return _again(net.plain(model))


def _again(model: ir.Model) -> ir.Model:
    """The model with its shapes worked out anew, each constant with one reader, each Split with its sizes."""
    made = net.one_each(net.of(net.proto(model)))
    for node in made.graph:
        if node.op_type == "Split" and len(node.inputs) < 2 and "split" not in node.attributes:
            _say_sizes(made, node)
    return made


def _say_sizes(model: ir.Model, node: ir.Node) -> None:
    """Write the sizes of a Split's parts into it, where they are known: they may no longer be equal."""
    shapes, axis = [shape(out) for out in node.outputs], node.attributes.get_int("axis", 0)
    sizes = [one[axis] for one in shapes if one]
    if None in sizes or len(sizes) < len(shapes):
        return
    node.attributes.pop("num_outputs", None)
    if net.opset(model) < 13:
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
    else:
        node.resize_inputs(2)
        node.replace_input_with(1, net.hold(model.graph, f"{node.name}.sizes", np.array(sizes, np.int64)))


def families(traced: Traced) -> list[ChannelGroup]:
    """What can be pruned. Groups that nothing reads, or of which there is but one, are left out."""
    made: dict[int, dict[int, int]] = {}
    """root -> the uses that make its channels, and how many of them each makes"""
    for index, use in enumerate(traced.uses):
        for root, count in _counts(traced, use, "out"):
            made.setdefault(root, {})[index] = count
    read = {root for use in traced.uses for root, _ in _counts(traced, use, "in")}
    found: dict[tuple[int, ...], list[int]] = {}
    for root in sorted(made.keys() & read):
        found.setdefault(tuple(sorted(made[root])), []).append(root)
    groups = [_group(traced, by, roots, max(made[roots[0]].values())) for by, roots in sorted(found.items())]
    return [group for group in groups if len(group.roots) > 1]


def _group(traced: Traced, by: tuple[int, ...], roots: list[int], each: int) -> ChannelGroup:
    """Those that may go of `roots`, which the uses `by` make; `each`: how many atoms a root stands for."""
    free = np.array([root for root in roots if not traced.fixed[root]])
    return ChannelGroup(free, " + ".join(layer_name(traced.uses[maker].node) for maker in by), 8 if each == 1 else 1)


def _counts(traced: Traced, use: Use, role: str) -> list[tuple[int, int]]:
    """The roots of a use that has that role, and how many atoms of each there are."""
    roots, counts = np.unique(traced.roots(use.atoms) if use.role == role else [], return_counts=True)
    return [(int(root), int(count)) for root, count in zip(roots, counts, strict=True)]


def layer_name(node: ir.Node) -> str:
    """What people find a layer by: its weight's name where that says something, else its own."""
    weight = str(node.inputs[1].name) if len(node.inputs) > 1 else ""
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight").removesuffix(".conv")
    return str(node.name)


def removed(model: ir.Model, traced: Traced, gone: Iterable[int]) -> tuple[ir.Model, dict[str, Array]]:
    """The network without the groups `gone` (roots); for each layer, by name, which of its output channels stay.

    Nothing is fitted: what the remaining channels compute is what they computed. Raises ModelError for a group that
    may not go.
    """
    if any(traced.fixed[root] for root in gone):
        raise ModelError("channels that reach the output, or something that cannot shrink, must stay")
    stay = np.ones(len(traced.parent), bool)
    stay[sorted(gone)] = False
    new, stays = model.clone(), dict[str, Array]()
    twins = {str(node.name): node for node in new.graph}
    for use in traced.uses:
        keep, node = stay[traced.roots(use.atoms)], twins[str(use.node.name)]
        if _makes(use):
            stays[str(node.name)] = np.flatnonzero(keep)
        if not keep.all():
            net.put(node.inputs[use.place], np.compress(keep, numbers(node.inputs[use.place]), axis=use.axis))
    for count in traced.counts:
        left = int(stay[traced.roots(count.atoms)].sum())
        if left < len(count.atoms):
            _write_down(twins[str(count.node.name)], count, left)
    return _again(new), stays


def _write_down(node: ir.Node, count: Count, left: int) -> None:
    """Say in a node how many of its channels are left."""
    if isinstance(count.place, int):
        value = node.inputs[count.place]
        net.put(value, np.where(np.arange(len(numbers(value))) == count.index, left, numbers(value)))
    elif count.index < 0:
        node.attributes[count.place] = ir.AttrInt64(count.place, left)
    else:
        told = ints(node, count.place)
        told[count.index] = left
        node.attributes[count.place] = ir.AttrInt64s(count.place, told)


def _makes(use: Use) -> bool:
    """Whether these are the output channels of a layer, along its weight."""
    depthwise = use.node.op_type == "Conv" and use.role == "own"
    return use.place == 1 and (use.role == "out" or depthwise)


def weights(model: ir.Model) -> int:
    """Numbers in the layers' weights."""
    return sum(numbers(node.inputs[1]).size for node in net.layers(model))


def multiplications(model: ir.Model, length: int = 32) -> float:
    """Millions of multiplications of one sample in the layers; an open axis counts as `length`."""
    found = 0.0
    for node in net.layers(model):
        sizes = shape(node.outputs[0] if node.op_type != "ConvTranspose" else node.inputs[0]) or ()
        dims = [d if d else (1 if axis == 0 else length) for axis, d in enumerate(sizes)]
        each = np.prod(dims[2:] if node.op_type.startswith("Conv") else dims[:-1])
        found += float(each) * numbers(node.inputs[1]).size / 1e6
    return found
