"""An ONNX network made ready for quantization, and cut into the layers that are quantized or left alone."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import version_converter

from edge_agent.errors import RefusedError
from edge_agent.workshop.graph import layers, net, sessions
from edge_agent.workshop.graph.layers import Operator
from edge_agent.workshop.graph.net import is_layer

OPSET, PER_CHANNEL = 17, 13
"""what older networks are converted to, and the first that has one scale a channel"""
QUANTIZERS_OWN = re.compile(r"_(scale|zero_point|quantized|QuantizeLinear\w*|DequantizeLinear\w*)$")
"""ends of the names that onnxruntime's quantizer gives, whether or not they are taken"""


def prepare(path: Path) -> ir.Model:
    """The network with its constants folded, batch normalisation in the weights, each constant with one reader.

    A network below opset PER_CHANNEL is converted to OPSET; of one whose weights alone are int8 they become float.
    Raises RefusedError, one line, for what is no ONNX file, is quantized already, has no layer with weights, or cannot
    be converted.
    """
    model = _widened(net.read(path))
    whole = net.proto(model)
    found = net.has(net.of(whole), *net.QUANTIZED)
    if found:
        raise RefusedError(
            f"{path}: it is quantized already (it has {', '.join(found)}); give the float model that it was made from"
        )
    if net.opset(model) < PER_CHANNEL:
        whole = _converted(whole, path, net.opset(model))
    made = net.one_each(net.of(net.proto(_renamed(net.plain(net.of(_folded(whole, path)))))))
    if not net.layers(made, inside=True):
        raise RefusedError(f"{path}: no Conv, MatMul or Gemm in it has constant weights; there is nothing to quantize")
    return made


def _widened(model: ir.Model) -> ir.Model:
    """Constants in the place of every DequantizeLinear that reads nothing else."""
    for node in [node for node in model.graph if node.op_type == "DequantizeLinear"]:
        if not any(net.is_computed(value) for value in node.inputs):
            (wide,) = sessions.alone(node, model.opset_imports, [None] * len(node.inputs)).run(None, {})
            net.exchange(node.outputs[0], net.hold(model.graph, f"{node.name}.wide", wide.astype(np.float32)))
    return model


def _renamed(model: ir.Model) -> ir.Model:
    """Tensors and nodes that are called as the quantizer would call its own get another name."""
    made = [value for node in model.graph.all_nodes() for value in node.outputs if not value.is_graph_output()]
    for one in [*model.graph.all_nodes(), *model.graph.initializers.values(), *made]:
        if QUANTIZERS_OWN.search(one.name or ""):
            one.name = f"{one.name}_given"
    return model


def _converted(model: onnx.ModelProto, path: Path, opset: int) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError) as error:
        raise RefusedError(
            f"{path}: it is of opset {opset}, and int8 needs {PER_CHANNEL}, to which it cannot be converted "
            f"({net.line(error)}); export it anew with opset {OPSET}"
        ) from None


def _folded(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """What ONNX Runtime makes of it with its basic optimizations, which give plain ONNX again."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "folded.onnx")
        try:
            sessions.session(model.SerializeToString(), "ORT_ENABLE_BASIC", file)
        except ValueError as error:
            raise RefusedError(f"{path}: {net.line(error)}") from None
        folded = onnx.load(str(file))
    # it declares every domain that it knows
    used = {node.domain for node in folded.graph.node} | {""}
    kept = [one for one in folded.opset_import if one.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    return folded


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────


def operators(model: ir.Model) -> list[Operator]:
    """Its nodes."""
    found = []
    for node in model.graph:
        given = [str(value.name) for value in node.inputs if net.is_computed(value)]
        made = tuple(str(value.name) for value in node.outputs)
        found.append(Operator(str(node.name), node.op_type, tuple(given), made, int(is_layer(node))))
    return found


def tail(model: ir.Model) -> set[str]:
    """Names of the nodes behind the last layer with weights on every way."""
    return layers.tail(operators(model))


def head(model: ir.Model) -> list[str]:
    """Names of the nodes of the layers that no other one reads: those that give boxes and scores, and all behind."""
    last = tail(model)
    ends = [node for node in net.layers(model) if all(one.name in last for one in net.behind(node.outputs[0]))]
    known = layers.groups(operators(model))
    return [name for end in ends for name in known[str(end.name)]]


def delicate(model: ir.Model) -> set[str]:
    """Names of nodes that eight bits do not serve: Softmax, and Pad with a value that is not finite."""
    found = set()
    for node in model.graph:
        value = net.constant(node, 2) if node.op_type == "Pad" else None
        infinite = value is not None and value.dtype.kind == "f" and not np.isfinite(value).all()
        if infinite or node.op_type in ("Softmax", "LogSoftmax", "LayerNormalization"):
            found.add(str(node.name))
    return found
