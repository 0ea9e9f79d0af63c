"""Text that stays in view of a camera: told once, when it changes, and when it is gone.

A line is the same as one before it where it stands in the same place, or says the same elsewhere. What is read of it
flickers: a letter is taken for another one, boxes come and go. So a line that was told says something else only once
that was read some times in a row, the more often the more it looks like the old text or went back and forth, and is
gone only once it was missing as often.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edge_agent.figures.words import errors
from edge_agent.got import Read
from edge_agent.types import Finding, Text
from edge_agent.walk.event import SampleOrFinding

PLACE = 0.3
"""intersection over union from which on two boxes are the same place"""
OTHER, ALIKE, MOST = 2, 4, 64
"""readings in a row that make a text another one; one that is ALIKE_SHARE the same; and where it keeps going back"""
ALIKE_SHARE, BEGINNING = 0.6, 32
"""of the characters; of so many at most"""
GONE = 4
"""pictures in a row without a line"""


@dataclass(slots=True)
class _Line:
    """One line in view."""

    last: Text
    """what it says for us, where it was seen last"""
    told: bool
    other: str = ""
    """what was read the last times instead"""
    times: int = 0
    missed: int = 0
    before: set[str] = field(default_factory=set)
    """what it said before"""
    returns: int = 0
    """how often it went back to such a text"""


class InView:
    """The lines in view of one source, over its pictures. Of one thread at a time."""

    def __init__(self) -> None:
        self._lines: list[_Line] = []

    def __call__(self, seen: Sequence[Text]) -> tuple[dict[int, Text], list[Text]]:
        """Of the lines of the next picture, those to tell by their number, and the lines that are gone since.

        One that says something else names what it `was`.
        """
        told: dict[int, Text] = {}
        pairs = _pairs(self._lines, seen)
        gone = self._drop_gone(pairs.values())
        for number, text in enumerate(seen):
            now = _next(pairs[number], text) if number in pairs else self._begin(text)
            if now is not None:
                told[number] = now
        at = (seen[0].at, seen[0].mono) if seen else (time.time(), time.monotonic())
        return told, [_gone(line.last, *at) for line in gone if line.told]

    def _drop_gone(self, seen: Iterable[_Line]) -> list[_Line]:
        """Count for each line whether it is among those `seen`; returns those missed too often, which are dropped."""
        known = {id(line) for line in seen}
        for line in self._lines:
            line.missed = 0 if id(line) in known else line.missed + 1
        gone = [line for line in self._lines if line.missed >= GONE]
        self._lines = [line for line in self._lines if line.missed < GONE]
        return gone

    def _begin(self, text: Text) -> Text | None:
        """Take the first reading of a line; it is to be told unless it is unsure."""
        told = not _read(text).unsure
        self._lines.append(_Line(text, told))
        return text if told else None


def _next(line: _Line, text: Text) -> Text | None:
    """Take the next reading of a line; what is to be told of it, if anything."""
    line.times = line.times + 1 if text.text == line.other else 1
    line.other = text.text
    if text.text == line.last.text:
        return _same(line, text)
    # what is guessed does not stand in for what was read
    keeps = _read(text).unsure and not _read(line.last).unsure
    if keeps or line.times < _needed(line, text.text):
        line.last = _moved(line.last, text)
        return None
    return _changed(line, text)


def _same(line: _Line, text: Text) -> Text | None:
    """It says the same again, and is to be told where it was not yet."""
    unsure = _read(text).unsure
    line.last = text if not unsure or _read(line.last).unsure else _moved(line.last, text)
    new = not line.told and (line.times >= OTHER - 1 or not unsure)
    line.told |= new
    return text if new else None


def _changed(line: _Line, text: Text) -> Text | None:
    """It says something else from now on."""
    said, unsure = line.last.text, _read(text).unsure
    line.returns += text.text in line.before
    line.before = {*list(line.before)[-MOST:], said}
    now = msgspec.structs.replace(text, got=msgspec.structs.replace(_read(text), was=said if line.told else ""))
    line.last, line.told = text, line.told or not unsure or line.times >= OTHER
    return now if line.told else None


def _needed(line: _Line, text: str) -> int:
    """How often something else has to be read."""
    if not line.told:
        return 1
    return min(MOST, ALIKE * 2**line.returns) if _alike(line.last.text, text) else OTHER


def _alike(one: str, other: str) -> bool:
    one, other = one[:BEGINNING], other[:BEGINNING]
    return errors(one, other) <= (1 - ALIKE_SHARE) * max(len(one), len(other))


def _read(text: Text) -> Read:
    assert isinstance(text.got, Read)
    return text.got


def _moved(said: Text, seen: Text) -> Text:
    """The same text in another place."""
    return msgspec.structs.replace(said, got=msgspec.structs.replace(_read(said), box=_read(seen).box))


def _gone(text: Text, at: float, mono: float) -> Text:
    return msgspec.structs.replace(text, at=at, mono=mono, got=msgspec.structs.replace(_read(text), gone=True, was=""))


def _pairs(lines: Sequence[_Line], seen: Sequence[Text]) -> dict[int, _Line]:
    """Number of a line of the picture -> the line in view that it is: by its place, then by what it says."""
    found: dict[int, _Line] = {}
    taken: set[int] = set()
    for place, number in _by_place(lines, seen):
        if number not in found and place not in taken:
            found[number] = lines[place]
            taken.add(place)
    same: dict[str, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        if place not in taken:
            same[line.last.text].append(place)
    for number, text in enumerate(seen):
        if number not in found and same[text.text]:
            found[number] = lines[same[text.text].pop()]
    return found


def _by_place(lines: Sequence[_Line], seen: Sequence[Text]) -> Iterator[tuple[int, int]]:
    """Numbers of a line in view and one of the picture that lie in one place, those that overlap the most first."""
    if not lines or not seen:
        return
    import numpy as np  # an agent that reads no pictures needs none

    a = np.array([_read(line.last).box for line in lines], np.float64)[:, None]
    b = np.array([_read(text).box for text in seen], np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.prod(np.clip(sides, 0, None), axis=-1)
    areas = [np.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (a, b)]
    shares = common / np.maximum(areas[0] + areas[1] - common, 1e-9)
    where = np.argwhere(shares >= PLACE)
    yield from where[np.argsort(-shares[tuple(where.T)], kind="stable")].tolist()


def text_of(item: SampleOrFinding) -> Text | None:
    """The text read in a picture that this is, or that something was found in; None for anything else."""
    of: Any = item.of if isinstance(item, Finding) else item
    return of if isinstance(of, Text) and isinstance(of.got, Read) else None


def with_text(item: SampleOrFinding, text: Text) -> SampleOrFinding:
    """The same of another text."""
    return msgspec.structs.replace(item, of=text) if isinstance(item, Finding) else text
