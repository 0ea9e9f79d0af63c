"""Search of the archive: words (FTS5) and meaning (vectors of an encoder) together, in the time that a question names.

How well an event's words fit is the cosine of their vector and the question's, both less the mean of all, plus WORDS
times the share of the question's words that they have, each word weighing by how rare it is (inverse document
frequency). Events that say the same are found together, the newest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import msgspec

from edge_agent.archive.archive import Archive
from edge_agent.archive.meaning import Meaning, cosines
from edge_agent.archive.times import span
from edge_agent.archive.wanted import ALL, Kept, Wanted, where_of
from edge_agent.archive.words import KINDS, words_of

WORDS = 0.5
"""of a share of words, against a cosine: chosen on every other question of tests/bench/ask"""
ALSO = 0.8
"""of a word, where another one for the same kind of thing is there"""
LEAST = 0.2
"""cosine from which on what has no word of the question is found"""
TOP, EACH = 10, 3
"""what is found, and events of each that say the same"""


class Found(msgspec.Struct, frozen=True):
    """Events that say the same, in the time that was asked for."""

    text: str
    score: float
    """how well it fits; about 1 and more is sure"""
    count: int
    """how many say so"""
    events: list[Kept]
    """the newest of them"""


class Answer(msgspec.Struct, frozen=True):
    """What was found to a question."""

    question: str
    """without the words about time"""
    since: float | None
    until: float | None
    found: list[Found]
    unread: int
    """texts that were not read for their meaning"""


def search(
    archive: Archive,
    question: str,
    meaning: Meaning | None = None,
    wanted: Wanted = ALL,
    *,
    top: int = TOP,
    now: datetime | None = None,
) -> Answer:
    """The `top` things said that fit a question best, of the `wanted` events; where the question names but a time, the
    newest of it. StoreError where the archive cannot be read.
    """
    asked = span(question, now)
    wanted = within(wanted, asked.since, asked.until)
    words = words_of(asked.rest)
    scores = _scores(archive, asked.rest, words, meaning, wanted) if words else _newest(archive, wanted, top)
    best = sorted(scores, key=lambda t: (-scores[t], -t))[:top]
    found = [_found(archive, t, scores[t], wanted) for t in best]
    unread = archive.unread(meaning.model) if meaning else 0
    return Answer(asked.rest, wanted.since, wanted.until, found, unread)


def within(wanted: Wanted, since: float | None, until: float | None) -> Wanted:
    """Events that are wanted, and of this time."""
    begins = [at for at in (wanted.since, since) if at is not None]
    ends = [at for at in (wanted.until, until) if at is not None]
    return msgspec.structs.replace(wanted, since=max(begins, default=None), until=min(ends, default=None))


# ── inside ───────────────────────────────────────────────────────────────────────────────────────────────


def _scores(
    archive: Archive, question: str, words: Sequence[str], meaning: Meaning | None, wanted: Wanted
) -> dict[int, float]:
    """Text -> how well it fits, of texts that wanted events have."""
    where, values = where_of(wanted)
    there = {t for (t,) in archive.rows(f"SELECT DISTINCT t FROM events WHERE {where}", values)}
    scores = {t: WORDS * share for t, share in _shares(archive, words).items() if t in there}
    for t, cosine in cosines(archive, question, meaning).items() if meaning else ():
        if t in scores or (t in there and cosine >= LEAST):
            scores[t] = scores.get(t, 0.0) + cosine
    return scores


def _newest(archive: Archive, wanted: Wanted, top: int) -> dict[int, float]:
    """What was said last, as if it fitted."""
    where, values = where_of(wanted)
    newest = f"SELECT t, max(at) FROM events WHERE {where} GROUP BY t ORDER BY 2 DESC LIMIT ?"
    rows = archive.rows(newest, [*values, top])
    return {t: 2 - place / max(1, len(rows)) for place, (t, _) in enumerate(rows)}


def _shares(archive: Archive, words: Sequence[str]) -> dict[int, float]:
    """Text -> share of the words that it has, by their weight."""
    total, shares = 0.0, dict[int, float]()
    ((texts,),) = archive.rows("SELECT count(*) FROM texts")
    for word in words:
        with_it = _having(archive, [word])
        alike = _having(archive, KINDS.get(word) or KINDS.get(word.removesuffix("s"), [])) - with_it
        count = len(with_it) + len(alike)
        weight = math.log(1 + (texts - count + 0.5) / (count + 0.5))
        total += weight
        for some, part in ((with_it, 1.0), (alike, ALSO)):
            for t in some:
                shares[t] = shares.get(t, 0.0) + part * weight
    return {t: share / total for t, share in shares.items()}


def _having(archive: Archive, words: Sequence[str]) -> set[int]:
    """The texts that have one of these words, in whatever form."""
    if not words:
        return set()
    terms = " OR ".join('"' + word.replace('"', "") + '"' for word in words)
    return {t for (t,) in archive.rows("SELECT rowid FROM words WHERE words MATCH ?", [terms])}


def _found(archive: Archive, t: int, score: float, wanted: Wanted) -> Found:
    where, values = where_of(wanted)
    events = archive.kept(f"WHERE t = ? AND {where} ORDER BY at DESC LIMIT ?", [t, *values, EACH])
    ((count,),) = archive.rows(f"SELECT count(*) FROM events WHERE t = ? AND {where}", [t, *values])
    return Found(events[0].text if events else "", round(score, 4), int(count), events)
