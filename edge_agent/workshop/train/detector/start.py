"""A start for edge-yolo: a YOLOX teacher's own convolutions, carried over by reconstruction.

For each convolution, in order, the student's weights are the least-squares solution that gives the teacher's values
from the *student's* input, so each layer makes good what the ones before it lost (He et al., "Channel Pruning for
Accelerating Very Deep Neural Networks", arXiv 1707.06168, without its pruning). The same step answers for the student's
ReLUs in place of the teacher's SiLU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_agent.errors import ModelError
from edge_agent.workshop.train.detector.net import PIXEL_SCALE, STAGES, EdgeYolo, bare, convolutions
from edge_agent.workshop.train.detector.teacher import YoloxTeacher, decode, pairs

ROWS = 24_000
"cells that an equation system is made of, at most"
RIDGE = 1e-4
"relative to the mean square of the inputs; keeps a layer from leaning on what is particular to few pictures"


def start_from(teacher: YoloxTeacher, pictures: Tensor, say: Callable[[str], None]) -> EdgeYolo:
    """An EdgeYolo as wide as `teacher`, without normalisation, fitted to it on `pictures` (B, 3, H, W) float32 BGR
    0..255. Raises ModelError where the teacher is not of YOLOX's depthwise shape with depth 0.33.
    """
    paired = pairs(teacher.model.graph)
    if not paired:
        raise ModelError(f"{teacher.path} is not a YOLOX of the depthwise shape with depth 0.33; use --start none")
    shapes = {one.name: one.dims for one in teacher.model.graph.initializer}
    net = bare(len(teacher.keep), tuple(shapes[paired[name].input[1]][0] for name in STAGES))
    student = list(convolutions(net))
    sites = Sites(teacher, pictures)

    def solve(i: int, conv: nn.Conv2d, source: Tensor) -> None:
        """Called when the student's pass reaches convolution `i`: all before it are solved by now."""
        name = student[i][0].removesuffix(".conv")
        if name.endswith((".logits", ".boxes")):
            goal, weight = sites.head(int(name.split(".")[1]), name.endswith(".boxes"))
        else:
            # what the student should have before its activation, (B, C, sites)
            goal, weight = sites.values[paired[name].output[0]], None
        error = fit_convolution(conv, source, goal, weight, sites.chosen)
        if i % 20 == 0 or i == len(student) - 1:
            say(f"start: {i + 1} of {len(student)} convolutions, unexplained {error:.2f}")

    hooks = [
        conv.register_forward_pre_hook(lambda module, inputs, i=i: solve(i, module, inputs[0]))
        for i, (_, conv) in enumerate(student)
    ]
    with torch.no_grad():
        net(pictures / PIXEL_SCALE)
    for hook in hooks:
        hook.remove()
    return net


class Sites:
    """The teacher's tensors on the calibration pictures, at randomly chosen cells only."""

    def __init__(self, teacher: YoloxTeacher, pictures: Tensor) -> None:
        self.teacher = teacher
        self.count = len(pictures)
        names = [node.output[0] for node in teacher.model.graph.node if node.op_type == "Conv"]
        session = teacher.open([*names, *teacher.levels])
        source = session.get_inputs()[0].name
        parts: dict[str, list[Tensor]] = {}
        for batch in pictures.split(8):
            for name, value in zip([*names, *teacher.levels], session.run(None, {source: batch.numpy()}), strict=True):
                flat = torch.from_numpy(value).flatten(2)
                parts.setdefault(name, []).append(flat[..., self.chosen(flat.shape[2])].clone())
        self.values = {name: torch.cat(values) for name, values in parts.items()}

    def chosen(self, cells: int) -> Tensor:
        """Which of a map's cells are looked at, the same for every map of that size."""
        order = torch.randperm(cells, generator=torch.Generator().manual_seed(0))
        return order[: max(1, ROWS // self.count)].sort().values

    def head(self, level: int, boxes: bool) -> tuple[Tensor, Tensor]:
        """Targets of one stride's prediction (B, C, sites), and the weight of each site (B, 1, sites)."""
        score, distances = decode([self.values[self.teacher.levels[level]]], self.teacher.keep)
        value = distances.clamp(max=20) if boxes else torch.logit(score, eps=2e-3)
        return value.transpose(1, 2), (score.amax(-1, keepdim=True) + 0.02).transpose(1, 2)


def fit_convolution(
    conv: nn.Conv2d, source: Tensor, goal: Tensor, weight: Tensor | None, chosen: Callable[[int], Tensor]
) -> float:
    """Set `conv` to the ridge solution source (B, C, h, w) -> goal (B, K, sites). Returns the variance left, 0..1."""
    assert not isinstance(conv.padding, str)
    parts = []
    for picture in source.float():
        windows = F.unfold(picture[None], conv.kernel_size, padding=conv.padding, stride=conv.stride)
        parts.append(windows[..., chosen(windows.shape[2])])
    windows, groups = torch.cat(parts), conv.groups  # (B, C * k * k, sites)
    x, y = _laid(windows, groups), _laid(goal, groups)
    w = _laid(torch.ones_like(goal[:, :1]) if weight is None else weight, 1)
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    normal = x.transpose(1, 2) @ (x * w)
    ridge = normal.diagonal(dim1=1, dim2=2).mean(-1).clamp(min=1e-9)[:, None, None] * RIDGE
    normal = normal + ridge * torch.eye(normal.shape[-1], dtype=torch.float64)
    solution = torch.linalg.solve(normal, x.transpose(1, 2) @ (y * w))  # (G, k * k * cin + 1, cout)
    assert conv.bias is not None
    conv.weight.copy_(solution[:, :-1].transpose(1, 2).reshape(conv.weight.shape))
    conv.bias.copy_(solution[:, -1].flatten())
    left = ((y - x @ solution) ** 2 * w).sum() / ((y - y.mean(1, keepdim=True)) ** 2 * w).sum().clamp(min=1e-9)
    return float(left)


def _laid(values: Tensor, groups: int) -> Tensor:
    """(B, groups * n, sites) -> (groups, B * sites, n): a system of equations a group."""
    return values.unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2).double()
