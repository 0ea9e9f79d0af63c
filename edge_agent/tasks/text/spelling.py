"""Words of a vocabulary that are spelled nearly as another one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

WORD = re.compile(r"[^\W\d_]{4,}")
"""a word that may be doubted: shorter ones are nearly like too many others"""
ENDINGS = ("", "s", "d", "ed", "ing", "ly", "er", "es")
"""of a word that is known without"""
LONG = 7
"""letters from which on two edits are looked at"""
Counts = npt.NDArray[np.int8]


@dataclass(slots=True)
class Speller:
    """The words of a vocabulary: id -> how it is spelled."""

    words: Mapping[int, str]
    _known: frozenset[str] = frozenset()
    _ids: list[int] = field(default_factory=list)
    _counts: Counts = field(default_factory=lambda: np.zeros((0, 27), np.int8))

    def __post_init__(self) -> None:
        self._ids = [i for i, word in self.words.items() if WORD.fullmatch(word)]
        self._known = frozenset(self.words.values())
        self._counts = np.array([_letters(self.words[i]) for i in self._ids], np.int8).reshape(-1, 27)

    def knows(self, word: str) -> bool:
        """Whether it is one of them, but for an ending."""
        low = word.lower()
        return any(low.removesuffix(end) in self._known for end in ENDINGS)

    def doubted(self, text: str) -> list[re.Match[str]]:
        """The words of a text that are none of them."""
        return [match for match in WORD.finditer(text) if not self.knows(match[0])]

    def near(self, word: str) -> list[tuple[int, int]]:
        """(id, edits) of words that are one edit away, or two where the word is long."""
        low, most = word.lower(), 1 if len(word) < LONG else 2
        # an edit changes the counts of two letters at most
        apart = np.abs(self._counts - np.array(_letters(low), np.int8)).sum(axis=1)
        close = [(self._ids[n], distance(low, self.words[self._ids[n]])) for n in np.flatnonzero(apart <= 2 * most)]
        return [(i, edits) for i, edits in close if 0 < edits <= most]


def _letters(word: str) -> list[int]:
    """How often each letter a to z stands in a word, and how many others."""
    counts = [min(word.count(chr(97 + n)), 100) for n in range(26)]
    return [*counts, min(len(word) - sum(counts), 100)]


def distance(one: str, other: str) -> int:
    """How many letters to put in, take out, change or swap with the next make one word of the other (Damerau 1964)."""
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]
