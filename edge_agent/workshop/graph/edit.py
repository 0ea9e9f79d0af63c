"""Changes to an ONNX graph that leave its answers as they were: folded and simplified, its preparation taken in.

The preparation of a picture is (x * scale - mean) / std in the order of channels that the network wants, from uint8
rows of BGR pixels. Taken in, it costs the multiplications of the first convolution, which are done anyway:

    W * (g x + o) = (W g) * (x + o / g),    g = scale / std, o = -mean / std

channel by channel, and a network of RGB has its input channels the other way round. The shift o / g stays an addition
of its own, since a convolution pads with zeroes that it must not move.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper

from edge_agent.errors import ModelError, RefusedError
from edge_agent.manifest import Input
from edge_agent.workshop.graph import names

Reals = npt.NDArray[np.float64]
SMALL = 4096
"""bytes of a constant that may be folded where folding all would make the file larger"""
GROWN = 1.1
FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def read(path: Path) -> onnx.ModelProto:
    """Read and check a file. RefusedError for what is no ONNX model."""
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        raise RefusedError(f"{path}: not a readable ONNX model ({_line(error)})") from None
    return model


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants folded, nodes that do nothing gone, patterns fused, by onnxslim; checked by ONNX.

    Where folding would make the file larger, as it widens weights that are kept in half floats, only small constants
    are folded. Raises ModelError where onnxslim is missing, RefusedError where it fails.
    """
    made = _slim(model, None)
    return _slim(model, SMALL) if made.ByteSize() > model.ByteSize() * GROWN else made


def _slim(model: onnx.ModelProto, most: int | None) -> onnx.ModelProto:
    """`most`: bytes of a constant that is folded; None: any."""
    try:
        from onnxslim import slim
    except ImportError as error:
        raise ModelError(f'onnxslim simplifies graphs: pip install "edge-agent-runtime[workshop]" ({error})') from None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            made = slim(copy, size_threshold=most)
        if not isinstance(made, onnx.ModelProto):
            raise ValueError("it gave no model back")
        onnx.checker.check_model(made)
    except (ValueError, RuntimeError, KeyError, IndexError, AttributeError, onnx.checker.ValidationError) as error:
        raise RefusedError(f"onnxslim cannot simplify it ({_line(error)})") from None
    return made


def with_preparation(model: onnx.ModelProto, spec: Input) -> tuple[onnx.ModelProto, Input]:
    """The network that takes uint8 (1, height, width, 3) BGR pixels of the canvas, and the [input] that says so.

    Raises RefusedError for a network that takes no float picture of `spec`'s size.
    """
    old = _float_input(model)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    steps = _Steps(made.graph, spec, old)
    first = _first_convolution(made, old.name) if spec.layout == "NCHW" else None
    if spec.layout == "NCHW":
        steps.add("Transpose", "planes", perm=[0, 3, 1, 2])
    gain = spec.scale / np.asarray(spec.std, np.float64)
    shift = -np.asarray(spec.mean, np.float64) / spec.scale
    swap = spec.channels == "RGB"
    if swap and first is None:
        steps.add("Gather", "ordered", np.array([2, 1, 0], np.int64), axis=1 if spec.layout == "NCHW" else 3)
    steps.add("Cast", "floats", to=old.type.tensor_type.elem_type)
    if first is None:
        steps.each_channel("Add", "with_shift", shift, 0)
        steps.each_channel("Mul", "with_gain", gain, 1)
    else:
        if swap or (gain != 1).any():
            _fold(made, first, gain, swap, steps.name_of)
        steps.each_channel("Add", "with_shift", shift[::-1] if swap else shift, 0)
    steps.put()
    _check_valid(made)
    kept_as_is = {"letterbox": spec.letterbox, "pad": spec.pad, "resize": spec.resize}
    plain = Input(spec.width, spec.height, layout="NHWC", channels="BGR", **kept_as_is)  # type: ignore[arg-type]
    return made, plain


