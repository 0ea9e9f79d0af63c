"""The training loop of edge-yolo: dense distillation on pictures that are put together anew.

The teacher looks at the very pictures that the student sees (Beyer et al., "Knowledge distillation: a good teacher is
patient and consistent", arXiv 2106.05237) and its score and box of each cell are the target; the maps below its heads
are a second one. Each batch is used twice, the second time mirrored, targets and all, so that the teacher works half
the time. AdamW, a cosine from `rate` to a hundredth of it, and a moving average of the weights, which is kept.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_agent.errors import EdgeAgentError
from edge_agent.workshop.train import checkpoint
from edge_agent.workshop.train.detector.augment import Picture, Size, augmented, plain
from edge_agent.workshop.train.detector.loss import feature_loss, losses, merged, mirrored, targets_from_boxes
from edge_agent.workshop.train.detector.net import PIXEL_SCALE, EdgeYolo, folded_copy
from edge_agent.workshop.train.detector.start import fit_convolution
from edge_agent.workshop.train.detector.teacher import Dense, YoloxTeacher, cells

Say = Callable[[str], None]
COLUMNS = ("step", "pictures", "seconds", "rate", "class", "box", "feature", "held_class", "held_box")
STATE = "detector_state.pt"
BEST = "detector_best.pt"
CURVE = "detector_curve.csv"


@dataclass(frozen=True)
class TrainRecipe:
    """How long and how hard to train."""

    size: Size = (320, 320)
    "width and height of the pictures, multiples of 32"
    seconds: float | None = None
    "wall clock to stop after, time before a resume included; None: no limit"
    steps: int | None = None
    "steps to stop after; None: no limit"
    batch: int = 16
    "pictures a step"
    rate: float = 1e-3
    "highest learning rate"
    warm_up: int = 200
    "steps until the rate is reached"
    feature_weight: float = 2.0
    "share of the feature loss; 0 switches it off"
    seed: int = 0
    half: bool = False
    "bfloat16 where the processor or the GPU has it"
    save_seconds: float = 120.0
    "time between two checkpoints"


class Trainer:
    """State of one training: what a checkpoint holds, and the step that changes it."""

    def __init__(
        self,
        net: EdgeYolo,
        teacher: YoloxTeacher | None,
        keep: list[int],
        recipe: TrainRecipe,
        device: torch.device,
        pictures: list[Picture],
    ) -> None:
        """`keep`: the teacher's classes, in the student's order. `pictures`: a few, to learn the teacher's scales."""
        self.recipe, self.device, self.teacher, self.keep = recipe, device, teacher, keep
        self.net = net.to(device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.cells = torch.from_numpy(cells(*recipe.size)).to(device)
        self.step, self.seconds = 0, 0.0
        self.adapters = nn.ModuleList()
        self.spread: list[Tensor] = []
        if teacher and recipe.feature_weight > 0:
            self._follow_features(teacher, pictures)
        decayed = [p for p in self._parameters() if p.ndim > 1]
        others = [p for p in self._parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.rate)
        self._batch: tuple[int, Tensor, Dense] | None = None

    def _follow_features(self, teacher: YoloxTeacher, pictures: list[Picture]) -> None:
        """One 1×1 convolution a followed map, fitted, and how far each of the teacher's channels spreads."""
        shown = np.stack([plain(p, self.recipe.size)[0] for p in pictures[:16]])
        seen = torch.from_numpy(shown).to(self.device).permute(0, 3, 1, 2).float()
        goals = teacher.dense(seen, self.keep).features
        with torch.no_grad():
            own = self.average(seen / PIXEL_SCALE)[2][-len(goals) :]
            for mine, goal in zip(own, goals, strict=True):
                self.spread.append(goal.std((0, 2, 3)).clamp(min=0.02))
                adapter = nn.Conv2d(mine.shape[1], goal.shape[1], 1)
                fit_convolution(adapter, mine.cpu(), goal.cpu().flatten(2), None, torch.arange)
                self.adapters.append(adapter.to(self.device))

    def _parameters(self) -> list[nn.Parameter]:
        return [*self.net.parameters(), *self.adapters.parameters()]

    def targets(self, made: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Dense]:
        """Pictures and boxes as of `augmented` -> (B, 3, height, width) float32, and what each cell should say."""
        pictures = torch.from_numpy(np.stack([pixels for pixels, _ in made])).to(self.device)
        pictures = pictures.permute(0, 3, 1, 2).float()
        most = max(len(boxes) for _, boxes in made)
        labels = None
        if most or self.teacher is None:
            padded = np.zeros((len(made), max(1, most), 6), np.float32)
            padded[..., 4] = -1
            for row, (_, boxes) in zip(padded, made, strict=True):
                row[: len(boxes)] = boxes
            labels = targets_from_boxes(torch.from_numpy(padded).to(self.device), self.cells, self.net.classes)
        if self.teacher is None:
            assert labels is not None
            return pictures, labels
        dense = self.teacher.dense(pictures, self.keep)
        return pictures, merged(dense, labels) if labels else dense

    def rate_now(self) -> float:
        """The learning rate of this step."""
        warm = min(1.0, (self.step + 1) / max(1, self.recipe.warm_up))
        return self.recipe.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.done())))

    def done(self) -> float:
        """Share of the training that is over, 0..1."""
        shares = [0.0]
        if self.recipe.steps is not None:
            shares.append(self.step / self.recipe.steps)
        if self.recipe.seconds is not None:
            shares.append(self.seconds / self.recipe.seconds)
        return min(1.0, max(shares))

    def _next(self, pool: list[Picture]) -> tuple[Tensor, Dense]:
        """This step's pictures and targets; they depend on the seed and the step alone."""
        number, mirror = divmod(self.step, 2)
        if self._batch is None or self._batch[0] != number:
            random = np.random.default_rng((self.recipe.seed, number))
            made = [augmented(pool, self.recipe.size, random) for _ in range(self.recipe.batch)]
            self._batch = (number, *self.targets(made))
        _, pictures, dense = self._batch
        if mirror:
            return pictures.flip(3), mirrored(dense, self.recipe.size)
        return pictures, dense

    def _losses(self, pool: list[Picture]) -> Tensor:
        """Class, box and feature loss of this step's pictures, (3,)."""
        pictures, targets = self._next(pool)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.half):
            boxes, logits, features = self.net((pictures / PIXEL_SCALE).to(memory_format=torch.channels_last))
            followed = features[len(features) - len(self.adapters) :]
            mapped = [adapter(f) for adapter, f in zip(self.adapters, followed, strict=True)]
        class_loss, box_loss = losses(boxes, logits, targets)
        follow = feature_loss(mapped, targets.features, self.spread) if mapped else torch.zeros_like(class_loss)
        return torch.stack([class_loss, box_loss, follow])

    def _backward(self, losses: Tensor) -> None:
        """Add the gradients of the whole loss."""
        (losses[0] + losses[1] + self.recipe.feature_weight * losses[2]).backward()

    def look(self, pool: list[Picture], batches: int) -> None:
        """Leave the gradients of so many batches in the network, unchanged."""
        self.optimiser.zero_grad(set_to_none=True)
        for _ in range(batches):
            self._backward(self._losses(pool))
            self.step += 1

    def learn(self, pool: list[Picture]) -> Tensor:
        """One step on new pictures made of `pool`. Returns class, box and feature loss, (3,)."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate_now()
        losses = self._losses(pool)
        self.optimiser.zero_grad(set_to_none=True)
        self._backward(losses)
        nn.utils.clip_grad_norm_(self._parameters(), 10.0)
        self.optimiser.step()
        self.step += 1
        self._move_average()
        return losses.detach()

    def _move_average(self) -> None:
        """A decay of 0.998 after a run-in."""
        share = 1 - min(0.998, (1 + self.step) / (10 + self.step))
        mine = [t for t in self.net.state_dict().values() if t.is_floating_point()]
        kept = [t for t in self.average.state_dict().values() if t.is_floating_point()]
        with torch.no_grad():
            torch._foreach_lerp_(kept, mine, share)

    def held_out(self, pool: list[Picture]) -> tuple[float, float]:
        """Class and box loss of the averaged weights on plain pictures that are not trained on."""
        sums = np.zeros(2)
        parts = [pool[i : i + self.recipe.batch] for i in range(0, len(pool), self.recipe.batch)]
        with torch.no_grad():
            for part in parts:
                pictures, targets = self.targets([plain(p, self.recipe.size) for p in part])
                boxes, logits, _ = self.average(pictures / PIXEL_SCALE)
                sums += [float(v) for v in losses(boxes, logits, targets)]
        return float(sums[0]) / len(parts), float(sums[1]) / len(parts)

    def _parts(self) -> dict[str, Any]:
        return {"net": self.net, "average": self.average, "adapters": self.adapters, "optimiser": self.optimiser}

    def state(self) -> dict[str, Any]:
        """Everything a resume needs."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {"step": self.step, "seconds": self.seconds, **parts}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo `state`. Raises EdgeAgentError where the checkpoint is of another training."""
        try:
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise EdgeAgentError(
                "the checkpoint is of a training with other classes or another teacher; start without --resume"
            ) from error
        self.step, self.seconds = state["step"], state["seconds"]

    def sound(self) -> bool:
        """Whether every weight is a finite number."""
        return all(bool(torch.isfinite(p).all()) for p in self._parameters())


