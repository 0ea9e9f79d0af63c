"""edge-yolo as a list of layers, and that list as an ONNX file. `tflite.py` writes the same list as TFLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Tensors = Mapping[str, npt.NDArray[np.float32]]
Size = tuple[int, int]
"""width and height of the network's input in pixels, multiples of 32"""
OPSET, IR = 17, 8
NAME = "edge-yolo-2"
"""of the ONNX graph. The first version's had ReLU throughout, so its weights mean another network"""


@dataclass(frozen=True)
class ConvLayer:
    """One operation on maps of (1, channels, height, width)."""

    kind: Literal["conv", "add", "concat", "pool", "double", "cells", "stack"]
    """convolution; sum; join of channels; maximum of 5×5; nearest ×2; map -> (1, cells, channels); join of cells"""
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    """of the output: (height, width, channels) of a map, (cells, channels) for "cells" and "stack\""""
    weight: str = ""
    """name of the convolution's weights (cout, cin / groups, k, k); its bias has ".bias" in place of ".weight\""""
    stride: int = 1
    groups: int = 1
    act: Literal["", "relu", "silu"] = ""


def layers(tensors: Tensors, size: Size) -> list[ConvLayer]:
    """The network of `net.EdgeYolo` without normalisation, for pictures `images` of `size`.

    The last two layers give `boxes` and `logits`, as the head is defined there.
    """
    n = _Layers(tensors, size)
    x = n.partial(n.separable(n.conv("images", "stem", 2, "relu"), "stage4.0", 2), "stage4.1", 1, True)
    at8 = n.partial(n.separable(x, "stage8.0", 2), "stage8.1", 3, True)
    at16 = n.partial(n.separable(at8, "stage16.0", 2), "stage16.1", 3, True)
    at32 = n.partial(n.pyramid(n.separable(at16, "stage32.0", 2), "stage32.1"), "stage32.2", 1)
    top = n.conv(at32, "down32")
    middle = n.conv(n.partial(n.joined((n.doubled(top), at16), "up16.in"), "up16", 1), "down16")
    out8 = n.partial(n.joined((n.doubled(middle), at8), "up8.in"), "up8", 1)
    out16 = n.partial(n.joined((n.separable(out8, "pan16", 2), middle), "out16.in"), "out16", 1)
    out32 = n.partial(n.joined((n.separable(out16, "pan32", 2), top), "out32.in"), "out32", 1)
    boxes, logits = [], []
    for i, level in enumerate((out8, out16, out32)):
        x = n.conv(level, f"heads.{i}.shared", act="relu")
        logits.append(n.branch(x, f"heads.{i}.class_branch", f"heads.{i}.logits"))
        boxes.append(n.branch(x, f"heads.{i}.box_branch", f"heads.{i}.boxes"))
    n.stack(boxes, "boxes", "relu")
    n.stack(logits, "logits")
    return n.made


