"""Samples for a model whose pictures may not leave the device: made here, of what comes with the program.

Pictures are parts of the three carried photographs, alone or put together, in other light and colours. Of what was
tried they did best over two detectors and three seeds (docs/quantize.md): better than real pictures of somebody else on
one, within their own spread on the other.

Nothing is measured on them: agreement on pictures that were made is no accuracy, and misleads both ways.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.errors import UsageError
from edge_agent.manifest import Input, Served
from edge_agent.pictures.boxes import letterbox
from edge_agent.samples.carried import frames, paragraphs, sentences, text
from edge_agent.types import Frame, Pixels
from edge_agent.workshop.data.calibration import Samples, Say
from edge_agent.workshop.data.feed import Item
from edge_agent.workshop.making import Making
from edge_agent.workshop.quantize.search import Memory, SearchResult, Tool, costs_of, distance, nearest, ranked
from edge_agent.workshop.quantize.tools import bases

NONE = "none"
"""as --data: no data of the user's"""
COUNT = 48
"""pictures"""
LEAST, SQUARE = 0.3, 0.4
"""of a photograph's sides a part has at least, and by how much (natural logarithm) it may be wider or higher"""
PIECES = (2, 7)
"""on a picture that is put together, from and below"""
KEPT, SHARE = 4, 0.01
"""layers that --auto keeps in float at most, and the share of all layers' costs from which on it does: made pictures
rank the layers well, and tell nothing of how many are needed"""


def samples_without_data(parent: Served, most: int, seed: int = 0) -> Samples:
    """At most `most` samples of what `parent` takes, always the same ones. UsageError for what takes numbers."""
    if parent.input is not None:
        dice = np.random.default_rng(seed)
        items: list[Item] = [*made(dice, min(most, COUNT), parent.input.width, parent.input.height)]
    elif parent.manifest.text is not None:
        items = [text(line) for line in [*sentences(), *paragraphs()][:most]]
    else:
        raise UsageError(f"--data {NONE}: {parent.manifest.name} takes numbers, and none can be made up; give some")
    digests = [hashlib.sha256(_bytes(item)).hexdigest() for item in items]
    return Samples(items, "what comes with the program, no data of yours", digests)


def _bytes(item: Item) -> bytes:
    return item.image.tobytes() if isinstance(item, Frame) else item.text.encode()


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


def take(job: Making, most: int) -> None:
    """Give the job its samples; it has none to report on, unless --evaluate names some."""
    job.samples = job.calibrate = job.search = samples_without_data(job.parent, most)


def best(job: Making, tool: Tool, settings: Mapping[str, Any], work: Path, say: Say) -> SearchResult:
    """The plan of --auto: the layers in float that cost more than SHARE of all costs, KEPT of them at most.

    Nothing is measured but outputs, so it has no score (NaN). RefusedError where no plan can be made.
    """
    samples = job.part("search")
    memory = Memory(work, [job.row.sha256, samples.sha256, job.row.format, str(job.args.threads), NONE], job.others)
    far = distance(job.parent, samples)
    total, done = len(tool.parts), 0

    def tick(what: str) -> None:
        nonlocal done
        done += 1
        say(what, min(done, total), total)

    base = nearest(tool, bases(tool.parts, settings), far, memory)
    costs = costs_of(tool, base, far, memory, tick)
    order = sorted(tool.parts, key=lambda part: -ranked(costs[part.name]))
    whole = sum(cost for cost in costs.values() if np.isfinite(cost))
    kept = [part for part in order[:KEPT] if not costs[part.name] <= SHARE * whole]
    names = tuple(name for part in kept for name in part.keep)
    plan = msgspec.structs.replace(base, keep=(*base.keep, *names))
    return SearchResult(plan, float("nan"), True, costs, [], [part.name for part in kept])
