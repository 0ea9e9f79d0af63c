"""Runs each stage of an answer a few times, and tells tests/arm64/count.c where one ends: by QEMU, on one thread."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from msgspec.structs import replace

from edge_agent import backends, manifest
from edge_agent.families.candidates import HeadLayout
from edge_agent.families.table import FAMILIES
from edge_agent.pictures.boxes import nms, preparer
from edge_agent.pictures.read import read_picture
from edge_agent.types import Net, Pixels

TIMES = 5
FRAME = (576, 768)
"""height and width of the camera's picture"""


def mark(stage: int) -> None:
    """QEMU's plugin sees this call, which fails."""
    with suppress(OSError):
        os.getpgid(1_000_000 + stage)


def main(folder: Path, picture: Path, files: list[str]) -> None:
    cv2.setNumThreads(1)
    told = manifest.load(folder / "manifest.toml")
    assert told.input is not None
    image = np.asarray(cv2.resize(read_picture(picture).image, FRAME[::-1]), np.uint8)
    for number, file in enumerate(files):
        run(number, image, told, backends.open_net(folder / file, file.rpartition(".")[2], 1))


def run(number: int, image: Pixels, told: manifest.Manifest, net: Net) -> None:
    """The stages of a file of the model."""
    assert told.input is not None
    own: Literal["NHWC", "NCHW"] = "NHWC" if net.inputs[0].shape[-1] == 3 else "NCHW"
    prepare, family = preparer(replace(told.input, layout=own), net.inputs[0]), FAMILIES[told.family]
    head = HeadLayout(told.input.width, told.input.height, len(told.names()))
    stages: list[Callable[[Any], Any]] = [
        lambda _: prepare(image)[0].copy(),
        lambda tensor: net.run({net.inputs[0].name: tensor}),
        lambda outputs: family.decode(outputs, head, 0.3),
        lambda some: nms(some.xyxy, some.score, some.label, 0.5),
    ]
    value: Any = None
    for at, stage in enumerate(stages):
        stage(value)
        mark(999)
        for _ in range(TIMES):
            result = stage(value)
        mark(10 * number + at)
        value = result


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
