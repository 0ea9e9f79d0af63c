"""Recall at 10 and milliseconds of the archive's search, on a made set of 10,000 events and 200 questions.

    python -m tests.bench.ask DATA [--encoder edge-bert] [--keep FOLDER]

DATA is the folder of shared test data, of which what is said beside comes. The questions (questions.tsv) were written
before the search was; every other one was then used to choose WORDS, LEAST, centring and what is read for meaning
(`chosen`), the rest was not looked at (`kept`). Half of them share no content word with their event. Found: what the
event says is among the first ten things said; `words, time`: FTS5's own order (bm25) of the same words, in the same
time. Milliseconds are of processor time, one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.archive.archive import NAME, Archive
from edge_agent.archive.meaning import Meaning, read_for_meaning
from edge_agent.archive.search import TOP, search, within
from edge_agent.archive.times import span
from edge_agent.archive.wanted import ALL, where_of
from edge_agent.archive.words import words_of
from edge_agent.device.health import rss_bytes
from tests.bench.ask.made import COUNT, NOW, Question, others, questions


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", default="edge-bert")
    parser.add_argument("--keep", type=Path, help="leave the archive there")
    args = parser.parse_args()
    os.environ["TZ"] = "UTC"
    time.tzset()
    with tempfile.TemporaryDirectory() as scratch:
        archive = Archive((args.keep or Path(scratch)) / NAME)
        asked, events = questions()
        if not archive.count():
            archive.add(events)
            archive.add(others(args.data, COUNT - len(events)))
        _report(archive, asked, args.encoder)


def _report(archive: Archive, asked: list[Question], encoder: str) -> None:
    ((texts,),) = archive.rows("SELECT count(*) FROM texts")
    before = rss_bytes()
    from edge_agent.serving.meaning import meaning_of
    from edge_agent.serving.models import Models

    meaning = meaning_of(Models(threads=1, once=True), encoder)
    began = time.perf_counter()
    read = read_for_meaning(archive, meaning, texts)
    took = time.perf_counter() - began
    print(f"{archive.count()} events that say {texts} things, {archive.size / 1e6:.1f} MB")
    if read:
        print(f"{encoder}: {read} read for their meaning in {took:.1f} s, {1000 * took / read:.1f} ms each")
    ways: dict[str, Callable[[Question], set[str]]] = {
        "words, time": lambda one: _by_words(archive, one.text),
        "ours, no encoder": lambda one: _by_search(archive, one.text, None),
        f"ours, {encoder}": lambda one: _by_search(archive, one.text, meaning),
    }
    print(f"{'':24}{'chosen':>8}{'kept':>8}{'kept, other words':>19}{'kept, own words':>17}{'ms':>8}")
    for name, way in ways.items():
        spent, right = [], []
        for one in asked:
            began = time.process_time()
            found = way(one)
            spent.append(1000 * (time.process_time() - began))
            right.append(_said(archive, one.id) in found)
        kept = [(one, good) for one, good in list(zip(asked, right, strict=True))[1::2]]
        figures = [right[::2], [good for _, good in kept]]
        figures += [[good for one, good in kept if one.shares == shares] for shares in (False, True)]
        wide = (8, 8, 19, 17)
        shown = "".join(f"{sum(some) / len(some):{w}.3f}" for some, w in zip(figures, wide, strict=True))
        print(f"{name:24}{shown}{statistics.median(spent):8.1f}")
    print(f"{(rss_bytes() - before) / 1e6:.0f} MB more in memory than with the archive alone")


def _said(archive: Archive, id: str) -> str:
    return str(archive.rows("SELECT text FROM events JOIN texts USING (t) WHERE id = ?", [id])[0][0])


def _by_search(archive: Archive, question: str, meaning: Meaning | None) -> set[str]:
    return {one.text for one in search(archive, question, meaning, now=NOW).found}


def _by_words(archive: Archive, question: str) -> set[str]:
    asked = span(question, NOW)
    where, values = where_of(within(ALL, asked.since, asked.until))
    terms = " OR ".join(f'"{word}"' for word in words_of(asked.rest))
    there = {t for (t,) in archive.rows(f"SELECT DISTINCT t FROM events WHERE {where}", values)}
    best = "SELECT rowid, text FROM words WHERE words MATCH ? ORDER BY bm25(words)"
    rows = archive.rows(best, [terms]) if terms else []
    return {text for t, text in [row for row in rows if row[0] in there][:TOP]}


if __name__ == "__main__":
    main()
