"""A plan of quantization, and the ONNX network that it gives: int8 with activations in int8 too, or weights in fewer
bits alone, widened in each run.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_agent.errors import RefusedError
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import WEIGHTED, Array, is_computed, is_layer, numbers
from edge_agent.workshop.quantize.prepare import delicate, tail
from edge_agent.workshop.quantize.ranges import Interval

MOVES = ("MaxPool", "Resize", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Concat")
"""operators that only move values"""
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")
"""operators that a quantized layer takes in"""
SUMS = ("Add", "Mul", "Sigmoid", "HardSigmoid", "HardSwish", "AveragePool", "GlobalAveragePool", "Pad")
OPS = {"layers": (*WEIGHTED, *ACTIVATIONS), "all": (*WEIGHTED, *ACTIVATIONS, *MOVES, *SUMS)}
"""what is quantized: the layers with weights alone, or all that is between them too"""
OUTPUTS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}
"""the axis of a weight that counts the outputs"""


class QuantizePlan(msgspec.Struct, frozen=True):
    """How a network is quantized."""

    form: Literal["static", "dynamic", "weights", "float16"] = "static"
    bits: Literal["8", "7w"] = "8"
    """7w: weights of 7 bits, so that no sum of two products of U8 and S8 outgrows 16 bits: 2 · 255 · 64 < 2^15"""
    method: str = "percentile"
    """of the activations' ranges, static only"""
    ops: Literal["layers", "all"] = "layers"
    keep: tuple[str, ...] = ()
    """names of the nodes that stay float, beside the tail and the delicate ones"""

    def text(self) -> str:
        """One line for people."""
        if self.form == "float16":
            return "float16 weights"
        words = [f"{self.form} int8" if self.form != "weights" else "int8 weights"]
        if self.form == "static":
            words += [self.method, "all operators" if self.ops == "all" else "layers with weights"]
        words += ["7-bit weights"] * (self.bits == "7w")
        return ", ".join(words)


def build(model: ir.Model, plan: QuantizePlan, ranges: Mapping[str, Interval], merge: bool = True) -> bytes:
    """The network by the plan, checked by ONNX. `ranges`: of the activations, for a static plan; `merge`: of equal
    constants one is kept.

    Raises RefusedError, one line, where the plan makes no sense for this network or gives no sound one.
    """
    _check_plan(model, plan)
    if plan.form == "float16":
        made = _half(model)
    elif plan.form == "weights":
        made = _weights(model, plan.keep)
    else:
        made = _dynamic(model, plan) if plan.form == "dynamic" else _static(model, plan, ranges)
    made.producer_name = "edge-agent"
    check_scales(made)
    return net.data(made, merge)


def _check_plan(model: ir.Model, plan: QuantizePlan) -> None:
    """RefusedError where the plan makes no sense for this network."""
    known = sorted(str(node.name) for node in model.graph.all_nodes())
    odd = [name for name in plan.keep if name not in known]
    if odd:
        raise RefusedError(f"--keep {odd[0]}: no node of that name; they are called like {', '.join(known[:3])}")
    if net.has(model, *net.BRANCHES) and plan.form in ("static", "dynamic"):
        raise RefusedError("it has branches or loops, whose values get no scales; use --form weights, or float16")


def chosen(model: ir.Model, plan: QuantizePlan, ranges: Mapping[str, Interval]) -> list[str]:
    """Names of the nodes that a static plan quantizes."""
    never = set(plan.keep) | tail(model) | delicate(model)
    nodes = [node for node in model.graph if node.op_type in OPS[plan.ops] and node.name not in never]
    return [str(node.name) for node in nodes if _pays(node) and _has_ranges(node, ranges)]


def _has_ranges(node: ir.Node, ranges: Mapping[str, Interval]) -> bool:
    """Whether all floats around it that are computed have one."""
    around = [value for value in (*node.inputs, *node.outputs) if is_computed(value)]
    return all(value.name in ranges for value in around if value.dtype == ir.DataType.FLOAT)


def _pays(node: ir.Node) -> bool:
    """Whether a node gains by int8."""
    # one scale a channel does not fit the groups of a transposed convolution
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) > 1:
        return False
    # what two activations multiply (attention) gains little
    return node.op_type not in WEIGHTED or is_layer(node)


def _static(model: ir.Model, plan: QuantizePlan, ranges: Mapping[str, Interval]) -> ir.Model:
    """QDQ pairs: U8 activations, S8 weights, which x86 and Arm both run fast."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    nodes = chosen(model, plan, ranges)
    if not any(node.name in set(nodes) for node in net.layers(model)):
        raise RefusedError("no layer with weights is left to quantize: all are kept in float, or their values overflow")
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    options: dict[str, Any] = {"OpTypesToExcludeOutputQuantization": ["MatMul"]}
    with _quiet():
        made = QDQQuantizer(
            onnx.shape_inference.infer_shapes(net.proto(model, merge=False)),
            True,  # one scale a channel
            plan.bits == "7w",
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),
            nodes,
            [],
            list(OPS[plan.ops]),
            options,
        )
        made.quantize_model()
        made.model.topological_sort()
    return _tables(_checked(made.model.model), plan.keep)


def _dynamic(model: ir.Model, plan: QuantizePlan) -> ir.Model:
    """Weights S8; the activations of each run by their own extremes. For MatMul and Gemm."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    found = [node for node in net.layers(model) if node.op_type in ("MatMul", "Gemm") and node.name not in plan.keep]
    if not found:
        raise RefusedError(
            "dynamic quantization is for MatMul and Gemm, of which it has none to change; use --form static"
        )
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder, "dynamic.onnx")
        quantize_dynamic(
            net.proto(_products(model, plan.keep), merge=False),
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=plan.bits == "7w",
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[node.name for node in found],
            extra_options={"MatMulConstBOnly": True},
        )
        return _tables(_checked(onnx.load(str(target))), plan.keep)


