"""A network that a recipe trained as TFLite in float32, operator by operator from its ONNX form.

Of a network of pictures every map (1, C, H, W) becomes (1, H, W, C), whose Transpose falls away; one of text takes one
text at a time, of any length. `quantize` makes the smaller forms of it.

Format: the TFLite schema (tensorflow/compiler/mlir/lite/schema/schema.fbs), through the classes of ai-edge-litert.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edge_agent.workshop.graph.tflite import packed

Array = npt.NDArray[Any]
TYPES = {"float32": 0, "int32": 2}
SAME, VALID, RELU = 0, 1, 1
PLAIN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Add": ("ADD", "Add", {}),
    "Cast": ("CAST", "Cast", {}),
    "CumSum": ("CUMSUM", "Cumsum", {}),
    "Div": ("DIV", "Div", {}),
    "Gelu": ("GELU", "Gelu", {"approximate": True}),
    "Max": ("MAXIMUM", "MaximumMinimum", {}),
    "Mul": ("MUL", "Mul", {}),
    "Relu": ("RELU", "", {}),
    "Sigmoid": ("LOGISTIC", "", {}),
    "Softmax": ("SOFTMAX", "Softmax", {"beta": 1.0}),
    "Sqrt": ("SQRT", "", {}),
    "Sub": ("SUB", "Sub", {}),
}
"""ONNX operator -> its TFLite one, the table of that one's options, and what stands in there"""


class TfliteFile:
    """Tensors and operators while the file is written; a tensor is its index."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self.constants: dict[str, Array] = {one.name: numpy_helper.to_array(one) for one in self.graph.initializer}
        values = [*self.graph.input, *self.graph.value_info, *self.graph.output]
        self.known = {value.name: value.type.tensor_type for value in values}
        self.maps = len(self.shape(self.graph.input[0].name)) == 4
        self.buffers: list[bytes] = [b""]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[str, int] = {}
        self.at: dict[str, int] = {}
        """of ONNX's tensors"""

    def shape(self, name: str) -> list[int]:
        """Of one of ONNX's tensors, as it stands there; -1 for what is open."""
        return [axis.dim_value or -1 for axis in self.known[name].shape.dim]

    def tensor(self, name: str, shape: Sequence[int], dtype: str = "float32", data: Array | None = None) -> int:
        """A new tensor; of `shape` -1 stands as 1 until the input is resized."""
        t = self.schema.TensorT()
        t.name, t.type, t.shape = name, TYPES[dtype], [max(1, n) for n in shape]
        if -1 in shape:
            t.shapeSignature = list(shape)
        if data is not None:
            t.buffer = len(self.buffers)
            self.buffers.append(np.ascontiguousarray(data, dtype).tobytes())
        self.tensors.append(t)
        return len(self.tensors) - 1

    def constant(self, name: str, data: Any, dtype: str = "float32") -> int:
        array = np.asarray(data, dtype)
        return self.tensor(name, array.shape, dtype, array)

    def value(self, name: str) -> int:
        """The tensor of one of ONNX's; a new one where there is none yet."""
        if name not in self.at and name in self.constants:
            array = self.constants[name]
            self.at[name] = self.constant(name, array, "float32" if array.dtype.kind == "f" else "int32")
        elif name not in self.at:
            shape, kind = self.shape(name), self.known[name].elem_type
            wanted = [shape[i] for i in (0, 2, 3, 1)] if self.maps and len(shape) == 4 else shape
            self.at[name] = self.tensor(name, wanted, "float32" if kind == onnx.TensorProto.FLOAT else "int32")
        return self.at[name]

    def op(self, kind: str, inputs: Sequence[int], output: int, table: str = "", **options: Any) -> int:
        """A new operator, `kind` as in BuiltinOperator, `options` are the fields of its table; its output."""
        o = self.schema.OperatorT()
        o.opcodeIndex = self.codes.setdefault(kind, len(self.codes))
        o.inputs, o.outputs = list(inputs), [output]
        if table:
            o.builtinOptionsType = getattr(self.schema.BuiltinOptions, f"{table}Options")
            o.builtinOptions = getattr(self.schema, f"{table}OptionsT")()
        for key, value in options.items():
            setattr(o.builtinOptions, key, value)
        self.operators.append(o)
        return output

    def after(self, name: str, kind: str) -> onnx.NodeProto | None:
        """The node of that kind that alone reads a tensor."""
        readers = [node for node in self.graph.node if name in node.input]
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def packed(self) -> bytes:
        """The file."""
        s = self.schema
        graph, model = s.SubGraphT(), s.ModelT()
        graph.name, graph.tensors, graph.operators = "main", self.tensors, self.operators
        graph.inputs = [self.at[one.name] for one in self.graph.input]
        graph.outputs = [self.at[one.name] for one in self.graph.output]
        model.version, model.description, model.subgraphs = 3, "edge-agent", [graph]
        model.operatorCodes, model.buffers = [], []
        for kind in self.codes:
            code = s.OperatorCodeT()
            number = getattr(s.BuiltinOperator, kind)
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
            model.operatorCodes.append(code)
        for data in self.buffers:
            buffer = s.BufferT()
            buffer.data = np.frombuffer(data, np.uint8) if data else None
            model.buffers.append(buffer)
        return packed(model)


