"""A plan of quantization, and the ONNX network that it gives."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.errors import RefusedError
from edge_agent.workshop.graph import names
from edge_agent.workshop.quantize import weights
from edge_agent.workshop.quantize.graph import WEIGHTED, attribute, constants, delicate, layers, opset, tail
from edge_agent.workshop.quantize.ranges import Interval

MOVES = ("MaxPool", "Resize", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Concat")
"""operators that only move values"""
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")
"""operators that a quantized layer takes in"""
SUMS = ("Add", "Mul", "Sigmoid", "HardSigmoid", "HardSwish", "AveragePool", "GlobalAveragePool", "Pad")
OPS = {"layers": (*WEIGHTED, *ACTIVATIONS), "all": (*WEIGHTED, *ACTIVATIONS, *MOVES, *SUMS)}
"""what is quantized: the layers with weights alone, or all that is between them too"""


class QuantizePlan(msgspec.Struct, frozen=True):
    """How a network is quantized."""

    form: Literal["static", "dynamic", "weights", "float16"] = "static"
    bits: Literal["8", "16", "4w"] = "8"
    per: Literal["tensor", "channel"] = "channel"
    """scales of the weights"""
    method: str = "full"
    """of the activations' ranges, static only"""
    ops: Literal["layers", "all"] = "layers"
    keep: tuple[str, ...] = ()
    """names of the nodes that stay float, beside the tail and the delicate ones"""
    balanced: bool = False
    """cross-layer equalisation"""
    corrected: bool = False
    """bias correction"""

    def text(self) -> str:
        """One line for people."""
        if self.form == "float16":
            return "float16 weights"
        if self.bits == "4w":
            return f"4-bit weights in blocks of {weights.BLOCK}"
        words = [f"{self.form} int{self.bits}" if self.form != "weights" else "int8 weights", f"per {self.per}"]
        if self.form == "static":
            words = [words[0], self.method, words[1], "all operators" if self.ops == "all" else "layers with weights"]
        words += ["equalised"] * self.balanced + ["bias corrected"] * self.corrected
        return ", ".join(words)


def build(model: onnx.ModelProto, plan: QuantizePlan, ranges: Mapping[str, Interval]) -> onnx.ModelProto:
    """The network by the plan, checked by ONNX. `ranges`: of the activations, for a static plan.

    Raises RefusedError, one line, where the plan makes no sense for this network or gives no sound one.
    """
    _check_plan(model, plan)
    if plan.form == "float16":
        made = weights.half(model)
    elif plan.bits == "4w":
        made = weights.four_bits(model, plan.keep)
    elif plan.form == "weights":
        made = weights.small(model, plan.per == "channel", plan.keep)
    elif plan.form == "dynamic":
        made = _dynamic(model, plan)
    else:
        made = _static(model, plan, ranges)
    made.producer_name = "edge-agent"
    check(made)
    return made


def _check_plan(model: onnx.ModelProto, plan: QuantizePlan) -> None:
    """RefusedError where the plan makes no sense for this network."""
    known = {node.name for node in model.graph.node}
    odd = [name for name in plan.keep if name not in known]
    if odd:
        raise RefusedError(
            f"--keep {odd[0]}: no node of that name; they are called like {', '.join(sorted(known)[:3])}"
        )
    branches = {node.op_type for node in model.graph.node} & {"If", "Loop", "Scan"}
    if branches and plan.form in ("static", "dynamic") and plan.bits != "4w":
        raise RefusedError("it has branches or loops, whose values get no scales; use --form weights, or float16")


def chosen(model: onnx.ModelProto, plan: QuantizePlan, ranges: Mapping[str, Interval]) -> list[str]:
    """Names of the nodes that a static plan quantizes."""
    never = set(plan.keep) | tail(model) | delicate(model)
    weighted = {layer.name for layer in layers(model)}
    floats = _computed_floats(model)
    found = []
    for node in model.graph.node:
        if node.op_type not in OPS[plan.ops] or node.name in never or not _pays(node, plan, weighted):
            continue
        if all(name in ranges for name in [*node.input, *node.output] if name in floats):
            found.append(node.name)
    return found


def _computed_floats(model: onnx.ModelProto) -> set[str]:
    """The tensors of float32 that are no constants."""
    constant = {one.name for one in model.graph.initializer}
    made = {output for node in model.graph.node for output in node.output} | {one.name for one in model.graph.input}
    typed = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    floats = {one.name for one in typed if one.type.tensor_type.elem_type == TensorProto.FLOAT}
    return (made & floats) - constant


def _pays(node: onnx.NodeProto, plan: QuantizePlan, weighted: set[str]) -> bool:
    """Whether a node gains by int8. `weighted`: names of the nodes that have weights."""
    # one scale a channel does not fit the groups of a transposed convolution
    if node.op_type == "ConvTranspose" and plan.per == "channel" and attribute(node, "group", 1) > 1:
        return False
    # what two activations multiply (attention) gains little
    return node.op_type not in WEIGHTED or node.name in weighted


