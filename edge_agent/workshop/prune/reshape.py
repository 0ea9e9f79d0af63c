"""How channels pass through a change of shape: Reshape, Flatten, Squeeze, Unsqueeze (rules as in `prune/rules.py`)."""

from __future__ import annotations

import numpy as np

from edge_agent.workshop.prune.axes import Atoms, Axes, Count, Traced
from edge_agent.workshop.prune.graph import PruneGraph


def flatten(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """(1, C, 1, 1) -> (1, C): maps of more than one cell would need every cell's entry to go."""
    node = graph.nodes[number]
    return _one(_regrouped(graph, traced, number, given[0], graph.shapes[node.output[0]], None))


def reshape(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """An axis that is split in blocks (heads of an attention) can lose blocks; one that is joined can lose the same."""
    node = graph.nodes[number]
    target = graph.values.get(node.input[1])
    if target is None:
        return None
    sizes = [int(v) for v in target]
    return _one(_regrouped(graph, traced, number, given[0], graph.shapes[node.output[0]], sizes))


def _one(axes: Axes | None) -> list[Axes] | None:
    return None if axes is None else [axes]


def _regrouped(
    graph: PruneGraph, traced: Traced, number: int, axes: Axes, after: tuple[int | None, ...], target: list[int] | None
) -> Axes | None:
    """Axes after a Reshape to `target` (None: no sizes are written down)."""
    before = graph.shapes[graph.nodes[number].input[0]]
    result: Axes = [None] * len(after)
    i = j = 0
    while i < len(before) and j < len(after):
        same = before[i] == after[j] or (target is not None and target[j] == 0 and i == j)
        ends = [i + 1, j + 1]
        if not same:
            grown = _factors(before[i:], after[j:])
            if grown is None:
                return None
            ends = [i + grown[0], j + grown[1]]
        many = ends[0] - i, ends[1] - j
        here = [axis for axis in range(i, ends[0]) if axes[axis] is not None]
        if here and not _passed(traced, axes, result, here, (i, ends[0]), (j, ends[1]), before, after):
            return None
        for axis in range(j, ends[1]):
            atoms = result[axis]
            if atoms is not None and target is not None and target[axis] > 0:
                traced.counts.append(Count(number, 1, axis, atoms))
        i, j = i + many[0], j + many[1]
    return result


def _factors(before: tuple[int | None, ...], after: tuple[int | None, ...]) -> tuple[int, int] | None:
    """How many axes on either side have the same product; None where that is not known."""
    i = j = 1
    while True:
        left, right = before[:i], after[:j]
        if None in left or None in right:
            return None
        a, b = int(np.prod([v or 0 for v in left])), int(np.prod([v or 0 for v in right]))
        if a == b:
            return i, j
        i, j = (i + 1, j) if a < b else (i, j + 1)
        if i > len(before) or j > len(after):
            return None


def _passed(
    traced: Traced,
    axes: Axes,
    result: Axes,
    here: list[int],
    old: tuple[int, int],
    new: tuple[int, int],
    before: tuple[int | None, ...],
    after: tuple[int | None, ...],
) -> bool:
    """Carry the atoms of the old axes to the new ones; False where they cannot be told apart there."""
    (axis, *more), (i, end), (j, stop) = here, old, new
    atoms = axes[axis]
    if more or atoms is None:
        return False
    if (end - i, stop - j) == (1, 1):
        result[j] = atoms
        return True
    if stop - j == 1:
        result[j] = _joined(atoms, before[i:axis], before[axis + 1 : end])
        return True
    if end - i == 1:
        result[j] = _split(traced, atoms, int(after[j] or 0))
        return result[j] is not None
    others, sizes = [*before[i:axis], *before[axis + 1 : end]], list(after[j:stop])
    if any(size != 1 for size in others) or sizes.count(len(atoms)) != 1:
        return False
    result[j + sizes.index(len(atoms))] = atoms
    return True


def _joined(atoms: Atoms, outer: tuple[int | None, ...], inner: tuple[int | None, ...]) -> Atoms:
    """Of an axis that others are joined with, the last of which runs fastest."""
    repeated = np.repeat(atoms, int(np.prod([size or 0 for size in inner])))
    return np.tile(repeated, int(np.prod([size or 0 for size in outer])))


def _split(traced: Traced, atoms: Atoms, head: int) -> Atoms | None:
    """Of the first of the axes that one is split into, as blocks go as a whole; None where it is not so split."""
    if not head or len(atoms) % head:
        return None
    blocks = atoms.reshape(head, -1)
    for column in range(1, blocks.shape[1]):
        traced.unite(blocks[:, 0], blocks[:, column])
    return blocks[:, 0]


def squeezed(graph: PruneGraph, traced: Traced, number: int, given: list[Axes]) -> list[Axes] | None:
    """Axes of length 1 come or go; the others keep their order."""
    node = graph.nodes[number]
    after = graph.shapes[node.output[0]]
    before = graph.shapes[node.input[0]]
    kept = [atoms for atoms, length in zip(given[0], before, strict=True) if length != 1]
    places = [axis for axis, length in enumerate(after) if length != 1]
    if len(kept) != len(places):
        return None
    result: Axes = [None] * len(after)
    for axis, atoms in zip(places, kept, strict=True):
        result[axis] = atoms
    return [result]
