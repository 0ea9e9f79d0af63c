"""The training loop of edge-yolo: dense distillation on pictures that are put together anew.

The teacher looks at the very pictures that the student sees (Beyer et al., "Knowledge distillation: a good teacher is
patient and consistent", arXiv 2106.05237) and its score and box of each cell are the target; the maps below its heads
are a second one. Each batch is used twice, the second time mirrored, targets and all, so that the teacher works half
the time. AdamW, a cosine from `rate` to a hundredth of it, and a moving average of the weights, which is kept.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edge_agent.workshop.train.detector.augment import Picture, augmented, plain
from edge_agent.workshop.train.detector.loss import feature_loss, losses, merged, mirrored, targets_from_boxes
from edge_agent.workshop.train.detector.net import PIXEL_SCALE, EdgeYolo, folded_copy
from edge_agent.workshop.train.detector.start import fit_convolution
from edge_agent.workshop.train.detector.teacher import Dense, YoloxTeacher, cells
from edge_agent.workshop.train.loop import Clock, Say, Training, cosine, decayed, moved, stepped

WARM_UP = 200
"""steps until the rate is reached"""
FEATURES = 2.0
"""share of the feature loss"""
SAVE_S = 120.0
"""between two checkpoints"""


class Trainer(Training):
    """One training, and the step that changes it."""

    def __init__(
        self,
        net: EdgeYolo,
        teacher: YoloxTeacher | None,
        args: argparse.Namespace,
        device: torch.device,
        pictures: list[Picture],
        out: Path,
    ) -> None:
        """`args`: the options, `half` (bfloat16) and `resume` among them; `pictures`: a few, to learn the teacher's
        scales.
        """
        self.args, self.device, self.teacher = args, device, teacher
        self.net = net.to(device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.cells = torch.from_numpy(cells(*args.size)).to(device)
        self.adapters = nn.ModuleList()
        self.spread: list[Tensor] = []
        if teacher:
            self._follow_features(teacher, pictures)
        learnt = [*self.net.parameters(), *self.adapters.parameters()]
        self.optimiser = torch.optim.AdamW(decayed(learnt, 0.02), lr=args.rate)
        self._batch: tuple[int, Tensor, Dense] | None = None
        clock = Clock(args.minutes * 60 if args.minutes is not None else None, args.steps)
        nets = {"net": self.net, "average": self.average, "adapters": self.adapters}
        super().__init__(out, clock, nets, [self.optimiser], args.resume)

    def _follow_features(self, teacher: YoloxTeacher, pictures: list[Picture]) -> None:
        """One 1×1 convolution a followed map, fitted, and how far each of the teacher's channels spreads."""
        shown = np.stack([plain(p, self.args.size)[0] for p in pictures[:16]])
        seen = torch.from_numpy(shown).to(self.device).permute(0, 3, 1, 2).float()
        goals = teacher.dense(seen).features
        with torch.no_grad():
            own = self.average(seen / PIXEL_SCALE)[2][-len(goals) :]
            for mine, goal in zip(own, goals, strict=True):
                self.spread.append(goal.std((0, 2, 3)).clamp(min=0.02))
                adapter = nn.Conv2d(mine.shape[1], goal.shape[1], 1)
                fit_convolution(adapter, mine.cpu(), goal.cpu().flatten(2), None, torch.arange)
                self.adapters.append(adapter.to(self.device))

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

    def _next(self, pool: list[Picture]) -> tuple[Tensor, Dense]:
        """This step's pictures and targets; they depend on the seed and the step alone."""
        number, mirror = divmod(self.clock.step, 2)
        if self._batch is None or self._batch[0] != number:
            random = np.random.default_rng((self.args.seed, number))
            made = [augmented(pool, self.args.size, random) for _ in range(self.args.batch)]
            self._batch = (number, *self.targets(made))
        _, pictures, dense = self._batch
        if mirror:
            return pictures.flip(3), mirrored(dense, self.args.size)
        return pictures, dense

    def learn(self, pool: list[Picture], share: float) -> Tensor:
        """One step on new pictures made of `pool`, at a share of the training. Class, box and feature loss, (3,)."""
        pictures, targets = self._next(pool)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.half):
            boxes, logits, features = self.net((pictures / PIXEL_SCALE).to(memory_format=torch.channels_last))
            followed = features[len(features) - len(self.adapters) :]
            mapped = [adapter(f) for adapter, f in zip(self.adapters, followed, strict=True)]
        class_loss, box_loss = losses(boxes, logits, targets)
        follow = feature_loss(mapped, targets.features, self.spread) if mapped else torch.zeros_like(class_loss)
        total = class_loss + box_loss + FEATURES * follow
        rate = self.args.rate * min(1.0, (self.clock.step + 1) / WARM_UP) * cosine(share, 0.01)
        stepped(self.optimiser, rate, total, 10.0)
        moved(self.average, self.net, 0.998, self.clock.step)
        return torch.stack([class_loss, box_loss, follow]).detach()

    def held_out(self, pool: list[Picture]) -> tuple[float, float]:
        """Class and box loss of the averaged weights on plain pictures that are not trained on."""
        sums = np.zeros(2)
        parts = [pool[i : i + self.args.batch] for i in range(0, len(pool), self.args.batch)]
        with torch.no_grad():
            for part in parts:
                pictures, targets = self.targets([plain(p, self.args.size) for p in part])
                boxes, logits, _ = self.average(pictures / PIXEL_SCALE)
                sums += [float(v) for v in losses(boxes, logits, targets)]
        return float(sums[0]) / len(parts), float(sums[1]) / len(parts)


def fit(trainer: Trainer, pool: list[Picture], held: list[Picture], say: Say) -> EdgeYolo:
    """Train until the end and return the averaged network, normalisation folded in, on the CPU."""

    def measure() -> dict[str, float]:
        return dict(zip(("held_class", "held_box"), trainer.held_out(held), strict=True)) if held else {}

    names = ("class", "box", "feature")
    trainer.run(lambda share: trainer.learn(pool, share), names, say, measure, save_s=SAVE_S)
    return folded_copy(trainer.average)
