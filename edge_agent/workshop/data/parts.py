"""Three parts of the samples: to calibrate on, to search with, to report on. No scene is in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edge_agent.errors import InputError
from edge_agent.types import Floats
from edge_agent.workshop.data.calibration import Samples
from edge_agent.workshop.data.look import look

SCENE = 12.0
"""mean difference of grey values, 0..255, of two pictures at 16x16 below which one follows the other in a scene: of a
standing camera's frames it is up to 6 (vtest.avi), of unlike photographs 38 and more (96 of COCO)"""
SHARES = (2, 3, 3)
"""eighths of each part: ranges settle early, a choice and a figure need many"""
LEAST = 6
"""samples: two in each part"""


class Parts(NamedTuple):
    """What is done with the samples."""

    calibrate: Samples
    """statistics are taken of these: ranges, what channels do"""
    search: Samples
    """candidates are compared on these"""
    report: Samples
    """figures are told of these alone, and nothing is chosen by them"""


def parts(samples: Samples, seed: int = 0) -> Parts:
    """The three parts, each in the order of `samples`. InputError for fewer than LEAST samples.

    Scenes go to a part as a whole, at random, by `seed` and what is in them, so the same samples come into the same
    parts wherever they lie. Where one scene has more than an eighth of the samples, as in a film of a standing camera,
    the parts follow each other in time.
    """
    count = len(samples.items)
    if count < LEAST:
        raise InputError(f"samples: {samples.source} has {count} different samples; give {LEAST} or more")
    runs = scenes([look(item) for item in samples.items])
    if max(map(len, runs)) > max(1, count // 8):
        runs = [[place] for place in range(count)]
    else:
        runs.sort(key=lambda run: hashlib.sha256(f"{seed} {samples.digests[run[0]]}".encode()).digest())
    most = [max(2, round(count * eighths / 8)) for eighths in SHARES[:2]]
    filled: tuple[list[int], ...] = ([], [], [])
    for run in runs:
        filled[next((part for part in (0, 1) if len(filled[part]) < most[part]), 2)].extend(run)
    return Parts(*(samples.pick(sorted(part)) for part in filled))


def scenes(looks: Sequence[Floats | None]) -> list[list[int]]:
    """Numbers of the samples that follow each other and look alike; one that has no look stands alone."""
    runs: list[list[int]] = []
    for place, own in enumerate(looks):
        before = looks[place - 1] if place else None
        if own is not None and before is not None and float(np.abs(own - before).mean()) < SCENE:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def groups(looks: Sequence[Floats | None]) -> list[list[int]]:
    """What an interval draws together: scenes, long ones in blocks of the root of all samples (Kuensch 1989)."""
    most = max(1, round(len(looks) ** 0.5))
    return [run[start : start + most] for run in scenes(looks) for start in range(0, len(run), most)]
