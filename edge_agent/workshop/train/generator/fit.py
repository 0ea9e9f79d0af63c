"""The training: hinge loss, the critic at twice the generator's rate, whose weights' moving mean is what is kept.

Hinge loss: Lim and Ye, "Geometric GAN" (arXiv 1705.02894). PyTorch and NumPy alone are imported; see `net.py`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from edge_agent.workshop.train.generator.net import LATENT, Critic, Generator, changed

Pictures = npt.NDArray[np.uint8]
"""(n, SIDE, SIDE, 3), red first"""
RATES = (2e-4, 4e-4)
"""of the generator and the critic (Heusel et al., arXiv 1706.08500: the critic learns faster)"""
KEEP = 0.999
"""of the moving mean, a step"""
TOLD = 100
"""steps between two rows of the curve"""


class Settings(NamedTuple):
    """How a generator is trained."""

    minutes: float
    steps: int
    """at most"""
    batch: int
    seed: int
    device: str


class State:
    """All that goes on from one step to the next; `tensors` and `take` are for a checkpoint."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.generator, self.critic = Generator().to(settings.device), Critic().to(settings.device)
        self.mean = copy.deepcopy(self.generator).eval()
        self.optimizers = [
            torch.optim.Adam(net.parameters(), rate, betas=(0.0, 0.9))
            for net, rate in zip((self.generator, self.critic), RATES, strict=True)
        ]
        self.step = 0

    def tensors(self) -> dict[str, Any]:
        """A checkpoint."""
        nets = [net.state_dict() for net in (self.generator, self.critic, self.mean)]
        return {"step": self.step, "nets": nets, "optimizers": [one.state_dict() for one in self.optimizers]}

    def take(self, kept: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.step = int(kept["step"])
        for net, one in zip((self.generator, self.critic, self.mean), kept["nets"], strict=True):
            net.load_state_dict(one)
        for optimizer, one in zip(self.optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(one)


def fit(
    pictures: Pictures, settings: Settings, state: State, tell: Callable[[int, float, float, float], None]
) -> Generator:
    """Train until the steps or the minutes are over; the generator of the mean weights, on the CPU.

    `tell`: (step, loss of the critic, loss of the generator, seconds), each TOLD steps. The last tenth of the time or
    of the steps goes with falling rates.
    """
    real = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().to(settings.device)
    began, first, sums = time.monotonic(), state.step, [0.0, 0.0]
    while (share := _share(state.step, first, began, settings)) < 1:
        for optimizer, rate in zip(state.optimizers, RATES, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, max(0.02, (1 - share) * 10))
        sums[0] += _teach_critic(real, state, settings)
        sums[1] += _teach_generator(state, settings)
        state.step += 1
        if state.step % TOLD == 0:
            tell(state.step, sums[0] / TOLD, sums[1] / TOLD, time.monotonic() - began)
            sums = [0.0, 0.0]
    made: Generator = copy.deepcopy(state.mean).cpu().eval()
    return made


def _share(step: int, first: int, began: float, settings: Settings) -> float:
    """How much of the training is over, 0..1."""
    spent = (time.monotonic() - began) / (settings.minutes * 60) if step > first else 0.0
    return max(step / settings.steps, spent)


def _teach_critic(real: torch.Tensor, state: State, settings: Settings) -> float:
    """One step of the critic; its loss."""
    shown = real[torch.randint(0, len(real), (settings.batch,), device=real.device)].float() / 255
    shown = torch.where(torch.rand(len(shown), 1, 1, 1, device=real.device) < 0.5, shown.flip(3), shown)
    with torch.no_grad():
        drawn = state.generator(torch.randn(settings.batch, LATENT, device=real.device))
    scores = state.critic(changed(torch.cat([shown, drawn])))
    yes, no = scores.chunk(2)
    loss = functional.relu(1 - yes).mean() + functional.relu(1 + no).mean()
    _stepped(state.optimizers[1], loss)
    return float(loss.detach())


def _teach_generator(state: State, settings: Settings) -> float:
    """One step of the generator and of its mean; its loss."""
    drawn = state.generator(torch.randn(settings.batch, LATENT, device=settings.device))
    loss = -state.critic(changed(drawn)).mean()
    _stepped(state.optimizers[0], loss)
    keep = min(KEEP, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for mean, now in zip(state.mean.state_dict().values(), state.generator.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)
    return float(loss.detach())


def _stepped(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