def fit(
    trainer: Trainer, pool: list[Picture], held: list[Picture], out: Path, say: Say, classes: tuple[str, ...]
) -> EdgeYolo:
    """Train until the recipe's end and return the averaged network, normalisation folded in, on the CPU.

    `out` gets BEST (folded tensors and class names), CURVE and STATE (a checkpoint), each by a rename, every
    `save_seconds` and at the end. Raises EdgeAgentError where the loss is no finite number: what stands in `out` is
    then the last good state.
    """
    recipe = trainer.recipe
    curve = checkpoint.Curve(out / CURVE, COLUMNS, trainer.step)
    began, before = time.monotonic(), trainer.seconds
    saved = told = began
    told_step = trainer.step
    recent: list[Tensor] = []
    if trainer.done() >= 1.0:
        say("the training was already over; nothing was changed")
    while trainer.done() < 1.0:
        recent.append(trainer.learn(pool))
        now = time.monotonic()
        trainer.seconds = before + now - began
        due = trainer.done() >= 1.0 or now - saved >= recipe.save_seconds
        if now - told < 10.0 and not due:
            continue
        mean = torch.stack(recent).mean(0).tolist()
        recent.clear()
        _check_finite(trainer, mean, out)
        say(_progress(trainer, mean, (trainer.step - told_step) * recipe.batch / max(1e-6, now - told)))
        told, told_step = now, trainer.step
        if due:
            _save(trainer, held, mean, curve, out, classes, say)
            saved = time.monotonic()
    return folded_copy(trainer.average)


