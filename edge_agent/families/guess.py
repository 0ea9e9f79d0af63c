"""A guess at a head, and what the shapes of outputs are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_agent.types import TensorSpec

SIDES = (640, 416, 320, 512, 608, 256, 224, 384, 480, 768, 800, 960, 1024, 1280, 160, 192, 128)
"""pixels tried, in this order, for an input that leaves its size open"""
GRIDS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32), (8, 16, 32, 64, 128))
"""strides of the levels of a head, the usual ones first"""
MOST = 1000
"""rows of queries or finished boxes"""


@dataclass(frozen=True, slots=True)
class Guess:
    """A head that fits the outputs."""

    family: str
    classes: int
    """0: the shapes do not say"""
    why: str


def explained(found: list[Guess], said: str) -> list[Guess]:
    """The same guesses, with `said` added to why those that count their classes were made."""
    return [replace(guess, why=guess.why + said) if guess.classes else guess for guess in found]


def cells(width: int, height: int, strides: tuple[int, ...] = (8, 16, 32)) -> int:
    """Grid cells of all levels of a detector's input; a padded convolution keeps a cell that is cut off."""
    return sum(-(-width // s) * -(-height // s) for s in strides)


def counts(width: int, height: int) -> set[int]:
    """Rows that a head of cells may have."""
    return {cells(width, height, strides) for strides in GRIDS}


def side(outputs: tuple[TensorSpec, ...]) -> int:
    """Side in pixels of the square input whose cells the outputs count; 0 when they say nothing."""
    axes = {axis for spec in outputs for axis in spec.shape if axis}
    for pixels in SIDES:
        plain = {cells(pixels, pixels, strides) for strides in GRIDS[:2]}
        if axes & (plain | {3 * n for n in plain}):
            return pixels
    return 0


def shape(spec: TensorSpec) -> str:
    """[1, ?, 85]: None is an axis that the file leaves open."""
    return "[" + ", ".join("?" if n is None else str(n) for n in spec.shape) + "]"
