"""A variational autoencoder (Kingma and Welling 2013).

The error of rebuilding is weighed against the KL divergence by its own size, as in the sigma-VAE (Rybkin et al. 2020,
arXiv:2006.13202).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_agent.types import Floats
from edge_agent.workshop.train.exported import exported
from edge_agent.workshop.train.finish import Rows
from edge_agent.workshop.train.loop import stepped

CHANNELS = (16, 24, 32, 32)


class Vae(nn.Module):  # type: ignore[misc]
    """Pictures (n, c, h, w) in 0..1 or windows (n, k) -> the same rebuilt, mean and log of the variance (n, code).

    In training mode it rebuilds from a draw, else from the mean. `usual`, `spread`: windows are standardised by them.
    """

    def __init__(self, shape: Sequence[int], code: int, usual: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        self.code, self.shape, self.usual, self.spread = code, tuple(shape), usual, spread
        relu = nn.ReLU()
        if len(shape) == 1:
            self.size: tuple[int, ...] = (32,)
            self.encoder = nn.Sequential(nn.Linear(shape[0], 64), relu, nn.Linear(64, 32), relu)
            back: list[nn.Module] = [nn.Linear(32, 64), relu, nn.Linear(64, shape[0])]
        else:
            self.size = (CHANNELS[-1], shape[1] // 16, shape[2] // 16)
            steps = [(nn.Conv2d(a, b, 3, 2, 1), relu) for a, b in pairwise((shape[0], *CHANNELS))]
            self.encoder = nn.Sequential(*[part for step in steps for part in step], nn.Flatten())
            ways = pairwise((*reversed(CHANNELS), CHANNELS[0]))
            back = [part for a, b in ways for part in (nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, 1, 1), relu)]
            back += [nn.Conv2d(CHANNELS[0], shape[0], 3, 1, 1), nn.Sigmoid()]
        flat = torch.Size(self.size).numel()
        self.mean, self.log = nn.Linear(flat, code), nn.Linear(flat, code)
        self.open, self.back = nn.Sequential(nn.Linear(code, flat), relu), nn.Sequential(*back)
        for name, one in self.named_parameters():
            nn.init.zeros_(one) if name.endswith("bias") else nn.init.kaiming_normal_(one)
        with torch.no_grad():
            self.log.weight *= 0.1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder((x - self.usual) / self.spread)
        mean, log = self.mean(hidden), self.log(hidden)
        drawn = mean + torch.randn_like(mean) * (log / 2).exp() if self.training else mean
        return self.decode(drawn) * self.spread + self.usual, mean, log

    def decode(self, z: Tensor) -> Tensor:
        """Codes -> pictures, or standardised windows."""
        made: Tensor = self.back(self.open(z).reshape(-1, *self.size))
        return made


class Decoder(nn.Module):  # type: ignore[misc]
    """Codes -> pictures of three channels, or windows."""

    def __init__(self, whole: Vae) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, z: Tensor) -> Tensor:
        made = self.whole.decode(z)
        return torch.cat([made] * 3, 1) if len(self.whole.shape) == 3 and self.whole.shape[0] == 1 else made


def train(
    data: Floats, code: int, minutes: float, seed: int, say: Callable[[str], None], usual: float, spread: float
) -> tuple[Vae, Rows]:
    """The network, and of each round over the data the mean squared error and the KL divergence in nats; `usual` and
    `spread` as of `Vae`.
    """
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = Vae(data.shape[1:], code, usual, spread).to(device)
    every = torch.tensor(data, device=device)
    steps = torch.optim.Adam(net.parameters(), 2e-3)
    began, curve, size = time.monotonic(), list[dict[str, float]](), data[0].size
    while (spent := (time.monotonic() - began) / (60 * minutes)) < 1 and len(curve) < 400:
        off = kl = 0.0
        for chosen in torch.randperm(len(every), device=device).split(32):
            x = every[chosen]
            made, mean, log = net(x)
            error = functional.mse_loss(made, x) / spread**2
            divergence = (mean.square() + log.exp() - 1 - log).sum(1).mean() / 2
            stepped(steps, 2e-3 * (1 - spent) + 1e-5, size / 2 * torch.log(error + 1e-8) + divergence, 100.0)
            off, kl = off + error.item() * len(x) / len(every), kl + divergence.item() * len(x) / len(every)
        curve.append({"step": len(curve) + 1, "error": off, "kl": kl})
        if len(curve) % 10 == 1:
            say(f"round {len(curve)}: mean squared error {off:.5f}, KL {kl:.1f} nats")
    return net.cpu(), curve


def to_onnx(net: Vae) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The autoencoder (x -> y, mean, log), and its decoder (z -> picture)."""
    whole = exported(net, (torch.zeros(1, *net.shape),), ["x"], ["y", "mean", "log"])
    free = {name: {0: "n"} for name in ("z", "picture")}
    return whole, exported(Decoder(net), (torch.zeros(2, net.code),), ["z"], ["picture"], free)
