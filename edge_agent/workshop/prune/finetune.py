"""Fine-tuning a pruned graph: it follows its parent's outputs, and some maps on the way there, on samples alone.

Distillation (Hinton et al., arXiv 1503.02531) with features (Romero et al., FitNets, arXiv 1412.6550): no labels, no
training set; the samples, and their mirror images where they are pictures, are what is learnt from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_agent.workshop.prune.graph import Array, PruneGraph
from edge_agent.workshop.prune.torch import ends, forward, sigmoided, weight_of_cells
from edge_agent.workshop.prune.walk import Feeds, Say

RATE = 4e-3
"""of the root mean square of a constant, a step, at the start"""
BATCH = 4
ON_THE_WAY = 8
"""layers, evenly spread, whose outputs are compared too"""
LEARNT = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "LayerNormalization")
Case = tuple[Mapping[str, Array], Array | None]
"""inputs of a sample, and where objects are in it"""


def follow(
    parent: PruneGraph,
    student: PruneGraph,
    stays: Mapping[int, Array],
    feeds: Feeds,
    masks: Mapping[int, Array] | None,
    boxes: list[Array] | None,
    minutes: float,
    say: Say,
) -> str:
    """Change `student`'s constants in place, for `minutes`; zeroes that `masks` ask for stay. Returns a line.

    Where the loss on samples that were held apart does not fall, nothing is changed.
    """
    torch.manual_seed(0)
    learnt, held = _cases(feeds, boxes)
    pair = _Pair(parent, student, stays, _watched(student), _constants(student))
    limits = {} if masks is None else {student.nodes[n].input[1]: torch.from_numpy(m) for n, m in masks.items()}
    before = pair.held_loss(held)
    step = _trained(pair, learnt, limits, minutes, say)
    after = pair.held_loss(held)
    if not after < before:
        return f"fine-tuning did not help in {step} steps (loss {before:.4f}, {after:.4f}); left out"
    for name, tensor in pair.trained.items():
        student.values[name] = tensor.detach().numpy().astype(student.values[name].dtype)
    return f"fine-tuned for {step} steps: loss on held samples {before:.4f} to {after:.4f}"


def _cases(feeds: Feeds, boxes: list[Array] | None) -> tuple[list[Case], list[Case]]:
    """What is learnt from, pictures mirrored as well, and what is held apart."""
    cases: list[Case] = [(feed, None if boxes is None else boxes[i]) for i, feed in enumerate(feeds)]
    apart = max(1, len(cases) // 8)
    learnt, held = cases[apart:], cases[:apart]
    if all(value.ndim == 4 for feed in feeds for value in feed.values()):
        learnt = [*learnt, *(_mirrored(*case) for case in learnt)]
    return learnt, held


@dataclass(slots=True)
class _Pair:
    """A parent and the student that follows it."""

    parent: PruneGraph
    student: PruneGraph
    stays: Mapping[int, Array]
    """for a layer the parent's output channels that the student still has"""
    watched: list[int]
    """layers whose outputs are compared"""
    trained: dict[str, Tensor]
    """the student's constants that are learnt, by name"""
    targets: dict[int, list[Tensor]] = field(default_factory=dict)
    """what the parent gives, by number of the case"""

    def loss(self, index: int, case: Case) -> Tensor:
        """How far the student is from the parent on one case; what the parent gives is kept under `index`."""
        feed, boxes = case
        if index not in self.targets:
            with torch.no_grad():
                whole = forward(self.parent, {}, feed, [self.parent.nodes[n].output[0] for n in self.watched])
            self.targets[index] = [_kept(y, self.stays.get(n)) for n, y in zip(self.watched, whole, strict=True)]
        given = forward(self.student, self.trained, feed, [self.student.nodes[n].output[0] for n in self.watched])
        return _loss(self.student, self.watched, given, self.targets[index], boxes)

    def held_loss(self, held: list[Case]) -> float:
        """The mean loss on cases that are not learnt from."""
        with torch.no_grad():
            return sum(float(self.loss(-1 - i, case)) for i, case in enumerate(held)) / len(held)


def _trained(pair: _Pair, learnt: list[Case], limits: Mapping[str, Tensor], minutes: float, say: Say) -> int:
    """Change the constants for `minutes`, those in `limits` only where these are 1; returns the steps."""
    groups = [{"params": [t], "lr": RATE * float(t.detach().square().mean().sqrt())} for t in pair.trained.values()]
    rates = [float(group["lr"]) for group in groups]  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(groups)
    began, step = time.monotonic(), 0
    while (part := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * part))
        optimizer.zero_grad()
        for index in np.random.default_rng(step).choice(len(learnt), min(BATCH, len(learnt)), replace=False):
            (pair.loss(int(index), learnt[index]) / BATCH).backward()
        optimizer.step()
        with torch.no_grad():
            for name, mask in limits.items():
                pair.trained[name].mul_(mask)
        step += 1
        say("fine-tuning", int(part * 1000), 1000)
    say("fine-tuning", 1000, 1000)
    return step


def _watched(graph: PruneGraph) -> list[int]:
    """The last layers, and a few on the way."""
    last, layers = ends(graph), graph.layers()
    some = {layers[int(i)] for i in np.linspace(0, len(layers) - 1, ON_THE_WAY + 2)[1:-1]}
    return sorted({*last, *some})


def _constants(graph: PruneGraph) -> dict[str, Tensor]:
    """What is learnt: weights and what is added to them."""
    found = {}
    for node in graph.nodes:
        for name in node.input:
            value = graph.values.get(name)
            if node.op_type in LEARNT and value is not None and value.dtype == np.float32 and value.size > 1:
                found[name] = torch.from_numpy(value.copy()).requires_grad_()
    return found


def _mirrored(feed: Mapping[str, Array], boxes: Array | None) -> tuple[dict[str, Array], Array | None]:
    turned = {name: np.ascontiguousarray(value[..., ::-1]) for name, value in feed.items()}
    if boxes is None or not len(boxes):
        return turned, boxes
    return turned, np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)


def _kept(y: Tensor, stays: Array | None) -> Tensor:
    if stays is None:
        return y
    return y.index_select(1 if y.ndim == 4 else y.ndim - 1, torch.from_numpy(stays))


def _loss(
    graph: PruneGraph, watched: list[int], given: list[Tensor], goals: list[Tensor], boxes: Array | None
) -> Tensor:
    """Squared error over the spread, or cross entropy of what goes into a sigmoid; more where objects are."""
    last = set(ends(graph))
    total = torch.zeros(())
    for number, y, goal in zip(watched, given, goals, strict=True):
        weight = weight_of_cells(y, boxes)
        if sigmoided(graph, number):
            p = goal.sigmoid()
            # less the entropy of the goal, so that 0 is the best
            entropy = F.binary_cross_entropy_with_logits(goal, p, reduction="none")
            error = (F.binary_cross_entropy_with_logits(y, p, reduction="none") - entropy) * 10
        else:
            error = (y - goal) ** 2 / goal.var().clamp(min=1e-6)
        total = total + (error * weight).mean() / weight.mean() * (1.0 if number in last else 0.25)
    return total / len(watched)
