"""Where channels go in operators that only move, pool or resize: each is run on the numbers of the channels.

An operator of MOVING gives a factor times what it takes wherever that is one number. So it is run twice, on ones and on
a tensor that holds the number of each entry of an axis, and the quotient says which entries came out where.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from edge_agent.workshop.graph import net, sessions
from edge_agent.workshop.graph.net import Array, held, shape
from edge_agent.workshop.prune.channels import Atoms, Axes, Count, Traced

PARTS = ("Split", "Concat")
MOVING = (
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Pad", "DepthToSpace", "SpaceToDepth"),
    *("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "Resize", "Upsample"),
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "Slice"),
    *PARTS,
)
SIZES = {"Reshape": 1, "Expand": 1, "Resize": 3}
"""operator -> the input in which the lengths of what it gives are written down"""
OPEN = 8
"""what an axis of open length is taken to have while an operator is tried"""
NEAR = 0.01
Place = tuple[int, list[Array]]
"""an axis of what comes out, and for each of its entries the numbers of those that are in it, from 1 on"""
NOWHERE: Place = (-1, [])


def moved(traced: Traced, node: ir.Node, given: list[Axes]) -> list[Axes] | None:
    """The atoms of what a node of MOVING gives; None where they cannot be followed."""
    outs = node.outputs if node.op_type == "Split" else node.outputs[:1]
    results = [traced.of(out) for out in outs]
    known = all(not out.uses() for out in node.outputs[len(outs) :])
    for place, axes in enumerate(given):
        for axis, atoms in enumerate(axes):
            known = known and _pass(traced, node, place, axis, atoms, results)
    for result in results:
        result[:] = map(partial(_filled, traced), result)
    return results if known and _counted(traced, node, results) else None


def _pass(traced: Traced, node: ir.Node, place: int, axis: int, atoms: Atoms | None, results: list[Axes]) -> bool:
    """Note in `results` where the atoms of an input's axis came out, or fix them; False where others are there."""
    if atoms is None:
        return True
    found = _tried(node, place, axis, len(atoms), traced.opsets) if len(atoms) > 1 else None
    if found is None:
        traced.fix([atoms])
        return True
    return all(_put(traced, result, one, atoms) for result, one in zip(results, found, strict=False))


def _filled(traced: Traced, atoms: Atoms | None) -> Atoms | None:
    """Entries of an axis that came from elsewhere get atoms that stay."""
    if atoms is None or (atoms >= 0).all():
        return atoms
    return np.where(atoms < 0, traced.fresh(len(atoms), fixed=True), atoms)


def _tried(node: ir.Node, place: int, axis: int, count: int, opsets: dict[str, int]) -> list[Place | None] | None:
    """Where the entries of an axis of the input `place` come out, output by output (None: none of them does); None
    where that cannot be told.
    """
    ones = np.ones(_lengths(node.inputs[place]), np.float32)
    row = np.expand_dims(np.arange(1, count + 1, dtype=np.float32), tuple(range(1, ones.ndim - axis)))
    try:
        runs = [_run(node, place, tensor, opsets) for tensor in (ones, ones * row)]
    except Exception:  # an open axis may be of another length than the node can take
        return None
    values = [b / np.where(a == 0, 1, a) for a, b in zip(*runs, strict=True)]
    found = [_place(one, count) for one in values]
    all_there = node.op_type in PARTS or len(_kinds(np.rint(values[0]))) == count
    return found if all_there and not any(one is NOWHERE for one in found) else None


def _run(node: ir.Node, place: int, tensor: Array, opsets: dict[str, int]) -> list[Array]:
    """What a node gives for a tensor as one input and zeroes as others."""
    fed: list[Array | None] = [None] * len(node.inputs)
    for at, value in enumerate(node.inputs):
        # what is joined beside it, and what a border is filled with, is no part of the answer
        beside = node.op_type == "Concat" or (node.op_type == "Pad" and at == 2)
        if value is not None and (beside or held(value) is None):
            fed[at] = np.zeros(_lengths(value), np.float32)
    fed[place] = tensor
    given = {str(at): one for at, one in enumerate(fed) if one is not None}
    found: list[Array] = sessions.alone(node, opsets, fed).run(None, given)
    return found


def _lengths(value: ir.Value | None) -> list[int]:
    """The shape of a tensor, open axes taken to be short."""
    return [length or OPEN for length in shape(value) or ()]


def _place(values: Array, count: int) -> Place | None:
    """Where the numbers 1 … `count` lie in a tensor: along one axis, or in blocks along the outermost of several; None:
    none is in it; NOWHERE: otherwise.
    """
    whole = np.rint(values)
    every = len(_kinds(whole))
    if not np.allclose(values, whole, 0, NEAR) or whole.max(initial=0) > count:
        return NOWHERE
    found = [NOWHERE, NOWHERE]
    for axis in reversed(range(whole.ndim)):
        entries = [_kinds(one) for one in np.moveaxis(whole, axis, 0)]
        sizes = [len(entry) for entry in entries]
        if max(sizes) == 1:
            found[0] = axis, entries
        elif sum(sizes) == every != max(sizes):
            found[1] = axis, entries
    return found[found[0] is NOWHERE] if every else None


def _kinds(values: Array) -> Array:
    """The numbers of entries that are in it, each once."""
    found: Array = np.unique(values[values > 0]).astype(int)
    return found


def _put(traced: Traced, result: Axes, place: Place | None, atoms: Atoms) -> bool:
    """Note the atoms along an axis, beside those that came there otherwise; False where both are in one entry."""
    if place is None:
        return True
    axis, entries = place
    for one in entries:
        traced.unite(atoms[np.repeat(one[:1], max(0, len(one) - 1)) - 1], atoms[one[1:] - 1])
    new = np.array([atoms[one[0] - 1] if len(one) else -1 for one in entries])
    old = result[axis]
    result[axis] = new if old is None else np.maximum(old, new)
    return old is None or not ((old >= 0) & (new >= 0)).any()


def _counted(traced: Traced, node: ir.Node, results: list[Axes]) -> bool:
    """Note where a node says how many entries its axes have; False where that is computed."""
    if node.op_type == "Split":
        return _split(traced, node, results)
    at = SIZES.get(node.op_type, len(node.inputs))
    if at >= len(node.inputs) or node.inputs[at] is None:
        return True
    target = held(node.inputs[at])
    if target is None:
        return False
    written = [(axis, atoms) for axis, atoms in enumerate(results[0]) if atoms is not None and target[axis] > 0]
    traced.counts += [Count(node, at, axis, atoms) for axis, atoms in written]
    return True


def _split(traced: Traced, node: ir.Node, results: list[Axes]) -> bool:
    """The sizes of parts, an attribute before opset 13."""
    pieces = [result[node.attributes.get_int("axis", 0)] for result in results]
    if pieces[0] is None:
        return True
    told = len(node.inputs) > 1
    traced.counts += [Count(node, 1 if told else "split", at, one) for at, one in enumerate(pieces) if one is not None]
    return net.constant(node, 1) is not None if told else "split" in node.attributes
