"""``fill:MODEL``: what could stand in each [MASK] of a text; with ``repair=SCORE`` also in words that seem misread.

Repair looks at texts that were heard or read with a lower score than SCORE. A word is doubted where it is none of the
vocabulary's, and replaced where one of these is spelled nearly so and fits the place far better than chance: a noisy
channel (Kernighan, Church, Gale 1990), whose language model is the network. Both texts are reported.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.errors import InputError, ManifestError
from edge_agent.events.understood import Fill, Guess, Place
from edge_agent.manifest import Served
from edge_agent.tasks.text.reader import Reader, reader, softmax
from edge_agent.tasks.text.spelling import Speller
from edge_agent.tasks.text.subwords import Subwords
from edge_agent.tasks.text.wordpiece import MASKS
from edge_agent.types import Finding, Floats, Task, Text
from edge_agent.uri import Uri, number

TOP = 5
MOST_MASKS = 64
"""places of one text"""
MASKED = re.compile("|".join(map(re.escape, MASKS)))
EDIT, LEAST = 4.0, -7.5
"""what a second edit of a letter costs in log probability, and the least that the best word is worth in all: chosen on
one half of the sentences that docs/understand.md reports the other half of"""


@dataclass(frozen=True, slots=True)
class Masked:
    """A masked language model."""

    reader: Reader
    mask: int
    words: dict[int, str]
    """ids of whole words and marks, and how they are spelled"""

    def shares(self, ids: Sequence[int], places: Sequence[int]) -> Floats:
        """Probability (n, V) of each word in each of the `places` of pieces without marks."""
        room = self.reader.length - 2
        cls, sep = self.reader.words.cls, self.reader.words.sep
        if len(ids) <= room:
            (out,) = self.reader.run([([cls, *ids, sep], len(ids) + 2)])
            return self._at(out, [place + 1 for place in places])
        rows = []
        for place in places:  # each in the middle of what fits
            begin = min(max(0, place - room // 2), len(ids) - room)
            rows.append((begin, [cls, *ids[begin : begin + room], sep]))
        outs = self.reader.run([(row, len(row)) for _, row in rows])
        found = [self._at(out, [p - b + 1]) for out, p, (b, _) in zip(outs, places, rows, strict=True)]
        return np.concatenate(found)

    def _at(self, out: dict[str, Floats], places: list[int]) -> Floats:
        """Of the network's output, or of the hidden states that go through the head."""
        scores = next(value for value in out.values() if value.ndim == 2)
        return softmax(self.reader.headed(scores[None, places])[0])

    def guesses(self, shares: Floats, top: int) -> tuple[Guess, ...]:
        """The likeliest whole words of one place."""
        order = np.argsort(-shares, kind="stable")[: 20 * top + 100]
        found = [Guess(self.words[i], round(float(shares[i]), 4)) for i in map(int, order) if i in self.words]
        return tuple(found[:top])


def masked(model: Served) -> Masked:
    """Make it. ManifestError for a model without a head for masked words, or without a mask in its vocabulary."""
    made = reader(model, "mlm")
    vocab = made.words.vocab
    mask = next((vocab[name] for name in MASKS if name in vocab), None)
    if mask is None:
        raise ManifestError(f'{model.manifest.name}: no "[MASK]" in its vocabulary, which it needs to fill in words')
    special = {made.words.cls, made.words.sep, made.words.pad, made.words.unknown, mask}
    words = made.words
    whole = words.spelled() if isinstance(words, Subwords) else {i: piece for piece, i in vocab.items()}
    inner = special if isinstance(words, Subwords) else words.inner | special
    return Masked(made, mask, {i: word for i, word in whole.items() if i not in inner})


