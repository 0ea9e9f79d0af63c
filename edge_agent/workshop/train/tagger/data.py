"""Marked sentences for a tagger: tables of slots, as SLURP and Snips have them, or CoNLL's and ATIS's columns.

In a table each line ends with a sentence in which every slot is written as ``[name : words]``. Slots become a few
labels (`SLOTS`); those that no label fits are left unmarked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.tasks.text.texthead import OUTSIDE, joined
from edge_agent.tasks.text.wordpiece import WordPiece
from edge_agent.workshop.evaluate.tags import read_marked

SLOT = re.compile(r"\[([^:\[\]]+) : ([^\[\]]*)\]")
GIVE = "give tables whose lines end with a sentence with [slot : words] (.tsv), or CoNLL's form (.conll, .iob)"
SLOTS = {
    "date": "date year",
    "time": "time timeofday general_frequency",
    "place": "place_name house_place business_name business_type city state country geographic_poi poi location_name "
    "current_location restaurant_name restaurant_type object_location_type",
    "person": "person relation artist_name audiobook_author artist party_size_description",
    "thing": "event_name media_type food_type transport_type currency_name definition_word news_topic list_name "
    "music_genre device_type song_name radio_name game_name audiobook_name meal_type podcast_name app_name "
    "playlist_name email_folder transport_agency ingredient drink_type email_address transport_name movie_name "
    "coffee_type movie_type game_type sport_type object_type object_name playlist music_item service entity_name "
    "object_part_of_series_type track album cuisine genre served_dish",
    "number": "rating_value best_rating party_size_number",
}
"""label -> the slots of SLURP and Snips that it stands for"""
LABEL = {slot: label for label, slots in SLOTS.items() for slot in slots.split()}
BY_WORDS = "timeRange"
"""Snips calls dates and times by one name: a time is what speaks of the clock, of hours or of a part of the day"""
OF_THE_DAY = re.compile(
    r"\d ?[ap]\.?m\b|\d:\d|o.?clock|\b(hours?|minutes?|seconds?|noon|midday|midnight|morning|evening|afternoon|night|"
    r"tonight|now|breakfast|brunch|lunch|tea|dinner|supper|sun(rise|set)|dawn|dusk)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Marked:
    """A sentence, and its spans: start and end in characters, label, and the slot that it was."""

    text: str
    spans: tuple[tuple[int, int, str, str], ...]


def read(path: Path) -> list[Marked]:
    """The sentences of a file. UsageError, one line, for a file that has none."""
    if path.suffix.lower() != ".tsv":
        texts, spans = read_marked(path)
        rows: list[list[tuple[int, int, str, str]]] = [[] for _ in texts]
        for number, start, end, kind in sorted(spans):
            rows[number].append((start, end, kind, kind))
        return [Marked(text, tuple(row)) for text, row in zip(texts, rows, strict=True)]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text ({error}); {GIVE}") from None
    found = [_marked(line.rsplit("\t", 1)[-1]) for line in lines if line.strip()]
    if not any(one.spans for one in found):
        raise UsageError(f"{path}: no slot is marked in it; {GIVE}")
    return found


def _marked(line: str) -> Marked:
    text, spans, done = "", [], 0
    for match in SLOT.finditer(line):
        text += line[done : match.start()]
        slot, words = match[1].strip(), match[2].strip()
        if label := label_of(slot, words):
            spans.append((len(text), len(text) + len(words), label, slot))
        text += words
        done = match.end()
    return Marked(text + line[done:], tuple(span for span in spans if span[0] < span[1]))


def label_of(slot: str, words: str) -> str:
    """The label of a slot; "" where none fits."""
    if slot == BY_WORDS:
        return "time" if OF_THE_DAY.search(words) else "date"
    return LABEL.get(slot, "")


def tags_of(labels: Iterable[str]) -> list[str]:
    """O, and of each label the tag that begins a span and the one that goes on with it."""
    return [OUTSIDE, *(f"{how}-{label}" for label in labels for how in "BI")]


def encode(one: Marked, words: WordPiece, tags: Sequence[str], most: int) -> tuple[list[int], list[int]]:
    """Ids of the pieces of a sentence and the number of each one's tag; -1 for pieces that do not begin a word."""
    pieces = words.pieces(one.text, most - 2)
    ids, told, open_span = [words.cls], [-1], -1
    for piece, start, _ in pieces:
        at = next((i for i, span in enumerate(one.spans) if span[0] <= start < span[1]), -1)
        tag = OUTSIDE if at < 0 else f"{'I' if at == open_span else 'B'}-{one.spans[at][2]}"
        inner = piece in words.inner
        told.append(-1 if inner else tags.index(tag))
        open_span = open_span if inner else at
        ids.append(piece)
    return [*ids, words.sep], [*told, -1]


def exchanged(one: Marked, others: dict[str, list[str]], dice: np.random.Generator, share: float) -> Marked:
    """The sentence with some of its slots filled with what stands in the same slot of another one."""
    text, spans, done = "", [], 0
    for start, end, label, slot in one.spans:
        text += one.text[done:start]
        words = one.text[start:end]
        if dice.random() < share:
            words = others[slot][int(dice.integers(len(others[slot])))]
        spans.append((len(text), len(text) + len(words), label, slot))
        text += words
        done = end
    return Marked(text + one.text[done:], tuple(spans))


def by_slot(rows: Iterable[Marked]) -> dict[str, list[str]]:
    """Slot -> all that stands in it."""
    found: dict[str, list[str]] = {}
    for one in rows:
        for start, end, _, slot in one.spans:
            found.setdefault(slot, []).append(one.text[start:end])
    return found


def commonest(rows: Iterable[Marked], words: WordPiece, tags: Sequence[str]) -> dict[str, str]:
    """The baseline: word -> the tag that it has most often."""
    counts: dict[str, Counter[str]] = {}
    for one in rows:
        for (start, end), tag in words_of(one, words, tags):
            counts.setdefault(one.text[start:end].lower(), Counter())[tag] += 1
    return {word: count.most_common(1)[0][0] for word, count in counts.items()}


def words_of(one: Marked, words: WordPiece, tags: Sequence[str]) -> list[tuple[tuple[int, int], str]]:
    """Start and end of each word, and its tag."""
    _, told = encode(one, words, tags, 10_000)
    found: list[tuple[tuple[int, int], str]] = []
    for (_, start, end), tag in zip(words.pieces(one.text, 9_998), told[1:-1], strict=True):
        if tag < 0 and found:
            found[-1] = ((found[-1][0][0], end), found[-1][1])
        else:
            found.append(((start, end), tags[tag]))
    return found


def guessed(one: Marked, words: WordPiece, tags: Sequence[str], table: dict[str, str]) -> list[tuple[int, int, str]]:
    """The spans that the baseline marks in a sentence."""
    tagged = [
        (start, end, table.get(one.text[start:end].lower(), OUTSIDE), 1.0)
        for (start, end), _ in words_of(one, words, tags)
    ]
    return [span[:3] for span in joined(tagged)]
