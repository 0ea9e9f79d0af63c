"""The restorer, what small print loses in a camera, and a critic."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

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


class Critic(nn.Module):  # type: ignore[misc]
    """Lines -> (n, 1, h, w): how much each part looks like print that was never small."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for into, out in ((3, 32), (32, 64), (64, 96)):
            conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(into, out, 4, 2, 1))
            layers += [conv, nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(96, 1, 3, 1, 1))

    def forward(self, lines: Tensor) -> Tensor:
        scores: Tensor = self.layers(lines)
        return scores


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