def _products(model: ir.Model, keep: tuple[str, ...]) -> ir.Model:
    """Each Gemm as MatMul and Add, which onnxruntime quantizes by each run's extremes; a Gemm it leaves alone.

    A B + beta * C: `net.plain` took what else a Gemm may be into constants. The MatMul keeps the node's name.
    """
    made = model.clone()
    for node in [one for one in net.layers(made) if one.op_type == "Gemm" and one.name not in keep]:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        beta = node.attributes.get_float("beta", 1.0)
        result = net.add(node, "MatMul", node.inputs[:2], str(node.name))
        if bias is not None and beta != 1:
            bias = net.add(node, "Mul", [bias, net.hold(made.graph, f"{node.name}.beta", np.float32(beta))])
        net.exchange(node.outputs[0], net.add(node, "Add", [result, bias]) if bias is not None else result)
    return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime logs its advice through the root logger."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)


def _checked(model: onnx.ModelProto) -> ir.Model:
    """What a library made, where it is sound: read in, two tensors of one name would be one."""
    net.check(model)
    return net.of(model)


def check_scales(model: ir.Model) -> None:
    """RefusedError for scales that are none: zero, or not finite."""
    for node in model.graph:
        scale = net.constant(node, 1) if node.op_type in ("QuantizeLinear", "DequantizeLinear") else None
        if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
            raise RefusedError(
                f'the scale of "{node.inputs[0].name}" is {scale.ravel()[0]:g}: keep its node in float with --keep'
            )


# ── weights alone ────────────────────────────────────────────────────────────────────────────────────────


def _weights(model: ir.Model, keep: tuple[str, ...]) -> ir.Model:
    """S8 weights behind a DequantizeLinear, step = max|w| / 127 of an output channel; all else stays float."""
    made, count = model.clone(), 0
    graph = made.graph
    for node in [node for node in net.layers(made, inside=True) if node.name not in keep]:
        weight, name = numbers(node.inputs[1]), str(node.inputs[1].name)
        axis = OUTPUTS[node.op_type] % weight.ndim
        q, step = _rounded(weight, axis)
        given = [net.hold(graph, f"{name}_q", q), net.hold(graph, f"{name}_scale", step.reshape(-1))]
        node.replace_input_with(1, net.add(graph[0], "DequantizeLinear", given, f"{name}_real", axis=axis))
        count += 1
    if not count:
        raise RefusedError("no layer with weights is left to quantize: all are kept in float")
    return _tables(made, keep)


def _rounded(weight: Array, axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """A weight as S8, and its step, one for each index of `axis`; its axes stay."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    step = (np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12) / 127).astype(np.float32)
    return np.clip(np.rint(weight / step), -127, 127).astype(np.int8), step


def _half(model: ir.Model) -> ir.Model:
    """float16 weights behind a Cast: half the file, and a processor that has no float16 computes as before."""
    made, count = model.clone(), 0
    for value in made.graph.initializers.values():
        weight = numbers(value)
        if weight.dtype == np.float32 and weight.size >= 256 and np.abs(weight).max() <= 65504:
            value.meta[net.HALF] = True
            count += 1
    if not count:
        raise RefusedError("it has no float32 weights to halve")
    return made


def _tables(made: ir.Model, keep: tuple[str, ...]) -> ir.Model:
    """Tables of float vectors that a Gather reads by rows, as S8 with one step a row: max|w| / 127. Changes `made`."""
    for node in [node for node in made.graph if is_lookup(node) and node.name not in keep]:
        table, name = numbers(node.inputs[0]), str(node.name)
        if table.dtype != np.float32:
            continue
        q, step = _rounded(table, 0)
        pair = [net.hold(made.graph, f"{name}_q", q), net.hold(made.graph, f"{name}_step", step)]
        rows, steps = (net.add(node, "Gather", [one, node.inputs[1]], f"{one.name}_rows") for one in pair)
        real = net.add(node, "Cast", [rows], f"{name}_real", to=onnx.TensorProto.FLOAT)
        net.exchange(node.outputs[0], net.add(node, "Mul", [real, steps], name))
    return made


def is_lookup(node: ir.Node) -> bool:
    """Whether it is a Gather of the rows of a constant table."""
    table = net.constant(node, 0) if node.op_type == "Gather" else None
    return table is not None and table.ndim == 2 and not node.attributes.get_int("axis", 0)
