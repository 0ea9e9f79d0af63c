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
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edge_agent.errors import ModelError, RefusedError
from edge_agent.manifest import Input
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, line

SMALL = 4096
"""bytes of a constant that may be folded where folding all would make the file larger"""
GROWN = 1.1
read = net.load


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
    except Exception as error:  # of a library that looks for patterns: whatever it stumbles over
        raise RefusedError(f"onnxslim cannot simplify it ({line(error)})") from None
    return made


def with_preparation(model: onnx.ModelProto, spec: Input) -> tuple[onnx.ModelProto, Input]:
    """The network that takes uint8 (1, height, width, 3) BGR pixels of the canvas, and the [input] that says so.

    Raises RefusedError for a network that takes no float picture of `spec`'s size.
    """
    made = net.of(model)
    old = _float_input(made)
    planes, swap = spec.layout == "NCHW", spec.channels == "RGB"
    first = _first_convolution(old) if planes else None
    gain = spec.scale / np.asarray(spec.std, np.float64)
    shift = -np.asarray(spec.mean, np.float64) / spec.scale
    steps = _Steps(made.graph, old, spec)
    if planes:
        steps.add("Transpose", perm=[0, 3, 1, 2])
    if swap and first is None:
        steps.add("Gather", np.array([2, 1, 0], np.int64), axis=1 if planes else 3)
    steps.add("Cast", to=int(old.dtype))
    if first is not None:
        _fold(made.graph, first, gain, swap)
    steps.each_channel("Add", shift[::-1] if swap and first is not None else shift, 0)
    steps.each_channel("Mul", gain if first is None else np.ones(3), 1)
    net.exchange(old, steps.last)
    kept_as_is = {"letterbox": spec.letterbox, "pad": spec.pad, "resize": spec.resize}
    plain = Input(spec.width, spec.height, layout="NHWC", channels="BGR", **kept_as_is)  # type: ignore[arg-type]
    whole = net.proto(made)
    net.check(whole)
    return whole, plain


def _float_input(model: ir.Model) -> ir.Value:
    """The only input. RefusedError where there are more, or it takes no floats."""
    if len(model.graph.inputs) != 1:
        raise RefusedError(f"it takes {len(model.graph.inputs)} tensors, so its preparation cannot be taken in")
    (old,) = model.graph.inputs
    if old.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        kind = str(old.dtype).lower()
        raise RefusedError(f'its input "{old.name}" is {kind} already; there is no preparation to take in')
    return old


class _Steps:
    """Operators from pixels to what a graph's input `old` took, each on what the one before gives."""

    def __init__(self, graph: ir.Graph, old: ir.Value, spec: Input) -> None:
        self.graph, self.old, self.planes, self.before = graph, old, spec.layout == "NCHW", graph[0]
        kind = ir.TensorType(ir.DataType.UINT8)
        self.last = ir.Value(name="pixels", type=kind, shape=ir.Shape([1, spec.height, spec.width, 3]))
        graph.inputs[:] = [self.last]

    def add(self, op: str, constant: Array | None = None, **attributes: Any) -> None:
        """One more, with a constant as its second input where there is one."""
        name = f"{self.old.name}.{op.lower()}"
        given = [] if constant is None else [net.hold(self.graph, f"{name}.constant", constant)]
        self.last = net.add(self.before, op, [self.last, *given], name, **attributes)

    def each_channel(self, op: str, values: Array, nothing: float) -> None:
        """One more with a number for each channel; none where all are `nothing`."""
        if (values != nothing).any():
            self.add(op, values.astype(self.old.dtype.numpy()).reshape((1, 3, 1, 1) if self.planes else (1, 1, 1, 3)))


def _first_convolution(old: ir.Value) -> ir.Node | None:
    """The only reader of the input, where that is a convolution of all its channels with constant weights."""
    uses = list(old.uses())
    node = uses[0].node if len(uses) == 1 else None
    whole = node is not None and node.op_type == "Conv" and node.attributes.get_int("group", 1) == 1
    return node if whole and net.constant(node, 1) is not None else None


def _fold(graph: ir.Graph, node: ir.Node, gain: Array, swap: bool) -> None:
    """Gain and order of the channels into the weights (out, 3, h, w) of `node`, which get a constant of its own."""
    if not swap and (gain == 1).all():
        return
    old = net.numbers(node.inputs[1])
    new = (old.astype(np.float64) * gain[None, :, None, None]).astype(old.dtype)
    own = net.hold(graph, f"{node.inputs[1].name}.prepared", new[:, ::-1] if swap else new)
    own.meta.update(node.inputs[1].meta)
    node.replace_input_with(1, own)


def nodes(model: onnx.ModelProto) -> int:
    """How many operators the graph has."""
    return len(model.graph.node)
