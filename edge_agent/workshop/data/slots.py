"""Sentences with slots: each line of a table ends with one in which every slot is written as ``[name : words]``.

SLURP and Snips have this form. Slots become a few labels (`SLOTS`); those that no label fits are left unmarked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import UsageError
from edge_agent.workshop.data.texts import text_of

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
    """The sentences of a table. UsageError, one line, for one in which no slot is marked."""
    found = [_marked(line.rsplit("\t", 1)[-1]) for line in text_of(path, GIVE).splitlines() if line.strip()]
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
