"""Changes to an ONNX graph that leave its answers as they were: folded and simplified."""

from __future__ import annotations

import contextlib
import io

import onnx

from edge_agent.errors import ModelError, RefusedError
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import line

SMALL = 4096
"""bytes of a constant that may be folded where folding all would make the file larger"""
GROWN = 1.1
read = net.load


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants folded, nodes that do nothing gone, patterns fused, by onnxslim; checked by ONNX.

    Where folding would make the file larger, as it widens weights that are kept in half floats, only small constants
    are folded. Raises ModelError where onnxslim is missing, RefusedError where it fails.
    """
    made = _slim(model, None)
    return _slim(model, SMALL) if made.ByteSize() > model.ByteSize() * GROWN else made


def _slim(model: onnx.ModelProto, most: int | None) -> onnx.ModelProto:
    """`most`: bytes of a constant that is folded; None: any."""
    try:
        from onnxslim import slim
    except ImportError as error:
        raise ModelError(f'onnxslim simplifies graphs: pip install "edge-agent-runtime[workshop]" ({error})') from None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            made = slim(copy, size_threshold=most)
        if not isinstance(made, onnx.ModelProto):
            raise ValueError("it gave no model back")
        onnx.checker.check_model(made)
    except Exception as error:  # of a library that looks for patterns: whatever it stumbles over
        raise RefusedError(f"onnxslim cannot simplify it ({line(error)})") from None
    return made
