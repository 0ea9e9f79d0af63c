"""Samples for a model whose pictures may not leave the device: made here, of what comes with the program.

Pictures are parts of the three carried photographs, alone or put together, in other light and colours. Of what was
tried they did best over two detectors and three seeds (docs/quantize.md): better than real pictures of somebody else on
one, within their own spread on the other.

Nothing is measured on them: agreement on pictures that were made is no accuracy, and misleads both ways.
"""

from __future__ import annotations

import hashlib

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.manifest import Input, Served
from edge_agent.pictures.boxes import letterbox
from edge_agent.samples.carried import frames, paragraphs, sentences, text
from edge_agent.types import Frame, Pixels
from edge_agent.workshop.data.calibration import Samples
from edge_agent.workshop.data.feed import Item

NONE = "none"
"""as --data: no data of the user's"""
COUNT = 48
"""pictures"""
LEAST, SQUARE = 0.3, 0.4
"""of a photograph's sides a part has at least, and by how much (natural logarithm) it may be wider or higher"""
PIECES = (2, 7)
"""on a picture that is put together, from and below"""


def samples_without_data(parent: Served, most: int, seed: int = 0) -> Samples:
    """At most `most` samples of what `parent` takes, always the same ones. UsageError for what takes numbers."""
    if parent.input is not None:
        dice = np.random.default_rng(seed)
        items: list[Item] = [*made(dice, min(most, COUNT), parent.input.width, parent.input.height)]
    elif parent.manifest.text is not None:
        items = [text(line) for line in [*sentences(), *paragraphs()][:most]]
    else:
        raise UsageError(f"--data {NONE}: {parent.manifest.name} takes numbers, and none can be made up; give some")
    seen = [item.image.tobytes() if isinstance(item, Frame) else item.text.encode() for item in items]
    digests = [hashlib.sha256(one).hexdigest() for one in seen]
    return Samples(items, "what comes with the program, no data of yours", digests)


def made(dice: np.random.Generator, count: int, width: int, height: int) -> list[Frame]:
    """So many pictures of that size: every second one a part of a photograph, the others several on another one."""
    photos = [frame.image for name, frame in frames().items() if name != "noise"]
    pictures = []
    for number in range(count):
        if number % 2 == 0:
            pictures.append(_part(dice, photos[number // 2 % len(photos)]))
            continue
        ground = _fitted(_part(dice, photos[int(dice.integers(len(photos)))]), width, height)
        for _ in range(int(dice.integers(*PIECES))):
            _put(dice, ground, _part(dice, photos[int(dice.integers(len(photos)))]))
        pictures.append(ground)
    return [Frame(np.ascontiguousarray(picture), 0.0, 0.0, "made") for picture in pictures]


def _part(dice: np.random.Generator, photo: Pixels) -> Pixels:
    """A part of it, perhaps mirrored, in other light and colours."""
    high, wide = photo.shape[:2]
    size, shape = dice.uniform(LEAST, 1.0), np.exp(dice.uniform(-SQUARE, SQUARE))
    rows, columns = int(min(high, max(32, high * size * shape))), int(min(wide, max(32, wide * size / shape)))
    top, left = int(dice.integers(high - rows + 1)), int(dice.integers(wide - columns + 1))
    part = photo[top : top + rows, left : left + columns, :].astype(np.float32)
    if dice.random() < 0.5:
        part = part[:, ::-1]
    mean = float(part.mean())
    part = (part - mean) * dice.uniform(0.5, 1.4) + mean * dice.uniform(0.5, 1.4)
    return np.clip(part * dice.uniform(0.85, 1.15, 3), 0, 255).astype(np.uint8)


def _put(dice: np.random.Generator, ground: Pixels, part: Pixels) -> None:
    """A part somewhere on the ground, an eighth to two thirds of its height."""
    high, wide = ground.shape[:2]
    rows = int(dice.integers(max(2, high // 8), max(3, high * 2 // 3)))
    columns = min(wide, max(2, int(rows * part.shape[1] / part.shape[0])))
    top, left = int(dice.integers(high - rows + 1)), int(dice.integers(wide - columns + 1))
    ground[top : top + rows, left : left + columns] = _fitted(part, columns, rows)


def _fitted(part: Pixels, width: int, height: int) -> Pixels:
    out = np.empty((height, width, 3), np.uint8)
    letterbox(np.ascontiguousarray(part), Input(width, height, letterbox="stretch", resize="area"), out)
    return out
