"""Fitting what is left of each layer to what the parent's layer gave, by least squares; no labels, no gradients.

The layers are taken in order, so each makes good what the ones before it lost (He et al., "Channel Pruning for
Accelerating Very Deep Neural Networks", arXiv 1707.06168, section 3.2; without their LASSO). For that the networks run
side by side, node by node, on the same samples: a layer of the pruned one is fitted to what its parent's layer gives
before the next one is reached, and nothing has to be kept but the tensors that are still to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view

from edge_agent.errors import ModelError
from edge_agent.workshop.data.calibration import Say
from edge_agent.workshop.graph import net, sessions
from edge_agent.workshop.graph.net import Array, held, ints, numbers

Feeds: TypeAlias = "list[dict[str, Array]]"
"""input tensors by name, one dict a sample"""
Live: TypeAlias = "dict[str, list[Array]]"
"""tensor -> its value for each sample"""
Visit: TypeAlias = "Callable[[ir.Node, list[Live]], None]"
"""(node of the last network that comes, what is live in each); all but the last network have run it already"""
OUTSIDE = 0.1
"""weight of a cell that no object touches, where those that one touches have 1"""
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


# ── node by node ─────────────────────────────────────────────────────────────────────────────────────────


def walk(models: Sequence[ir.Model], feeds: Feeds, visit: Visit, say: Say, what: str) -> None:
    """Run all nodes. `visit` is called before the last network runs a node, and may change constants of it."""
    table = list(zip(*(list(model.graph) for model in models), strict=True))
    last = {name: number for number, row in enumerate(table) for name in _names(row[0].inputs)}
    given = {name: [feed[name] for feed in feeds] for name in feeds[0]}
    live: list[Live] = [dict(given) for _ in models]
    for number, row in enumerate(table):
        for model, node, tensors in zip(models[:-1], row, live, strict=False):
            tensors.update(_run(model, node, tensors, len(feeds)))
        visit(row[-1], live)
        live[-1].update(_run(models[-1], row[-1], live[-1], len(feeds)))
        _forget(live, last, number, _names((*row[0].inputs, *row[0].outputs)))
        say(what, number + 1, len(table))


def _names(values: Sequence[ir.Value | None]) -> list[str]:
    return [value.name for value in values if value is not None]


def _forget(live: list[Live], last: dict[str, int], number: int, names: list[str]) -> None:
    """Let go of the tensors around a node that no later one reads."""
    for tensors in live:
        for name in names:
            if last.get(name, -1) <= number:
                tensors.pop(name, None)


def _run(model: ir.Model, node: ir.Node, live: Live, samples: int) -> Live:
    """One node on every sample."""
    taken = {at: value.name for at, value in enumerate(node.inputs) if net.is_computed(value)}
    examples = [live[taken[at]][0] if at in taken else None for at in range(len(node.inputs))]
    try:
        session = sessions.alone(node, model.opset_imports, examples)
        runs = [session.run(None, {str(at): live[name][i] for at, name in taken.items()}) for i in range(samples)]
    except Exception as error:  # ONNX Runtime's own errors have no common parent but this
        raise ModelError(f"{node.op_type} {node.name} does not run: {net.line(error)}") from None
    return dict(zip([name for name in _names(node.outputs) if name], map(list, zip(*runs, strict=True)), strict=True))


def cells(height: int, width: int, most: int) -> tuple[Array, Array]:
    """Rows and columns of `most` cells of a map, chosen at random but the same for every map of this size."""
    order = np.random.default_rng(height * 8192 + width).permutation(height * width)[: max(1, most)]
    order.sort()
    return order // width, order % width


def rows(node: ir.Node, tensor: Array, most: int, boxes: Array | None) -> tuple[Array, Array | None, Array]:
    """Of a tensor before or behind a layer at most `most` cells of a map, or tokens: (rows, channels); where they are
    in the map; and how much each counts. `boxes`: where objects are, left, top, right, bottom in 0..1.
    """
    if not node.op_type.startswith("Conv"):
        flat = tensor.reshape(-1, tensor.shape[-1])
        flat = flat[cells(len(flat), 1, most)[0]]
        return flat, None, np.ones(len(flat), np.float32)
    maps = tensor[0] if tensor.ndim == 4 else tensor[0][:, None]
    size = maps.shape[1:]
    where = np.stack(cells(size[0], size[1], most))
    share = np.full(where.shape[1], 1.0 if boxes is None else OUTSIDE, np.float32)
    for left, top, right, bottom in [] if boxes is None else boxes:
        across = (where[1] + 1 > left * size[1]) & (where[1] < right * size[1])
        share[across & (where[0] + 1 > top * size[0]) & (where[0] < bottom * size[0])] = 1.0
    return maps[:, where[0], where[1]].T, where, share


def columns(node: ir.Node, x: Array, where: Array | None, most: int) -> Array:
    """What a layer multiplies its weights by: (groups, rows, numbers), rows being cells of a map, or tokens.

    `x`: the layer's input for one sample; `where`: rows and columns of the output, for a convolution.
    """
    if where is None:
        return rows(node, x, most, None)[0][None]
    kernel, sides = list(numbers(node.inputs[1]).shape[2:]), x.ndim - 2
    strides, dilations = ints(node, "strides", [1] * sides), ints(node, "dilations", [1] * sides)
    around = pads(node, x.shape[2:], kernel)
    if sides == 1:
        x, kernel, strides, dilations = x[:, :, None], [1, *kernel], [1, *strides], [1, *dilations]
        around = [(0, 0), *around]
    sizes = [(length - 1) * far + 1 for length, far in zip(kernel, dilations, strict=True)]
    views = sliding_window_view(np.pad(x[0], ((0, 0), *around)), sizes, (1, 2))[..., :: dilations[0], :: dilations[1]]
    window = views[:, where[0] * strides[0], where[1] * strides[1]]  # (channels, rows, kernel)
    turned = window.transpose(0, 2, 3, 1).reshape(node.attributes.get_int("group", 1), -1, where.shape[1])
    return np.asarray(turned.swapaxes(1, 2))


def pads(node: ir.Node, size: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """Before and behind each axis of a convolution, auto_pad included."""
    sides, auto = len(kernel), node.attributes.get_string("auto_pad", "NOTSET")
    if not auto.startswith("SAME"):
        given = ints(node, "pads", [0] * 2 * sides) if auto == "NOTSET" else [0] * 2 * sides
        return list(zip(given[:sides], given[sides:], strict=True))
    found = []
    for axis, (stride, far) in enumerate(
        zip(ints(node, "strides", [1] * sides), ints(node, "dilations", [1] * sides), strict=True)
    ):
        need = max(0, (-(-size[axis] // stride) - 1) * stride + (kernel[axis] - 1) * far + 1 - size[axis])
        found.append((need // 2, need - need // 2) if auto == "SAME_UPPER" else (need - need // 2, need // 2))
    return found
