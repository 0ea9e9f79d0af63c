"""The training: hinge loss, the critic at twice the generator's rate, whose weights' moving mean is what is kept.

Hinge loss: Lim and Ye, "Geometric GAN" (arXiv 1705.02894).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_agent.errors import ModelError
from edge_agent.workshop.train.generator.net import LATENT, Critic, Generator, changed
from edge_agent.workshop.train.loop import Clock, moved, stepped

Pictures = npt.NDArray[np.uint8]
"""(n, SIDE, SIDE, 3), red first"""
RATES = (2e-4, 4e-4)
"""of the generator and the critic (Heusel et al., arXiv 1706.08500: the critic learns faster)"""
KEEP = 0.999
"""of the moving mean, a step"""


class Training:
    """All that goes on from one step to the next; `tensors` and `take` are for a checkpoint."""

    def __init__(self, pictures: Pictures, clock: Clock, batch: int, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        self.real = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().to(device)
        self.clock, self.batch, self.device = clock, batch, device
        self.nets = nn.ModuleDict({"generator": Generator(), "critic": Critic()}).to(device)
        self.nets["mean"] = copy.deepcopy(self.nets["generator"]).eval()
        self.optimizers = [
            torch.optim.Adam(self.nets[name].parameters(), rate, betas=(0.0, 0.9))
            for name, rate in zip(("generator", "critic"), RATES, strict=True)
        ]

    def tensors(self) -> dict[str, Any]:
        """A checkpoint."""
        optimizers = [one.state_dict() for one in self.optimizers]
        return {"step": self.clock.step, "seconds": self.clock.spent, "nets": self.nets.state_dict(), "by": optimizers}

    def take(self, kept: dict[str, Any]) -> None:
        """Go on from a checkpoint. ModelError for one of another training."""
        try:
            self.nets.load_state_dict(kept["nets"])
            for optimizer, one in zip(self.optimizers, kept["by"], strict=True):
                optimizer.load_state_dict(one)
            self.clock.step, self.clock.spent = int(kept["step"]), float(kept["seconds"])
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise ModelError("the checkpoint is of another training; start without --resume") from None

    def made(self) -> Generator:
        """The generator of the mean weights, on the CPU."""
        mean: Generator = copy.deepcopy(self.nets["mean"]).cpu().eval()
        return mean

    def learn(self, share: float) -> Tensor:
        """A step of each network; the losses of critic and generator. The last tenth goes with falling rates."""
        slower = min(1.0, max(0.02, (1 - share) * 10))
        return torch.stack([self._teach_critic(slower), self._teach_generator(slower)])

    def _teach_critic(self, slower: float) -> Tensor:
        shown = self.real[torch.randint(0, len(self.real), (self.batch,), device=self.device)].float() / 255
        shown = torch.where(torch.rand(len(shown), 1, 1, 1, device=self.device) < 0.5, shown.flip(3), shown)
        with torch.no_grad():
            drawn = self.nets["generator"](torch.randn(self.batch, LATENT, device=self.device))
        yes, no = self.nets["critic"](changed(torch.cat([shown, drawn]))).chunk(2)
        loss = functional.relu(1 - yes).mean() + functional.relu(1 + no).mean()
        stepped(self.optimizers[1], RATES[1] * slower, loss)
        return loss.detach()

    def _teach_generator(self, slower: float) -> Tensor:
        drawn = self.nets["generator"](torch.randn(self.batch, LATENT, device=self.device))
        loss = -self.nets["critic"](changed(drawn)).mean()
        stepped(self.optimizers[0], RATES[0] * slower, loss)
        moved(self.nets["mean"], self.nets["generator"], KEEP, self.clock.step)
        return loss.detach()