def _check_finite(trainer: Trainer, losses: list[float], out: Path) -> None:
    """EdgeAgentError where a loss or a weight is no finite number."""
    if not all(map(math.isfinite, losses)) or not trainer.sound():
        last = f"the last good state is in {out / BEST}" if (out / BEST).exists() else "nothing was saved yet"
        raise EdgeAgentError(f"the loss at step {trainer.step} is not a finite number; {last}; try a lower --rate")


def _progress(trainer: Trainer, losses: list[float], speed: float) -> str:
    """A line on how far it is; `losses`: class, box, feature; `speed`: pictures a second."""
    done = trainer.done()
    left = trainer.seconds / max(1e-6, done) * (1 - done)
    return (
        f"step {trainer.step} ({100 * done:.0f} %, {left:.0f} s left): class {losses[0]:.4f}, "
        f"box {losses[1]:.4f}, feature {losses[2]:.4f}, {speed:.0f} pictures/s"
    )


def _save(
    trainer: Trainer,
    held: list[Picture],
    losses: list[float],
    curve: checkpoint.Curve,
    out: Path,
    classes: tuple[str, ...],
    say: Say,
) -> None:
    """Measure on what is held out, and write a row of the curve, the weights and a checkpoint."""
    scores = trainer.held_out(held) if held else (math.nan, math.nan)
    pictures = trainer.step * trainer.recipe.batch
    curve.add(trainer.step, pictures, trainer.seconds, trainer.rate_now(), *losses, *scores)
    tensors = folded_copy(trainer.average).state_dict()
    best = {"tensors": tensors, "classes": list(classes), "step": trainer.step, "seconds": trainer.seconds}
    checkpoint.save(out / BEST, best)
    checkpoint.save(out / STATE, trainer.state())
    say(f"step {trainer.step}: saved; held out: class {scores[0]:.4f}, box {scores[1]:.4f}")
