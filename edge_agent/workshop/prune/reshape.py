"""How channels pass through a change of shape: Reshape, Flatten, Squeeze, Unsqueeze (rules as in `prune/rules.py`)."""

from __future__ import annotations

import numpy as np

from edge_agent.workshop.prune.axes import Atoms, Axes, Count, Traced
from edge_agent.workshop.prune.graph import PruneGraph

Shape = tuple[int | None, ...]


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
    graph: PruneGraph, traced: Traced, number: int, axes: Axes, after: Shape, target: list[int] | None
) -> Axes | None:
    """Axes after a Reshape to `target` (None: no sizes are written down)."""
    before = graph.shapes[graph.nodes[number].input[0]]
    result: Axes = [None] * len(after)
    i = j = 0
    while i < len(before) and j < len(after):
        many = _many(before[i:], after[j:], same=target is not None and target[j] == 0 and i == j)
        if many is None:
            return None
        old, new = slice(i, i + many[0]), slice(j, j + many[1])
        passed = _passed(traced, axes[old], before[old], after[new])
        if passed is None:
            return None
        result[new] = passed
        i, j = old.stop, new.stop
    if target is not None:
        _note_counts(traced, number, result, target)
    return result


def _note_counts(traced: Traced, number: int, axes: Axes, target: list[int]) -> None:
    """Note that the shape that node `number` is given says how many there are."""
    for axis, atoms in enumerate(axes):
        if atoms is not None and target[axis] > 0:
            traced.counts.append(Count(number, 1, axis, atoms))


def _many(before: Shape, after: Shape, same: bool) -> tuple[int, int] | None:
    """How many axes on either side have the same product; None where that is not known. `same`: the first ones have."""
    if same or before[0] == after[0]:
        return 1, 1
    i = j = 1
    while i <= len(before) and j <= len(after):
        left, right = before[:i], after[:j]
        if None in left or None in right:
            return None
        a, b = _product(left), _product(right)
        if a == b:
            return i, j
        i, j = (i + 1, j) if a < b else (i, j + 1)
    return None


def _product(lengths: Shape) -> int:
    return int(np.prod([length or 0 for length in lengths]))


def _passed(traced: Traced, axes: Axes, before: Shape, after: Shape) -> Axes | None:
    """The atoms of the old axes on the new ones, of the same product; None where they cannot be told apart there."""
    here = [(axis, atoms) for axis, atoms in enumerate(axes) if atoms is not None]
    result: Axes = [None] * len(after)
    if not here:
        return result
    if len(here) > 1:
        return None
    ((axis, atoms),) = here
    if len(before) == len(after) == 1:
        return [atoms]
    if len(after) == 1:
        # joined: the last of the old axes runs fastest
        return [np.tile(np.repeat(atoms, _product(before[axis + 1 :])), _product(before[:axis]))]
    if len(before) == 1:
        blocks = _blocks(traced, atoms, int(after[0] or 0))
        return None if blocks is None else [blocks, *result[1:]]
    return _moved(atoms, [*before[:axis], *before[axis + 1 :]], after)


def _moved(atoms: Atoms, others: list[int | None], after: Shape) -> Axes | None:
    """The atoms on the one new axis of their number, where the `others` before were of length 1."""
    if any(length != 1 for length in others) or after.count(len(atoms)) != 1:
        return None
    return [atoms if length == len(atoms) else None for length in after]


def _blocks(traced: Traced, atoms: Atoms, count: int) -> Atoms | None:
    """An axis that is split: blocks go as a whole."""
    if not count or len(atoms) % count:
        return None
    blocks = atoms.reshape(count, -1)
    for column in range(1, blocks.shape[1]):
        traced.unite(blocks[:, 0], blocks[:, column])
    first: Atoms = blocks[:, 0]
    return first


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