def to_tflite(model: onnx.ModelProto) -> bytes:
    """The network with inputs and outputs of the same names; whole numbers are int32."""
    file = TfliteFile(model)
    for one in file.graph.input:
        file.value(one.name)
    for node in file.graph.node:
        if node.output[0] in file.at:
            continue  # taken in by the one before
        if node.op_type in PLAIN:
            kind, table, options = PLAIN[node.op_type]
            file.op(kind, [file.value(name) for name in node.input], file.value(node.output[0]), table, **options)
        else:
            told = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            WRITERS[node.op_type](file, node, told)
    return file.packed()


# ── operators ────────────────────────────────────────────────────────────────────────────────────────────


def _convolution(file: TfliteFile, node: onnx.NodeProto, told: dict[str, Any]) -> None:
    weight, (stride, _), pad = file.constants[node.input[1]], told["strides"], told["pads"][0]
    relu = file.after(node.output[0], "Relu")
    x, padded = file.value(node.input[0]), stride > 1 and pad > 0
    if padded:
        # SAME pads only the far side at stride 2, the network pads both
        size = np.add(file.tensors[x].shape, [0, 2 * pad, 2 * pad, 0])
        by = file.constant(f"{node.name}.pads", [[0, 0], [pad] * 2, [pad] * 2, [0, 0]], "int32")
        x = file.op("PAD", [x, by], file.tensor(f"{node.name}.padded", size.tolist()), "Pad")
    # OIHW -> OHWI, and 1HWO for a depthwise one
    depthwise = told["group"] > 1
    w = file.constant(node.input[1], weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1))
    how = {"strideW": stride, "strideH": stride, "fusedActivationFunction": RELU if relu else 0}
    how["padding"] = VALID if padded or weight.shape[2] == 1 else SAME
    out = file.at[node.output[0]] = file.value((relu or node).output[0])
    given = [x, w, file.value(node.input[2])]
    if depthwise:
        file.op("DEPTHWISE_CONV_2D", given, out, "DepthwiseConv2D", depthMultiplier=1, **how)
    else:
        file.op("CONV_2D", given, out, "Conv2D", **how)


def _pool(file: TfliteFile, node: onnx.NodeProto, told: dict[str, Any]) -> None:
    (high, wide), (down, across) = told["kernel_shape"], told["strides"]
    how = {"padding": SAME, "strideW": across, "strideH": down, "filterWidth": wide, "filterHeight": high}
    file.op("MAX_POOL_2D", [file.value(node.input[0])], file.value(node.output[0]), "Pool2D", **how)


def _enlarged(file: TfliteFile, node: onnx.NodeProto, told: dict[str, Any]) -> None:
    """By the nearest, asymmetric coordinates rounded down: neither of TFLite's two options."""
    out = file.value(node.output[0])
    side = file.constant(f"{node.name}.size", file.tensors[out].shape[1:3], "int32")
    file.op("RESIZE_NEAREST_NEIGHBOR", [file.value(node.input[0]), side], out, "ResizeNearestNeighbor")


def _joined(file: TfliteFile, node: onnx.NodeProto, told: dict[str, Any]) -> None:
    out = file.value(node.output[0])
    axis = 3 if file.maps and len(file.tensors[out].shape) == 4 else told["axis"]
    file.op("CONCATENATION", [file.value(name) for name in node.input], out, "Concatenation", axis=axis)


