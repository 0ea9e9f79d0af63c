"""The finished edge-bert as a model folder: ONNX float and int8, TFLite, heads, vocabulary, manifest; and back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_agent.errors import ModelError
from edge_agent.manifest import Manifest, TextInput
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.report.folder import TRAINING
from edge_agent.workshop.train import loop
from edge_agent.workshop.train.bert import onnx as bert_onnx
from edge_agent.workshop.train.bert.net import Bert, Shape
from edge_agent.workshop.train.bert.onnx import mlm, nsp, weights_of
from edge_agent.workshop.train.exported import small_onnx, small_tflite
from edge_agent.workshop.train.finish import manifest, row
from edge_agent.workshop.train.tflite import to_tflite

HALF, INT8 = QuantizePlan(form="float16"), QuantizePlan(form="dynamic")
"""int8: matrices by column and tables by row; activations are quantized as they come"""


def net_of(table: dict[str, Any]) -> Bert:
    """The network of a checkpoint `{"shape": ..., "weights": ...}`, in float32. ModelError for another one."""
    try:
        net = Bert(Shape(**table["shape"]))
        net.load_state_dict({k: v.float() for k, v in table["weights"].items()})
    except (KeyError, TypeError, RuntimeError):
        raise ModelError("the checkpoint is not of an edge-bert") from None
    return net


def read_net(folder: Path) -> Bert:
    """The network of a folder that `write_model` wrote, or that training left (best.pt); raises EdgeAgentError.

    From ONNX the weights are the stored ones: float16, and int8 for the one matrix of the MLM head that the encoder
    does not have.
    """
    best = folder / TRAINING / loop.BEST
    if best.is_file():
        return net_of(loop.load(best))
    weights, heads = _stored(folder)
    words, token = weights["token.weight"].shape
    layers = sum(1 for k in weights if k.endswith(".query.bias"))
    width, inner = weights["norm.weight"].shape[0], weights["layers.0.up.bias"].shape[0]
    length, vector = weights["position.weight"].shape[0], weights["project.bias"].shape[0]
    net = Bert(Shape(words, layers, width, heads, inner, token, length, vector))
    try:
        net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in weights.items() if k != "decoder.weight"})
    except RuntimeError as error:
        raise ModelError(
            f"{folder}: its files are not of one edge-bert: {str(error).splitlines()[-1].strip()}"
        ) from None
    return net


def _stored(folder: Path) -> tuple[dict[str, NDArray[Any]], int]:
    """The weights of the ONNX files of a folder, and the number of heads. Raises ModelError."""
    try:
        weights = weights_of(onnx.load(str(folder / "mlm.int8.onnx")))
        weights |= weights_of(onnx.load(str(folder / "nsp.onnx")))
        encoder = onnx.load(str(folder / "encoder.onnx"))
        weights |= weights_of(encoder)
    except (OSError, ValueError, DecodeError) as error:
        raise ModelError(f"{folder}: no edge-bert to start from: {error}") from None
    missing = {"token.weight", "position.weight", "norm.weight", "layers.0.up.bias", "project.bias"} - set(weights)
    sizes = [numpy_helper.to_array(t) for t in encoder.graph.initializer if t.dims == [4]]
    split = [one for one in sizes if one.dtype == np.int64]
    if missing or not split:
        raise ModelError(f"{folder}: encoder.onnx is no edge-bert's, it lacks {', '.join(sorted(missing)) or 'split'}")
    return weights, int(split[0][2])


def write_model(net: Bert, vocab: Path, out: Path) -> Manifest:
    """Writes encoder.onnx, encoder.int8.onnx, encoder.int8.tflite, mlm.int8.onnx, nsp.onnx and vocab.txt; the manifest.
    The gate judges whether the int8 encoder agrees with the float one, a race whether it is faster.
    """
    shutil.copyfile(vocab, out / "vocab.txt")
    net = net.eval().cpu()
    whole = bert_onnx.encoder(net)
    (out / "encoder.onnx").write_bytes(small_onnx(whole, HALF, merge=False))
    (out / "nsp.onnx").write_bytes(small_onnx(nsp(net), HALF, merge=False))
    (out / "encoder.int8.onnx").write_bytes(small_onnx(whole, INT8))
    (out / "mlm.int8.onnx").write_bytes(small_onnx(mlm(net), INT8, merge=False))
    (out / "encoder.int8.tflite").write_bytes(small_tflite(to_tflite(bert_onnx.encoder(net, 1)), INT8))
    rows = [
        ("encoder.int8.onnx", "onnx", "int8", "encoder"),
        ("encoder.onnx", "onnx", "fp16", "encoder"),
        ("encoder.int8.tflite", "tflite", "dynamic-int8", "encoder"),
        ("mlm.int8.onnx", "onnx", "int8", "mlm"),
        ("nsp.onnx", "onnx", "fp16", "nsp"),
        ("vocab.txt", "text", "fp32", "vocab"),
    ]
    shape = net.shape
    says = f"BERT of {shape.layers} layers, {shape.width} wide, that follows the vectors of its teacher"
    text = TextInput("vocab.txt", lowercase=True, max_length=shape.length, pooling="output:embedding", normalize=True)
    return manifest("edge-bert", "encode", "bert", says, [row(*one) for one in rows], text=text)
