"""``answer:MODEL?context=PLACE``: what texts say to a question.

PLACE is a file, a folder of files, or `captured`: what this device lately heard and read, which stays in memory. With
an encoder the best passages are the answer. A model that finds answers (BERT's for SQuAD: start and end scores of each
piece, Devlin et al. 2018, 4.2) marks the words in them, or says that none has any: the best span of the passage is held
against that of [CLS], as for SQuAD 2.0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.errors import ConfigError, InputError, ModelError
from edge_agent.events.understood import Answer, Passage
from edge_agent.manifest import Served
from edge_agent.tasks.text import captured
from edge_agent.tasks.text.encoder import encoder
from edge_agent.tasks.text.passages import Passages, documents
from edge_agent.tasks.text.reader import Reader, reader
from edge_agent.types import Finding, Floats, Task, Text
from edge_agent.uri import Uri, number, option

TOP = 3
LONGEST = 30
"""pieces of an answer"""
ROOM = 64
"""most pieces of a question"""
CAPTURED = "captured"


@dataclass(frozen=True, slots=True)
class Extractor:
    """Finds an answer in a passage."""

    by: Reader

    def best(self, question: str, passages: Sequence[Passage]) -> tuple[str | None, float]:
        """The answer, and how sure it is against none; None where none has one."""
        asked = self.by.ids(question)[: min(ROOM, self.by.length // 2)]
        rows, pieces = [], []
        words = self.by.words
        between = [words.sep] * words.seps
        room = self.by.length - len(asked) - 2 - len(between)
        for passage in passages:
            found = words.pieces(passage.text, room * 4)
            for begin in range(0, max(1, len(found) - room // 4), max(1, room - room // 4)):
                part = found[begin : begin + room]
                ids = [words.cls, *asked, *between, *(piece for piece, _, _ in part), words.sep]
                rows.append((ids, len(asked) + 1 + len(between)))
                pieces.append((passage.text, part))
        best, answer = -math.inf, None
        for (ids, first), out, (text, part) in zip(rows, self.by.run(rows), pieces, strict=True):
            start, end = self.ends(out, len(ids))
            score, begin, last = _span(start[first : first + len(part)], end[first : first + len(part)])
            score -= float(start[0] + end[0])
            if score > best:
                best, answer = score, text[part[begin][1] : part[last][2]]
        share = 1 / (1 + math.exp(-max(-50.0, min(50.0, best))))
        return (answer, share) if best > 0 else (None, share)

    def ends(self, out: dict[str, Floats], pieces: int) -> tuple[Floats, Floats]:
        """Scores of each piece to be the first and the last of the answer."""
        if len(out) == 1:
            (both,) = out.values()
            if both.shape == (pieces, 2):
                return both[:, 0], both[:, 1]
        named = sorted(out.items(), key=lambda item: "end" in item[0].lower())
        if len(named) == 2 and all(value.shape == (pieces,) for _, value in named):
            return named[0][1], named[1][1]
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in out.items())
        raise ModelError(f"{self.by.model.ref.name}: two scores a piece are wanted, {shapes} came out")


def _span(start: Floats, end: Floats) -> tuple[float, int, int]:
    """Sum of the scores, first and last piece of the best span of at most LONGEST pieces."""
    if not len(start):
        return -math.inf, 0, 0
    sums = np.where(np.tri(len(start), dtype=bool).T, start[:, None] + end[None], -np.inf)
    sums = np.where(np.tri(len(start), k=LONGEST - 1, dtype=bool), sums, -np.inf)
    first, last = np.unravel_index(int(sums.argmax()), sums.shape)
    return float(sums[first, last]), int(first), int(last)


@dataclass(slots=True)
class Answerer:
    """The task ``answer``."""

    model: Served
    passages: Passages
    extractor: Extractor | None
    top: int = TOP
    lately: bool = False
    """what was captured by now is looked in"""
    inline: bool = False
    """no place was named: a text is a question and, behind its first question mark, what it is about"""
    takes: tuple[type, ...] = (Text,)

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with the answer to a question. InputError for a text with nothing to read."""
        began = time.perf_counter()
        question, here = item.text, self.passages
        if self.lately:
            here = Passages(self.passages.encoder)
            for text, source in captured.lately():
                here.add(text, source)
        elif self.inline:
            question, mark, about = item.text.partition("?")
            question, here = question + mark, Passages(self.passages.encoder)
            here.add(about.strip() or question, "")
        what = self.of(question, here)
        yield Finding(item, what, self.model.ref, {"infer": (time.perf_counter() - began) * 1e3})

    def of(self, question: str, here: Passages) -> Answer:
        """What some passages say to a question."""
        if not any(char.isalnum() for char in question):
            raise InputError("no letter in the question; nothing to look for")
        best = here.best(question, self.top)
        if self.extractor is None:
            return Answer(None, best[0].score if best else 0.0, False, tuple(best))
        answer, score = self.extractor.best(question, best) if best else (None, 0.0)
        return Answer(answer, round(score, 4), True, tuple(best))


def answer(uri: Uri, model: Served, home: Path, serve: Callable[[str], Served]) -> Task:
    """Make the task; reads the place and embeds its passages. ConfigError for its options and the place, ManifestError
    for a model that is neither an encoder nor finds answers.

    ``passages=``: the encoder that finds passages for a model that finds answers; `words`: by their words alone.
    """
    known = {"context": "", "top": str(TOP), "passages": "encoder"}
    place, by = option(uri, known, "context"), option(uri, known, "passages")
    top = int(number(uri, known, "top", 1, 100))
    extracts = model.manifest.task == "answer"
    if not extracts and "passages" in uri.options:
        raise ConfigError(f'"{uri}": passages={by}: {model.manifest.name} finds them itself; leave it out')
    made = None if extracts and by == "words" else encoder(serve(by) if extracts else model)
    here = Passages(made)
    if place not in ("", CAPTURED):
        for text, name in documents(Path(place).expanduser()):
            here.add(text, name)
        if not here.texts:
            raise ConfigError(f"{place}: no sentence in it; give a text file, or a folder of them")
    finds = Extractor(reader(model, "qa")) if extracts else None
    return Answerer(model, here, finds, top, place == CAPTURED, not place)
