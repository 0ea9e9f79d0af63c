"""``read:MODEL?score=0.5&unsure=yes&together=1``: a Frame -> a Text of each line in it, in reading order."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.errors import ConfigError, ManifestError
from edge_agent.manifest import FINDER, Served
from edge_agent.pictures.lines import upright
from edge_agent.tasks.read.finder import Finder, Spot
from edge_agent.tasks.read.order import in_order
from edge_agent.tasks.read.recogniser import Recogniser, recogniser
from edge_agent.tasks.read.together import SMALL, Together
from edge_agent.types import Floats, Frame, Pixels, Read, Task, Text
from edge_agent.uri import Uri, number, switch

Bools = npt.NDArray[np.bool_]
log = logging.getLogger("edge_agent")

OPTIONS = {"score": "", "unsure": "yes", "together": "1"}
"""score defaults to the manifest's; unsure: whether lines below SURE are given, marked as unsure; together: pictures
of a film over which small print is read"""
MOST_TOGETHER = 16
FAMILIES = ("ppocr",)
SURE = 0.8
"""score from which on a line can be relied on"""
DOUBT = 0.9
"""score below which a line may stand on its head: some letters can be read either way"""
WIDEST, MOST_WIDTH = 3200, 400_000
"""pixels of one line, as it goes into the network, and of all lines of a picture together: what takes seconds"""
TIGHT = 0.85
"""share of its thickness that is read of a line thinner than SMALL: the finder's map is coarse there, so its boxes are
too thick, and letters are smaller than need be in what goes into the network"""
FILLS, CERTAIN = 0.4, 0.95
"""share of the picture from which on a single letter has to have such a score: 9 of 150 photos gave one below"""
ALIKE, PART = 1.25, 0.5
"""times the length and thickness of a line is another one that is the same; of its thickness have parts of it"""


class Line(NamedTuple):
    """A line that was read."""

    text: str
    score: float
    corners: Floats
    """(4, 2) pixels of the picture, from where it begins, clockwise as it is read"""

    @property
    def thick(self) -> float:
        """Pixels across it."""
        return float(np.linalg.norm(self.corners[3] - self.corners[0]))


@dataclass(slots=True)
class Reader:
    """The task."""

    model: Served
    finder: Finder
    recognise: Recogniser
    score: float
    unsure: bool
    together: Together | None = None
    warned: bool = False
    takes: tuple[type, ...] = (Frame,)
    gives: type = Text

    def __call__(self, item: Frame) -> Iterator[Text]:
        """The lines of one Frame; none where nothing is written. InputError for a bad result."""
        engine = f"{self.model.ref.name} {self.model.ref.version}"
        least = self.score if self.unsure else max(self.score, SURE)
        for line in self.lines(item.image):
            if line.score >= least:
                x = (np.clip(line.corners[:, 0], 0, item.width) + item.cut[0]).tolist()
                y = (np.clip(line.corners[:, 1], 0, item.height) + item.cut[1]).tolist()
                box = round(min(x), 1), round(min(y), 1), round(max(x), 1), round(max(y), 1)
                got = Read(engine, round(line.score, 4), box, line.score < SURE, item.name)
                yield Text(line.text, item.at, item.mono, got=got)

    def lines(self, image: Pixels) -> list[Line]:
        """All that is written in a picture (h, w, 3), in reading order, however sure."""
        spots, left_out = self.finder.find(image)
        coarse, fine = _places(spots)
        room, lines = MOST_WIDTH, list[Line]()
        if self.together is not None:
            self.together.next()
        for corners in [*coarse, *fine]:
            if room > 0:
                picture = upright(image, _tight(corners), self.recognise.input.height, WIDEST)
                room -= picture.shape[1]
                lines.append(self._over_time(image, self._line(picture, corners)))
            else:
                left_out += 1
        if left_out and not self.warned:
            self.warned = True
            log.warning("read: a picture has %d places more that look like text than are read of one", left_out)
        lines = [one for one in _best_of(lines[: len(coarse)], lines[len(coarse) :]) if _is_said(one, image)]
        return [lines[i] for i in _order(lines)]

    def _line(self, picture: Pixels, corners: Floats) -> Line:
        """What an upright picture of a line says; turned by 180 degrees where that is surer."""
        text, score = self.recognise(picture)
        if score < DOUBT:
            other, its = self.recognise(picture[::-1, ::-1])
            if its > score:
                return Line(other, its, np.roll(corners, 2, axis=0))
        return Line(text, score, corners)

    def _over_time(self, image: Pixels, line: Line) -> Line:
        """The line with what was seen of it in the pictures before, where that is asked for and it is small."""
        if self.together is None or line.thick >= SMALL:
            return line
        height = self.recognise.input.height
        text, score = self.together(image, line.corners, line[:2], self.recognise, height, WIDEST)
        return Line(text, score, line.corners)


def _tight(corners: Floats) -> Floats:
    """The place of a line as it is read."""
    down = corners[3] - corners[0]
    inset = down * np.float32((1 - TIGHT) / 2 if np.linalg.norm(down) < SMALL else 0)
    return np.stack([corners[0] + inset, corners[1] + inset, corners[2] - inset, corners[3] - inset])


def _places(spots: Sequence[Spot]) -> tuple[list[Floats], list[Floats]]:
    """The corners of coarse spots that are not found finely as well, and of the fine ones."""
    fine = [spot.corners for spot in spots if not spot.coarse]
    coarse = [spot.corners for spot in spots if spot.coarse]
    return [one for one in coarse if not any(_alike(one, other) for other in fine)], fine


def _alike(one: Floats, other: Floats) -> bool:
    """Whether two places of lines are about the same."""
    sides = [(np.linalg.norm(c[1] - c[0]), np.linalg.norm(c[3] - c[0])) for c in (one, other)]
    ratios = [max(a, b) / max(min(a, b), 1) for a, b in zip(*sides, strict=True)]
    return max(ratios) <= ALIKE and bool(_inside(other.mean(0)[None], one)[0])


def _inside(points: Floats, corners: Floats) -> Bools:
    """Which of (n, 2) points lie in a rectangle of any angle."""
    along, down = corners[1] - corners[0], corners[3] - corners[0]
    parts = [(points - corners[0]) @ side / max(float(side @ side), 1e-9) for side in (along, down)]
    inside: Bools = np.logical_and.reduce([(part >= 0) & (part <= 1) for part in parts])
    return inside


def _best_of(coarse: list[Line], fine: list[Line]) -> list[Line]:
    """The fine lines; but where a coarse one surely says more than those within it, that one."""
    kept = fine
    for line in coarse:
        middles = np.array([one.corners.mean(0) for one in kept], np.float32).reshape(-1, 2)
        within = _inside(middles, line.corners)
        if _says_more(line, [one for one, is_in in zip(kept, within, strict=True) if is_in]):
            kept = [line, *(one for one, is_in in zip(kept, within, strict=True) if not is_in)]
    return kept


def _says_more(line: Line, within: list[Line]) -> bool:
    """Whether a line surely says more than those within it that are sure.

    Of those that are about as thick, which are parts of it, only the longest counts.
    """
    rivals = [one for one in within if one.score >= SURE]
    parts = [len(one.text) for one in rivals if one.thick > PART * line.thick]
    others = [len(one.text) for one in rivals if one.thick <= PART * line.thick]
    return line.score >= SURE and len(line.text) > max(parts, default=0) + sum(others)


def _is_said(line: Line, image: Pixels) -> bool:
    """Whether a line says something. Any picture looks a little like a letter as large as itself."""
    low, high = line.corners.min(0).clip(0), np.minimum(line.corners.max(0), image.shape[1::-1])
    fills = float(np.prod(high - low)) > FILLS * image.shape[0] * image.shape[1]
    return len(line.text) > 1 or (bool(line.text) and (line.score >= CERTAIN or not fills))


def _order(lines: list[Line]) -> list[int]:
    """The numbers of the lines as they are read: the page is turned as most of them go."""
    if not lines:
        return []
    along = np.array([line.corners[1] - line.corners[0] for line in lines], np.float64)
    angles, most = np.arctan2(along[:, 1], along[:, 0]), np.arctan2(*along.sum(0)[::-1])
    # one that is slanted does not tilt the others
    turn = most + np.median((angles - most + np.pi) % (2 * np.pi) - np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    turned = np.array([line.corners for line in lines], np.float32) @ np.array([[cos, -sin], [sin, cos]], np.float32)
    return in_order(np.concatenate([turned.min(1), turned.max(1)], axis=1))


def read(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for its options, ManifestError for a model that reads no text."""
    manifest = model.manifest
    if manifest.task != "read":
        raise ConfigError(f'"{uri}": {manifest.name} reads no text (its task is {manifest.task}); name one, e.g. ocr')
    if manifest.family not in FAMILIES:
        raise ManifestError(f'{manifest.name}: unknown family "{manifest.family}"; known are {", ".join(FAMILIES)}')
    least = number(uri, {**OPTIONS, "score": str(manifest.score)}, "score", 0, 1)
    unsure = switch(uri, OPTIONS, "unsure")
    count = round(number(uri, OPTIONS, "together", 1, MOST_TOGETHER))
    together = Together(count) if count > 1 else None
    return Reader(model, Finder(model.others[FINDER]), recogniser(model), least, unsure, together)
