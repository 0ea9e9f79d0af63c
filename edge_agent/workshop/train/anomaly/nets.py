"""The networks: a variational autoencoder (Kingma and Welling 2013), and what is simpler, as one list of layers.

From the same list PyTorch trains it and ONNX is written, so that no exporter stands between. The error of rebuilding is
weighed against the KL divergence by its own size, as in the sigma-VAE (Rybkin et al. 2020, arXiv:2006.13202).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_agent.types import Floats
from edge_agent.workshop.train.nodes import Nodes

Layer = tuple[Any, ...]
"""("conv", name, stride), ("gemm", name), ("relu",), ("sigmoid",), ("flat",), ("shape", (c, h, w)) or ("double",)"""
Sizes = dict[str, tuple[int, ...]]
Weights = dict[str, Floats]
OPSET, IR = 17, 8


def layers(
    shape: Sequence[int], code: int, bounded: bool
) -> tuple[list[Layer], list[Layer], dict[str, tuple[int, ...]]]:
    """Encoder, decoder and the shape of each weight, for samples of this shape. `bounded`: they lie in 0..1."""
    if len(shape) == 1:
        sizes: Sizes = {"e0": (64, shape[0]), "e1": (32, 64), "mean": (code, 32), "log": (code, 32)}
        sizes |= {"d0": (32, code), "d1": (64, 32), "d2": (shape[0], 64)}
        encoder: list[Layer] = [("gemm", "e0"), ("relu",), ("gemm", "e1"), ("relu",)]
        return encoder, [("gemm", "d0"), ("relu",), ("gemm", "d1"), ("relu",), ("gemm", "d2")], sizes
    channels = (shape[0], 16, 24, 32, 32)
    high, wide = shape[1] // 16, shape[2] // 16
    flat = channels[-1] * high * wide
    sizes = {f"e{i}": (channels[i + 1], channels[i], 3, 3) for i in range(4)}
    sizes |= {"mean": (code, flat), "log": (code, flat), "d": (flat, code)}
    back = [*reversed(channels[1:]), channels[1]]
    sizes |= {f"d{i}": (back[i + 1] if i < 3 else 16, back[i], 3, 3) for i in range(4)} | {"out": (shape[0], 16, 3, 3)}
    encoder = [step for i in range(4) for step in (("conv", f"e{i}", 2), ("relu",))] + [("flat",)]
    decoder: list[Layer] = [("gemm", "d"), ("relu",), ("shape", (channels[-1], high, wide))]
    decoder += [step for i in range(4) for step in (("double",), ("conv", f"d{i}", 1), ("relu",))]
    return encoder, [*decoder, ("conv", "out", 1), *([("sigmoid",)] if bounded else [])], sizes


def train_vae(
    data: Floats, code: int, minutes: float, seed: int, say: Callable[[str], None]
) -> tuple[Weights, list[tuple[int, float, float]]]:
    """Weights, and of each round over the data its number, mean squared error and KL divergence in nats."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder, decoder, sizes = layers(data.shape[1:], code, data.ndim == 4)
    weights = _begun(sizes, device)
    every = torch.tensor(data, device=device)
    steps = torch.optim.Adam(weights.values(), 2e-3)
    began, curve, size = time.monotonic(), list[tuple[int, float, float]](), data[0].size
    while (spent := (time.monotonic() - began) / (60 * minutes)) < 1 and len(curve) < 400:
        off = kl = 0.0
        for group in steps.param_groups:
            group["lr"] = 2e-3 * (1 - spent) + 1e-5
        for chosen in torch.randperm(len(every), device=device).split(32):
            x = every[chosen]
            hidden = _through(weights, x, encoder)
            mean, log = (_through(weights, hidden, [("gemm", name)]) for name in ("mean", "log"))
            back = _through(weights, mean + torch.randn_like(mean) * (log / 2).exp(), decoder)
            error = F.mse_loss(back, x)
            divergence = (mean.square() + log.exp() - 1 - log).sum(1).mean() / 2
            steps.zero_grad()
            (size / 2 * torch.log(error + 1e-8) + divergence).backward()
            torch.nn.utils.clip_grad_norm_(list(weights.values()), 100.0)
            steps.step()
            off, kl = off + error.item() * len(x) / len(every), kl + divergence.item() * len(x) / len(every)
        curve.append((len(curve) + 1, off, kl))
        if len(curve) % 10 == 1:
            say(f"round {len(curve)}: mean squared error {off:.5f}, KL {kl:.1f} nats")
    return {name: one.detach().cpu().numpy() for name, one in weights.items()}, curve


