"""A trained network of one input and one output as ONNX, by PyTorch's own exporter."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import onnx
import torch

OPSET = 17


def exported(
    net: torch.nn.Module, shown: torch.Tensor, ends: tuple[str, str], free: Mapping[int, str]
) -> onnx.ModelProto:
    """`net` as it answers, its normalisation folded in. `shown`: a sample input; `ends`: what input and output are
    called; `free`: axes of both that are of any size, and their names.
    """
    file = io.BytesIO()
    names: dict[str, object] = {"input_names": ends[:1], "output_names": ends[1:], "opset_version": OPSET}
    with warnings.catch_warnings():
        # the exporter that needs nothing but onnx is called the old one
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (shown,), file, dynamo=False, dynamic_axes=dict.fromkeys(ends, free), **names)
    model = onnx.load_from_string(file.getvalue())
    onnx.checker.check_model(model)
    return model
