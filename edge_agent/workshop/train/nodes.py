"""An ONNX network while it is put together, node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Shapes = Mapping[str, Sequence[Any]]
"""by name; a word for an axis that is open"""


class Nodes:
    """Nodes in order, and constants by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}

    def op(self, kind: str, inputs: Sequence[str], out: str = "", **attributes: Any) -> str:
        """One node; the name of what it gives."""
        out = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def constant(self, name: str, value: Any, dtype: Any = None) -> str:
        """A constant under this name."""
        self.constants[name] = np.asarray(value, dtype)
        return name

    def tensors(self) -> list[onnx.TensorProto]:
        """The constants as a graph has them."""
        return [numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in self.constants.items()]

    def model(
        self, name: str, inputs: Shapes, outputs: Shapes, opset: int, ir: int, kind: int = TensorProto.FLOAT
    ) -> onnx.ModelProto:
        """The network, checked. `kind`: type of the inputs; outputs are float32."""
        given = [helper.make_tensor_value_info(one, kind, shape) for one, shape in inputs.items()]
        made = [helper.make_tensor_value_info(one, TensorProto.FLOAT, shape) for one, shape in outputs.items()]
        graph, opsets = (
            helper.make_graph(self.nodes, name, given, made, self.tensors()),
            [helper.make_opsetid("", opset)],
        )
        model = helper.make_model(graph, producer_name="edge-agent", ir_version=ir, opset_imports=opsets)
        onnx.checker.check_model(model, full_check=True)
        return model
