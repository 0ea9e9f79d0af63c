"""One small picture of a camera, measured; a view, which is what it usually shows; and how far looks are off it.

Pictures are compared by the gradients of 192 blocks, which light hardly changes: how well they fit (all, and the worst
tenth), how much of what is fine is left beside what is coarse, and how bright it is; and by the colours of the blocks,
less what another light would make of them. How far an untouched picture is off in each of these is learned from the
camera's own pictures, and from what harmless changes (light, noise, shaking) make of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edge_agent.pictures.read import cv2
from edge_agent.types import Floats, Pixels

Small = npt.NDArray[np.uint8]

WIDE, HIGH, CELL = 160, 120, 10
"""pixels of the picture that is compared, and of a block of it"""
LOOKS = 8
"""whose median is compared"""
SOME = 30
"""looks at a view from which on what is off counts"""
KEPT = 400
"""looks of a view whose distances are remembered"""
MARGIN = np.array([3, 3, 3, 3, 0.3], np.float32)
"""of the range of the learned distances, beyond the largest of them"""
MADE, MARGIN_MADE = 5, np.array([1.1, 1.1, 1.1, 1.1, 1.5], np.float32)
"""looks of which one has harmless changes made up, and the margin beyond what these make"""
SHAKE = 0.5
"""pixels of the small picture that a camera on a mast shakes by"""
ODD = 4.0
"""times the range of the middle half above it: a look that is left out of what is learned"""
FOLLOW = 1 / 600
"""weight of a look in its view: what changes slowly is followed"""
BLOCK = CELL * CELL
NOISE, FINE, COARSE = 1.0 * BLOCK, 0.5 * BLOCK, 2.0 * BLOCK
"""squares of grey levels of a block that are noise: of gradients, fine and coarse structure"""
FIT, EDGES, SHARP, LIGHT, COLOUR = range(5)
LEAST_LIMITS = np.array([0.05, 0.3, 0.25, 0.35, 3.0], np.float32)
"""below these nobody would speak of tampering"""
WORST = 4
"""blocks whose colours are the oddest, of which the mean counts"""
ALIKE = 21
"""blocks of nearly the same brightness, of whose new brightness the median is what light made of it"""
FLAT, LITTLE = 8.0, 0.1
"""grey levels by which the blocks of a picture differ at least; and the shares of that by which a block's colour
differs from look to look at least
"""
_SORTED = [(0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (1, 2), (5, 6)]
_SORTED += [(0, 4), (1, 5), (2, 6), (3, 7), (2, 4), (3, 5), (1, 2), (3, 4), (5, 6)]
"""places that are put in order, one pair after the other, until LOOKS are (Batcher's sorting network)"""


def shrunk(image: Pixels) -> Small:
    """A frame as it is compared, (HIGH, WIDE, 3)."""
    return np.asarray(cv2.resize(image, (WIDE, HIGH), interpolation=cv2.INTER_AREA), np.uint8)


def median(looks: Sequence[Small]) -> Floats:
    """Of LOOKS pictures, each number by itself; 40 times as fast as `np.sort`."""
    rows = list(looks)
    for i, j in _SORTED:
        rows[i], rows[j] = np.minimum(rows[i], rows[j]), np.maximum(rows[i], rows[j])
    return np.asarray((rows[3].astype(np.float32) + rows[4]) / 2, np.float32)


def _sums(a: Floats) -> Floats:
    """(HIGH, WIDE) -> the sum of each block, flat."""
    return np.asarray(a.reshape(HIGH // CELL, CELL, WIDE // CELL, CELL).sum((1, 3)), np.float32).ravel()


def _smooth(a: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(a, (0, 0), sigma), np.float32)


def _lit(now: Floats, before: Floats) -> Floats:
    """What light makes of the brightness of each block: of those that were about as bright before, the median now."""
    order, half = np.argsort(before, kind="stable"), ALIKE // 2
    rows = np.lib.stride_tricks.sliding_window_view(np.pad(now[order], half, mode="reflect"), ALIKE)
    out = np.empty_like(now)
    out[order] = np.median(rows, axis=1)
    return out


def _slope(ratio: Floats) -> Floats:
    """The plane through the logarithms of a (blocks,) ratio that most of them lie near (Huber's weights)."""
    down, across = np.divmod(np.arange(len(ratio)), WIDE // CELL)
    of = np.stack([np.ones(len(ratio)), across / (WIDE // CELL) - 0.5, down / (HIGH // CELL) - 0.5], 1)
    weight, plane = np.ones(len(ratio)), np.zeros(len(ratio))
    for _ in range(3):
        plane = of @ np.linalg.lstsq(of * weight[:, None], ratio * weight, rcond=None)[0]
        far = np.abs(ratio - plane)
        weight = np.sqrt(1 / np.maximum(1, far / (3 * np.median(far) + 0.02)))
    return np.asarray(plane, np.float32)


def strange(now: Floats, before: Floats) -> Floats:
    """(blocks,): how far the colours of each block, (blocks, 3), are from what another light (brighter, darker, of
    another contrast or tint, from one side) would make of those before, over how much the blocks differ, at least FLAT.
    """
    grey, was = now.mean(axis=1), before.mean(axis=1)
    plane = np.exp(_slope(np.log((grey + 8) / (_lit(grey, was) + 8))))
    worst = np.zeros(len(now), np.float32)
    for mine, its in zip(now.T, before.T, strict=True):
        lit = _lit(mine / plane, its) * plane
        worst = np.maximum(worst, np.abs(mine - lit) / max(FLAT, float(lit.std())))
    return worst


class Look:
    """What is measured of one picture (HIGH, WIDE, 3)."""

    def __init__(self, picture: Floats, usual: Floats | float = LITTLE) -> None:
        """`usual`: by how much the colour of each block differs from look to look, as `strange` says it."""
        self.whole, self.usual = picture, usual
        self.colours = picture.reshape(HIGH // CELL, CELL, WIDE // CELL, CELL, 3).mean((1, 3)).reshape(-1, 3)
        self.picture = picture = np.asarray(picture @ np.array([0.114, 0.587, 0.299], np.float32), np.float32)
        smooth = _smooth(picture, 0.8)
        self.x: Floats = np.asarray(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8), np.float32)
        self.y: Floats = np.asarray(cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8), np.float32)
        self.energy = _sums(self.x**2 + self.y**2)
        self.light = float(np.log(picture.mean() + 4))
        self.weight = np.sqrt(self.energy) / max(float(np.sqrt(self.energy).sum()), 1e-6)

    @cached_property
    def sharpness(self) -> Floats:
        """Of each block: the logarithm of what is fine in it, over what is coarse."""
        fine, coarse = _smooth(self.picture, 1.5), _smooth(self.picture, 5.0)
        ratio = (_sums((self.picture - fine) ** 2) + FINE) / (_sums((fine - coarse) ** 2) + COARSE)
        return np.asarray(np.log(ratio), np.float32)

    def fits(self, view: Look) -> Floats:
        """Of each block, how well its gradients fit the view's: 1 the best, about 0 for another picture."""
        common = _sums(self.x * view.x + self.y * view.y)
        return np.asarray((common + NOISE) / np.sqrt((self.energy + NOISE) * (view.energy + NOISE)), np.float32)

    def off(self, view: Look) -> Floats:
        """(5,): how far it is from a view in FIT, EDGES, SHARP, LIGHT and COLOUR; 0 or so where nothing has changed,
        and about 1 for the colours.
        """
        fits = self.fits(view)
        odd = strange(self.colours, view.colours) / view.usual
        worst = np.partition(fits, len(fits) // 10)[: len(fits) // 10]
        return np.array(
            [
                1 - (view.weight * fits).sum(),
                1 - worst.mean(),
                (view.weight * (view.sharpness - self.sharpness)).sum(),
                abs(self.light - view.light),
                np.partition(odd, -WORST)[-WORST:].mean(),
            ],
            np.float32,
        )


def changed(picture: Floats, seed: int) -> list[Floats]:
    """What harmless changes make of a picture: light, contrast, the sun from one side, noise, a camera that shakes."""
    chance = np.random.default_rng(seed)
    gain, offset, bend, slope = chance.uniform((0.6, -20, 0.7, -0.25), (1.5, 20, 1.45, 0.25))
    across = np.linspace(1 - slope, 1 + slope, WIDE)[None, :, None]
    moves = [np.array([[1, 0, x], [0, 1, y]], np.float32) for x, y in chance.uniform(-SHAKE, SHAKE, (LOOKS, 2))]
    # linear interpolation would blur, which a camera that shakes does not
    how, edge = cv2.INTER_LANCZOS4, cv2.BORDER_REPLICATE
    shaken = [cv2.warpAffine(picture, move, (WIDE, HIGH), flags=how, borderMode=edge) for move in moves]
    noisy = picture + chance.normal(0, chance.uniform(0.5, 2), picture.shape)
    lit, bent = picture * gain + offset, 255 * np.clip(picture / 255, 0, 1) ** bend * across
    return [np.clip(one, 0, 255).astype(np.float32) for one in (lit, bent, noisy, np.median(shaken, axis=0))]


@dataclass
class View:
    """A picture that is usual, and how far its own looks are off it."""

    mean: Floats
    looks: int = 0
    strange: Floats = field(default_factory=lambda: np.zeros(HIGH * WIDE // BLOCK, np.float32))
    """of each block, how far its colours are off in the mean; see `strange`"""
    offs: list[Floats] = field(default_factory=list)
    """(10,) of each look at it, KEPT at most: how far off it is, and the most that harmless changes make of that"""
    left_out: int = 0
    """of them, which are too odd to say what is usual"""
    _look: Look | None = None
    _limits: Floats | None = None

    def look(self) -> Look:
        """The view as it is now."""
        if self._look is None:
            self._look = Look(self.mean, 2 * self.strange + LITTLE)
        return self._look

    def learn(self, look: Look, off: Floats) -> None:
        """One more look at it, untouched."""
        self.looks += 1
        weight = max(FOLLOW, 1 / self.looks)
        self.strange = self.strange + weight * (strange(look.colours, self.look().colours) - self.strange)
        self.mean = self.mean + weight * (look.whole - self.mean)
        if self.looks < SOME or self.looks % 10 == 0:
            self._look = None
        if self.looks >= SOME and (len(self.offs) < KEPT or self.looks % 10 == 0):
            every = self.looks % MADE == 0
            made = [Look(one).off(self.look()) for one in changed(look.whole, self.looks)] if every else [0 * off]
            self.offs = [*self.offs, np.concatenate([off, np.max(made, axis=0)])][-KEPT:]
            self._limits = None

    def limits(self) -> Floats:
        """(5,): beyond these a look is none at it; wide ones while it has too few looks."""
        if len(self.offs) < SOME:
            return 3 * LEAST_LIMITS
        if self._limits is None:
            offs, made = np.hsplit(np.stack(self.offs), 2)
            low, middle, high = np.quantile(offs, (0.25, 0.5, 0.75), axis=0)
            usual = (offs <= np.maximum(high + ODD * (high - low), LEAST_LIMITS)).all(axis=1)
            self.left_out = int((~usual).sum())
            most = offs[usual].max(axis=0)
            far = np.maximum(most + MARGIN * (most - middle), MARGIN_MADE * made[usual].max(axis=0))
            self._limits = np.maximum(far, LEAST_LIMITS).astype(np.float32)
        return self._limits
