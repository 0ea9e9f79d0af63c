"""A text as numbers: its words and runs of letters, counted in hashed buckets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

from edge_agent.types import Floats

BUCKETS = 1 << 12
WORDS, LETTERS = (1, 2), (2, 3, 4)
"""how many words, and letters of a word with its ends, are counted together"""
READ = 4096
"""characters of a text that are counted"""
PART = re.compile(r"\w+|[^\w\s]")


Counts = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""buckets, and how often each was counted"""
EVEN = np.ones(BUCKETS, np.float32)


def count(text: str) -> tuple[Counts, Counts]:
    """Buckets of a text's words and pairs of words; and of its runs of letters."""
    words = PART.findall(text[:READ].lower())
    whole = [" ".join(words[i : i + n]) + "\n" for n in WORDS for i in range(len(words) - n + 1)]
    ended = [f" {word} " for word in words]
    runs = [word[i : i + n] for word in ended for n in LETTERS for i in range(len(word) - n + 1)]
    return _counts(whole), _counts(runs)


def _counts(keys: list[str]) -> Counts:
    buckets = np.array([crc32(key.encode(errors="replace")) % BUCKETS for key in keys], np.int64)
    at, often = np.unique(buckets, return_counts=True)
    return at, often


def grams(text: str, rare: Floats = EVEN) -> tuple[npt.NDArray[np.int64], Floats]:
    """Buckets of a text, and how much of each, together of length 1: half of its words, half of its runs of letters.

    `rare`: (BUCKETS,) how much each tells.
    """
    whole: Floats = np.zeros(BUCKETS, np.float32)
    parts = count(text)
    for at, often in parts:
        much = (1 + np.log(often)).astype(np.float32) * rare[at]
        whole[at] += much / np.float32(np.sqrt(much @ much) or 1.0)
    at = np.union1d(parts[0][0], parts[1][0])
    much = whole[at]
    return at, much / np.float32(np.sqrt(much @ much) or 1.0)


def rarity(texts: Sequence[str]) -> Floats:
    """(BUCKETS,): the root of the usual inverse frequency in documents; the words of every sentence tell little."""
    seen = np.zeros(BUCKETS)
    for text in texts:
        seen[np.union1d(*(at for at, _ in count(text)))] += 1
    rare: Floats = np.sqrt(np.log((1 + len(texts)) / (1 + seen)) + 1).astype(np.float32)
    return rare


def dense(rows: Sequence[tuple[npt.NDArray[np.int64], Floats]]) -> Floats:
    """(n, BUCKETS)."""
    out: Floats = np.zeros((len(rows), BUCKETS), np.float32)
    for row, (at, much) in zip(out, rows, strict=True):
        row[at] = much
    return out
