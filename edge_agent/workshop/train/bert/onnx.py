"""edge-bert as ONNX: one graph for the encoder, one for each head.

Weights keep their names of `net.Bert`, matrices stand as (in, out). Opset 20 for Gelu; onnxruntime 1.17 or later.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edge_agent.workshop.train.bert.net import Bert
from edge_agent.workshop.train.exported import exported

OPSET = 20
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def encoder(net: Bert, rows: int | str = "B") -> onnx.ModelProto:
    """input_ids, attention_mask, token_type_ids (B, L) int64 -> hidden (B, L, H), embedding (B, E) of length 1.

    `rows` fixes B.
    """
    return _graph("encoder", net, _encoded, INPUTS, ("hidden", "embedding"), rows)


def tagger(net: Bert, head: nn.Linear) -> onnx.ModelProto:
    """The encoder's inputs -> logits (B, L, K) of each piece's tag, by `head`."""
    return _graph("tagger", net, _tagged, INPUTS, ("logits",), tag=head)


def mlm(net: Bert) -> onnx.ModelProto:
    """hidden (B, L, H) -> logits (B, L, V): what could stand in each place."""
    return _graph("mlm", net, Bert.fill, ("hidden",), ("logits",))


def nsp(net: Bert) -> onnx.ModelProto:
    """hidden (B, L, H) -> logits (B, 2): index 0, the second text follows the first; index 1, it does not."""
    return _graph("nsp", net, _follows, ("hidden",), ("logits",))


def _hidden(net: Bert, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
    """Places by the mask, so that every shape follows from the inputs'."""
    return net.hidden(ids, types, mask.float(), net.position(mask.cumsum(1) - 1))


def _encoded(net: Bert, ids: Tensor, mask: Tensor, types: Tensor) -> tuple[Tensor, Tensor]:
    hidden, here = _hidden(net, ids, mask, types), mask.float()[:, :, None]
    # of three axes throughout, as products of two would be another operator
    vector = net.project((hidden * here).sum(1, keepdim=True) / here.sum(1, keepdim=True))
    long = (vector * vector).sum(2, keepdim=True).sqrt()
    return hidden, (vector / torch.maximum(long, torch.tensor(1e-9))).squeeze(1)


def _tagged(net: Bert, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
    told: Tensor = net.tag(_hidden(net, ids, mask, types))
    return told


def _follows(net: Bert, hidden: Tensor) -> Tensor:
    told: Tensor = net.nsp(torch.tanh(net.pool(hidden[:, :1])))[:, 0]
    return told


def _graph(
    name: str,
    net: Bert,
    call: Callable[..., Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
    rows: int | str = "B",
    **more: nn.Module,
) -> onnx.ModelProto:
    """What `call` does with the weights of `net`, and with `more` networks beside them."""
    one = copy.copy(net)
    one._modules = {**net._modules, **more}
    one.forward = partial(call, one)  # type: ignore[method-assign]
    batch = {0: "B"} if rows == "B" else {}
    shown = torch.ones(len(batch) + 1, 3, dtype=torch.long)
    given = (shown,) * 3 if inputs == INPUTS else (torch.zeros(2, 3, net.shape.width),)
    free = {each: {**batch, 1: "L"} for each in (*inputs, *outputs)}
    if name in ("encoder", "nsp"):
        free[outputs[-1]] = batch
    return exported(one, given, inputs, outputs, free, f"edge-bert-{name}", OPSET, fold=False)


def weights_of(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """The weights that `encoder`, `mlm` or `nsp` wrote, named and shaped as in the network.

    Stored in half they are widened; matrices that `quantize_dynamic` made int8 are scaled back.
    """
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    found = {}
    for full, value in stored.items():
        name = full.removesuffix(".half").removesuffix("_quantized")
        if name != "mlm_bias" and not name.endswith((".weight", ".bias")):
            continue
        if value.dtype == np.int8:
            zero, scale = stored[f"{name}_zero_point"], stored[f"{name}_scale"]
            array = (value.astype(np.float32) - zero.astype(np.float32)) * scale
        else:
            array = value.astype(np.float32)
        matrix = array.ndim == 2 and name.rsplit(".", 2)[0] not in ("token", "position", "segment")
        found[name] = array.T if matrix else array
    return found
