"""An ONNX network made ready for quantization: float, folded, with names and biases of its own for every node."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator

from edge_agent.errors import RefusedError
from edge_agent.workshop.graph import names
from edge_agent.workshop.quantize.graph import attribute, constants, layers, opset

QUANTIZED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "MatMulNBits",
    "QLinearConv",
    "QLinearMatMul",
    "DynamicQuantizeMatMul",
)
"""operators that only a quantized network has"""
OPSET, PER_CHANNEL = 17, 13
"""what older networks are converted to, and the first that has one scale a channel"""


def prepare(path: Path, least: int = OPSET) -> onnx.ModelProto:
    """The network with its constants folded, batch normalisation in the weights, shapes and a name for every node.

    A network below opset PER_CHANNEL is converted to `least`; of one whose weights alone are int8 they become float.
    Raises RefusedError, one line, for what is no ONNX file,
    is quantized already, has no layer with weights, or cannot be converted.
    """
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        raise RefusedError(f"{path}: not a readable ONNX model ({_first(error)})") from None
    model = _unpacked(model)
    found = sorted({node.op_type for node in model.graph.node if node.op_type in QUANTIZED})
    if found:
        raise RefusedError(
            f"{path}: it is quantized already (it has {', '.join(found)}); give the float model that it was made from"
        )
    if opset(model) < PER_CHANNEL:
        try:
            model = version_converter.convert_version(model, least)
        except (RuntimeError, ValueError) as error:
            raise RefusedError(
                f"{path}: it is of opset {opset(model)}, and int8 needs {PER_CHANNEL}, to which it cannot be converted "
                f"({_first(error)}); export it anew with opset {OPSET}"
            ) from None
    model = _own_biases(plain_products(_named(_unlike_quantized(_folded(constants_alone(model), path)))))
    if not layers(model):
        raise RefusedError(f"{path}: no Conv, MatMul or Gemm in it has constant weights; there is nothing to quantize")
    return model


def _unpacked(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants in the place of every DequantizeLinear that reads nothing else."""
    given = {one.name: one for one in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or not set(node.input) <= {*given, ""}:
            nodes.append(node)
            continue
        values = {name: numpy_helper.to_array(given[name]) for name in node.input if name}
        (value,) = ReferenceEvaluator(node).run(None, values)
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return _without_unread(model)


def _without_unread(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the constants that nothing reads."""
    read = names.read(model.graph)
    kept = [one for one in model.graph.initializer if one.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _folded(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """What ONNX Runtime makes of it with its basic optimizations, which give plain ONNX again."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder, "folded.onnx"))
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            folded = onnx.load(options.optimized_model_filepath)
        except Exception as error:  # those of the runtime have no class in common
            raise RefusedError(f"{path}: ONNX Runtime cannot prepare it ({_first(error)})") from None
    # it declares every domain that it knows
    used = {node.domain for node in folded.graph.node} | {""}
    kept = [one for one in folded.opset_import if one.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    return onnx.shape_inference.infer_shapes(folded)


QUANTIZERS_OWN = re.compile(r"_(scale|zero_point|quantized|QuantizeLinear\w*|DequantizeLinear\w*)$")
"""ends of the names that onnxruntime's quantizer gives, whether or not they are taken"""


def _unlike_quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Tensors and nodes that are called as the quantizer would call its own get another name."""
    name_of = names.fresh(names.of(model.graph))
    ends = {one.name for one in (*model.graph.input, *model.graph.output)}
    odd = sorted(name for name in names.of(model.graph) - ends if QUANTIZERS_OWN.search(name))
    new = {name: name_of(f"{name}_given") for name in odd}
    for one in (*model.graph.initializer, *model.graph.value_info, *model.graph.node):
        one.name = new.get(one.name, one.name)
    for node in model.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    return model


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every node has a name of its own."""
    seen: set[str] = set()
    name_of = names.fresh(node.name for node in model.graph.node)
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = name_of(f"{node.op_type}_{number}")
        seen.add(node.name)
    return model


def constants_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants that are listed among the inputs, as files from before 2019 have them, are constants alone."""
    held = {one.name for one in model.graph.initializer}
    kept = [one for one in model.graph.input if one.name not in held]
    if kept:
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, 4)
    return model


def plain_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Of each Gemm (alpha * A' B' + beta * C) the factors in its constants, and a row of biases as a vector."""
    values, name_of = constants(model), names.fresh(names.of(model.graph))
    for node in model.graph.node:
        if node.op_type == "Gemm" and node.input[1] in values:
            for place, factor in ((1, "alpha"), (2, "beta")):
                value = values.get(node.input[place]) if len(node.input) > place else None
                if value is not None:
                    by = _taken(node, factor)
                    new = value * np.asarray(by, value.dtype)
                    new = _as_vector(new) if place == 2 else new
                    if by != 1 or new.shape != value.shape:
                        own = name_of(f"{node.input[place]}.plain")
                        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(new), own))
                        node.input[place] = own
    return _without_unread(model)


def _as_vector(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One number or one row of them as a vector; anything else as it is."""
    return value.reshape(-1) if value.shape[:-1] in ((), (1,)) else value


def _taken(node: onnx.NodeProto, factor: str) -> float:
    """Take an attribute off; what it was, 1 where there is none."""
    value: float = attribute(node, factor, 1.0)
    kept = [a for a in node.attribute if a.name != factor]
    del node.attribute[:]
    node.attribute.extend(kept)
    return value


def _own_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every convolution has a bias of its own: ONNX Runtime merges equal ones, but they may be changed one by one."""
    values, seen = {one.name: one for one in model.graph.initializer}, set()
    name_of = names.fresh(names.of(model.graph))
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[2] not in values:
            continue
        if node.input[2] in seen:
            own = onnx.TensorProto()
            own.CopyFrom(values[node.input[2]])
            own.name = node.input[2] = name_of(f"{node.name}_bias")
            model.graph.initializer.append(own)
        seen.add(node.input[2])
    return model


def _first(error: Exception) -> str:
    """The first line of a message, shortened."""
    text = " ".join(str(error).strip().partition("\n")[0].split())
    return text if len(text) <= 160 else text[:157] + "..."
