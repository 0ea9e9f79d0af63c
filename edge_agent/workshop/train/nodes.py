"""An ONNX network while it is put together, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper


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
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        opset: int,
        ir: int,
    ) -> onnx.ModelProto:
        """The network, checked."""
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.tensors())
        model = helper.make_model(
            graph, producer_name="edge-agent", ir_version=ir, opset_imports=[helper.make_opsetid("", opset)]
        )
        onnx.checker.check_model(model, full_check=True)
        return model
