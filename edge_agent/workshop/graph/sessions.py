"""Sessions of ONNX Runtime for the workshop: quiet, on one thread, of a whole network or of one node of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper, numpy_helper

from edge_agent.workshop.graph.net import Array, line, numbers


def alone(node: ir.Node, opsets: Mapping[str, int], fed: Sequence[Array | None]) -> ort.InferenceSession:
    """A session of one node that takes tensors like `fed`, named "0", "1" … by their place; None: its own constant."""
    made = ir.serde.serialize_node(node)
    constants, inputs = [], []
    for place, (value, example) in enumerate(zip(node.inputs, fed, strict=True)):
        if value is None:
            continue
        made.input[place] = str(place)
        if example is None:
            constants.append(numpy_helper.from_array(np.ascontiguousarray(numbers(value)), str(place)))
        else:
            kind = helper.np_dtype_to_tensor_dtype(example.dtype)
            inputs.append(helper.make_tensor_value_info(str(place), kind, [None] * example.ndim))
    outputs = [helper.make_empty_tensor_value_info(name) for name in made.output if name]
    shell = helper.make_graph([made], "node", inputs, outputs, constants)
    whole = helper.make_model(shell, opset_imports=[helper.make_opsetid(*one) for one in opsets.items()], ir_version=10)
    return session(whole.SerializeToString())


def session(data: bytes, level: str = "ORT_ENABLE_ALL", file: Path | None = None) -> ort.InferenceSession:
    """A quiet session on one thread. `file`: what optimising gave is written there. ValueError where it cannot be."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    if file is not None:
        options.optimized_model_filepath = str(file)
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # those of the runtime have no class in common
        raise ValueError(f"ONNX Runtime does not take it: {line(error)}") from None
