"""Sentences with marked spans: ATIS's lines, CoNLL's columns, and tables whose lines end with a sentence in which every
slot is written as ``[name : words]``, as SLURP and Snips have them.

Slots become a few labels (`SLOTS`); those that no label fits are left unmarked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import UsageError
from edge_agent.tasks.text.texthead import OUTSIDE, joined
from edge_agent.workshop.data.texts import atis, is_atis, text_of

SLOT = re.compile(r"\[([^:\[\]]+) : ([^\[\]]*)\]")
GIVE = "give CoNLL's form (a word and its tag a line), ATIS's .iob, or a .tsv of sentences with [slot : words]"
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
    """A sentence, and its spans: start and end in characters, label, and the slot that it was (else the label)."""

    text: str
    spans: tuple[tuple[int, int, str, str], ...]


def read(path: Path) -> list[Marked]:
    """The sentences of a file. UsageError, one line, for one in which nothing is marked."""
    found = find(path)
    if found is None:
        raise UsageError(f"{path}: nothing is marked in it; {GIVE}")
    return found


def find(path: Path) -> list[Marked] | None:
    """The same; None for a file that is of no such form."""
    kind, lines = path.suffix.lower(), text_of(path, GIVE).splitlines()
    if is_atis(lines):
        # BOS and EOS have a tag each, and where EOS stands is the intent
        return [_tagged([*zip(words[1:-1], tags[1:-1], strict=False)]) for words, tags in atis(path, lines)]
    if kind in (".conll", ".bio", ".iob", ".iob2"):
        return [_tagged(words) for words in _columns(path, lines)]
    if kind == ".tsv" and any(map(SLOT.search, lines)):
        return [_slotted(line.rsplit("\t", 1)[-1]) for line in lines if line.strip()]
    return None


def _tagged(words: Sequence[tuple[str, str]]) -> Marked:
    """Of words and their tags."""
    at, tags = 0, []
    for word, tag in words:
        tags.append((at, at + len(word), tag, 1.0))
        at += len(word) + 1
    spans = tuple((start, end, kind, kind) for start, end, kind, _ in joined(tags))
    return Marked(" ".join(word for word, _ in words), spans)


def _columns(path: Path, lines: Sequence[str]) -> list[list[tuple[str, str]]]:
    """The first and the last column; -DOCSTART- and comments are left out."""
    texts: list[list[tuple[str, str]]] = [[]]
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells:
            texts.append([])
        elif cells[0] != "-DOCSTART-" and not line.startswith("# "):
            if len(cells) < 2:
                raise UsageError(f"{path}: line {number} has a word and no tag ({OUTSIDE}, B-…); {GIVE}")
            texts[-1].append((cells[0], cells[-1]))
    return [words for words in texts if words]


def _slotted(line: str) -> Marked:
    """Of a sentence whose slots are written as ``[name : words]``."""
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
