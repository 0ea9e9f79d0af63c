"""A start for edge-yolo: a YOLOX teacher's own convolutions, carried over, or made narrower, by reconstruction.

For each convolution, in order: as many output channels as the student has are kept, those that best span all of the
teacher's (greedy orthogonal projection), and the student's weights are the least-squares solution that gives the
teacher's values of those channels from the *student's* input, so each layer makes good what the ones before it lost
(He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", arXiv 1707.06168, with projection in place of
LASSO). The same step answers for the student's ReLUs in place of the teacher's SiLU.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_agent.errors import ModelError
from edge_agent.workshop.train.detector.net import PIXEL_SCALE, EdgeYolo, bare, convolutions
from edge_agent.workshop.train.detector.teacher import YoloxTeacher, decode, pairs

ROWS = 24_000
"cells that an equation system is made of, at most"
RIDGE = 1e-4
"relative to the mean square of the inputs; keeps a layer from leaning on what is particular to few pictures"


def start_from(
    teacher: YoloxTeacher, widths: tuple[int, ...], pictures: Tensor, say: Callable[[str], None]
) -> EdgeYolo:
    """An EdgeYolo without normalisation, fitted to `teacher` on `pictures` (B, 3, H, W) float32 BGR 0..255.

    `widths` as of EdgeYolo. Raises ModelError where the teacher
    is not of YOLOX's depthwise shape with depth 0.33.
    """
    net = bare(len(teacher.keep), widths)
    graph = teacher.model.graph
    student = list(convolutions(net))
    paired = list(pairs(graph).values())
    if not paired:
        raise ModelError(f"{teacher.path} is not a YOLOX of the depthwise shape with depth 0.33; use --start none")
    sites = Sites(teacher, pictures)
    kept: dict[str, Tensor] = {}
    maker = {node.output[0]: node for node in graph.node}
    consumers = {name: node for node in graph.node for name in node.input}

    def solve(i: int, conv: nn.Conv2d, source: Tensor) -> None:
        """Called when the student's pass reaches convolution `i`: all before it are solved by now."""
        name, node = student[i][0], paired[i]
        if name.endswith((".logits", ".boxes")):
            goal, weight = sites.head(int(name.split(".")[1]), name.endswith(".boxes"))
        else:
            wanted = sites.before_activation(node.output[0])
            if conv.groups > 1:
                channels = kept[_origin(maker, node.input[0])]
            elif (other := _added_to(maker, consumers, node)) in kept:
                channels = kept[other]
            else:
                channels = spanning_channels(wanted, conv.out_channels)
            kept[node.output[0]] = channels
            goal, weight = wanted[:, channels], None
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

    def before_activation(self, name: str) -> Tensor:
        """What the student should have before its activation, (B, C, sites)."""
        return self.values[name]

    def head(self, level: int, boxes: bool) -> tuple[Tensor, Tensor]:
        """Targets of one stride's prediction (B, C, sites), and the weight of each site (B, 1, sites)."""
        score, distances = decode([self.values[self.teacher.levels[level]]], self.teacher.keep)
        value = distances.clamp(max=20) if boxes else torch.logit(score, eps=2e-3)
        return value.transpose(1, 2), (score.amax(-1, keepdim=True) + 0.02).transpose(1, 2)


def _origin(maker: dict[str, onnx.NodeProto], name: str) -> str:
    """The output of the convolution whose channels the tensor `name` has."""
    node = maker[name]
    return name if node.op_type == "Conv" else _origin(maker, node.input[0])


def _added_to(
    maker: dict[str, onnx.NodeProto], consumers: dict[str, onnx.NodeProto], node: onnx.NodeProto
) -> str | None:
    """The convolution whose output `node`'s is added to (a shortcut), if any: both must keep the same channels."""
    after = consumers.get(node.output[0])
    while after is not None and after.op_type in ("Sigmoid", "Mul"):
        name = after.output[0]
        after = consumers.get(name)
        if after is not None and after.op_type == "Add":
            other = after.input[1] if after.input[0] == name else after.input[0]
            return _origin(maker, other)
    return None


def spanning_channels(values: Tensor, count: int) -> Tensor:
    """`count` channels of `values` (B, C, sites), sorted: each next one explains most of what is still unexplained."""
    rows = values.transpose(0, 1).flatten(1).double()  # (C, B * sites)
    rows = rows - rows.mean(1, keepdim=True)
    covariance = rows @ rows.T / rows.shape[1]
    chosen: list[int] = []
    for _ in range(count):
        # what channel j explains of all others: |cov[:, j]|² / cov[j, j]
        own = covariance.diagonal().clamp(min=1e-12)
        gain = (covariance**2).sum(0) / own
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        column = covariance[:, best] / own[best].sqrt()
        covariance = covariance - torch.outer(column, column)
    return torch.tensor(sorted(chosen))


def fit_convolution(
    conv: nn.Conv2d, source: Tensor, goal: Tensor, weight: Tensor | None, chosen: Callable[[int], Tensor]
) -> float:
    """Set `conv` to the ridge solution source (B, C, h, w) -> goal (B, K, sites). Returns the variance left, 0..1."""
    channels, padding = source.shape[1], conv.padding
    assert not isinstance(padding, str)
    parts = []
    for picture in source.float():
        windows = F.unfold(picture[None], conv.kernel_size, padding=padding, stride=conv.stride)
        parts.append(windows[..., chosen(windows.shape[2])])
    windows = torch.cat(parts)  # (B, C * k * k, sites)
    y = goal.double()
    w = torch.ones_like(y[:, :1]) if weight is None else weight.double()
    if conv.groups > 1:
        x = windows.unflatten(1, (channels, -1)).permute(1, 0, 3, 2).flatten(1, 2).double()  # (C, rows, k * k)
        y = y.permute(1, 0, 2).flatten(1)[..., None]  # (C, rows, 1)
        w = w.permute(1, 0, 2).flatten(1)[..., None]
    else:
        x = windows.permute(0, 2, 1).flatten(0, 1)[None].double()
        y = y.permute(0, 2, 1).flatten(0, 1)[None]
        w = w.permute(0, 2, 1).flatten(0, 1)[None]
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    normal = x.transpose(1, 2) @ (x * w)
    ridge = normal.diagonal(dim1=1, dim2=2).mean(-1).clamp(min=1e-9)[:, None, None] * RIDGE
    normal = normal + ridge * torch.eye(normal.shape[-1], dtype=torch.float64)
    solution = torch.linalg.solve(normal, x.transpose(1, 2) @ (y * w))  # (G, k * k * cin + 1, cout)
    assert conv.bias is not None
    if conv.groups > 1:
        conv.weight.copy_(solution[:, :-1, 0].view_as(conv.weight))
        conv.bias.copy_(solution[:, -1, 0])
    else:
        conv.weight.copy_(solution[0, :-1].T.reshape(conv.weight.shape))
        conv.bias.copy_(solution[0, -1])
    left = ((y - x @ solution) ** 2 * w).sum() / ((y - y.mean(1, keepdim=True)) ** 2 * w).sum().clamp(min=1e-9)
    return float(left)