def _begun(sizes: Sizes, device: str) -> dict[str, Any]:
    """Weights to begin with, by chance."""
    import torch

    weights = {name: torch.empty(size, device=device) for name, size in sizes.items()}
    for name, one in weights.items():
        torch.nn.init.kaiming_normal_(one)
        one *= 0.1 if name == "log" else 1.0
    weights |= {f"{name}.bias": torch.zeros(size[0], device=device) for name, size in sizes.items()}
    return {name: one.requires_grad_(True) for name, one in weights.items()}


def _through(weights: dict[str, Any], x: Any, steps: Sequence[Layer]) -> Any:
    """What the layers make of x, in PyTorch."""
    import torch
    import torch.nn.functional as F

    for kind, *more in steps:
        if kind == "gemm":
            x = F.linear(x, weights[more[0]], weights[f"{more[0]}.bias"])
        elif kind == "conv":
            x = F.conv2d(x, weights[more[0]], weights[f"{more[0]}.bias"], stride=more[1], padding=1)
        elif kind == "double":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif kind == "shape":
            x = x.reshape(-1, *more[0])
        else:
            x = {"relu": torch.relu, "sigmoid": torch.sigmoid, "flat": lambda y: y.flatten(1)}[kind](x)
    return x


def principal(data: Floats, code: int) -> Weights:
    """The mean of the samples, and the directions in which they vary the most (PCA), as an encoder and a decoder."""
    flat = data.reshape(len(data), -1)
    mean = flat.mean(0)
    _, _, axes = np.linalg.svd(flat - mean, full_matrices=False)
    axes = axes[: min(code, len(axes))].astype(np.float32)
    return {"axes": axes, "axes.bias": -axes @ mean, "back": axes.T.copy(), "back.bias": mean}


