"""Unusual samples that are made up, where no real ones are given: called so wherever they are counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_agent.pictures.read import cv2
from edge_agent.types import Floats

Change = Callable[[Floats, np.random.Generator], Floats]


def _thing(x: Floats, chance: np.random.Generator) -> Floats:
    """An object of coarse texture that does not belong, a fifth to a third of a side."""
    side = int(chance.integers(12, 22))
    top, left = chance.integers(0, x.shape[1] - side), chance.integers(0, x.shape[2] - side)
    coarse = chance.uniform(0, 1, (4, 4, x.shape[0])).astype(np.float32)
    x[:, top : top + side, left : left + side] = (
        cv2.resize(coarse, (side, side)).reshape(side, side, -1).transpose(2, 0, 1)
    )
    return x


def _blur(x: Floats, chance: np.random.Generator) -> Floats:
    return np.stack([cv2.GaussianBlur(one, (0, 0), 2.5) for one in x])


def _stain(x: Floats, chance: np.random.Generator) -> Floats:
    """A dark spot."""
    spot = np.zeros(x.shape[1:], np.float32)
    cv2.circle(spot, tuple(int(v) for v in chance.integers(10, 54, 2)), int(chance.integers(6, 12)), 1.0, -1)
    return x * (1 - 0.7 * cv2.GaussianBlur(spot, (0, 0), 1.5))


def _tone(x: Floats, chance: np.random.Generator) -> Floats:
    """A tone that was not there."""
    band = int(chance.integers(15, x.shape[1] - 5))
    x[:, band : band + 2] = np.maximum(x[:, band : band + 2], np.quantile(x, 0.9) + 0.05)
    return x


def _clicks(x: Floats, chance: np.random.Generator) -> Floats:
    at = chance.choice(x.shape[2], 4, replace=False)
    x[:, :, at] += 0.15
    return x


def _drift(x: Floats, chance: np.random.Generator) -> Floats:
    """All of it a semitone or two higher."""
    return np.roll(x, int(chance.integers(2, 5)), 1)


def _spike(x: Floats, chance: np.random.Generator) -> Floats:
    x[int(chance.integers(len(x)))] += chance.choice([-1, 1]) * 4 * x.std()
    return x


def _step(x: Floats, chance: np.random.Generator) -> Floats:
    x[int(chance.integers(8, len(x) - 8)) :] += chance.choice([-1, 1]) * 2.5 * x.std()
    return x


def _still(x: Floats, chance: np.random.Generator) -> Floats:
    x[len(x) // 2 :] = x[len(x) // 2]
    return x


KINDS: dict[str, dict[str, Change]] = {
    "frames": {"a thing that does not belong": _thing, "blurred": _blur, "a dark stain": _stain},
    "sound": {"a tone": _tone, "clicks": _clicks, "a drift of pitch": _drift},
    "series": {"a spike": _spike, "a step": _step, "stands still": _still},
}
"""kind of sample -> what is made of it"""


def made_up(kind: str, normal: Floats, seed: int) -> tuple[Floats, list[str]]:
    """One unusual sample of each normal one, and what was done to it, in turns."""
    chance, changes = np.random.default_rng(seed), list(KINDS[kind].items())
    picked = [changes[i % len(changes)] for i in range(len(normal))]
    found = [change(one.copy(), chance) for one, (_, change) in zip(normal, picked, strict=True)]
    return np.clip(np.stack(found), 0, 1) if normal.ndim == 4 else np.stack(found), [name for name, _ in picked]
