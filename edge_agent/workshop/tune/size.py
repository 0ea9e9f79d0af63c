"""Another input size for an ONNX detector: sizes that are written into the graph are made to follow its input.

A graph of convolutions works at any size that its strides divide. What stands in the way are numbers that an export
wrote down: the input's shape, and the Reshapes before the head's output. Where the grid of cells itself is a constant
(boxes decoded in the graph for one size), there is no other size, and that is said.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper, shape_inference

from edge_agent.errors import ModelError
from edge_agent.workshop.graph import names

Shapes = dict[str, tuple[int, ...]]
"""shape of each tensor by name; 0 where an axis is open"""


def resized(path: Path, width: int, height: int) -> bytes:
    """The file for pictures of another size. ModelError, one line, where the graph has its size fixed."""
    model, before = _read(path)
    constants = {t.name for t in model.graph.initializer}
    _set_input(path, model, before, width, height)
    for node in model.graph.node:
        if node.op_type == "Reshape":
            _follow(model, node, before)
        elif node.op_type in ("Resize", "Upsample") and len(node.input) > 3 and node.input[3] in constants:
            _by_factor(model, node, before)
    _forget_shapes(model)
    try:
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model)
    except (shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        why = " ".join(str(error).split())[-120:]
        raise ModelError(f"{path}: made for one size of picture, {width}x{height} does not fit ({why})") from None
    data: bytes = model.SerializeToString()
    return data


def _read(path: Path) -> tuple[onnx.ModelProto, Shapes]:
    """The model, and the shapes of its tensors."""
    try:
        model = onnx.load(str(path))
        return model, _shapes(shape_inference.infer_shapes(model))
    except (OSError, DecodeError, shape_inference.InferenceError) as error:
        raise ModelError(f"{path}: not a readable ONNX model ({' '.join(str(error).split())[:120]})") from None


def _set_input(path: Path, model: onnx.ModelProto, before: Shapes, width: int, height: int) -> None:
    """Give the one input, a picture, another size. ModelError where there is no such input."""
    constants = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    if len(inputs) != 1 or len(before.get(inputs[0].name, ())) != 4:
        raise ModelError(f"{path}: does not take one picture, so it has no size to change")
    picture = inputs[0]
    channels_last = before[picture.name][3] == 3 and before[picture.name][1] != 3
    dims = picture.type.tensor_type.shape.dim
    for axis, size in zip((1, 2) if channels_last else (2, 3), (height, width), strict=True):
        dims[axis].dim_value = size


def _forget_shapes(model: onnx.ModelProto) -> None:
    """Forget the shapes that the file states behind its input; only the batch of the outputs stays."""
    del model.graph.value_info[:]
    for output in model.graph.output:
        for axis, dim in enumerate(output.type.tensor_type.shape.dim):
            if axis:
                dim.dim_param = f"{output.name}_{axis}"


def _shapes(model: onnx.ModelProto) -> Shapes:
    infos = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in infos}


def _follow(model: onnx.ModelProto, node: onnx.NodeProto, before: Shapes) -> None:
    """In a Reshape of maps, replace the number of cells (or the length of a side) by "what is left"."""
    target = next((t for t in model.graph.initializer if t.name == node.input[1]), None)
    came = before.get(node.input[0], ())
    if target is None or len(came) < 3 or 0 in came:
        return
    sizes = numpy_helper.to_array(target).astype(np.int64)
    axis = None if (sizes == -1).any() else _cells_axis(sizes, came)
    if axis is not None:
        sizes = sizes.copy()
        sizes[axis] = -1
        name = names.fresh(names.of(model.graph))(f"{node.output[0]}.shape.free")
        model.graph.initializer.append(numpy_helper.from_array(sizes, name))
        node.input[1] = name


def _cells_axis(sizes: np.ndarray, came: tuple[int, ...]) -> int | None:
    """Which of a Reshape's sizes is the number of cells of what came in; None where none or several may be."""
    cells = int(np.prod(came[2:]))
    if cells <= 1 or (len(came) == 4 and cells == came[1]):
        return None
    axes = np.flatnonzero(sizes == cells)
    return int(axes[0]) if len(axes) == 1 else None


def _by_factor(model: onnx.ModelProto, node: onnx.NodeProto, before: Shapes) -> None:
    """In a Resize, replace the size by its ratio to what came in."""
    came = before.get(node.input[0], ())
    sizes = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == node.input[3])
    if len(came) == len(sizes) and 0 not in came:
        name = names.fresh(names.of(model.graph))(f"{node.output[0]}.factor")
        factors = np.array(sizes, np.float32) / np.array(came, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(factors, name))
        kept = [*node.input[:1], node.input[1], name]
        del node.input[:]
        node.input.extend(kept)