def _reshaped(file: TfliteFile, node: onnx.NodeProto, told: dict[str, Any]) -> None:
    _as(file, file.value(node.input[0]), file.shape(node.output[0]), file.value(node.output[0]))


def _as(file: TfliteFile, x: int, shape: Sequence[int], out: int) -> int:
    size = file.constant(f"{file.tensors[out].name}.shape", shape, "int32")
    return file.op("RESHAPE", [x, size], out, "Reshape", newShape=list(shape))


def _turned(file: TfliteFile, node: onnx.NodeProto, told: dict[str, Any]) -> None:
    if file.maps:
        file.at[node.output[0]] = file.value(node.input[0])
        return
    order = file.constant(f"{node.name}.order", told["perm"], "int32")
    file.op("TRANSPOSE", [file.value(node.input[0]), order], file.value(node.output[0]), "Transpose")


def _product(file: TfliteFile, node: onnx.NodeProto, told: dict[str, Any]) -> None:
    x, weight = file.value(node.input[0]), file.constants.get(node.input[1])
    if weight is None:
        file.op("BATCH_MATMUL", [x, file.value(node.input[1])], file.value(node.output[0]), "BatchMatMul")
        return
    add = file.after(node.output[0], "Add")
    given = [x, file.constant(node.input[1], weight.T)]
    given += [file.value(name) for name in (add.input if add else ()) if name in file.constants]
    out = file.at[node.output[0]] = file.value((add or node).output[0])
    wide = len(file.tensors[out].shape) > 2
    file.op("FULLY_CONNECTED", given, out, "FullyConnected", keepNumDims=wide)


def _looked_up(file: TfliteFile, node: onnx.NodeProto, told: dict[str, Any]) -> None:
    """Rows of a table, which an operator gives that takes the numbers of one text."""
    table, out = file.value(node.input[0]), file.value(node.output[0])
    name, deep = node.name, file.tensors[table].shape[1]
    flat = _as(file, file.value(node.input[1]), [-1], file.tensor(f"{name}.flat", [-1], "int32"))
    rows = file.op("EMBEDDING_LOOKUP", [flat, table], file.tensor(f"{name}.rows", [-1, deep]))
    _as(file, rows, [1, -1, deep], out)


def _normed(file: TfliteFile, node: onnx.NodeProto, told: dict[str, Any]) -> None:
    x, scale, bias = (file.value(name) for name in node.input)
    wide = file.shape(node.output[0])
    axis, eps = file.constant(f"{node.name}.axis", [-1], "int32"), file.constant(f"{node.name}.eps", told["epsilon"])

    def step(kind: str, inputs: Sequence[int], table: str, thin: bool = False, **options: Any) -> int:
        out = file.tensor(f"{node.name}.{len(file.operators)}", [*wide[:-1], 1] if thin else wide)
        return file.op(kind, inputs, out, table, **options)

    mean = step("MEAN", [x, axis], "Reducer", True, keepDims=True)
    apart = step("SQUARED_DIFFERENCE", [x, mean], "SquaredDifference")
    spread = step("MEAN", [apart, axis], "Reducer", True, keepDims=True)
    length = step("RSQRT", [step("ADD", [spread, eps], "Add", True)], "", True)
    y = step("MUL", [step("SUB", [x, mean], "Sub"), length], "Mul")
    file.op("ADD", [step("MUL", [y, scale], "Mul"), bias], file.value(node.output[0]), "Add")


def _summed(file: TfliteFile, node: onnx.NodeProto, told: dict[str, Any]) -> None:
    given, kept = [file.value(name) for name in node.input], bool(told["keepdims"])
    file.op("SUM", given, file.value(node.output[0]), "Reducer", keepDims=kept)


WRITERS: dict[str, Callable[[TfliteFile, onnx.NodeProto, dict[str, Any]], None]] = {
    "Conv": _convolution,
    "MaxPool": _pool,
    "Resize": _enlarged,
    "Concat": _joined,
    "Reshape": _reshaped,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
    "Transpose": _turned,
    "MatMul": _product,
    "Gather": _looked_up,
    "LayerNormalization": _normed,
    "ReduceSum": _summed,
}
"""operators that are more than one of PLAIN"""
