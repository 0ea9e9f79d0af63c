"""Networks of the same nodes, run side by side, node by node, on the same samples.

So a layer of the pruned one can be fitted to what its parent's layer gives before the next one is reached, and nothing
has to be kept but the tensors that are still to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view

from edge_agent.errors import ModelError
from edge_agent.workshop.data.calibration import Say
from edge_agent.workshop.graph import net, sessions
from edge_agent.workshop.graph.net import Array, ints, numbers

Feeds: TypeAlias = "list[dict[str, Array]]"
"""input tensors by name, one dict a sample"""
Live: TypeAlias = "dict[str, list[Array]]"
"""tensor -> its value for each sample"""
Visit: TypeAlias = "Callable[[ir.Node, list[Live]], None]"
"""(node of the last network that comes, what is live in each); all but the last network have run it already"""
OUTSIDE = 0.1
"""weight of a cell that no object touches, where those that one touches have 1"""


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
