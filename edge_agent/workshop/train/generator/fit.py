"""The two networks, and their training: a generator of pictures of SIDE x SIDE, and a critic that tells them from real
ones.

Convolutions as in Miyato et al., "Spectral normalization for generative adversarial networks" (arXiv 1802.05957); hinge
loss (Lim and Ye, "Geometric GAN", arXiv 1705.02894), the critic at twice the generator's rate, whose weights' moving
mean is what is kept.
"""

from __future__ import annotations

import argparse
import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from edge_agent.workshop.train.loop import Clock, Say, Training, moved, stepped

SIDE = 64
"""pixels of a picture's side"""
LATENT = 64
"""numbers that a picture is drawn from, each of a normal distribution"""
WIDTHS = (192, 144, 96, 64, 32)
"""channels at 4, 8, 16, 32 and 64 pixels"""
CRITIC = (3, 48, 96, 160, 192)
"""channels at 64, 32, 16, 8 and 4 pixels"""
Pictures = npt.NDArray[np.uint8]
"""(n, SIDE, SIDE, 3), red first"""
RATES = (2e-4, 4e-4)
"""of the generator and the critic (Heusel et al., arXiv 1706.08500: the critic learns faster)"""
KEEP = 0.999
"""of the moving mean, a step"""


class Generator(nn.Module):  # type: ignore[misc]
    """(n, LATENT) -> (n, 3, SIDE, SIDE) in 0..1, red first. Each step doubles the size and convolves."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(LATENT, WIDTHS[0] * 16)
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, 1, 1) for a, b in pairwise(WIDTHS)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for width in WIDTHS])
        self.last = nn.Conv2d(WIDTHS[-1], 3, 3, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = functional.relu(self.norms[0](self.first(z).reshape(-1, WIDTHS[0], 4, 4)))
        for conv, norm in zip(self.convs, self.norms[1:], strict=True):
            x = functional.relu(norm(conv(functional.interpolate(x, scale_factor=2.0))))
        return torch.sigmoid(self.last(x))


class Critic(nn.Module):  # type: ignore[misc]
    """(n, 3, SIDE, SIDE) in 0..1 -> (n,): how real each looks."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairwise(CRITIC)])
        self.around = spectral_norm(nn.Conv2d(CRITIC[-1], CRITIC[-1], 3, 1, 1))
        self.last = spectral_norm(nn.Linear(CRITIC[-1] * 16, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures * 2 - 1
        for conv in (*self.convs, self.around):
            x = functional.leaky_relu(conv(x), 0.1)
        score: Tensor = self.last(x.flatten(1))[:, 0]
        return score


def changed(pictures: Tensor) -> Tensor:
    """The pictures in other light and colours, moved, and with a patch cut out; differentiable, one draw a picture.

    Real and drawn pictures pass through it before the critic sees them, so that few real ones are not learnt by heart
    (Zhao et al., "Differentiable augmentation for data-efficient GAN training", arXiv 2006.10738).
    """
    n, device = len(pictures), pictures.device

    def dice(low: float, high: float) -> Tensor:
        return torch.rand(n, 1, 1, 1, device=device) * (high - low) + low

    x = pictures + dice(-0.25, 0.25)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * dice(0.5, 1.5)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * dice(0.6, 1.4)
    far = SIDE // 8
    side = torch.arange(SIDE, device=device)
    top, left = (torch.randint(0, 2 * far + 1, (n, 1, 1), device=device) for _ in range(2))
    rows, columns = side[None, :, None] + top, side[None, None, :] + left
    x = functional.pad(x, (far,) * 4)[torch.arange(n, device=device)[:, None, None], :, rows, columns]
    middle = torch.randint(0, SIDE, (2, n, 1, 1), device=device)
    rows, columns = (side[None, :, None] - middle[0]).abs(), (side[None, None, :] - middle[1]).abs()
    inside = (rows < SIDE // 5) & (columns < SIDE // 5)
    return x.permute(0, 3, 1, 2) * (~inside)[:, None]


def fit(pictures: Pictures, args: argparse.Namespace, device: str, out: Path, say: Say) -> tuple[Generator, Training]:
    """Train with checkpoints and a curve in `out`: the generator of the mean weights, on the CPU, and how it went."""
    torch.manual_seed(args.seed)
    real = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().to(device)
    generator, critic = Generator().to(device), Critic().to(device)
    mean = copy.deepcopy(generator).eval()
    optimizers = [
        torch.optim.Adam(net.parameters(), rate, betas=(0.0, 0.9))
        for net, rate in zip((generator, critic), RATES, strict=True)
    ]
    nets = {"generator": generator, "critic": critic, "mean": mean}
    training = Training(out, Clock(args.minutes * 60), nets, optimizers, args.resume)

    def learn(share: float) -> Tensor:
        """A step of each network; the losses of critic and generator. The last tenth goes with falling rates."""
        slower = min(1.0, max(0.02, (1 - share) * 10))
        shown = real[torch.randint(0, len(real), (args.batch,), device=device)].float() / 255
        shown = torch.where(torch.rand(len(shown), 1, 1, 1, device=device) < 0.5, shown.flip(3), shown)
        with torch.no_grad():
            drawn = generator(torch.randn(args.batch, LATENT, device=device))
        yes, no = critic(changed(torch.cat([shown, drawn]))).chunk(2)
        told = functional.relu(1 - yes).mean() + functional.relu(1 + no).mean()
        stepped(optimizers[1], RATES[1] * slower, told)
        made = -critic(changed(generator(torch.randn(args.batch, LATENT, device=device)))).mean()
        stepped(optimizers[0], RATES[0] * slower, made)
        moved(mean, generator, KEEP, training.clock.step)
        return torch.stack([told, made]).detach()

    training.run(learn, ("critic", "generator"), say)
    return mean.cpu(), training
