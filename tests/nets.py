"""Networks of a few nodes, written by the test that needs them. For tests only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from edge_agent.types import Tensors

Ends = Mapping[str, tuple[int, Sequence[int | str]]]
"""inputs or outputs: name -> (element type, shape)"""


def write_onnx(
    path: Path,
    nodes: list[Any],
    inputs: Ends,
    outputs: Ends,
    constants: dict[str, npt.NDArray[Any]] | None = None,
) -> Path:
    """An ONNX file (opset 17) of `nodes`."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def doubling_onnx(path: Path, element: int = TensorProto.FLOAT, shape: tuple[int | str, ...] = (2, 3)) -> Path:
    """x -> y = x + x."""
    spec = (element, list(shape))
    return write_onnx(path, [helper.make_node("Add", ["x", "x"], ["y"])], {"x": spec}, {"y": spec})


def blob_finder_onnx(path: Path, size: int = 64) -> Path:
    """A real detector in YOLOX's raw head: a box for each 8x8 cell of the canvas that is all of one channel's colour.

    Input BGR 0..255 [1, 3, size, size]; classes blue, green, red; score = mean of the channel in the cell / 255.
    Cells of strides 16 and 32 have objectness 0.
    """
    n8, n = (size // 8) ** 2, sum((size // s) ** 2 for s in (8, 16, 32))
    boxes = np.tile(np.array([0.5, 0.5, 0.0, 0.0], np.float32), (1, n, 1))
    objectness = (np.arange(n) < n8).astype(np.float32).reshape(1, n, 1)
    nodes = [helper.make_node("Mul", ["images", "k"], ["scaled"])]
    for s in (8, 16, 32):
        nodes += [
            helper.make_node("AveragePool", ["scaled"], [f"p{s}"], kernel_shape=[s, s], strides=[s, s]),
            helper.make_node("Reshape", [f"p{s}", "flat"], [f"f{s}"]),
            helper.make_node("Transpose", [f"f{s}"], [f"t{s}"], perm=[0, 2, 1]),
        ]
    nodes.append(helper.make_node("Concat", ["t8", "t16", "t32"], ["classes"], axis=1))
    nodes.append(helper.make_node("Concat", ["boxes", "objectness", "classes"], ["output"], axis=2))
    return write_onnx(
        path,
        nodes,
        {"images": (TensorProto.FLOAT, [1, 3, size, size])},
        {"output": (TensorProto.FLOAT, [1, n, 8])},
        {
            "k": np.array(1 / 255, np.float32),
            "flat": np.array([1, 3, -1], np.int64),
            "boxes": boxes,
            "objectness": objectness,
        },
    )


def write_tflite(
    path: Path,
    operator: str,
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
) -> Path:
    """A TFLite file with one `operator` for each pair of input and output.

    A tensor is {"name", "shape", "type"} with "signature" where an axis is dynamic (-1), and "scale", "zero_point"
    (lists) where it is quantized.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as fb

    def tensor(spec: dict[str, Any]) -> Any:
        made = fb.TensorT()
        made.name, made.shape, made.type = spec["name"], spec["shape"], getattr(fb.TensorType, spec["type"])
        made.shapeSignature = spec.get("signature")
        made.buffer = 0
        if "scale" in spec:
            made.quantization = fb.QuantizationParametersT()
            made.quantization.scale = spec["scale"]
            made.quantization.zeroPoint = spec["zero_point"]
        return made

    code = fb.OperatorCodeT()
    code.builtinCode = getattr(fb.BuiltinOperator, operator)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = 1
    graph = fb.SubGraphT()
    graph.tensors = [tensor(spec) for spec in inputs + outputs]
    graph.inputs = list(range(len(inputs)))
    graph.outputs = list(range(len(inputs), len(inputs) + len(outputs)))
    graph.operators = []
    for source, sink in zip(graph.inputs, graph.outputs, strict=True):
        step = fb.OperatorT()
        step.opcodeIndex, step.inputs, step.outputs = 0, [source], [sink]
        graph.operators.append(step)
    model = fb.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [fb.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def absolute_tflite(path: Path, shape: list[int], signature: list[int] | None = None) -> Path:
    """x -> y = |x|, float32."""
    both = {"shape": shape, "type": "FLOAT32", "signature": signature}
    return write_tflite(path, "ABS", [{"name": "x", **both}], [{"name": "y", **both}])


def one(outputs: Tensors) -> npt.NDArray[Any]:
    """The only output."""
    (array,) = outputs.values()
    return array
