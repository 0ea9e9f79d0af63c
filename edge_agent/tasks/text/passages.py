"""Passages of texts, and which of them have to do with a question: by their words and by their meaning together.

Words: BM25 (Robertson and Zaragoza 2009). Meaning: the cosine of the vectors. A passage's score is the mean of its
BM25, as a share of what the question could have at most, and of its cosine.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_agent.errors import ConfigError, InputError
from edge_agent.events.understood import Passage
from edge_agent.files import read_regular
from edge_agent.tasks.text.encoder import Encoder
from edge_agent.tasks.text.reader import sentences
from edge_agent.types import Floats

K1, B = 1.2, 0.75
"""of BM25: how soon a word that comes again counts no more, and how much a long passage is held against it"""
LENGTH = 300
"""characters of a passage, but for a sentence that is longer"""
MOST, MOST_FILE, MOST_FILES = 20_000, 4_000_000, 2000
"""passages, bytes of a file, files of a folder"""
ENDINGS = (".txt", ".md", ".rst", ".csv", ".log", ".json", ".toml")
"""of files in a folder that are taken for text"""
WORD = re.compile(r"\w+")
_ASKS = """
a an the of to in on at by for with from and or is are was were be been do does did can could will would what who whom
whose which when where why how many much there it its that this i you we they he she my your our
"""
ASKS = frozenset(_ASKS.split())
"""words of a question that say nothing of what is asked about"""


@dataclass(slots=True)
class Passages:
    """Passages with their vectors, and where each is from."""

    encoder: Encoder | None
    """None: by their words alone"""
    texts: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    _vectors: list[Floats] = field(default_factory=list)
    _counts: list[Counter[str]] = field(default_factory=list)
    _df: Counter[str] = field(default_factory=Counter)

    def add(self, text: str, source: str) -> None:
        """Take a text. InputError where there are too many."""
        new = passages(text)
        if len(self.texts) + len(new) > MOST:
            raise InputError(f"more than {MOST} passages; ask about fewer or shorter texts")
        if not new:
            return
        self.texts += new
        self.sources += [source] * len(new)
        if self.encoder is not None:
            vectors = self.encoder.embed_many(new)
            self._vectors += list(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
        for passage in new:
            self._counts.append(Counter(words(passage)))
            self._df.update(self._counts[-1].keys())

    def best(self, question: str, top: int) -> list[Passage]:
        """The passages that have most to do with a question, the best first; none where none has anything."""
        if not self.texts:
            return []
        score = self._bm25([word for word in words(question) if word not in ASKS] or words(question))
        if self.encoder is not None:
            vector = self.encoder.embed(self.encoder.read(question))
            cosine = np.stack(self._vectors) @ (vector / max(float(np.linalg.norm(vector)), 1e-12))
            score = (score + np.clip(cosine, 0, 1)) / 2
        order = np.argsort(-score, kind="stable")[:top]
        return [
            Passage(self.texts[i], self.sources[i], round(float(min(score[i], 1.0)), 4))
            for i in map(int, order)
            if score[i] > 0
        ]

    def _bm25(self, asked: Sequence[str]) -> Floats:
        """(n,) share of the most that the words could give."""
        count = len(self.texts)
        mean = sum(map(len, self.texts)) / count
        rare = {word: math.log(1 + (count - self._df[word] + 0.5) / (self._df[word] + 0.5)) for word in set(asked)}
        most = sum(rare.values()) * (K1 + 1) or 1.0
        found = np.zeros(count, np.float32)
        for n, counts in enumerate(self._counts):
            norm = K1 * (1 - B + B * len(self.texts[n]) / mean)
            found[n] = sum(rare[w] * counts[w] * (K1 + 1) / (counts[w] + norm) for w in rare if w in counts) / most
        return found


def words(text: str) -> list[str]:
    """The words of a text in small letters, English endings of the plural and of time away."""
    return [re.sub(r"(?<=\w{3})(?:'s|s|ed|ing)$", "", word) for word in WORD.findall(text.lower())]


def passages(text: str) -> list[str]:
    """A text in pieces of whole sentences."""
    found: list[str] = []
    for sentence in sentences(text):
        if found and len(found[-1]) + len(sentence) < LENGTH:
            found[-1] += f" {sentence}"
        else:
            found.append(sentence)
    return found


def documents(path: Path) -> Iterable[tuple[str, str]]:
    """(text, name) of a file, or of the text files in a folder and below it. ConfigError where there is none."""
    if not path.is_dir():
        yield _text(path), path.name
        return
    names = sorted(Path(at) / name for at, _, here in os.walk(path) for name in here if name.lower().endswith(ENDINGS))
    if not names:
        raise ConfigError(f"{path}: no text in it; files that end in {' '.join(ENDINGS)} are read")
    if len(names) > MOST_FILES:
        raise ConfigError(f"{path}: {len(names)} files; at most {MOST_FILES} are read")
    for one in names:
        yield _text(one), str(one.relative_to(path))


def _text(path: Path) -> str:
    try:
        return read_regular(path, MOST_FILE).decode("utf-8-sig", "replace")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a text file, or a folder of them") from None
