"""Small print read over several pictures of a film: each picture has other pixels of the same letters.

A line that stays about where it was is cut out alike each time, moved onto what came before, and the mean is read, too.
What the single pictures and the mean say is put to the vote, character by character. It is for signs, labels and
plates: of a display that changes, the old characters win for half of the pictures that are remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

import numpy as np

from edge_agent.pictures.lines import moved_onto, upright
from edge_agent.types import Floats, Pixels

SMALL = 14.0
"""pixels of a line's thickness, letters of 7 to 8, below which it helps"""
WIDER = 0.6
"""times its thickness that a line is cut longer at both ends: boxes come short of letters"""
SAME = 0.5
"""correlation from which on two cuts show the same letters"""
NEAR, BESIDE, LIKE = 2.0, 0.45, 1.3
"""times its thickness that a line moves between two pictures at most, along and across: the next line stands about one
away; and by which its length differs"""
GONE, MOST = 3, 32
"""pictures without a line after which it is forgotten, and lines that are remembered at once"""
MEAN = 3.0
"""what the mean's reading weighs beside that of one picture"""

Reading = tuple[str, float]
"""what is read, and how sure that is"""


@dataclass(slots=True)
class _Small:
    """One line of small print."""

    corners: Floats
    """(4, 2) where it was first: all pictures of it are cut to this size"""
    middle: Floats
    pictures: deque[Pixels]
    readings: deque[Reading]
    missed: int = 0


@dataclass(slots=True)
class Together:
    """What was seen of small lines lately. Of one source, its pictures in order."""

    count: int
    """pictures that are remembered"""
    _lines: list[_Small] = field(default_factory=list)

    def next(self) -> None:
        """Another picture begins."""
        for line in self._lines:
            line.missed += 1
        self._lines = [line for line in self._lines if line.missed <= GONE]

    def __call__(
        self,
        image: Pixels,
        corners: Floats,
        reading: Reading,
        read: Callable[[Pixels], Reading],
        height: int,
        widest: int,
    ) -> Reading:
        """What a line says, with what was seen of it before. `reading`: of this picture alone; `read` reads another
        one, `height` high and at most `widest` wide.
        """
        middle = corners.mean(0)
        line = self._find(corners, middle)
        if line is None:
            if len(self._lines) < MOST:
                wide = _wider(corners)
                first = upright(image, wide, height, widest)
                self._lines.append(_Small(wide, middle, deque([first], self.count), deque([reading], self.count)))
            return reading
        line.missed, line.middle = 0, middle
        if _long(corners) > _long(line.corners):  # the first box came short of more than that
            line.corners, old = _wider(corners), line.pictures
            old.clear()
        cut = upright(image, line.corners - line.corners.mean(0) + middle, height, widest)
        if line.pictures:
            cut, alike = moved_onto(cut, np.mean(np.stack(line.pictures), axis=0, dtype=np.float32))
            if alike < SAME:
                line.pictures.clear()
        line.pictures.append(cut)
        line.readings.append(reading)
        whole = np.mean(np.stack(line.pictures), axis=0, dtype=np.float32)
        return voted(line.readings, read(np.rint(whole).astype(np.uint8)))

    def _find(self, corners: Floats, middle: Floats) -> _Small | None:
        """The line that this one was in the pictures before, the nearest of those that can be it."""
        long, thick = _long(corners), float(np.linalg.norm(corners[3] - corners[0]))
        unit = (corners[1] - corners[0]) / max(long, 1e-6)
        found: list[tuple[float, int]] = []
        for number, line in enumerate(self._lines):
            step = middle - line.middle
            along, across = abs(float(step @ unit)), abs(float(step[1] * unit[0] - step[0] * unit[1]))
            ratio = (long + 2 * WIDER * thick) / max(_long(line.corners), 1e-6)
            if line.missed and along <= NEAR * thick and across <= BESIDE * thick and 1 / LIKE <= ratio <= LIKE:
                found.append((along + across, number))
        return self._lines[min(found)[1]] if found else None


def _long(corners: Floats) -> float:
    return float(np.linalg.norm(corners[1] - corners[0]))


def _wider(corners: Floats) -> Floats:
    """The same place, longer at both ends."""
    thick = float(np.linalg.norm(corners[3] - corners[0]))
    more = (corners[1] - corners[0]) * np.float32(WIDER * thick / max(_long(corners), 1e-6))
    return np.stack([corners[0] - more, corners[1] + more, corners[2] + more, corners[3] - more])


def voted(readings: Sequence[Reading], mean: Reading) -> Reading:
    """The characters that most of the readings have, each weighing the cube of how sure it is, the mean's MEAN times.

    The surest reading is the one that the others are laid beside. How sure the outcome is: as the surest that says just
    that, else as the least sure.
    """
    votes = [*((text, score, score**3) for text, score in readings), (mean[0], mean[1], MEAN * mean[1] ** 3)]
    best = max(votes, key=lambda vote: vote[1])[0]
    places: list[dict[str, float]] = [{} for _ in best]
    for text, _, weight in votes:
        _count(places, best, text, weight)
    text = "".join(max(place, key=lambda c: place[c]) for place in places if place).strip()
    alike = [score for said, score, _ in votes if said == text]
    return text, max(alike) if alike else min(score for _, score, _ in votes)


def _count(places: list[dict[str, float]], best: str, text: str, weight: float) -> None:
    """Add what a text says at each place of `best`, "" where it has nothing there."""
    for _, start, end, first, last in SequenceMatcher(None, best, text, autojunk=False).get_opcodes():
        same = end - start == last - first
        for offset in range(end - start):
            said = text[first + offset] if same else ""
            places[start + offset][said] = places[start + offset].get(said, 0.0) + weight
