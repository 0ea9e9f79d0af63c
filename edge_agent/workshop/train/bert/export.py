"""The finished edge-bert as a model folder: ONNX float and int8, TFLite, heads, vocabulary, manifest; and back."""

from __future__ import annotations

import logging
import pickle
import shutil
import tempfile
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
from edge_agent.workshop.train.bert import onnx as bert_onnx
from edge_agent.workshop.train.bert import tflite
from edge_agent.workshop.train.bert.net import Bert, Shape
from edge_agent.workshop.train.bert.onnx import mlm, nsp, stored_in_half, weights_of
from edge_agent.workshop.train.finish import row


def net_of(table: dict[str, Any]) -> Bert:
    """The network of a checkpoint `{"shape": ..., "weights": ...}`, in float32."""
    net = Bert(Shape(**table["shape"]))
    net.load_state_dict({k: v.float() for k, v in table["weights"].items()})
    return net


def read_table(file: Path, device: str) -> dict[str, Any]:
    """A checkpoint; raises ModelError when it is none."""
    try:
        table: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        why = str(error).splitlines()[0] if str(error) else "it is empty"
        raise ModelError(f"{file}: not a checkpoint: {why}") from None
    if not isinstance(table, dict) or not {"shape", "weights"} <= set(table):
        raise ModelError(f"{file}: a checkpoint, but not of an edge-bert")
    return table


def read_net(folder: Path) -> Bert:
    """The network of a folder that `write_model` wrote, or that training left (best.pt); raises ModelError.

    From ONNX the weights are the stored ones: float16, and int8 for the one matrix of the MLM head that the encoder
    does not have.
    """
    best = folder / "training" / "best.pt"
    if best.is_file():
        return net_of(read_table(best, "cpu"))
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
        encoder = onnx.load(str(folder / "encoder.onnx"))
        weights = weights_of(encoder)
        weights |= weights_of(onnx.load(str(folder / "nsp.onnx")))
        weights |= weights_of(onnx.load(str(folder / "mlm.int8.onnx")))
    except (OSError, ValueError, DecodeError) as error:
        raise ModelError(f"{folder}: no edge-bert to start from: {error}") from None
    missing = {"token.weight", "position.weight", "norm.weight", "layers.0.up.bias", "project.bias"} - set(weights)
    split = [numpy_helper.to_array(t) for t in encoder.graph.initializer if t.name == "split"]
    if missing or not split:
        raise ModelError(f"{folder}: encoder.onnx is no edge-bert's, it lacks {', '.join(sorted(missing)) or 'split'}")
    return weights, int(split[0][2])


def int8(model: onnx.ModelProto, file: Path) -> None:
    """Writes `model` with int8 matrices (per column) and tables; activations are quantized as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quiet = logging.getLogger()
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "float.onnx"
            onnx.save(model, str(source))
            quantize_dynamic(source, file, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        quiet.setLevel(level)


def write_model(net: Bert, vocab: Path, out: Path) -> Manifest:
    """Writes encoder.onnx, encoder.int8.onnx, encoder.int8.tflite, mlm.int8.onnx, nsp.onnx and vocab.txt; the manifest.
    The gate judges whether the int8 encoder agrees with the float one, a race whether it is faster.
    """
    shutil.copyfile(vocab, out / "vocab.txt")
    net = net.eval().cpu()
    onnx.save(stored_in_half(bert_onnx.encoder(net)), str(out / "encoder.onnx"))
    onnx.save(stored_in_half(nsp(net)), str(out / "nsp.onnx"))
    int8(bert_onnx.encoder(net), out / "encoder.int8.onnx")
    int8(mlm(net), out / "mlm.int8.onnx")
    (out / "encoder.int8.tflite").write_bytes(tflite.encoder(net))
    rows = [
        ("encoder.int8.onnx", "onnx", "int8", "encoder"),
        ("encoder.onnx", "onnx", "fp16", "encoder"),
        ("encoder.int8.tflite", "tflite", "dynamic-int8", "encoder"),
        ("mlm.int8.onnx", "onnx", "int8", "mlm"),
        ("nsp.onnx", "onnx", "fp16", "nsp"),
        ("vocab.txt", "text", "fp32", "vocab"),
    ]
    shape = net.shape
    return Manifest(
        name="edge-bert",
        version="1",
        task="encode",
        family="bert",
        licence="Apache-2.0",
        trained_by="edge-agent",
        description=f"BERT of {shape.layers} layers, {shape.width} wide, that follows the vectors of its teacher",
        text=TextInput(
            "vocab.txt", lowercase=True, max_length=shape.length, pooling="output:embedding", normalize=True
        ),
        file=[row(*one) for one in rows],
    )
