"""``summarize:MODEL``: the sentences that are nearest to the mean of all of them, none like one that is taken already.

Extraction by the centre (Radev et al. 2004), without repeats (Carbonell and Goldstein 1998). ``every=1d`` collects the
lines of a while and gives their recap with the first line after it, or when the lines end.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import ConfigError, InputError
from edge_agent.events.understood import Summary
from edge_agent.manifest import Served
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.tasks.text.reader import sentences
from edge_agent.types import Finding, Floats, Task, Text
from edge_agent.uri import Uri, number, option

TOP = 3
ALIKE = 0.8
"""cosine from which on a sentence repeats another one"""
MOST = 2000
"""sentences that are kept to choose from; of more, any of them is kept with the same chance"""
LEAST_LETTERS = 12
"""of a sentence that says enough to stand for others"""
WHILE = re.compile(r"(\d{1,4})([smhd])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(slots=True)
class Summarizer:
    """The task ``summarize``."""

    encoder: Encoder
    top: int = TOP
    every: int = 0
    """seconds of each recap, which begins at a whole multiple of them, in UTC; 0: each text by itself"""
    takes: tuple[type, ...] = (Text,)
    _kept: list[tuple[int, str, Floats]] = field(default_factory=list)
    """number, sentence and vector"""
    _count: int = 0
    _since: float = 0.0
    _last: Text | None = None
    _dice: random.Random = field(default_factory=lambda: random.Random(0))

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding for each text, or for each while that is over. InputError for a text with nothing to read."""
        if not self.every:
            self._add(item)
            yield from self.ended()
            return
        if self._last is not None and item.at // self.every != self._since // self.every:
            yield from self.ended()
        self._add(item)

    def ended(self) -> Iterator[Finding]:
        """The recap of what was collected."""
        if self._last is None:
            return
        told = Summary(self._chosen(), self._count, self._since)
        # a recap comes long after its last line: the place to go on at is not behind that one
        of = self._last if not self.every else msgspec.structs.replace(self._last, mark=None)
        self._kept, self._count, self._last = [], 0, None
        yield Finding(of, told, self.encoder.model.ref)

    def _add(self, item: Text) -> None:
        found = sentences(item.text)
        if not found:
            raise InputError("no letter in the text; nothing to understand")
        if self._last is None:
            self._since = item.at
        self._last = item
        self._count += len(found)
        kept = [one for one in enumerate(found, self._count - len(found)) if self._keeps(one[0])]
        if not kept:
            return
        vectors = self.encoder.embed_many([sentence for _, sentence in kept])
        for (number_, sentence), vector in zip(kept, vectors, strict=True):
            row = (number_, sentence, vector)
            if len(self._kept) < MOST:
                self._kept.append(row)
            else:
                self._kept[self._dice.randrange(MOST)] = row

    def _keeps(self, number_: int) -> bool:
        """Whether a sentence is kept, by its number (Vitter 1985, algorithm R)."""
        return number_ < MOST or self._dice.randrange(number_ + 1) < MOST

    def _chosen(self) -> tuple[str, ...]:
        rows = sorted(self._kept, key=lambda row: row[0])
        long = [row for row in rows if sum(map(str.isalnum, row[1])) >= LEAST_LETTERS] or rows
        picked = central(np.stack([vector for _, _, vector in long]), self.top)
        return tuple(long[i][1] for i in picked)


def central(vectors: Floats, top: int) -> list[int]:
    """Which rows, in their order, are nearest to the mean of all, none ALIKE to one that is nearer."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    order = np.argsort(-(unit @ unit.mean(axis=0)), kind="stable")
    picked: list[int] = []
    for i in map(int, order):
        if len(picked) < top and not any(unit[i] @ unit[j] >= ALIKE for j in picked):
            picked.append(i)
    return sorted(picked)


def summarize(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for its options, ManifestError for a model that is no encoder.

    ``top=``: sentences; ``every=1d`` (s, m, h, d): one recap of all that came in a while.
    """
    known = {"top": str(TOP), "every": ""}
    top, given = int(number(uri, known, "top", 1, 100)), option(uri, known, "every")
    match = WHILE.fullmatch(given)
    if given and (match is None or int(match[1]) == 0):
        raise ConfigError(f'"{uri}": every={given}; write a number and s, m, h or d: every=1d')
    return Summarizer(encoder(model), top, int(match[1]) * SECONDS[match[2]] if match else 0)
