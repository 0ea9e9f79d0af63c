"""How two readers of text are compared."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.errors import ModelError
from edge_agent.figures.interval import Figure, kept, share
from edge_agent.figures.words import errors
from edge_agent.manifest import Served
from edge_agent.samples.carried import pages
from edge_agent.tasks.proofs import Measure
from edge_agent.tasks.read.proof import texts
from edge_agent.types import Frame, Sample


def compare(one: Served, other: Served) -> tuple[float, int, str]:
    """How far the characters that both read in the carried picture of text, in several ways, are the same."""
    shown = pages()
    return measure(other, shown)(one), len(shown), "agreement of the characters"


def measure(parent: Served, shown: Sequence[Sample]) -> Measure:
    """1 less the errors that a candidate makes in each character of its parent's, at least 0."""
    frames = [item for item in shown if isinstance(item, Frame)]
    theirs = [texts(parent, frame) for frame in frames]

    def measured(candidate: Served) -> Figure:
        try:
            mine = [texts(candidate, frame) for frame in frames]
        except ModelError:
            return share([False] * len(frames))
        wrong = [errors("\n".join(a), "\n".join(b)) for a, b in zip(theirs, mine, strict=True)]
        return kept(wrong, [sum(map(len, lines)) for lines in theirs])

    return measured
