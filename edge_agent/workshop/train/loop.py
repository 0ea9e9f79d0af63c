"""The frame of every long training: its loop, its checkpoints, its curve, and what its steps have in common."""

from __future__ import annotations

import csv
import io
import math
import os
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_agent import files
from edge_agent.errors import EdgeAgentError, ModelError, UsageError
from edge_agent.workshop.train.finish import read_curve

Say = Callable[[str], None]
STATE, BEST, CURVE = "checkpoint.pt", "best.pt", "curve.csv"
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


class Training:
    """Networks and optimizers on their way, in the folder of their checkpoint and their curve."""

    def __init__(
        self,
        out: Path,
        clock: Clock,
        nets: Mapping[str, nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        resume: bool = False,
        about: Mapping[str, Any] = {},
    ) -> None:
        """`resume`: go on from the checkpoint in `out`, EdgeAgentError where there is none or it is of another
        training; `about`: numbers and words that a checkpoint names beside the weights.
        """
        self.out, self.clock, self.about = out, clock, about
        self.nets, self.optimizers = nn.ModuleDict(nets), optimizers
        self.curve: list[dict[str, float]] = []
        if resume:
            self.restore(load(out / STATE))
            self.curve = [row for row in read_curve(out / CURVE) if row["step"] <= clock.step]

    def state(self) -> dict[str, Any]:
        """Everything a resume needs."""
        optimizers = [one.state_dict() for one in self.optimizers]
        clock = {"step": self.clock.step, "seconds": self.clock.spent}
        return {**clock, **self._weights(), "optimizers": optimizers}

    def _weights(self) -> dict[str, Any]:
        return {**self.about, **{name: net.state_dict() for name, net in self.nets.items()}}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Undo `state`. ModelError for one of another training."""
        try:
            for name, net in self.nets.items():
                net.load_state_dict(kept[name])
            for optimizer, one in zip(self.optimizers, kept["optimizers"], strict=True):
                optimizer.load_state_dict(one)
            self.clock.step, self.clock.spent = int(kept["step"]), float(kept["seconds"])
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise ModelError("the checkpoint is of another training; start without --resume") from None

    def run(
        self,
        learn: Callable[[float], Tensor],
        names: Sequence[str],
        say: Say,
        measure: Callable[[], Mapping[str, float]] = dict,
        loss: Callable[[Mapping[str, float]], float] | None = None,
        save_s: float = 60.0,
    ) -> None:
        """Take steps until the clock's time is over.

        `learn`: one step at a share of the training; its losses, called `names`. Every `save_s` seconds and at the end
        their means and what `measure` finds become a row of the curve, and a checkpoint is written; `loss` of what was
        found: the weights of the least one are kept in BEST. ModelError where a loss or a weight is no finite number:
        the checkpoint is then the last good state.
        """
        clock = self.clock
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
            means = dict(zip(names, torch.stack(recent).mean(0).tolist(), strict=True))
            self._check(means)
            left = clock.spent / max(1e-6, clock.share()) * (1 - clock.share())
            speed = (clock.step - first) / max(1e-6, now - told)
            say(f"step {clock.step} ({clock.share():.0%}, {left:.0f} s left): {_words(means)}, {speed:.2g} steps/s")
            told, first = now, clock.step
            recent.clear()
            if due:
                self._keep(means, measure(), loss, say)
                told = saved = time.monotonic()

    def _check(self, means: Mapping[str, float]) -> None:
        finite = all(map(math.isfinite, means.values()))
        if not finite or not all(bool(torch.isfinite(p).all()) for p in self.nets.parameters()):
            raise ModelError(
                f"the loss is no finite number at step {self.clock.step}: the last checkpoint, where there "
                "is one, is the last good state: go on from it with --resume and a lower --rate"
            )

    def _keep(
        self,
        means: Mapping[str, float],
        found: Mapping[str, float],
        loss: Callable[[Mapping[str, float]], float] | None,
        say: Say,
    ) -> None:
        """A row of the curve, and the checkpoints."""
        if found:
            say(f"held out: {_words(found)}")
        if loss is not None and loss(found) <= min(map(loss, self.curve), default=math.inf):
            save(self.out / BEST, self._weights())
        self.curve.append({"step": self.clock.step, "seconds": self.clock.spent, **means, **found})
        table = io.StringIO()
        rows = csv.DictWriter(table, list(self.curve[-1]), extrasaction="ignore")
        rows.writeheader()
        rows.writerows(self.curve)
        files.write(self.out / CURVE, table.getvalue())
        save(self.out / STATE, self.state())


def _words(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in found.items())


def device_of(asked: str | None) -> str:
    """cpu, or cuda where there is one, unless another one is asked for. UsageError for what is not here."""
    cuda = torch.cuda.is_available()
    device = asked or ("cuda" if cuda else "cpu")
    if device.split(":")[0] not in ("cpu", "cuda") or (device != "cpu" and not cuda):
        raise UsageError(f"--device {device}: not here; leave it out, or give cpu")
    return device


def save(path: Path, value: Any) -> None:
    """Write `value` (tensors, numbers, dicts, lists) to `path` by a rename: a reader sees all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.part")
    with hidden.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(path)


def load(path: Path) -> Any:
    """What `save` wrote, on the CPU. Raises EdgeAgentError where it is missing, cut short or of another kind."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise EdgeAgentError(f"no checkpoint {path}; start without --resume") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgeAgentError(f"checkpoint {path} cannot be read ({reason}); start without --resume") from error


def cosine(share: float, least: float = 0.0) -> float:
    """From 1 to `least` along half a wave."""
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def decayed(parameters: Iterable[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """As an optimizer takes them: matrices and filters decay, vectors do not."""
    every = list(parameters)
    wide, thin = [p for p in every if p.ndim > 1], [p for p in every if p.ndim <= 1]
    return [{"params": wide, "weight_decay": decay}, {"params": thin, "weight_decay": 0.0}]


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
