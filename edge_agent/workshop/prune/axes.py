"""Axes of tensors, in the parts that are pruned together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from edge_agent.workshop.graph.net import Array, shape

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