class Graph(Nodes):
    """Nodes of one network, with the weights of its layers."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.weights = weights

    def through(self, x: str, steps: Sequence[Layer], last: str = "") -> str:
        """The layers, one after the other; `last`: what the end is called."""
        for at, (kind, *more) in enumerate(steps):
            output = last if at == len(steps) - 1 else ""
            if kind in ("conv", "gemm"):
                inputs = [x]
                for name in (more[0], f"{more[0]}.bias"):
                    inputs.append(self.constant(f"w.{name}", self.weights[name]))
                if kind == "gemm":
                    x = self.op("Gemm", inputs, output, transB=1)
                else:
                    x = self.op("Conv", inputs, output, kernel_shape=[3, 3], strides=[more[1]] * 2, pads=[1] * 4)
            elif kind == "shape":
                size = self.constant(f"size{len(self.nodes)}", np.array([-1, *more[0]], np.int64))
                x = self.op("Reshape", [x, size], output)
            elif kind == "double":
                scales = self.constant("scales", np.array([1, 1, 2, 2], np.float32))
                x = self.op("Resize", [x, "", scales], output, mode="nearest", nearest_mode="floor",
                             coordinate_transformation_mode="asymmetric")  # fmt: skip
            else:
                x = self.op({"relu": "Relu", "sigmoid": "Sigmoid", "flat": "Flatten"}[kind], [x], output)
        return x

    def whole(self, source: tuple[str, Sequence[Any]], outputs: Mapping[str, Sequence[Any]]) -> onnx.ModelProto:
        """The network, checked."""
        given = [helper.make_tensor_value_info(source[0], TensorProto.FLOAT, list(source[1]))]
        back = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(size)) for name, size in outputs.items()]
        return self.model("anomaly", given, back, OPSET, IR)


Pair = tuple[onnx.ModelProto, onnx.ModelProto]


def vae(weights: Weights, shape: Sequence[int], mean: float, spread: float) -> Pair:
    """The autoencoder (x -> y, mean, log; what goes in is standardised inside), and its decoder (z -> pictures in 0..1,
    or windows).
    """
    code = len(weights["mean"])
    encoder, decoder, _ = layers(shape, code, len(shape) == 3)
    whole, picture = Graph(weights), len(shape) == 3
    x = "x"
    if not picture:
        whole.constant("usual", np.float32(mean))
        whole.constant("spread", np.float32(spread))
        x = whole.op("Div", [whole.op("Sub", ["x", "usual"]), "spread"])
    hidden = whole.through(x, encoder)
    for name in ("mean", "log"):
        whole.through(hidden, [("gemm", name)], name)
    y = whole.through("mean", decoder, "y" if picture else "scaled")
    if not picture:
        whole.op("Add", [whole.op("Mul", [y, "spread"]), "usual"], "y")
    sizes = {"y": (1, *shape), "mean": (1, code), "log": (1, code)}
    half = Graph(weights)
    end = half.through("z", decoder, "" if picture and shape[0] == 1 else "picture")
    out: tuple[Any, ...] = ("n", *shape)
    if picture and shape[0] == 1:
        half.op("Concat", [end] * 3, "picture", axis=1)
        out = ("n", 3, *shape[1:])
    return whole.whole(("x", (1, *shape)), sizes), half.whole(("z", ("n", code)), {"picture": out})


def linear(weights: Weights, shape: Sequence[int]) -> onnx.ModelProto:
    """PCA as an autoencoder (x -> y)."""
    graph = Graph(weights)
    steps: list[Layer] = [("flat",), ("gemm", "axes"), ("gemm", "back"), ("shape", tuple(shape))]
    graph.through("x", steps, "y")
    return graph.whole(("x", (1, *shape)), {"y": (1, *shape)})


def patches(detector: onnx.ModelProto, bank: Floats | None) -> onnx.ModelProto:
    """The detector's features of each cell (features (cells, d)), or, with a bank (n, d) of normal ones, how far each
    cell is from the nearest of them (heat (1, rows, columns)), as PatchCore (Roth et al. 2021, arXiv:2106.08265) does.
    """
    fine, coarse = FEATURES
    part = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(detector)).extract_model(["images"], [fine, coarse])
    graph = Graph({})
    pooled = graph.op("AveragePool", [fine], kernel_shape=[2, 2], strides=[2, 2])
    both = graph.op("Concat", [pooled, coarse], axis=1)
    flat = graph.op("Transpose", [both], perm=[0, 2, 3, 1])
    rows = graph.op("Reshape", [flat, graph.constant("rows", np.array([-1, WIDTH], np.int64))], "features")
    if bank is not None:
        own = graph.op("ReduceSumSquare", [rows], axes=[1], keepdims=1)
        cross = graph.op("MatMul", [rows, graph.constant("bank", bank.T.copy())])
        graph.constant("minus", np.float32(-2))
        theirs = graph.constant("squares", np.square(bank).sum(1)[None].astype(np.float32))
        total = graph.op("Add", [graph.op("Add", [graph.op("Mul", [cross, "minus"]), own]), theirs])
        least = graph.op("ReduceMin", [total], axes=[1], keepdims=0)
        root = graph.op("Sqrt", [graph.op("Relu", [least])])
        graph.op("Reshape", [root, graph.constant("cells", np.array([1, *CELLS], np.int64))], "heat")
    part.graph.node.extend(graph.nodes)
    part.graph.initializer.extend(graph.tensors())
    output, size = ("features", (CELLS[0] * CELLS[1], WIDTH)) if bank is None else ("heat", (1, *CELLS))
    del part.graph.output[:]
    part.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, size))
    part.producer_name = "edge-agent"
    onnx.checker.check_model(part)
    return part


FEATURES, WIDTH, CELLS = ("stage8.1.joined", "stage16.1.joined"), 192, (14, 18)
"""tensors of an edge-yolo whose channels are features, how many these are together, and their cells"""