def _static(model: onnx.ModelProto, plan: QuantizePlan, ranges: Mapping[str, Interval]) -> onnx.ModelProto:
    """QDQ pairs: U8 (or U16) activations, S8 weights, which x86 and Arm both run fast."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    nodes = chosen(model, plan, ranges)
    if not any(node.op_type in WEIGHTED for node in model.graph.node if node.name in set(nodes)):
        raise RefusedError("no layer with weights is left to quantize: all are kept in float, or their values overflow")
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    source = onnx.ModelProto()
    source.CopyFrom(model)
    options: dict[str, Any] = {"OpTypesToExcludeOutputQuantization": ["MatMul"]}
    with _quiet():
        made = QDQQuantizer(
            source,
            plan.per == "channel",
            False,
            QuantType.QInt8,
            QuantType.QUInt16 if plan.bits == "16" else QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),
            nodes,
            [],
            list(OPS[plan.ops]),
            options,
        )
        made.quantize_model()
        made.model.topological_sort()
    return weights.tables(made.model.model, plan.keep)


def _dynamic(model: onnx.ModelProto, plan: QuantizePlan) -> onnx.ModelProto:
    """Weights S8; the activations of each run by their own extremes. For MatMul and Gemm."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    found = [layer for layer in layers(model) if layer.op in ("MatMul", "Gemm") and layer.name not in plan.keep]
    if not found:
        raise RefusedError(
            "dynamic quantization is for MatMul and Gemm, of which it has none to change; use --form static"
        )
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder, "dynamic.onnx")
        quantize_dynamic(
            _products(model, {layer.name for layer in found if layer.op == "Gemm"}),
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=plan.per == "channel",
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[layer.name for layer in found],
            extra_options={"MatMulConstBOnly": True},
        )
        return weights.tables(onnx.load(str(target)), plan.keep)


def _products(model: onnx.ModelProto, gemms: set[str]) -> onnx.ModelProto:
    """Each of these Gemm as MatMul and Add, which onnxruntime quantizes by each run's extremes; a Gemm it leaves alone.

    A' B' + beta * C (ONNX, Gemm; `prepare` took the factors into constants): a transposition goes into
    B, which is one. The MatMul keeps the node's name.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    values, name_of = constants(model), names.fresh(names.of(model.graph))
    new: list[onnx.NodeProto] = []

    def constant(wanted: str, value: npt.NDArray[Any]) -> str:
        name = name_of(wanted)
        made.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    for node in made.graph.node:
        if node.name not in gemms:
            new.append(node)
            continue
        (left, right, *bias), (out,) = node.input, node.output
        beta = attribute(node, "beta", 1.0)
        if attribute(node, "transB"):
            right = constant(f"{right}.turned", values[right].T)
        if attribute(node, "transA"):
            turned = name_of(f"{left}.turned")
            new.append(helper.make_node("Transpose", [left], [turned], name=name_of(f"{node.name}.turn"), perm=[1, 0]))
            left = turned
        added = bool(bias and bias[0]) and beta != 0
        product = name_of(f"{out}.product") if added else out
        new.append(helper.make_node("MatMul", [left, right], [product], name=node.name))
        if added:
            term = bias[0]
            if beta != 1:
                factor, scaled = constant(f"{node.name}.beta", np.float32(beta)), name_of(f"{term}.scaled")
                new.append(helper.make_node("Mul", [term, factor], [scaled], name=name_of(f"{node.name}.scale")))
                term = scaled
            new.append(helper.make_node("Add", [product, term], [out], name=name_of(f"{node.name}.add")))
    del made.graph.node[:]
    made.graph.node.extend(new)
    weights.drop_unused(made)
    return made


class _quiet:
    """onnxruntime logs its advice through the root logger."""

    def __enter__(self) -> None:
        self.level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().setLevel(self.level)


# ── is it sound? ─────────────────────────────────────────────────────────────────────────────────────────


def check(model: onnx.ModelProto) -> None:
    """RefusedError for a network that ONNX does not allow, or whose scales are none: zero, not finite."""
    values, version = constants(model), opset(model)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in values:
            _check_scale(node, np.asarray(values[node.input[1]], np.float64), version)
    if name := names.twice(model.graph):
        raise RefusedError(f'the quantized network is not valid: two of its tensors are called "{name}"')
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise RefusedError(f"the quantized network is not valid: {str(error).splitlines()[0]}") from None


def _check_scale(node: onnx.NodeProto, scale: npt.NDArray[np.float64], version: int) -> None:
    if not np.isfinite(scale).all() or (scale <= 0).any():
        raise RefusedError(
            f'the scale of "{node.input[0]}" is {scale.ravel()[0]:g}: keep its node in float with --keep'
        )
    if scale.size > 1 and node.domain == "" and version < 13:
        raise RefusedError(f"one scale a channel needs opset 13, this is {version}; use --per tensor")
