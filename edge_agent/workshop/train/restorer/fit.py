"""The training of a restorer: what the reader makes of its lines is its loss.

Connectionist temporal classification (Graves et al. 2006) of the reader's own answer, plus a little of the difference
from the clean line, plus, where asked for, what a critic says.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edge_agent.workshop.train.checkpoint import device_of
from edge_agent.workshop.train.loop import TOLD_S, Clock, Say, cosine, loop, stepped
from edge_agent.workshop.train.restorer.net import HEIGHT, LEAST, MOST, Critic, Restorer, coloured, shrunk

Reader = Callable[[Tensor], Tensor]
"""lines (n, 3, HEIGHT, w) in -1..1, blue first -> (n, steps, classes) of probabilities, class 0 for nothing"""


RATE = 1e-3


class Line(NamedTuple):
    """A drawn line."""

    cover: npt.NDArray[np.uint8]
    """(HEIGHT, w): how much of each pixel is ink"""
    classes: Sequence[int]
    """of the reader, a number a character"""


def fit(
    lines: Sequence[Line],
    reader: Reader,
    args: argparse.Namespace,
    clock: Clock,
    keep: Callable[[list[float]], None],
    say: Say,
    save_s: float = TOLD_S,
) -> Restorer:
    """Train until the clock's time is over; the restorer, on the CPU.

    `args`: the options of the recipe. `keep`: loss of the reader and difference of pixels, every `save_s` seconds and
    at the end.
    """
    torch.manual_seed(args.seed)
    device = device_of(args.device)
    net, critic = Restorer().to(device), Critic().to(device)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    against = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.0, 0.9))
    dice = torch.Generator().manual_seed(args.seed)
    batches = _batches(lines, args.batch)

    def learn(share: float) -> Tensor:
        chosen = batches[int(torch.randint(0, len(batches), (1,), generator=dice))]
        clean = coloured(_covers(chosen).to(device), dice)
        em = LEAST + (MOST - LEAST) * float(torch.rand(1, generator=dice)) ** 1.5
        made = net(shrunk(clean, em, dice))
        read, apart = _read(reader, made, chosen), (made - clean).abs().mean()
        loss = read + args.pixels * apart
        if args.adversarial:
            loss = loss - args.adversarial * critic(made).mean()
        stepped(optimizer, RATE * min(1.0, (clock.step + 1) / 100) * cosine(share), loss)
        if args.adversarial:
            scores = critic(clean), critic(made.detach())
            stepped(against, 2e-4, functional.relu(1 - scores[0]).mean() + functional.relu(1 + scores[1]).mean())
        return torch.stack([read, apart]).detach()

    loop(clock, net, learn, ("reader", "pixels"), keep, say, save_s)
    made: Restorer = net.cpu().eval()
    return made


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
