"""edge-yolo as a list of layers, and that list as an ONNX file. `export_tflite` writes the same list as TFLite."""

from __future__ import annotations

from collections.abc import Mapping
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
    """The network of `detector_net.EdgeYolo` without normalisation, for pictures `images` of `size`.

    The last two layers give `boxes` and `logits`, as the head is defined there.
    """
    made: list[ConvLayer] = []
    maps: dict[str, tuple[int, ...]] = {"images": (size[1], size[0], 3)}

    def add(kind: Any, inputs: tuple[str, ...], output: str, shape: tuple[int, ...], **more: Any) -> str:
        made.append(ConvLayer(kind, inputs, output, shape, **more))
        maps[output] = shape
        return output

    def conv(x: str, name: str, stride: int = 1, act: str = "silu") -> str:
        weight = f"{name}.conv.weight" if act else f"{name}.weight"
        cout, per_group = tensors[weight].shape[:2]
        high, wide, cin = maps[x]
        shape, groups = (high // stride, wide // stride, cout), cin // per_group
        return add("conv", (x,), name, shape, weight=weight, stride=stride, groups=groups, act=act)

    def separable(x: str, name: str, stride: int = 1, act: str = "silu") -> str:
        return conv(conv(x, f"{name}.depth", stride, "relu"), f"{name}.point", act=act)

    def joined(parts: tuple[str, ...], name: str) -> str:
        return add("concat", parts, name, (*maps[parts[0]][:2], sum(maps[p][2] for p in parts)))

    def partial(x: str, name: str, count: int, shortcut: bool = False) -> str:
        through, by = conv(x, f"{name}.through"), conv(x, f"{name}.by")
        for i in range(count):
            block = f"{name}.blocks.{i}"
            y = separable(conv(through, f"{block}.first", act="relu"), f"{block}.second")
            through = add("add", (through, y), block, maps[y]) if shortcut else y
        return conv(joined((through, by), f"{name}.joined"), f"{name}.join")

    def pyramid(x: str, name: str) -> str:
        parts = [conv(x, f"{name}.shrink")]
        for i in range(3):
            parts.append(add("pool", (parts[-1],), f"{name}.pool.{i}", maps[parts[-1]]))
        return conv(joined(tuple(parts), f"{name}.joined"), f"{name}.join")

    def doubled(x: str) -> str:
        high, wide, channels = maps[x]
        return add("double", (x,), f"{x}.doubled", (high * 2, wide * 2, channels))

    x = partial(separable(conv("images", "stem", 2, "relu"), "stage4.0", 2), "stage4.1", 1, True)
    at8 = partial(separable(x, "stage8.0", 2), "stage8.1", 3, True)
    at16 = partial(separable(at8, "stage16.0", 2), "stage16.1", 3, True)
    at32 = partial(pyramid(separable(at16, "stage32.0", 2), "stage32.1"), "stage32.2", 1)
    top = conv(at32, "down32")
    middle = conv(partial(joined((doubled(top), at16), "up16.in"), "up16", 1), "down16")
    out8 = partial(joined((doubled(middle), at8), "up8.in"), "up8", 1)
    out16 = partial(joined((separable(out8, "pan16", 2), middle), "out16.in"), "out16", 1)
    out32 = partial(joined((separable(out16, "pan32", 2), top), "out32.in"), "out32", 1)
    rows: dict[str, list[str]] = {"boxes": [], "logits": []}
    for i, level in enumerate((out8, out16, out32)):
        x = conv(level, f"heads.{i}.shared", act="relu")
        for output, branch in (("logits", "class_branch"), ("boxes", "box_branch")):
            y = x
            for place in range(2):
                y = separable(y, f"heads.{i}.{branch}.{place}", act="relu")
            y = conv(y, f"heads.{i}.{output}", act="")
            high, wide, channels = maps[y]
            rows[output].append(add("cells", (y,), f"{y}.cells", (high * wide, channels)))
    for output, parts in rows.items():
        shape = sum(maps[part][0] for part in parts), maps[parts[0]][1]
        add("stack", tuple(parts), output, shape, act="relu" if output == "boxes" else "")
    return made


def to_onnx(tensors: Tensors, size: Size) -> onnx.ModelProto:
    """`images` (1, 3, height, width) float32 BGR 0..255 -> `boxes` (1, N, 4), `logits` (1, N, C).

    Initialisers bear the names of `tensors`, so that a fine-tuning can start from the file.
    """
    nodes, constants = [], dict(tensors)
    constants["double"] = np.array([1, 1, 2, 2], np.float32)
    made = layers(tensors, size)
    for layer in made:
        output = layer.output + ".raw" if layer.act else layer.output

        def node(kind: str, inputs: list[str], output: str = output, **attributes: Any) -> None:
            nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

        inputs = list(layer.inputs)
        if layer.kind == "conv":
            kernel = tensors[layer.weight].shape[2]
            inputs += [layer.weight, layer.weight.replace(".weight", ".bias")]
            pads = [(kernel - 1) // 2] * 4
            strides, shape = [layer.stride] * 2, [kernel, kernel]
            node("Conv", inputs, group=layer.groups, kernel_shape=shape, strides=strides, pads=pads)
        elif layer.kind == "add":
            node("Add", inputs)
        elif layer.kind == "concat":
            node("Concat", inputs, axis=1)
        elif layer.kind == "pool":
            node("MaxPool", inputs, kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2])
        elif layer.kind == "double":
            how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            node("Resize", [*inputs, "", "double"], mode="nearest", **how)
        elif layer.kind == "cells":
            constants[f"{output}.shape"] = np.array([1, *layer.shape[::-1]], np.int64)
            node("Reshape", [*inputs, f"{output}.shape"], f"{output}.flat")
            node("Transpose", [f"{output}.flat"], perm=[0, 2, 1])
        else:
            node("Concat", inputs, axis=1)
        if layer.act == "relu":
            node("Relu", [output], layer.output)
        elif layer.act == "silu":
            node("Sigmoid", [output], f"{layer.output}.gate")
            node("Mul", [output, f"{layer.output}.gate"], layer.output)
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


def tensors_of(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """The network's tensors out of `to_onnx`'s file."""
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {name: value for name, value in found.items() if name.endswith((".weight", ".bias"))}
