"""What a training of edge-yolo is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from edge_agent.errors import UsageError
from edge_agent.workshop.train.bert.net import half_pays
from edge_agent.workshop.train.detector.augment import Size
from edge_agent.workshop.train.detector.fit import TrainRecipe

CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "bus", "truck", "traffic light", "bird", "cat", "dog"),
    *("bottle", "cup", "bowl", "chair", "couch", "potted plant", "dining table", "tv", "laptop", "book"),
)
"""what edge-yolo tells apart, unless --classes says otherwise; COCO's names"""
SIZE = (288, 224)
"""width and height, as the pictures of most cameras are"""


@dataclass(frozen=True)
class DetectorOptions:
    """What to train, on what, and for how long."""

    data: Path
    out: Path
    """folder of the finished model; checkpoints go to `training` in it"""
    teacher: str | None
    """any detector's name, folder or file: a YOLOX .onnx teaches by each of its cells, others by the boxes that they
    find; None: labels alone, of a COCO JSON as `data`, or as `labels` for pictures of a folder
    """
    part: tuple[float, float] = (0.0, 1.0)
    """share of a video or of the files of a folder"""
    labels: Path | None = None
    start: str | None = None
    """an edge-yolo, "teacher" (a YOLOX's weights), "none", or None for our own"""
    width: float = 1.0
    """share of YOLOX-nano's channels, for a start from the teacher or from none"""
    classes: tuple[str, ...] | None = None
    minutes: float | None = 60.0
    steps: int | None = None
    resume: bool = False
    size: Size = SIZE
    batch: int = 8
    rate: float | None = None
    seed: int = 0
    device: str | None = None

    def check(self) -> None:
        """Refuse options that cannot be, before anything is read."""
        first, last = self.part
        for good, words in (
            (0 <= first < last <= 1, f"--part {first:g}:{last:g} is no share; give two numbers from 0 to 1, as 0:0.5"),
            (self._ends(), "--minutes must be above 0"),
            (
                not any(side % 32 or not 64 <= side <= 1280 for side in self.size),
                f"--size {self.size[0]}x{self.size[1]}: each side must be a multiple of 32 from 64 to 1280",
            ),
            (
                1 <= self.batch <= 4096 and (self.rate is None or 0 < self.rate < 1),
                "--batch must be 1 or more, --rate above 0 and below 1",
            ),
            (self.data.exists(), f"--data {self.data}: no such file or folder"),
        ):
            if not good:
                raise UsageError(words)

    def _ends(self) -> bool:
        """Whether time or steps end the training."""
        return self.steps is not None if self.minutes is None else 0 < self.minutes < 1e5

    def recipe(self, usual_rate: float, device: torch.device) -> TrainRecipe:
        """How long and how hard to train on `device`."""
        return TrainRecipe(
            size=self.size,
            seconds=self.minutes * 60 if self.minutes is not None else None,
            steps=self.steps,
            batch=self.batch,
            rate=self.rate if self.rate is not None else usual_rate,
            seed=self.seed,
            half=half_pays(device.type),
        )
