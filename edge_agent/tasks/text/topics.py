"""``topics:MODEL``: a stream of lines is cut where another topic begins; one finding for each topic that has ended.

As in TextTiling (Hearst 1997) a gap between two lines is judged by how alike the lines before and after it are; but it
is their meaning that is compared, the means of their vectors, not their words. A gap is a border where that is less
than `BELOW` and less than at the gaps around it. What else was tried, and how well each does: docs/understand.md.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.events.understood import Topic
from edge_agent.manifest import Served
from edge_agent.samples.everyday import SENTENCES
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.types import Finding, Floats, Task, Text
from edge_agent.uri import Uri, number

WINDOW, AROUND, BELOW = 8, 5, 0.45
"""lines on each side of a gap that are compared, gaps on each side among which it is the least, and the cosine: chosen
on one half of the streams that docs/understand.md reports the other half of"""
KEYWORDS = 5
MOST_WORDS = 20_000
"""words whose frequency is remembered"""
WORD = re.compile(r"[^\W\d_]{4,}")
USUAL = Counter(8 * [word.lower() for line in SENTENCES for word in set(WORD.findall(line))])
"""how many lines have each word, as if some hundred everyday ones had been heard"""


@dataclass(slots=True)
class Topics:
    """The task ``topics``. A border is seen WINDOW + AROUND lines after it."""

    encoder: Encoder
    window: int = WINDOW
    around: int = AROUND
    below: float = BELOW
    takes: tuple[type, ...] = (Text,)
    _lines: deque[tuple[Text, Floats]] = field(default_factory=deque)
    """those that are not yet in a topic that has ended, and before them those that gaps are compared with"""
    _open: int = 0
    """of `_lines`, where the topic begins"""
    _alike: list[float] = field(default_factory=list)
    """of the gap before each of `_lines`"""
    _count: int = 0
    """lines of the topic that were forgotten: of a long one only the first is kept"""
    _first: Text | None = None
    _words: Counter[str] = field(default_factory=Counter)
    _before: Counter[str] = field(default_factory=lambda: Counter(USUAL))

    def __call__(self, item: Text) -> Iterator[Finding]:
        """A Finding of the last line of the topic that has ended, once one has. InputError for nothing to read."""
        self._lines.append((item, self.encoder.embed(self.encoder.read(item.text))))
        self._alike.append(1.0)
        gap = len(self._lines) - self.window
        if gap > 0:
            self._alike[gap] = self._compare(gap)
        middle = gap - self.around
        if self._is_border(middle):
            yield self._topic(middle)
        elif middle > self._open + 2 * self.window:
            self._forget(middle - self.window)

    def ended(self) -> Iterator[Finding]:
        """The last topics, when no more lines come."""
        left = self.window + self.around
        for gap in range(max(1, len(self._lines) - self.window + 1), len(self._lines)):
            self._alike[gap] = self._compare(gap)
        for before_end in range(left, self.around - 1, -1):
            if self._is_border(len(self._lines) - before_end):
                yield self._topic(len(self._lines) - before_end)
        if len(self._lines) > self._open:
            yield self._topic(len(self._lines))
        self._lines.clear()
        self._alike.clear()
        self._open = 0

    def _compare(self, gap: int) -> float:
        """Cosine of the means of the vectors before and after a gap."""
        rows = [vector for _, vector in self._lines]
        one, other = (
            np.mean(part, axis=0) for part in (rows[max(0, gap - self.window) : gap], rows[gap : gap + self.window])
        )
        return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))

    def _is_border(self, gap: int) -> bool:
        if self._count + gap - self._open < self.around:
            return False
        here = self._alike[gap]
        begin = max(self._open + 1, gap - self.around)
        return here < self.below and here <= min(self._alike[begin : gap + self.around + 1])

    def _topic(self, end: int) -> Finding:
        """The topic that ends before the line `end`; those before the border are kept to compare with."""
        lines = [item for item, _ in self._lines]
        for item in lines[self._open : end]:
            self._note(item)
        first = self._first or lines[self._open]
        told = Topic(self._count, first.at, first.text, self._keywords())
        # later lines have been read by now: the place to go on at is not behind this one
        of = msgspec.structs.replace(lines[end - 1], mark=None)
        self._before.update(self._words)
        if len(self._before) > MOST_WORDS:
            self._before = Counter(dict(self._before.most_common(MOST_WORDS // 2)))
        self._words, self._count, self._first = Counter(), 0, None
        self._open = end
        self._drop(max(0, end - self.window))
        return Finding(of, told, self.encoder.model.ref)

    def _note(self, item: Text) -> None:
        self._first = self._first or item
        self._count += 1
        if len(self._words) < MOST_WORDS:
            self._words.update({word.lower() for word in WORD.findall(item.text)})

    def _forget(self, until: int) -> None:
        """Keep of the first lines of a long topic only what is told of them."""
        for item, _ in list(self._lines)[self._open : until]:
            self._note(item)
        self._open = max(self._open, until)
        self._drop(max(0, self._open - self.window))

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._lines.popleft()
        del self._alike[:count]
        self._open -= count

    def _keywords(self) -> tuple[str, ...]:
        """Words of many of its lines that were in few lines before."""
        total = sum(self._before.values()) + 1
        worth = {word: n * math.log(total / (1 + self._before[word])) for word, n in self._words.items()}
        order = sorted(worth, key=lambda word: (-worth[word], word))
        return tuple(order[:KEYWORDS])


def topics(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for its options, ManifestError for a model that is no encoder.

    ``window=``, ``around=``: lines, see above; ``below=``: cosine under which a gap may be a border.
    """
    known = {"window": str(WINDOW), "around": str(AROUND), "below": str(BELOW)}
    window, around = (int(number(uri, known, key, 1, 100)) for key in ("window", "around"))
    return Topics(encoder(model), window, around, number(uri, known, "below", -1, 1))