class _Layers:
    """Layers while they are listed; each method adds some and returns the name of its output."""

    def __init__(self, tensors: Tensors, size: Size) -> None:
        self.tensors = tensors
        self.made: list[ConvLayer] = []
        self.shapes: dict[str, tuple[int, ...]] = {"images": (size[1], size[0], 3)}

    def add(self, kind: Any, inputs: Sequence[str], output: str, shape: tuple[int, ...], **more: Any) -> str:
        self.made.append(ConvLayer(kind, tuple(inputs), output, shape, **more))
        self.shapes[output] = shape
        return output

    def conv(self, x: str, name: str, stride: int = 1, act: str = "silu") -> str:
        weight = f"{name}.conv.weight" if act else f"{name}.weight"
        cout, per_group = self.tensors[weight].shape[:2]
        high, wide, cin = self.shapes[x]
        shape, groups = (high // stride, wide // stride, cout), cin // per_group
        return self.add("conv", (x,), name, shape, weight=weight, stride=stride, groups=groups, act=act)

    def separable(self, x: str, name: str, stride: int = 1, act: str = "silu") -> str:
        return self.conv(self.conv(x, f"{name}.depth", stride, "relu"), f"{name}.point", act=act)

    def joined(self, parts: Sequence[str], name: str) -> str:
        high, wide, _ = self.shapes[parts[0]]
        return self.add("concat", parts, name, (high, wide, sum(self.shapes[part][2] for part in parts)))

    def partial(self, x: str, name: str, count: int, shortcut: bool = False) -> str:
        through, by = self.conv(x, f"{name}.through"), self.conv(x, f"{name}.by")
        for i in range(count):
            block = f"{name}.blocks.{i}"
            y = self.separable(self.conv(through, f"{block}.first", act="relu"), f"{block}.second")
            through = self.add("add", (through, y), block, self.shapes[y]) if shortcut else y
        return self.conv(self.joined((through, by), f"{name}.joined"), f"{name}.join")

    def pyramid(self, x: str, name: str) -> str:
        parts = [self.conv(x, f"{name}.shrink")]
        for i in range(3):
            parts.append(self.add("pool", parts[-1:], f"{name}.pool.{i}", self.shapes[parts[-1]]))
        return self.conv(self.joined(parts, f"{name}.joined"), f"{name}.join")

    def doubled(self, x: str) -> str:
        high, wide, channels = self.shapes[x]
        return self.add("double", (x,), f"{x}.doubled", (high * 2, wide * 2, channels))

    def branch(self, x: str, name: str, output: str) -> str:
        """A head's prediction of one stride, as rows of cells."""
        for place in range(2):
            x = self.separable(x, f"{name}.{place}", act="relu")
        y = self.conv(x, output, act="")
        high, wide, channels = self.shapes[y]
        return self.add("cells", (y,), f"{y}.cells", (high * wide, channels))

    def stack(self, parts: Sequence[str], output: str, act: str = "") -> str:
        rows, channels = sum(self.shapes[part][0] for part in parts), self.shapes[parts[0]][1]
        return self.add("stack", parts, output, (rows, channels), act=act)


# ── as ONNX ──────────────────────────────────────────────────────────────────────────────────────────────

POOL = {"kernel_shape": [5, 5], "strides": [1, 1], "pads": [2, 2, 2, 2]}
DOUBLE = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
OPERATORS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "add": ("Add", (), {}),
    "concat": ("Concat", (), {"axis": 1}),
    "pool": ("MaxPool", (), POOL),
    "double": ("Resize", ("", "double"), DOUBLE),
    "stack": ("Concat", (), {"axis": 1}),
}
"""kind of layer -> ONNX operator, inputs behind the layer's own, attributes; of the kinds that are one operator"""


def to_onnx(tensors: Tensors, size: Size) -> onnx.ModelProto:
    """`images` (1, 3, height, width) float32 BGR 0..255 -> `boxes` (1, N, 4), `logits` (1, N, C).

    Initialisers bear the names of `tensors`, so that a fine-tuning can start from the file.
    """
    constants: dict[str, Array] = {**tensors, "double": np.array([1, 1, 2, 2], np.float32)}
    made = layers(tensors, size)
    nodes = [node for layer in made for node in (*_operation(layer, constants), *_activation(layer))]
    rows, classes = made[-1].shape
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size[1], size[0]])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, rows, 4]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, rows, classes]),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, producer_name="edge-agent", ir_version=IR, opset_imports=[opset])
    onnx.checker.check_model(model, full_check=True)
    return model


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], name=output, **attributes)


def _operation(layer: ConvLayer, constants: dict[str, Array]) -> list[onnx.NodeProto]:
    """The nodes of a layer without its activation; constants that they need are added to `constants`."""
    output = _before_activation(layer)
    if layer.kind == "conv":
        kernel = constants[layer.weight].shape[2]
        inputs = [*layer.inputs, layer.weight, layer.weight.replace(".weight", ".bias")]
        window = {"kernel_shape": [kernel] * 2, "strides": [layer.stride] * 2, "pads": [(kernel - 1) // 2] * 4}
        return [_node("Conv", inputs, output, group=layer.groups, **window)]
    if layer.kind == "cells":
        constants[f"{output}.shape"] = np.array([1, *layer.shape[::-1]], np.int64)
        flat = _node("Reshape", [*layer.inputs, f"{output}.shape"], f"{output}.flat")
        return [flat, _node("Transpose", [f"{output}.flat"], output, perm=[0, 2, 1])]
    kind, more, attributes = OPERATORS[layer.kind]
    return [_node(kind, (*layer.inputs, *more), output, **attributes)]


def _activation(layer: ConvLayer) -> list[onnx.NodeProto]:
    raw, gate = _before_activation(layer), f"{layer.output}.gate"
    if layer.act == "relu":
        return [_node("Relu", [raw], layer.output)]
    if layer.act == "silu":
        return [_node("Sigmoid", [raw], gate), _node("Mul", [raw, gate], layer.output)]
    return []


def _before_activation(layer: ConvLayer) -> str:
    return f"{layer.output}.raw" if layer.act else layer.output


def tensors_of(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """The network's tensors out of `to_onnx`'s file."""
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {name: value for name, value in found.items() if name.endswith((".weight", ".bias"))}
