"""The loop that every long training goes through, and what its steps have in common."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_agent.errors import ModelError

Say = Callable[[str], None]
TOLD_S = 10.0
"""between two lines on how far it is"""


@dataclass
class Clock:
    """How far a training is: by time, by steps, or by what is over first."""

    seconds: float | None = None
    """that it takes in all; None: no limit"""
    steps: int | None = None
    step: int = 0
    spent: float = 0.0
    """seconds so far, those before a resume included"""

    def share(self) -> float:
        """Of the training that is over, 0..1."""
        by_steps = self.step / self.steps if self.steps is not None else 0.0
        return min(1.0, max(by_steps, self.spent / self.seconds if self.seconds is not None else 0.0))


def loop(
    clock: Clock,
    net: nn.Module,
    learn: Callable[[float], Tensor],
    names: Sequence[str],
    keep: Callable[[list[float]], None],
    say: Say,
    save_s: float = 60.0,
) -> None:
    """Take steps until the clock's time is over.

    `learn`: one step at a share of the training; its losses, called `names`. `keep` gets their means every `save_s`
    seconds and at the end: it writes a checkpoint. Raises ModelError where a loss or a weight of `net` is no finite
    number; what was kept last is then the last good state.
    """
    began = told = saved = time.monotonic()
    before, first, recent = clock.spent, clock.step, list[Tensor]()
    if clock.share() >= 1.0:
        say("the training was already over; nothing was changed")
    while (share := clock.share()) < 1.0:
        recent.append(learn(share))
        now = time.monotonic()
        clock.step, clock.spent = clock.step + 1, before + now - began
        due = clock.share() >= 1.0 or now - saved >= save_s
        if now - told < TOLD_S and not due:
            continue
        means = torch.stack(recent).mean(0).tolist()
        if not all(map(math.isfinite, means)) or not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
            raise ModelError(
                f"the loss is no finite number at step {clock.step}: the last checkpoint, where there "
                "is one, is the last good state: go on from it with --resume and a lower --rate"
            )
        left = clock.spent / max(1e-6, clock.share()) * (1 - clock.share())
        parts = ", ".join(f"{name} {value:.4f}" for name, value in zip(names, means, strict=True))
        speed = (clock.step - first) / max(1e-6, now - told)
        say(f"step {clock.step} ({clock.share():.0%}, {left:.0f} s left): {parts}, {speed:.2g} steps/s")
        told, first = now, clock.step
        recent.clear()
        if due:
            keep(means)
            told = saved = time.monotonic()


def cosine(share: float, least: float = 0.0) -> float:
    """From 1 to `least` along half a wave."""
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def stepped(optimizer: torch.optim.Optimizer, rate: float, loss: Tensor, most: float = math.inf) -> None:
    """One step down the gradient of `loss`, which is cut at the norm `most`; a group's rate is times its `scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if most < math.inf:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], most)
    optimizer.step()


def moved(mean: nn.Module, net: nn.Module, keep: float, step: int) -> None:
    """Move `mean`, the moving mean of a network, a step on; after a run-in it keeps `keep` of itself."""
    kept, now = ([t for t in one.state_dict().values() if t.is_floating_point()] for one in (mean, net))
    with torch.no_grad():
        torch._foreach_lerp_(kept, now, 1 - min(keep, (2 + step) / (11 + step)))
