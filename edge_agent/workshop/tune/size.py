"""Another input size for an ONNX detector: sizes that are written into the graph are made to follow its input.

A graph of convolutions works at any size that its strides divide. What stands in the way are numbers that an export
wrote down: the input's shape, and the Reshapes before the head's output. Where the grid of cells itself is a constant
(boxes decoded in the graph for one size), there is no other size, and that is said.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edge_agent.errors import ModelError
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, shape


def resized(path: Path, width: int, height: int) -> bytes:
    """The file for pictures of another size. ModelError, one line, where the graph has its size fixed."""
    model = net.read(path)
    for node in model.graph:
        if node.op_type == "Reshape":
            _follow(model, node)
        elif node.op_type in ("Resize", "Upsample") and net.constant(node, 3) is not None:
            _by_factor(model, node)
    _set_input(path, model, width, height)
    for value in model.graph.outputs:
        if value.shape is not None:  # only the batch of the outputs stays
            value.shape = ir.Shape([value.shape[0], *(f"{value.name}_{axis}" for axis in range(1, len(value.shape)))])
    made = net.proto(model)
    try:
        onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(made)
    except net.FAULTS as error:
        why = " ".join(str(error).split())[-120:]
        raise ModelError(f"{path}: made for one size of picture, {width}x{height} does not fit ({why})") from None
    data: bytes = made.SerializeToString()
    return data


def _set_input(path: Path, model: ir.Model, width: int, height: int) -> None:
    """Give the one input, a picture, another size. ModelError where there is no such input."""
    inputs = list(model.graph.inputs)
    before = shape(inputs[0]) if len(inputs) == 1 else None
    if before is None or len(before) != 4:
        raise ModelError(f"{path}: does not take one picture, so it has no size to change")
    channels_last = before[3] == 3 and before[1] != 3
    new = list(inputs[0].shape)
    for axis, size in zip((1, 2) if channels_last else (2, 3), (height, width), strict=True):
        new[axis] = size
    inputs[0].shape = ir.Shape(new)


def _follow(model: ir.Model, node: ir.Node) -> None:
    """In a Reshape of maps, replace the number of cells (or the length of a side) by "what is left"."""
    sizes, came = net.constant(node, 1), shape(node.inputs[0]) or ()
    if sizes is None or len(came) < 3 or None in came or (sizes == -1).any():
        return
    axis = _cells_axis(sizes, came)
    if axis is not None:
        sizes = sizes.copy()
        sizes[axis] = -1
        node.replace_input_with(1, net.hold(model.graph, f"{node.outputs[0].name}.shape.free", sizes))


def _cells_axis(sizes: Array, came: tuple[int | None, ...]) -> int | None:
    """Which of a Reshape's sizes is the number of cells of what came in; None where none or several may be."""
    cells = int(np.prod([length or 0 for length in came[2:]]))
    if cells <= 1 or (len(came) == 4 and cells == came[1]):
        return None
    axes = np.flatnonzero(sizes == cells)
    return int(axes[0]) if len(axes) == 1 else None


def _by_factor(model: ir.Model, node: ir.Node) -> None:
    """In a Resize, replace the size by its ratio to what came in."""
    sizes, came = net.constant(node, 3), shape(node.inputs[0]) or ()
    if sizes is not None and len(came) == len(sizes) and None not in came:
        factors = np.array(sizes, np.float32) / np.array(came, np.float32)
        node.replace_input_with(2, net.hold(model.graph, f"{node.outputs[0].name}.factor", factors))
        node.resize_inputs(3)
