"""``follows:MODEL``: how likely it is that a line goes on from the line before it.

A line is told by the two labels of BERT's second head (Devlin et al. 2018, 3.1): "follows", or "apart" for one that
begins something else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.errors import ModelError
from edge_agent.manifest import Served
from edge_agent.tasks.text.reader import Reader, reader, softmax
from edge_agent.types import Finding, Floats, Scores, Task, Text
from edge_agent.uri import Uri, option

FOLLOWS, APART = "follows", "apart"
NOTHING: Floats = np.zeros(0, np.float32)


@dataclass(slots=True)
class Follower:
    """The task ``follows``."""

    by: Reader
    takes: tuple[type, ...] = (Text,)
    _before: str = ""

    @property
    def gives_names(self) -> list[str]:
        """The labels that it may give."""
        return [FOLLOWS, APART]

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with Scores for each text but the first. InputError for a text with nothing to read."""
        self.by.ids(item.text)
        before, self._before = self._before, item.text
        if before:
            yield self.of(before, item)

    def of(self, before: str, item: Text) -> Finding:
        """Whether a text goes on from another one."""
        began = time.perf_counter()
        share = float(self.shares([(before, item.text)])[0])
        scores = {FOLLOWS: share, APART: 1 - share}
        label = max(scores, key=scores.__getitem__)
        spent = {"infer": (time.perf_counter() - began) * 1e3}
        return Finding(item, Scores(label, scores[label], scores), self.by.model.ref, spent)

    def shares(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """(n,) probability that the second of each pair follows the first."""
        rows = [self.by.pair(self.by.ids(one), self.by.ids(other)) for one, other in pairs]
        found = [self._two(out) for out in self.by.run(rows)]
        shares: Floats = softmax(np.stack(found))[:, 0]
        return shares

    def _two(self, out: dict[str, Floats]) -> Floats:
        """The two logits of a row: of the network itself, or of the head behind its hidden states."""
        if self.by.head is not None:
            (hidden,) = out.values()
            two: Floats = self.by.headed(hidden[None])[0]
        else:
            two = next((value for value in out.values() if value.shape == (2,)), NOTHING)
        if two.shape != (2,):
            raise ModelError(f"{self.by.model.ref.name}: two scores of a pair are wanted, {list(two.shape)} came out")
        return two


def follower(model: Served) -> Follower:
    """Make it. ManifestError for a model without such a head."""
    return Follower(reader(model, "nsp"))


def follows(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for an option, ManifestError for a model without such a head."""
    for key in uri.options:
        option(uri, {}, key)
    return follower(model)
