"""A trained network as ONNX by PyTorch's own exporter, and the smaller forms of it as the quantize room makes them."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_agent.workshop.graph import net as graphs
from edge_agent.workshop.graph import tflite as tflite_graph
from edge_agent.workshop.quantize import tflite as quantize_tflite
from edge_agent.workshop.quantize.build import QuantizePlan, build
from edge_agent.workshop.quantize.ranges import ranges, watch

if TYPE_CHECKING:
    import torch

OPSET = 17
Feeds = Sequence[Mapping[str, npt.NDArray[Any]]]
"""tensors by the names of a network's inputs, a sample each"""


def exported(
    net: torch.nn.Module,
    shown: tuple[torch.Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]] = {},
    name: str = "edge-agent",
    opset: int = OPSET,
    fold: bool = True,
) -> onnx.ModelProto:
    """`net` as it answers, its normalisation folded in; constants are called as its parameters are.

    `shown`: a sample of the inputs; `inputs` and `outputs`: what they are called, of more outputs the first ones;
    `free`: of these the axes that are of any size, and their names; `name`: of the graph;
    `fold`: leave constants that the exporter has computed, which have lost their names; else they are turned, and sizes
    told, here.
    """
    import torch

    file = io.BytesIO()
    ends: dict[str, Any] = {"input_names": list(inputs), "output_names": list(outputs), "opset_version": opset}
    with warnings.catch_warnings():
        # the exporter that needs nothing but onnx is called the old one; of equal constants it would keep one, where
        # they are no inputs
        warnings.simplefilter("ignore")
        how = {"dynamo": False, "keep_initializers_as_inputs": True, "do_constant_folding": fold}
        torch.onnx.export(net.eval(), shown, file, dynamic_axes=free, **how, **ends)
    made = onnx.load_from_string(file.getvalue())
    del made.graph.output[len(outputs) :]
    whole = graphs.of(made)
    if not fold:
        _settle(whole)
    model = graphs.proto(whole, merge=False)
    model.graph.name, model.producer_name = name, "edge-agent"
    graphs.check(model)
    return model


def _settle(model: ir.Model) -> None:
    """Constants that are turned stand so, and sizes are numbers, 0 for an axis that stays as it comes."""
    for node in list(model.graph):
        array = graphs.constant(node, 0)
        if node.op_type == "Transpose" and array is not None:
            graphs.put(node.inputs[0], array.transpose(graphs.ints(node, "perm")))
            graphs.exchange(node.outputs[0], node.inputs[0])
            model.graph.remove(node, safe=True)
        elif node.op_type == "Reshape" and graphs.is_computed(node.inputs[1]):
            sizes = np.array([size or 0 for size in graphs.shape(node.outputs[0]) or ()], np.int64)
            node.replace_input_with(1, graphs.hold(model.graph, f"{node.name}.sizes", sizes))


def cut(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """The network between some of its tensors, of any size. ValueError where the outputs need other inputs."""
    whole = ir.from_proto(model)
    part = ir.Model(ir.convenience.extract(whole.graph, inputs, outputs), ir_version=whole.ir_version)
    made: onnx.ModelProto = ir.to_proto(part)
    del made.graph.value_info[:], made.graph.output[:]
    made.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    return made


def small_onnx(model: onnx.ModelProto, plan: QuantizePlan, feeds: Feeds = (), merge: bool = True) -> bytes:
    """The network by the plan; `feeds`: what ranges are taken from, if it has any; `merge`: of equal constants one is
    kept, so that not each name is there.
    """
    whole = graphs.one_each(graphs.of(model))
    seen = watch(whole, lambda: feeds, lambda step: None) if feeds else {}
    return build(whole, plan, ranges(seen, plan.method), merge)


def small_tflite(data: bytes, plan: QuantizePlan, feeds: Feeds = ()) -> bytes:
    """As `small_onnx`, of a float TFLite file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float.tflite"
        file.write_bytes(data)
        model = tflite_graph.read(file)
    seen = watch(model, lambda: feeds, lambda step: None) if feeds else {}
    return quantize_tflite.quantized(model, plan, ranges(seen, plan.method))
