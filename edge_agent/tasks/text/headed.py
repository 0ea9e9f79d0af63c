"""How a model that fills in words, judges pairs or finds answers proves itself, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.events.understood import Passage
from edge_agent.figures.interval import Figure, figure, ratio
from edge_agent.figures.scores import accuracy, macro_f1, pearson
from edge_agent.manifest import Served
from edge_agent.samples.carried import sentences
from edge_agent.samples.everyday import SENTENCES
from edge_agent.tasks.proofs import Measure, Recorder, least_of
from edge_agent.tasks.text.answer import Extractor
from edge_agent.tasks.text.fill import Masked, masked
from edge_agent.tasks.text.follows import APART, FOLLOWS, follower
from edge_agent.tasks.text.reader import reader
from edge_agent.types import Floats, Sample, Text

STRIDE = 4
"""of how many pieces one is masked"""
FIRST = 5
"""words of the parent among which the other's first one has to be: the very first are often about as likely"""
QUESTIONS = (
    ("Who moved to Lisbon?", 0),
    ("Where did my sister move?", 0),
    ("What will the committee publish?", 1),
    ("What did she study in Vienna?", 11),
    ("What was seen near the campsite?", 17),
    ("How long did it take to build the cathedral?", 19),
)
"""questions, and which of the everyday sentences answers them"""


def prove_fill(model: Served, seen: Recorder) -> list[str]:
    """Mask words of everyday sentences. Notes on what it says; RefusedError where that makes no sense."""
    by = masked(model)
    said = [masked_words(by, text) for text in SENTENCES[:20]]
    shares, truth = np.concatenate([rows for rows, _ in said]), [i for _, ids in said for i in ids]
    if np.ptp(shares, axis=0).max() < 1e-6:
        raise RefusedError(f"it says the same of {len(shares)} masked words")
    right = float(np.mean(shares.argmax(axis=1) == truth))
    return [f"of {len(truth)} masked words of everyday sentences it guesses {right:.2f}"]


def masked_words(by: Masked, text: str) -> tuple[Floats, list[int]]:
    """Probabilities of every fourth piece, masked one at a time, and what stands there."""
    ids = by.reader.ids(text)
    places = list(range(min(1, len(ids) - 1), len(ids), STRIDE))
    rows = [by.shares([*ids[:at], by.mask, *ids[at + 1 :]], [at]) for at in places]
    return np.concatenate(rows), [ids[at] for at in places]


def compare_fill(one: Served, other: Served) -> tuple[float, int, str]:
    """How often the first word of a mask is among the other's first; and how many masks, and what it is."""
    value, count = _same_words(one, other, sentences())
    return value, count, "first words agree"


def _same_words(one: Served, other: Served, texts: Sequence[str]) -> tuple[Figure, int]:
    readers = masked(one), masked(other)
    if readers[0].words != readers[1].words:
        raise RefusedError(f"its words are not those of its parent {other.manifest.name}")
    right, asked = [], []
    for text in texts:
        mine, theirs = (masked_words(by, text)[0] for by in readers)
        among = np.argsort(-theirs, axis=1)[:, :FIRST]
        right.append(int((among == mine.argmax(axis=1)[:, None]).any(axis=1).sum()))
        asked.append(len(mine))
    counts = np.array(right), np.array(asked)
    return Figure(lambda drawn: ratio(*(drawn @ one for one in counts)), len(texts), coarse=True), sum(asked)


def measure_fill(parent: Served, shown: Sequence[Sample]) -> Measure:
    """As `compare_fill`, on the samples."""
    return lambda candidate: _same_words(candidate, parent, _texts(shown))[0]


def _texts(shown: Sequence[Sample]) -> list[str]:
    return [item.text for item in shown if isinstance(item, Text)]