@dataclass(slots=True)
class Filler:
    """The task ``fill``."""

    by: Masked
    top: int = TOP
    repair: float = 0.0
    """texts that were heard or read with a lower score are looked through; 0: none"""
    takes: tuple[type, ...] = (Text,)
    _speller: Speller | None = None

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with what could stand in the masks; of a text without, with what was repaired in it.

        InputError for a text without a mask where nothing is to be repaired.
        """
        began = time.perf_counter()
        if MASKED.search(item.text):
            what = self.fill(item.text)
        elif self.repair and (item.got is None or item.got.score < self.repair):
            what = self.mend(item.text)
        elif self.repair:
            what = Fill(item.text, (), True)
        else:
            raise InputError('no [MASK] in the text; write it where a word is wanted: "turn the [MASK] on"')
        yield Finding(item, what, self.by.reader.model.ref, {"infer": (time.perf_counter() - began) * 1e3})

    def fill(self, text: str) -> Fill:
        """What could stand in each mask of a text."""
        ids: list[int] = []
        places: list[tuple[int, int, int]] = []
        done = 0
        for match in MASKED.finditer(text):
            ids += self._ids(text[done : match.start()])
            places.append((len(ids), *match.span()))
            ids.append(self.by.mask)
            done = match.end()
        ids += self._ids(text[done:])
        if len(places) > MOST_MASKS:
            raise InputError(f"{len(places)} masks in one text; at most {MOST_MASKS} are filled in")
        shares = self.by.shares(ids, [at for at, _, _ in places])
        told = [
            Place(start, end, self.by.guesses(row, self.top))
            for (_, start, end), row in zip(places, shares, strict=True)
        ]
        return Fill(replaced(text, told), tuple(told))

    def _ids(self, text: str) -> list[int]:
        return [piece for piece, _, _ in self.by.reader.words.pieces(text, self.by.reader.length * 16)]

    def mend(self, text: str) -> Fill:
        """What could stand for words of a text that are none of the vocabulary's and nearly like one of these."""
        told = []
        for start, end, near in self.doubts(text):
            worth = [math.log(max(share, 1e-12)) - EDIT * (edits - 1) for _, edits, share in near]
            if max(worth) >= LEAST:
                order = sorted(range(len(near)), key=lambda n: -worth[n])[: self.top]
                guesses = tuple(Guess(self.by.words[near[n][0]], round(near[n][2], 4)) for n in order)
                told.append(Place(start, end, guesses))
        return Fill(replaced(text, told), tuple(told), True)

    def doubts(self, text: str) -> Iterator[tuple[int, int, list[tuple[int, int, float]]]]:
        """Start and end of each word that is none of the vocabulary's, and what is nearly like it: id, edits of letters
        and probability in its place.
        """
        speller = self._speller = self._speller or Speller(self.by.words)
        pieces = self.by.reader.words.pieces(text, self.by.reader.length * 16)
        for match in speller.doubted(text)[:MOST_MASKS]:
            here = [at for at, (_, start, _) in enumerate(pieces) if match.start() <= start < match.end()]
            near = speller.near(match[0])
            if here and near:
                ids = [piece for piece, _, _ in pieces]
                ids[here[0] : here[-1] + 1] = [self.by.mask]
                shares = self.by.shares(ids, [here[0]])[0]
                yield *match.span(), [(i, edits, float(shares[i])) for i, edits in near]


def replaced(text: str, places: Sequence[Place]) -> str:
    """The text with the likeliest word in each place, with a capital where a capital stood."""
    out, done = "", 0
    for place in places:
        word = place.words[0].word if place.words else text[place.start : place.end]
        upper = text[place.start].isupper()
        out += text[done : place.start] + (word[:1].upper() + word[1:] if upper else word)
        done = place.end
    return out + text[done:]


def fill(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for its options, ManifestError for a model that fills in no words.

    ``top=``: words of each place; ``repair=``: look through texts heard or read with a lower score than that.
    """
    known = {"top": str(TOP), "repair": "0"}
    top = number(uri, known, "top", 1, 100)
    return Filler(masked(model), int(top), number(uri, known, "repair", 0, 1))
