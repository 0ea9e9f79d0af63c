"""Fitting what is left of each layer to what the parent's layer gave, by least squares; no labels, no gradients.

The layers are taken in order, so each makes good what the ones before it lost (He et al., "Channel Pruning for
Accelerating Very Deep Neural Networks", arXiv 1707.06168, section 3.2; without their LASSO).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_agent.workshop.prune.channels import layer_name
from edge_agent.workshop.prune.graph import Array, PruneGraph, attributes
from edge_agent.workshop.prune.walk import Feeds, Live, Say, cells, columns, touched, walk

ROWS = 12_000
"""cells, or tokens, that a layer's equations are made of, at most"""
RIDGES = (1e-4, 1e-2, 1.0)
"""relative to the mean square of the inputs: how strongly a layer is drawn to the weights that it has"""
HELD = 4
"""every so-manieth sample tells which of them is right"""


@dataclass(frozen=True, slots=True)
class Fitted:
    """How well one layer follows its parent's."""

    name: str
    op: str
    before: float
    """share of the variance that is not explained with the weights as they were"""
    after: float


def refit(
    parent: PruneGraph,
    student: PruneGraph,
    stays: Mapping[int, Array],
    feeds: Feeds,
    say: Say,
    masks: Mapping[int, Array] | None = None,
    boxes: list[Array] | None = None,
) -> list[Fitted]:
    """Change `student`'s weights in place.

    `stays`: for a layer the parent's output channels that it still has (all where it is missing); `masks`: for a layer
    which of its weights may be other than 0; `boxes`: for each sample (n, 4) left, top, right, bottom in 0..1 of the
    input, where objects are.
    """
    fitted: list[Fitted] = []
    layers = set(student.layers())
    most = max(1, ROWS // len(feeds))

    def visit(number: int, live: list[Live]) -> None:
        node = student.nodes[number]
        if number not in layers or node.op_type == "ConvTranspose" or attributes(node).get("transA"):
            return
        theirs, ours = live[0][node.input[0]], live[1][node.input[0]]
        mask = None if masks is None else masks.get(number)
        same = theirs[0].shape == ours[0].shape and all(np.array_equal(a, b) for a, b in zip(theirs, ours, strict=True))
        if mask is None and same:
            return
        equations = _Equations(node.op_type, student, number, most)
        for index, x in enumerate(ours):
            goal = live[0][node.output[0]][index]
            equations.add(x, goal, stays.get(number), None if boxes is None else boxes[index])
        fitted.append(equations.solve(mask))

    walk([parent, student], feeds, visit, say, "fitting")
    return fitted


@dataclass(slots=True)
class _Sums:
    """X'X, X'Y, Y'Y and the sum of Y over rows: (groups, …)."""

    normal: Array
    cross: Array
    square: Array
    total: Array
    rows: float

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(
            self.normal + other.normal,
            self.cross + other.cross,
            self.square + other.square,
            self.total + other.total,
            self.rows + other.rows,
        )

    def left(self, weight: Array) -> float:
        """Share of the spread of Y that `weight` does not explain."""
        spread = float((self.square - self.total**2 / max(self.rows, 1e-9)).sum())
        error = self.square.sum() - 2 * (weight * self.cross).sum() + (weight * (self.normal @ weight)).sum()
        return float(error) / max(spread, 1e-12)


class _Equations:
    """What is known of one layer: every HELD-th sample is kept apart, to see how near to its weights it has to stay.

    X has a column of ones where there is a bias.
    """

    def __init__(self, op: str, graph: PruneGraph, number: int, most: int) -> None:
        self.op, self.graph, self.number, self.most = op, graph, number, most
        self.node, self.weight = graph.nodes[number], graph.weight(number)
        self.bias = self.node.input[2] if len(self.node.input) > 2 and self.node.input[2] in graph.values else ""
        self.groups, self.count = 1, 0
        self.sums: dict[bool, _Sums] = {}

    def add(self, x: Array, goal: Array, stays: Array | None, boxes: Array | None) -> None:
        """One sample: the layer's own input and its parent's output."""
        where = None
        if self.op == "Conv":
            where = cells(goal.shape[2], goal.shape[3], self.most)
            y = goal[0][:, where[0], where[1]].T
        else:
            y = goal.reshape(-1, goal.shape[-1])
            if len(y) > self.most:
                y = y[cells(len(y), 1, self.most)[0]]
        y = (y if stays is None else y[:, stays]).astype(np.float32)
        left = columns(self.node, self.weight, x, where, self.most).astype(np.float32)
        if self.bias:
            left = np.concatenate([left, np.ones_like(left[..., :1])], axis=2)
        self.groups = len(left)
        goals = y.reshape(len(y), self.groups, -1).transpose(1, 0, 2)
        share = np.ones(len(y), np.float32) if boxes is None or where is None else touched(where, goal.shape[2:], boxes)
        # products in float32, which is twice as fast; sums over samples in float64
        turned = (left * share[:, None]).transpose(0, 2, 1)
        here = _Sums(
            (turned @ left).astype(np.float64),
            (turned @ goals).astype(np.float64),
            (goals**2 * share[:, None]).sum(axis=1, dtype=np.float64),
            (goals * share[:, None]).sum(axis=1, dtype=np.float64),
            float(share.sum()),
        )
        apart = self.count % HELD == HELD - 1
        self.count += 1
        self.sums[apart] = self.sums[apart].plus(here) if apart in self.sums else here

    def solve(self, mask: Array | None) -> Fitted:
        """Exchange the layer's weights in the graph, where others do better on the samples that were kept apart."""
        now = self._flat(self.weight)
        if self.bias:
            bias = self.graph.values[self.bias].astype(np.float64)
            now = np.concatenate([now, bias.reshape(self.groups, 1, -1)], axis=1)
        fit, held = self.sums[False], self.sums.get(True)
        flat = None if mask is None else self._flat(mask) != 0
        before = (held or fit).left(now)
        if held is None:
            new = _solution(fit, RIDGES[0], now, flat)
            after = fit.left(new)
        else:
            errors = {ridge: held.left(_solution(fit, ridge, now, flat)) for ridge in RIDGES}
            best = min(errors, key=lambda ridge: errors[ridge])
            after = errors[best]
            new = _solution(fit.plus(held), best, now, flat)
        if after < before:
            self._write(new)
        return Fitted(layer_name(self.graph, self.number), self.op, before, min(before, after))

    def _flat(self, weight: Array) -> Array:
        """(groups, inputs, outputs a group) of a weight as the file has it."""
        if self.op == "Conv":
            parts = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
            found: Array = parts.transpose(0, 2, 1).astype(np.float64)
            return found
        turned = self.op == "Gemm" and any(a.name == "transB" and a.i for a in self.node.attribute)
        flat: Array = (weight.T if turned else weight)[None].astype(np.float64)
        return flat

    def _write(self, new: Array) -> None:
        if self.bias:
            old, bias = self.graph.values[self.bias], self.graph.own(self.number, 2)
            self.graph.values[bias] = new[:, -1].reshape(old.shape).astype(old.dtype)
            new = new[:, :-1]
        if self.op == "Conv":
            value = new.transpose(0, 2, 1).reshape(self.weight.shape)
        else:
            turned = self.op == "Gemm" and any(a.name == "transB" and a.i for a in self.node.attribute)
            value = new[0].T if turned else new[0]
        self.graph.values[self.graph.own(self.number, 1)] = np.ascontiguousarray(value.astype(self.weight.dtype))


def _solution(sums: _Sums, ridge: float, now: Array, mask: Array | None) -> Array:
    """Least squares, drawn to `now` by `ridge` times the mean square of the inputs."""
    size = sums.normal.shape[1]
    pull = np.maximum(np.trace(sums.normal, axis1=1, axis2=2) / size, 1e-9)[:, None, None] * ridge
    normal = sums.normal + pull * np.eye(size)
    if mask is None:
        found: Array = now + np.linalg.solve(normal, sums.cross - sums.normal @ now)
        return found
    return _masked(normal, sums.cross + pull * now, mask, now)


def _masked(normal: Array, cross: Array, mask: Array, now: Array) -> Array:
    """The solution in which an output uses only the inputs that `mask` (groups, inputs, outputs) leaves it."""
    new = np.zeros_like(now)
    for group in range(len(normal)):
        for output in range(cross.shape[2]):
            used = np.flatnonzero(mask[group, :, output])
            if now.shape[1] > mask.shape[1]:
                used = np.append(used, now.shape[1] - 1)
            part = normal[group][np.ix_(used, used)]
            new[group, used, output] = np.linalg.solve(part, cross[group, used, output])
    return new
