"""The training loop of edge-yolo: dense distillation on pictures that are put together anew.

The teacher looks at the very pictures that the student sees (Beyer et al., "Knowledge distillation: a good teacher is
patient and consistent", arXiv 2106.05237) and its score and box of each cell are the target; the maps below its heads
are a second one. Each batch is used twice, the second time mirrored, targets and all, so that the teacher works half
the time. AdamW, a cosine from `rate` to a hundredth of it, and a moving average of the weights, which is kept.
"""

from __future__ import annotations

import copy
import math
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
from edge_agent.workshop.train.loop import Clock, Say, cosine, loop, moved, stepped

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
        recipe: TrainRecipe,
        device: torch.device,
        pictures: list[Picture],
    ) -> None:
        """`pictures`: a few, to learn the teacher's scales."""
        self.recipe, self.device, self.teacher = recipe, device, teacher
        self.net = net.to(device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.cells = torch.from_numpy(cells(*recipe.size)).to(device)
        self.clock = Clock(recipe.seconds, recipe.steps)
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
        goals = teacher.dense(seen).features
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
        dense = self.teacher.dense(pictures)
        return pictures, merged(dense, labels) if labels else dense

    def rate(self, share: float) -> float:
        """The learning rate at a share of the training."""
        return self.recipe.rate * min(1.0, (self.clock.step + 1) / max(1, self.recipe.warm_up)) * cosine(share, 0.01)

    def _next(self, pool: list[Picture]) -> tuple[Tensor, Dense]:
        """This step's pictures and targets; they depend on the seed and the step alone."""
        number, mirror = divmod(self.clock.step, 2)
        if self._batch is None or self._batch[0] != number:
            random = np.random.default_rng((self.recipe.seed, number))
            made = [augmented(pool, self.recipe.size, random) for _ in range(self.recipe.batch)]
            self._batch = (number, *self.targets(made))
        _, pictures, dense = self._batch
        if mirror:
            return pictures.flip(3), mirrored(dense, self.recipe.size)
        return pictures, dense

    def learn(self, pool: list[Picture], share: float) -> Tensor:
        """One step on new pictures made of `pool`, at a share of the training. Class, box and feature loss, (3,)."""
        pictures, targets = self._next(pool)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.half):
            boxes, logits, features = self.net((pictures / PIXEL_SCALE).to(memory_format=torch.channels_last))
            followed = features[len(features) - len(self.adapters) :]
            mapped = [adapter(f) for adapter, f in zip(self.adapters, followed, strict=True)]
        class_loss, box_loss = losses(boxes, logits, targets)
        follow = feature_loss(mapped, targets.features, self.spread) if mapped else torch.zeros_like(class_loss)
        total = class_loss + box_loss + self.recipe.feature_weight * follow
        stepped(self.optimiser, self.rate(share), total, 10.0)
        moved(self.average, self.net, 0.998, self.clock.step)
        return torch.stack([class_loss, box_loss, follow]).detach()

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
        return {"step": self.clock.step, "seconds": self.clock.spent, **parts}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo `state`. Raises EdgeAgentError where the checkpoint is of another training."""
        try:
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise EdgeAgentError(
                "the checkpoint is of a training with other classes or another teacher; start without --resume"
            ) from error
        self.clock.step, self.clock.spent = state["step"], state["seconds"]


def fit(
    trainer: Trainer, pool: list[Picture], held: list[Picture], out: Path, say: Say, classes: tuple[str, ...]
) -> EdgeYolo:
    """Train until the recipe's end and return the averaged network, normalisation folded in, on the CPU.

    `out` gets BEST (folded tensors and class names), CURVE and STATE (a checkpoint), each by a rename, every
    `save_seconds` and at the end. Raises ModelError where the loss is no finite number: what stands in `out` is then
    the last good state.
    """
    clock = trainer.clock
    curve = checkpoint.Curve(out / CURVE, COLUMNS, clock.step)

    def keep(means: list[float]) -> None:
        scores = trainer.held_out(held) if held else (math.nan, math.nan)
        pictures = clock.step * trainer.recipe.batch
        curve.add(clock.step, pictures, clock.spent, trainer.rate(clock.share()), *means, *scores)
        tensors = folded_copy(trainer.average).state_dict()
        checkpoint.save(out / BEST, {"tensors": tensors, "classes": list(classes), "step": clock.step})
        checkpoint.save(out / STATE, trainer.state())
        say(f"step {clock.step}: saved; held out: class {scores[0]:.4f}, box {scores[1]:.4f}")

    names = ("class", "box", "feature")
    loop(clock, trainer.net, lambda share: trainer.learn(pool, share), names, keep, say, trainer.recipe.save_seconds)
    return folded_copy(trainer.average)
