"""The restorer, what small print loses in a camera, and the training: what the reader makes of its lines is its loss.

Connectionist temporal classification (Graves et al. 2006) of the reader's own answer, plus a little of the difference
from the clean line.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_agent.workshop.train.loop import TOLD_S, Clock, Say, Training, cosine, device_of, stepped

HEIGHT = 48
"""pixels of a line as the reader takes it"""
EM = 32
"""pixels of the letters' em on such a line, as `lines.py` draws them"""
FOLD = 4
"""pixels of a side that become channels: small print has no more detail than that"""
WIDTH = 48
"""channels"""
LEAST, MOST = 4.5, 12.0
"""pixels of an em that are practised"""
RATE = 1e-3
PIXELS = 0.5
"""weight of the difference from the clean line"""
Reader = Callable[[Tensor], Tensor]
"""lines (n, 3, HEIGHT, w) in -1..1, blue first -> (n, steps, classes) of probabilities, class 0 for nothing"""


class Line(NamedTuple):
    """A drawn line."""

    cover: npt.NDArray[np.uint8]
    """(HEIGHT, w): how much of each pixel is ink"""
    classes: Sequence[int]
    """of the reader, a number a character"""


class Restorer(nn.Module):  # type: ignore[misc]
    """Lines (n, 3, HEIGHT, w) in 0..1, enlarged from small print, w a multiple of FOLD -> the same, clearer.

    It begins as the identity: what it adds is 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3 * FOLD**2, WIDTH, 3, 1, 1)
        self.middle = nn.ModuleList([nn.Conv2d(WIDTH, WIDTH, 3, 1, 1) for _ in range(3)])
        self.last = nn.Conv2d(WIDTH, 3 * FOLD**2, 3, 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, lines: Tensor) -> Tensor:
        x = functional.relu(self.first(functional.pixel_unshuffle(lines, FOLD)))
        for conv in self.middle:
            x = functional.relu(conv(x)) + x
        return (lines + functional.pixel_shuffle(self.last(x), FOLD)).clamp(0, 1)


def coloured(cover: Tensor, dice: torch.Generator) -> Tensor:
    """Ink on paper, (n, 3, HEIGHT, w) in 0..1, of how much ink covers each pixel, (n, 1, HEIGHT, w) in 0..1."""
    n, device = len(cover), cover.device

    def draw(low: float, high: float, wide: int = 3) -> Tensor:
        return torch.rand(n, wide, 1, 1, generator=dice).to(device) * (high - low) + low

    dark = (draw(0.0, 0.35, 1) + draw(-0.08, 0.08)).clamp(0, 1)
    light = (draw(0.6, 1.0, 1) + draw(-0.08, 0.08)).clamp(0, 1)
    swapped = torch.rand(n, 1, 1, 1, generator=dice).to(device) < 0.2
    ink, paper = torch.where(swapped, light, dark), torch.where(swapped, dark, light)
    return paper + (ink - paper) * cover


def shrunk(lines: Tensor, em: float, dice: torch.Generator) -> Tensor:
    """The lines as a camera sees them where an em has so many pixels, and enlarged to HEIGHT again.

    Each pixel is the mean of what it covers, the grid begins anywhere, the lens blurs a little, the sensor adds noise
    of 0 to 6 of 255; then cubic, as the reader does it. (n, 3, HEIGHT, w) -> the same shape.
    """
    height, width = lines.shape[2:]
    scale = em / EM
    far = math.ceil(1 / scale) + 1
    padded = functional.pad(lines, (far,) * 4, mode="replicate")
    top, left = (int(v) for v in torch.randint(0, far + 1, (2,), generator=dice))
    moved = padded[:, :, top:, left:]
    small_size = max(4, round(moved.shape[2] * scale)), max(4, round(moved.shape[3] * scale))
    small = functional.interpolate(moved, size=small_size, mode="bilinear", antialias=True, align_corners=False)
    small = functional.avg_pool2d(functional.pad(small, (1,) * 4, mode="replicate"), 3, 1) * (
        share := float(torch.rand(1, generator=dice)) * 0.35
    ) + small * (1 - share)
    noise = torch.rand(len(lines), 1, 1, 1, generator=dice) * 6 / 255
    small = small + (torch.randn(small.shape, generator=dice) * noise).to(lines.device)
    small = (small.clamp(0, 1) * 255).round() / 255
    large = functional.interpolate(small, size=moved.shape[2:], mode="bicubic", align_corners=False).clamp(0, 1)
    top, left = far - top, far - left
    return large[:, :, top : top + height, left : left + width]


def fit(
    lines: Sequence[Line], reader: Reader, args: argparse.Namespace, out: Path, say: Say
) -> tuple[Restorer, Training]:
    """Train with checkpoints and a curve in `out`: the restorer, on the CPU, and how it went."""
    torch.manual_seed(args.seed)
    device = device_of(args.device)
    net = Restorer().to(device)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    training = Training(out, Clock(args.minutes * 60), {"net": net}, [optimizer], args.resume)
    dice = torch.Generator().manual_seed(args.seed + training.clock.step)
    batches = batched(lines, args.batch)

    def learn(share: float) -> Tensor:
        chosen = batches[int(torch.randint(0, len(batches), (1,), generator=dice))]
        clean = coloured(covers(chosen).to(device), dice)
        em = LEAST + (MOST - LEAST) * float(torch.rand(1, generator=dice)) ** 1.5
        made = net(shrunk(clean, em, dice))
        read, apart = _read(reader, made, chosen), (made - clean).abs().mean()
        rate = RATE * min(1.0, (training.clock.step + 1) / 100) * cosine(share)
        stepped(optimizer, rate, read + PIXELS * apart)
        return torch.stack([read, apart]).detach()

    training.run(learn, ("reader", "pixels"), say, save_s=TOLD_S)
    return net.cpu().eval(), training


def batched(lines: Sequence[Line], size: int) -> list[list[Line]]:
    """Lines of like width together."""
    order = sorted(lines, key=lambda line: line.cover.shape[1])
    return [order[i : i + size] for i in range(0, len(order) - size + 1, size)] or [list(order)]


def covers(lines: Sequence[Line]) -> Tensor:
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
