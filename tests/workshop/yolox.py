"""A small network of YOLOX-nano's exact shape, with random weights, written as its exporter writes it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_agent.workshop.train.detector.net import Conv, EdgeYolo, YoloHead, fold, narrowed
from edge_agent.workshop.train.exported import exported


class Focus(nn.Module):  # type: ignore[misc]
    """The stem: pixels of a square side by side, then a convolution of 3."""

    def __init__(self, cout: int) -> None:
        super().__init__()
        self.conv = Conv(12, cout, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv(torch.cat([x[..., y::2, z::2] for z in (0, 1) for y in (0, 1)], 1))
        return found


class Head(nn.Module):  # type: ignore[misc]
    """Boxes, objectness and classes of one stride in one map."""

    def __init__(self, own: YoloHead, classes: int) -> None:
        super().__init__()
        self.own, self.objectness = own, nn.Conv2d(own.boxes.in_channels, 1, 1)
        self.classes, self.whole = classes, torch.zeros(0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.own.shared(x)
        kinds = self.own.logits(self.own.class_branch(x)).sigmoid()
        y = self.own.box_branch(x)
        boxes = self.own.boxes(y)
        self.whole = torch.cat([boxes, self.objectness(y).sigmoid(), kinds], 1)
        return boxes, kinds, x


class Yolox(nn.Module):  # type: ignore[misc]
    """(1, 3, size, size) -> (1, N, 5 + classes), raw."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = EdgeYolo(classes, narrowed(0.5))
        self.net.stem = Focus(narrowed(0.5)[0])
        fold(self.net)
        self.net.heads = nn.ModuleList([Head(head, classes) for head in self.net.heads])
        for module in self.modules():
            if isinstance(module, Conv):
                module.act = functional.silu
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in")
                nn.init.normal_(module.bias, std=0.1)
        with torch.no_grad():
            self.net.stem.conv.conv.weight.normal_(std=0.002)

    def forward(self, pictures: Tensor) -> Tensor:
        self.net(pictures)
        maps = [head.whole for head in self.net.heads]
        return torch.cat([one.reshape(1, one.shape[1], -1) for one in maps], 2).transpose(1, 2)


def write_yolox(path: Path, classes: int, size: int, seed: int = 0) -> str:
    """Write the file for pictures (1, 3, size, size); returns its sha256. Output (1, N, 5 + classes), raw."""
    torch.manual_seed(seed)
    model = exported(Yolox(classes), (torch.zeros(1, 3, size, size),), ["images"], ["output"], name="yolox")
    data = model.SerializeToString()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
