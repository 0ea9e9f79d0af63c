"""How two models that transcribe are compared."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.figures.interval import Figure, kept
from edge_agent.figures.words import errors, plain
from edge_agent.manifest import Served
from edge_agent.samples.carried import SPOKEN, sound
from edge_agent.tasks.proofs import Measure
from edge_agent.tasks.transcribe.proof import transcriber, words
from edge_agent.types import Audio, Sample


def compare(one: Served, other: Served) -> tuple[float, int, str]:
    """The share of the words of the carried sentences that both hear; the sentences, and which figure it is."""
    shown = [sound(name) for name in SPOKEN]
    return measure(other, shown)(one), len(shown), "agreement of the words"


def measure(parent: Served, shown: Sequence[Sample]) -> Measure:
    """1 less the errors that a candidate makes in each word of its parent."""
    sounds = [item for item in shown if isinstance(item, Audio)]
    theirs = [plain(words(transcriber(parent), item)) for item in sounds]

    def measured(candidate: Served) -> Figure:
        task = transcriber(candidate)
        wrong = [errors(said, plain(words(task, item))) for said, item in zip(theirs, sounds, strict=True)]
        return kept(wrong, [max(1, len(said)) for said in theirs])

    return measured
