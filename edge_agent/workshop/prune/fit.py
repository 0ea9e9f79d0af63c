"""Fitting what is left of each layer to what the parent's layer gave, by least squares; no labels, no gradients.

The layers are taken in order, so each makes good what the ones before it lost (He et al., "Channel Pruning for
Accelerating Very Deep Neural Networks", arXiv 1707.06168, section 3.2; without their LASSO).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from edge_agent.workshop.data.calibration import Say
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, held, numbers
from edge_agent.workshop.prune.walk import Feeds, Live, columns, rows, walk

ROWS = 12_000
"""cells, or tokens, that a layer's equations are made of, at most"""
RIDGES = (1e-4, 1e-2, 1.0)
"""relative to the mean square of the inputs: how strongly a layer is drawn to the weights that it has"""
HELD = 4
"""every so-manieth sample tells which of them is right"""
Fitted = tuple[float, float]
"""share of a layer's variance that is not explained with the weights as they were, and fitted"""


def refit(
    parent: ir.Model,
    student: ir.Model,
    stays: Mapping[str, Array],
    feeds: Feeds,
    say: Say,
    boxes: list[Array] | None = None,
) -> dict[str, Fitted]:
    """Change `student`'s weights in place; what came of each layer, by name.

    `stays`: for a layer the parent's output channels that it still has (all where it is missing); `boxes`: for each
    sample (n, 4) left, top, right, bottom in 0..1 of the input, where objects are.
    """
    fitted: dict[str, Fitted] = {}
    layers, most = {node for node in net.layers(student) if _can(node)}, max(1, ROWS // len(feeds))

    def visit(node: ir.Node, live: list[Live]) -> None:
        theirs, ours = ([] if node not in layers else tensors.get(node.inputs[0].name, []) for tensors in live)
        same = all(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(theirs, ours, strict=True))
        if same:
            return
        equations = _Equations(node, most)
        for index, (x, goal) in enumerate(zip(ours, live[0][node.outputs[0].name], strict=True)):
            equations.add(x, goal, stays.get(node.name), None if boxes is None else boxes[index])
        fitted[node.name] = equations.solve()

    walk([parent, student], feeds, visit, say, "fitting")
    return fitted


def _can(node: ir.Node) -> bool:
    """Whether it is a layer whose equations are known here."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    constant = held(bias)
    known = bias is None or (constant is not None and constant.ndim == 1)
    ranks = (3, 4) if node.op_type == "Conv" else (2,)
    return node.op_type != "ConvTranspose" and numbers(node.inputs[1]).ndim in ranks and known


class _Sums(NamedTuple):
    """X'X, X'Y, Y'Y and the sum of Y over rows: (groups, …), and how many rows."""

    normal: Array
    cross: Array
    square: Array
    total: Array
    rows: Array

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(*(a + b for a, b in zip(self, other, strict=True)))

    def left(self, weight: Array) -> float:
        """Share of the spread of Y that `weight` does not explain."""
        spread = float((self.square - self.total**2 / max(float(self.rows), 1e-9)).sum())
        error = self.square.sum() - 2 * (weight * self.cross).sum() + (weight * (self.normal @ weight)).sum()
        return float(error) / max(spread, 1e-12)


class _Equations:
    """What is known of one layer: every HELD-th sample is kept apart, to see how near to its weights it has to stay.

    X has a column of ones where there is a bias.
    """

    def __init__(self, node: ir.Node, most: int) -> None:
        self.node, self.most, self.weight = node, most, numbers(node.inputs[1])
        self.bias = held(node.inputs[2]) if len(node.inputs) > 2 else None
        self.groups, self.count = node.attributes.get_int("group", 1), 0
        self.sums: dict[bool, _Sums] = {}

    def add(self, x: Array, goal: Array, stays: Array | None, boxes: Array | None) -> None:
        """One sample: the layer's own input and its parent's output."""
        y, where, share = rows(self.node, goal, self.most, boxes)
        y = (y if stays is None else y[:, stays]).astype(np.float32)
        left = columns(self.node, x, where, self.most).astype(np.float32)
        if self.bias is not None:
            left = np.concatenate([left, np.ones_like(left[..., :1])], axis=2)
        goals = y.reshape(len(y), self.groups, -1).transpose(1, 0, 2)
        # products in float32, which is twice as fast; sums over samples in float64
        turned = (left * share[:, None]).transpose(0, 2, 1)
        here = _Sums(
            (turned @ left).astype(np.float64),
            (turned @ goals).astype(np.float64),
            (goals**2 * share[:, None]).sum(axis=1, dtype=np.float64),
            (goals * share[:, None]).sum(axis=1, dtype=np.float64),
            np.float64(share.sum()),
        )
        apart = self.count % HELD == HELD - 1
        self.count += 1
        self.sums[apart] = self.sums[apart].plus(here) if apart in self.sums else here

    def solve(self) -> Fitted:
        """Exchange the layer's weights, where others do better on the samples that were kept apart."""
        now = self._flat(self.weight.astype(np.float64))
        if self.bias is not None:
            now = np.concatenate([now, self.bias.astype(np.float64).reshape(self.groups, 1, -1)], axis=1)
        fit, apart = self.sums[False], self.sums.get(True)
        before = (apart or fit).left(now)
        if apart is None:
            new = _solution(fit, RIDGES[0], now)
            after = fit.left(new)
        else:
            errors = {ridge: apart.left(_solution(fit, ridge, now)) for ridge in RIDGES}
            best = min(errors, key=lambda ridge: errors[ridge])
            after = errors[best]
            new = _solution(fit.plus(apart), best, now)
        if after < before:
            self._write(new)
        return before, min(before, after)

    def _flat(self, weight: Array) -> Array:
        """(groups, inputs, outputs a group) of a weight as the file has it."""
        if self.node.op_type != "Conv":
            return weight[None]
        parts: Array = weight.reshape(self.groups, len(weight) // self.groups, -1).transpose(0, 2, 1)
        return parts

    def _write(self, new: Array) -> None:
        if self.bias is not None:
            net.put(self.node.inputs[2], new[:, -1].reshape(-1).astype(self.bias.dtype))
            new = new[:, :-1]
        value = new.transpose(0, 2, 1) if self.node.op_type == "Conv" else new[0]
        net.put(self.node.inputs[1], value.reshape(self.weight.shape).astype(self.weight.dtype))


def _solution(sums: _Sums, ridge: float, now: Array) -> Array:
    """Least squares, drawn to `now` by `ridge` times the mean square of the inputs."""
    size = sums.normal.shape[1]
    pull = np.maximum(np.trace(sums.normal, axis1=1, axis2=2) / size, 1e-9)[:, None, None] * ridge
    found: Array = now + np.linalg.solve(sums.normal + pull * np.eye(size), sums.cross - sums.normal @ now)
    return found
