"""What a cell should say, and how wrong it is.

Targets are dense, a score per class and a box for every cell, wherever they come from: a teacher's own cells, or boxes
(labels, another detector's findings) laid onto the cells around their middle.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_agent.workshop.train.detector.augment import Size
from edge_agent.workshop.train.detector.net import STRIDES
from edge_agent.workshop.train.detector.teacher import Dense

LEVEL_ENDS = (0.0, 56.0, 128.0, 1e6)
"a box whose longer side, in pixels, lies between two of these belongs to the stride of that place"
LABEL_SCORE = 0.9
"what a cell at a labelled box is to say"


def targets_from_boxes(boxes: Tensor, cells: Tensor, classes: int) -> Dense:
    """`boxes` (B, K, 6) x1, y1, x2, y2, class (-1: none), score; `cells` (N, 3) as of teacher.cells.

    A cell takes the smallest box of its level's size whose middle is within 1.5 strides of the cell's.
    """
    xy, stride = cells[:, :2], cells[:, 2]
    size = boxes[..., 2:4] - boxes[..., :2]
    long = size.amax(-1)
    level = torch.log2(stride / 8).long()
    ends = torch.tensor(LEVEL_ENDS, device=boxes.device)
    right_size = (long[:, None] > ends[level][:, None]) & (long[:, None] <= ends[level + 1][:, None])
    middle = (boxes[..., 2:4] + boxes[..., :2]) / 2
    near = ((xy[:, None] - middle[:, None]).abs() <= 1.5 * stride[:, None, None]).all(-1)
    within = ((xy[:, None] > boxes[:, None, :, :2]) & (xy[:, None] < boxes[:, None, :, 2:4])).all(-1)
    # the cell that holds the middle counts even where the box is smaller than the cell
    closest = ((xy[:, None] - middle[:, None]).abs() <= 0.5 * stride[:, None, None]).all(-1)
    takes = right_size & ((near & within) | closest) & (boxes[..., 4] >= 0)[:, None]  # (B, N, K)
    area = torch.where(takes, size.prod(-1)[:, None], torch.inf)
    best = area.argmin(-1)  # (B, N)
    chosen = boxes.gather(1, best[..., None].expand(-1, -1, 6))
    score = torch.where(takes.any(-1), chosen[..., 5] * LABEL_SCORE, 0.0)
    one_hot = F.one_hot(chosen[..., 4].long().clamp(0, classes - 1), classes).float()
    sides = torch.cat([xy - chosen[..., :2], chosen[..., 2:4] - xy], -1) / stride[:, None]
    return Dense(one_hot * score[..., None], sides, [])


def merged(teacher: Dense, labels: Dense) -> Dense:
    """The teacher's word, and the label's wherever it is the stronger."""
    stronger = labels.score.amax(-1, keepdim=True) > teacher.score.amax(-1, keepdim=True)
    boxes = torch.where(stronger, labels.boxes, teacher.boxes)
    return Dense(torch.maximum(teacher.score, labels.score), boxes, teacher.features)


def mirrored(dense: Dense, size: Size) -> Dense:
    """The targets of the pictures flipped left to right."""
    scores, boxes = [], []
    at = 0
    for stride in STRIDES:
        wide, high = size[0] // stride, size[1] // stride
        part = slice(at, at + high * wide)
        at += high * wide
        scores.append(dense.score[:, part].unflatten(1, (high, wide)).flip(2).flatten(1, 2))
        boxes.append(dense.boxes[:, part].unflatten(1, (high, wide)).flip(2).flatten(1, 2)[..., [2, 1, 0, 3]])
    return Dense(torch.cat(scores, 1), torch.cat(boxes, 1), [f.flip(3) for f in dense.features])


def losses(boxes: Tensor, logits: Tensor, targets: Dense) -> tuple[Tensor, Tensor]:
    """Class loss and box loss, each a sum over the cells divided by the sum of the targets' best scores.

    Class: cross entropy with the soft target, weighted by the distance to it (quality focal loss with exponent 1; Li et
    al., arXiv 2006.04388). Box: 1 - GIoU (Rezatofighi et al., arXiv 1902.09630) and a smooth L1 on the distances,
    weighted by the target's best score.
    """
    boxes, logits = boxes.float(), logits.float()
    weight = targets.score.amax(-1)
    total = weight.sum().clamp(min=1.0)
    away = (logits.sigmoid() - targets.score).abs().detach()
    entropy = F.binary_cross_entropy_with_logits(logits, targets.score, reduction="none")
    class_loss = (away * entropy).sum() / total
    weight = torch.where(weight > 0.05, weight, 0.0)
    goal = targets.boxes
    giou = _giou(boxes.clamp(min=0), goal)
    apart = F.smooth_l1_loss(boxes, goal.clamp(min=0), reduction="none", beta=0.5).mean(-1)
    box_loss = (weight * (2.0 * (1 - giou) + 0.5 * apart)).sum() / total
    return class_loss, box_loss


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes around one centre, (…, 4) left, top, right, bottom."""
    area_a = (a[..., 0] + a[..., 2]) * (a[..., 1] + a[..., 3])
    area_b = (b[..., 0] + b[..., 2]) * (b[..., 1] + b[..., 3])
    least, most = torch.minimum(a, b), torch.maximum(a, b)
    both = (least[..., 0] + least[..., 2]).clamp(min=0) * (least[..., 1] + least[..., 3]).clamp(min=0)
    hull = (most[..., 0] + most[..., 2]) * (most[..., 1] + most[..., 3])
    union = (area_a + area_b - both).clamp(min=1e-6)
    return both / union - (hull - union) / hull.clamp(min=1e-6)


def feature_loss(own: list[Tensor], teacher: list[Tensor], spread: list[Tensor]) -> Tensor:
    """Mean over the maps (B, K, h, w) of the squared distance, each channel in units of the teacher's `spread` (K,)."""
    parts = [
        ((mine.float() - goal) / scale[:, None, None]).square().mean()
        for mine, goal, scale in zip(own, teacher, spread, strict=True)
    ]
    return torch.stack(parts).mean()