def _check_valid(made: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RefusedError(f"with its preparation taken in it is no valid model ({_line(error)})") from None


def _float_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The only input. RefusedError where there are more, or it takes no floats."""
    given = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in given]
    if len(inputs) != 1:
        raise RefusedError(f"it takes {len(inputs)} tensors, so its preparation cannot be taken in")
    (old,) = inputs
    element = old.type.tensor_type.elem_type
    if element not in FLOATS:
        kind = TensorProto.DataType.Name(element).lower()
        raise RefusedError(f'its input "{old.name}" is {kind} already; there is no preparation to take in')
    return old


class _Steps:
    """Operators from pixels to what a graph's input `old` took, each on what the one before gives."""

    def __init__(self, graph: onnx.GraphProto, spec: Input, old: onnx.ValueInfoProto) -> None:
        self.graph, self.spec, self.old = graph, spec, old
        self.name_of = names.fresh(names.of(graph))
        self.pixels = self.name_of("pixels")
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op: str, what: str, value: npt.NDArray[Any] | None = None, **attributes: Any) -> None:
        """One more, with a constant as its second input where there is one."""
        given = [self.nodes[-1].output[0] if self.nodes else self.pixels]
        if value is not None:
            given.append(self.name_of(f"{self.old.name}.{what}.constant"))
            self.graph.initializer.append(numpy_helper.from_array(value, given[1]))
        self.nodes.append(helper.make_node(op, given, [self.name_of(f"{self.old.name}.{what}")], **attributes))

    def each_channel(self, op: str, what: str, values: Reals, nothing: float) -> None:
        """One more with a number for each channel; none where all are `nothing`."""
        if (values != nothing).any():
            shape = (1, 3, 1, 1) if self.spec.layout == "NCHW" else (1, 1, 1, 3)
            self.add(op, what, values.astype(FLOATS[self.old.type.tensor_type.elem_type]).reshape(shape))

    def put(self) -> None:
        """Put them before the graph's own, and pixels in the place of its input."""
        self.nodes[-1].output[0] = self.old.name
        for number, node in enumerate(self.nodes):
            node.name = self.name_of(f"{self.old.name}.prepare{number}")
        kept = list(self.graph.node)
        del self.graph.node[:]
        self.graph.node.extend([*self.nodes, *kept])
        others = [one for one in self.graph.input if one.name != self.old.name]
        shape = [1, self.spec.height, self.spec.width, 3]
        del self.graph.input[:]
        self.graph.input.extend([helper.make_tensor_value_info(self.pixels, TensorProto.UINT8, shape), *others])


def _first_convolution(model: onnx.ModelProto, name: str) -> onnx.NodeProto | None:
    """The only reader of the input, where that is a convolution of all its channels with constant weights."""
    readers = [node for node in model.graph.node if name in node.input]
    constants = {one.name for one in model.graph.initializer}
    if len(readers) != 1 or readers[0].op_type != "Conv" or readers[0].input[1] not in constants:
        return None
    groups = next((a.i for a in readers[0].attribute if a.name == "group"), 1)
    return readers[0] if groups == 1 else None


def _fold(model: onnx.ModelProto, node: onnx.NodeProto, gain: Reals, swap: bool, name_of: names.Fresh) -> None:
    """Gain and order of the channels into the weights (out, 3, h, w) of `node`, under a name of their own."""
    (held,) = [one for one in model.graph.initializer if one.name == node.input[1]]
    old = numpy_helper.to_array(held)
    new = (old.astype(np.float64) * gain[None, :, None, None]).astype(old.dtype)
    name = name_of(f"{held.name}.prepared")
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(new[:, ::-1] if swap else new), name))
    node.input[1] = name
    if not any(held.name in one.input for one in model.graph.node):
        model.graph.initializer.remove(held)


def nodes(model: onnx.ModelProto) -> int:
    """How many operators the graph has."""
    return len(model.graph.node)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