def prove_follows(model: Served, seen: Recorder) -> list[str]:
    """Ask about everyday sentences. Notes on what it says; RefusedError where that makes no sense."""
    shares = _shares(model, SENTENCES[:40])
    if np.ptp(shares) < 1e-6:
        raise RefusedError(f"it says the same of {len(shares)} pairs of sentences")
    return [f"of {len(shares)} pairs of unrelated sentences {(shares > 0.5).sum()} follow"]


def _shares(model: Served, texts: Sequence[str]) -> Floats:
    return follower(model).shares(list(zip(texts, [*texts[1:], texts[0]], strict=True)))


def compare_follows(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: how often a pair is judged the same, and the F1 of that. And the pairs, and which it is."""
    mine, theirs = (_judged(by, sentences()) for by in (one, other))
    value, what = _alike(mine, theirs)
    return value, len(mine), what


def _judged(model: Served, texts: Sequence[str]) -> list[str]:
    return [FOLLOWS if share > 0.5 else APART for share in _shares(model, texts)]


def _alike(mine: Sequence[str], theirs: Sequence[str]) -> tuple[float, str]:
    return least_of([(accuracy(theirs, mine), "answers agree"), (macro_f1(theirs, mine), "F1 of the answers")])


def measure_follows(parent: Served, shown: Sequence[Sample]) -> Measure:
    """As `compare_follows`, on the samples."""

    def measure(candidate: Served) -> Figure:
        mine, theirs = (_judged(by, _texts(shown)) for by in (candidate, parent))
        return figure(lambda of: _alike([mine[i] for i in of], [theirs[i] for i in of])[0], len(mine), coarse=True)

    return measure


def prove_answer(model: Served, seen: Recorder) -> list[str]:
    """Ask about everyday sentences. Notes on what it says; RefusedError where that makes no sense."""
    said = _answers(model, SENTENCES)
    if len(set(said)) == 1 and said[0] is not None:
        raise RefusedError(f"it gives the same answer to {len(said)} different questions")
    some = ", ".join(f'"{one}"' for one in said[:3] if one)
    notes = [f"of {len(said)} questions it answers {sum(one is not None for one in said)}: {some or 'nothing'}"]
    return notes if some else [*notes, "doubtful: it finds no answer in sentences that have one"]


def _answers(model: Served, texts: Sequence[str]) -> list[str | None]:
    by = Extractor(reader(model, "qa"))
    return [by.best(question, [Passage(texts[at % len(texts)], "", 1.0)])[0] for question, at in QUESTIONS]


def compare_answer(one: Served, other: Served) -> tuple[float, int, str]:
    """How far the scores of starts and ends go up and down with the other's; on how many pieces, and what it is."""
    value, count = _same_ends(one, other, sentences())
    return value, count, "correlation of the scores"


def _same_ends(one: Served, other: Served, texts: Sequence[str]) -> tuple[Figure, int]:
    """Least correlation of the start and of the end scores, over the pieces of each question with a text."""
    found = []
    for model in (one, other):
        by = Extractor(reader(model, "qa"))
        pairs = zip(texts, [question for question, _ in QUESTIONS] * len(texts), strict=False)
        rows = [by.by.pair(by.by.ids(question), by.by.ids(text)) for text, question in pairs]
        ends = [by.ends(out, len(ids)) for (ids, _), out in zip(rows, by.by.run(rows), strict=True)]
        found.append([[np.asarray(pair[side], np.float64) for pair in ends] for side in (0, 1)])

    def least(of: list[int]) -> float:
        sides = [[np.concatenate([side[i] for i in of]) for side in model] for model in found]
        value = min(pearson(mine, theirs) for mine, theirs in zip(*sides, strict=True))
        return 0.0 if np.isnan(value) else max(0.0, value)

    return figure(least, len(found[0][0])), sum(map(len, found[0][0]))


def measure_answer(parent: Served, shown: Sequence[Sample]) -> Measure:
    """As `compare_answer`, on the samples."""
    return lambda candidate: _same_ends(candidate, parent, _texts(shown))[0]
