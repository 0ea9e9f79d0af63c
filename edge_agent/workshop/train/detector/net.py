"""edge-yolo: a one-stage, anchor-free detector for small boards.

The shape is YOLOX-nano's (Ge et al., arXiv 2107.08430; depthwise, depth 0.33), or narrower: cross-stage partial stages
(Wang et al., arXiv 1911.11929) to strides 8, 16 and 32, spatial pyramid pooling (He et al., arXiv 1406.4729), a
path-aggregation neck (Liu et al., arXiv 1803.01534), and for each stride a class branch and a box branch. What differs
is made for 8 bits and for small processors: ReLU where it does as well as YOLOX's SiLU (in the stem, after depthwise
convolutions, inside bottlenecks, in the heads), the stem is one 4×4 convolution, each branch has an output of its own,
boxes are distances (as in FCOS, Tian et al., arXiv 1904.01355), there is no objectness.

The order of the convolutions is that of a YOLOX file, so that `teacher.pairs` can pair them. A saved network is named
tensors without batch normalisation; the ONNX file's initialisers bear the same names, so the shipped file is all that a
fine-tuning needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edge_agent.errors import ModelError

STRIDES = (8, 16, 32)
PIXEL_SCALE = 64.0
"pixels are divided by it in training; folded into the stem afterwards"
WIDTHS = (16, 32, 64, 128, 240)
"channels of the stem and at strides 4, 8, 16, 32; a head has as many as stride 8. YOLOX-nano has 256 at the last"
STAGES = ("stem", "stage4.1.join", "stage8.1.join", "stage16.1.join", "stage32.2.join")
"that have these widths"
FOLLOWED = (
    *("stage8.1.join", "stage16.1.join", "stage32.2.join", "up8.join", "out16.join", "out32.join"),
    *("heads.0.shared", "heads.1.shared", "heads.2.shared"),
)
"whose outputs are the features that a teacher's are compared with; the last three are read by both branches"


Activation = Callable[[Tensor], Tensor]


class Conv(nn.Module):  # type: ignore[misc]
    """Convolution, batch normalisation until it is folded, activation. Keeps the size at stride 1."""

    def __init__(
        self, cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: Activation = F.silu
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.norm: nn.Module | None = nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03)
        self.act = act
        # oneDNN's bfloat16 gradient of a strided depthwise convolution is seven times slower than float32's
        self.exact = groups > 1 and stride > 1

    def forward(self, x: Tensor) -> Tensor:
        if self.exact and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                x = self.conv(x.float())
        else:
            x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.act(x)


class Separable(nn.Module):  # type: ignore[misc]
    """A depthwise 3×3 convolution and a pointwise one (Howard et al., arXiv 1704.04861)."""

    def __init__(self, cin: int, cout: int, stride: int = 1, act: Activation = F.silu) -> None:
        super().__init__()
        self.depth = Conv(cin, cin, 3, stride, cin, act=F.relu)
        self.point = Conv(cin, cout, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.depth(x))


class Bottleneck(nn.Module):  # type: ignore[misc]
    """A pointwise and a separable convolution, and their input added where `shortcut` says so."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.first = Conv(channels, channels, act=F.relu)
        self.second = Separable(channels, channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        return x + y if self.shortcut else y


class Partial(nn.Module):  # type: ignore[misc]
    """A cross-stage partial stage: half of the channels go through `count` bottlenecks, half go by."""

    def __init__(self, cin: int, cout: int, count: int, shortcut: bool = True) -> None:
        super().__init__()
        self.through = Conv(cin, cout // 2)
        self.by = Conv(cin, cout // 2)
        self.blocks = nn.Sequential(*[Bottleneck(cout // 2, shortcut) for _ in range(count)])
        self.join = Conv(cout // 2 * 2, cout)

    def forward(self, x: Tensor) -> Tensor:
        through, by = self.through(x), self.by(x)
        return self.join(torch.cat([self.blocks(through), by], 1))


class Pyramid(nn.Module):  # type: ignore[misc]
    """Spatial pyramid pooling: windows of 5, 9 and 13 by repeating one max pool of 5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shrink = Conv(channels, channels // 2)
        self.join = Conv(channels // 2 * 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.shrink(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.join(torch.cat(parts, 1))


class YoloHead(nn.Module):  # type: ignore[misc]
    """One stride's head: a shared pointwise layer, then a class branch (C logits) and a box branch (4 distances)."""

    def __init__(self, cin: int, width: int, classes: int) -> None:
        super().__init__()
        self.shared = Conv(cin, width, act=F.relu)
        self.class_branch = nn.Sequential(*[Separable(width, width, act=F.relu) for _ in range(2)])
        self.logits = nn.Conv2d(width, classes, 1)
        self.box_branch = nn.Sequential(*[Separable(width, width, act=F.relu) for _ in range(2)])
        self.boxes = nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.logits.bias, -4.6)
        nn.init.constant_(self.boxes.bias, 2.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.shared(x)
        logits = self.logits(self.class_branch(x))
        return self.boxes(self.box_branch(x)), logits, x


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class EdgeYolo(nn.Module):  # type: ignore[misc]
    """Pictures (B, 3, H, W) BGR, 0..255 / PIXEL_SCALE, H and W multiples of 32 -> (boxes, logits, features).

    boxes (B, N, 4): left, top, right, bottom from the cell centre ((i + 0.5) * stride) in units of the stride; raw in
    training mode, at least 0 otherwise. logits (B, N, C): before the sigmoid, no objectness. N runs over the strides 8,
    16, 32, each row by row. features: maps (B, K, h, w), those of FOLLOWED, for feature distillation.
    """

    def __init__(self, classes: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.classes = classes
        w2, w4, w8, w16, w32 = widths
        self.stem = Conv(3, w2, 4, 2, act=F.relu)
        self.stage4 = nn.Sequential(Separable(w2, w4, 2), Partial(w4, w4, 1))
        self.stage8 = nn.Sequential(Separable(w4, w8, 2), Partial(w8, w8, 3))
        self.stage16 = nn.Sequential(Separable(w8, w16, 2), Partial(w16, w16, 3))
        self.stage32 = nn.Sequential(Separable(w16, w32, 2), Pyramid(w32), Partial(w32, w32, 1, False))
        self.down32 = Conv(w32, w16)
        self.up16 = Partial(2 * w16, w16, 1, False)
        self.down16 = Conv(w16, w8)
        self.up8 = Partial(2 * w8, w8, 1, False)
        self.pan16 = Separable(w8, w8, 2)
        self.out16 = Partial(2 * w8, w16, 1, False)
        self.pan32 = Separable(w16, w16, 2)
        self.out32 = Partial(2 * w16, w32, 1, False)
        self.heads = nn.ModuleList([YoloHead(cin, w8, classes) for cin in (w8, w16, w32)])

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        at8 = self.stage8(self.stage4(self.stem(pictures)))
        at16 = self.stage16(at8)
        at32 = self.stage32(at16)
        top = self.down32(at32)
        middle = self.down16(self.up16(torch.cat([_double(top), at16], 1)))
        out8 = self.up8(torch.cat([_double(middle), at8], 1))
        out16 = self.out16(torch.cat([self.pan16(out8), middle], 1))
        out32 = self.out32(torch.cat([self.pan32(out16), top], 1))
        boxes, logits, features = [], [], [at8, at16, at32, out8, out16, out32]
        for head, level in zip(self.heads, (out8, out16, out32), strict=True):
            box, logit, feature = head(level)
            # sizes as numbers, so that none is computed in an exported file
            boxes.append(box.permute(0, 2, 3, 1).reshape(len(box), -1, 4))
            logits.append(logit.permute(0, 2, 3, 1).reshape(len(box), -1, self.classes))
            features.append(feature)
        every = torch.cat(boxes, 1)
        return every if self.training else F.relu(every), torch.cat(logits, 1), features


def narrowed(share: float) -> tuple[int, ...]:
    """WIDTHS times `share`, in eights, as vector units like them."""
    return tuple(max(8, 8 * round(width * share / 8)) for width in WIDTHS)


def new_net(classes: int, widths: tuple[int, ...], seed: int) -> EdgeYolo:
    """A fresh network with batch normalisation."""
    torch.manual_seed(seed)
    net = EdgeYolo(classes, widths)
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out" if module.groups == 1 else "fan_in")
    return net


def folded_copy(net: EdgeYolo) -> EdgeYolo:
    """A copy in evaluation mode on the CPU, without normalisation, for pixels 0..255: what is exported and saved."""
    folded = fold(copy.deepcopy(net).float().cpu())
    with torch.no_grad():
        folded.stem.conv.weight /= PIXEL_SCALE
    return folded


def fold(net: EdgeYolo) -> EdgeYolo:
    """Itself, in evaluation mode; every normalisation becomes, by its running statistics, part of its convolution."""
    for module in net.eval().modules():
        if isinstance(module, Conv) and module.norm is not None:
            module.conv, module.norm = fuse_conv_bn_eval(module.conv, module.norm), None
    return net


def bare(classes: int, widths: tuple[int, ...]) -> EdgeYolo:
    """A trainable network without normalisation, whose weights are to be set."""
    net: EdgeYolo = fold(EdgeYolo(classes, widths)).train().requires_grad_()
    return net


def from_folded(tensors: Mapping[str, np.ndarray], classes: int, rows: list[int] | None = None) -> EdgeYolo:
    """A trainable network without normalisation that computes what `folded_copy`'s tensors do.

    `rows` are the class rows to keep, one for each of `classes`; -1 leaves a row fresh. None keeps all as they are.
    Raises ModelError where the tensors are not edge-yolo's.
    """
    try:
        net = bare(classes, tuple(int(tensors[f"{name}.conv.weight"].shape[0]) for name in STAGES))
        _narrow(net, tensors)
        with torch.no_grad():
            for name, target in net.state_dict().items():
                value = np.array(tensors[name], np.float32)
                if name == "stem.conv.weight":
                    value = value * PIXEL_SCALE
                if ".logits." in name and rows is not None:
                    for row, source in enumerate(rows):
                        if source >= 0:
                            target[row] = torch.from_numpy(value)[source]
                else:
                    target.copy_(torch.from_numpy(value))
    except (KeyError, RuntimeError, IndexError) as error:
        raise ModelError(f"these weights are not edge-yolo's ({str(error).splitlines()[0]})") from error
    return net


def _narrow(net: EdgeYolo, tensors: Mapping[str, np.ndarray]) -> None:
    """Give each convolution the widths of `tensors`, which differ from layer to layer in a pruned network.

    What is made anew is zero; the number of classes stays.
    """
    for name, conv in convolutions(net):
        cout, per_group = tensors[f"{name}.weight"].shape[:2]
        cout = conv.out_channels if ".logits" in name else cout
        if (cout, per_group) == conv.weight.shape[:2]:
            continue
        if cout != conv.out_channels:
            conv.bias = nn.Parameter(torch.zeros(cout))
        conv.groups = cout if conv.groups > 1 else 1
        conv.out_channels, conv.in_channels = cout, per_group * conv.groups
        conv.weight = nn.Parameter(torch.zeros(cout, per_group, *conv.kernel_size))


def convolutions(net: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    """Every convolution with its name, in the order of a YOLOX file."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            yield name, module
