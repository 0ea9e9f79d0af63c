"""The training of a restorer: what the reader makes of its lines is its loss.

Connectionist temporal classification (Graves et al. 2006) of the reader's own answer, plus a little of the difference
from the clean line, plus, where asked for, what a critic says. PyTorch and NumPy alone are imported; see `net.py`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edge_agent.workshop.train.restorer.net import HEIGHT, LEAST, MOST, Critic, Restorer, coloured, shrunk

Reader = Callable[[Tensor], Tensor]
"""lines (n, 3, HEIGHT, w) in -1..1, blue first -> (n, steps, classes) of probabilities, class 0 for nothing"""
TOLD = 50
"""steps between two rows of the curve"""


class Line(NamedTuple):
    """A drawn line."""

    cover: npt.NDArray[np.uint8]
    """(HEIGHT, w): how much of each pixel is ink"""
    classes: Sequence[int]
    """of the reader, a number a character"""


class Settings(NamedTuple):
    """How a restorer is trained."""

    minutes: float
    steps: int
    """at most"""
    batch: int
    seed: int
    device: str
    rate: float = 1e-3
    pixels: float = 0.5
    """weight of the mean difference from the clean line"""
    adversarial: float = 0.0
    """weight of what the critic says"""


def fit(
    lines: Sequence[Line], reader: Reader, settings: Settings, tell: Callable[[int, float, float, float], None]
) -> tuple[Restorer, int]:
    """Train until the steps or the minutes are over; the restorer, on the CPU, and how many steps there were.

    `tell`: (step, loss of the reader, difference of pixels, seconds), each TOLD steps.
    """
    torch.manual_seed(settings.seed)
    net, critic = Restorer().to(settings.device), Critic().to(settings.device)
    optimizer = torch.optim.Adam(net.parameters(), settings.rate)
    against = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.0, 0.9))
    dice = torch.Generator().manual_seed(settings.seed)
    batches = _batches(lines, settings.batch)
    began, step, sums = time.monotonic(), 0, [0.0, 0.0]
    while (share := _share(step, began, settings)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * share))
        chosen = batches[int(torch.randint(0, len(batches), (1,), generator=dice))]
        clean = coloured(_covers(chosen).to(settings.device), dice)
        em = LEAST + (MOST - LEAST) * float(torch.rand(1, generator=dice)) ** 1.5
        made = net(shrunk(clean, em, dice))
        read, apart = _read(reader, made, chosen), (made - clean).abs().mean()
        loss = read + settings.pixels * apart
        if settings.adversarial:
            loss = loss - settings.adversarial * critic(made).mean()
        _stepped(optimizer, loss)
        if settings.adversarial:
            scores = critic(clean), critic(made.detach())
            _stepped(against, functional.relu(1 - scores[0]).mean() + functional.relu(1 + scores[1]).mean())
        step, sums = step + 1, [sums[0] + float(read.detach()), sums[1] + float(apart.detach())]
        if step % TOLD == 0:
            tell(step, sums[0] / TOLD, sums[1] / TOLD, time.monotonic() - began)
            sums = [0.0, 0.0]
    return copy.deepcopy(net).cpu().eval(), step


def _share(step: int, began: float, settings: Settings) -> float:
    """How much of the training is over, 0..1."""
    return max(step / settings.steps, (time.monotonic() - began) / (settings.minutes * 60) if step else 0.0)


def _batches(lines: Sequence[Line], size: int) -> list[list[Line]]:
    """Lines of like width together."""
    order = sorted(lines, key=lambda line: line.cover.shape[1])
    return [order[i : i + size] for i in range(0, len(order) - size + 1, size)] or [list(order)]


def _covers(lines: Sequence[Line]) -> Tensor:
    """(n, 1, HEIGHT, w) in 0..1, as wide as the widest, a multiple of 8; paper beside the others."""
    wide = -(-max(line.cover.shape[1] for line in lines) // 8) * 8
    out = torch.zeros(len(lines), 1, HEIGHT, wide)
    for place, line in zip(out, lines, strict=True):
        place[0, :, : line.cover.shape[1]] = torch.from_numpy(line.cover).float() / 255
    return out


def _read(reader: Reader, made: Tensor, lines: Sequence[Line]) -> Tensor:
    """The reader's loss, a character."""
    told = reader(made * 2 - 1)
    logs = told.clamp(min=1e-8).log().permute(1, 0, 2)
    truth = torch.tensor([number for line in lines for number in line.classes])
    long = torch.tensor([len(line.classes) for line in lines])
    steps = torch.full((len(lines),), logs.shape[0])
    loss: Tensor = functional.ctc_loss(logs.float(), truth.to(logs.device), steps, long, zero_infinity=True)
    return loss


def _stepped(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
