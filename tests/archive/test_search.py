"""Search by words, meaning, time, place and label; and the recap of a day."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from edge_agent.archive.archive import NAME, Archive
from edge_agent.archive.meaning import Meaning, read_for_meaning
from edge_agent.archive.recap import recap
from edge_agent.archive.search import search
from edge_agent.archive.wanted import ALL, Wanted
from edge_agent.serving.meaning import meaning_of
from edge_agent.serving.models import Models
from edge_agent.types import Floats
from tests.archive.made import DAY, START, event

NOW = datetime(2026, 1, 10, 20, 0, tzinfo=timezone.utc)
NOON = NOW.timestamp() - 8 * 3600
SENTENCES = (
    *("the boiler stopped working again", "dinner is ready", "my glasses are broken", "we booked the flight to madrid"),
    *("the train was cancelled", "the baby has a fever", "please water the plants", "the rent goes up next year"),
    *("turn the music down", "the disk is nearly full", "a truck blocks the drive", "the cat sleeps on the sofa"),
)


@pytest.fixture(autouse=True)
def zone() -> Iterator[None]:
    """Days begin at midnight in UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = Archive(tmp_path / NAME)
    made.add([event(n, text=text, at=NOON - n * 3600) for n, text in enumerate(SENTENCES, 1)])
    cars = [event(100 + n, "object", NOON - n * DAY, "gate", label="car", zones=["drive"]) for n in range(5)]
    made.add(cars)
    return made


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    return meaning_of(Models(threads=1, once=True), "edge-bert")


def texts(archive: Archive, question: str, meaning: Meaning | None = None, wanted: Wanted = ALL) -> list[str]:
    return [one.text for one in search(archive, question, meaning, wanted, now=NOW).found]


def test_words_in_another_form_and_in_any_order_are_found(archive: Archive) -> None:
    assert texts(archive, "Broken GLASS?")[0] == "my glasses are broken"
    assert texts(archive, "cats sleeping")[0] == "the cat sleeps on the sofa"
    assert texts(archive, "xyzzy") == [] and texts(archive, 'a "b" OR (c*') == []


def test_another_word_for_the_same_kind_of_thing_is_found(archive: Archive) -> None:
    assert texts(archive, "lorry")[0] == "a truck blocks the drive"
    assert texts(archive, "vehicles") == ["car comes into view"]


def test_the_time_and_the_place_of_a_question_count(archive: Archive) -> None:
    answer = search(archive, "car at the gate yesterday", now=NOW)
    assert [(one.text, one.count) for one in answer.found] == [("car comes into view", 1)]
    assert answer.found[0].events[0].body()["id"] == "edge/1/101"
    assert texts(archive, "drive", wanted=Wanted(pipelines=["gate"])) == ["car comes into view"]
    assert texts(archive, "drive", wanted=Wanted(labels=["dog"])) == []
    assert texts(archive, "car", wanted=Wanted(until=START)) == []


def test_events_that_say_the_same_are_found_once_with_the_newest_first(archive: Archive) -> None:
    (found,) = search(archive, "car", now=NOW).found
    assert found.count == 5 and [kept.body()["seq"] for kept in found.events] == [100, 101, 102]


def test_a_time_alone_gives_what_was_last(archive: Archive) -> None:
    assert texts(archive, "today")[0] == "car comes into view"
    assert texts(archive, "today at 11") == ["the boiler stopped working again"]


def test_what_was_meant_in_other_words_is_found(archive: Archive, meaning: Meaning) -> None:
    asked = {"child is ill": "the baby has a fever", "plane tickets to spain": "we booked the flight to madrid"}
    asked |= {"storage space runs out": "the disk is nearly full", "housing costs more": "the rent goes up next year"}
    assert not any(text in texts(archive, question) for question, text in asked.items())
    assert search(archive, "x", meaning, now=NOW).unread == 13
    assert read_for_meaning(archive, meaning, 1000) == 13 and read_for_meaning(archive, meaning, 1000) == 0
    found = [text in texts(archive, question, meaning)[:5] for question, text in asked.items()]
    assert sum(found) >= 3, found
    assert texts(archive, "glasses", meaning)[0] == "my glasses are broken", "words count as before"


def test_a_text_without_a_letter_is_no_trouble(archive: Archive, meaning: Meaning) -> None:
    archive.add([event(200, text="4711 !!"), event(201, text="\u2603\u2603")])
    read_for_meaning(archive, meaning, 1000)
    assert archive.unread(meaning.model) == 0 and texts(archive, "4711", meaning)[0] == "4711 !!"
    assert texts(archive, "???", meaning) and search(archive, "", meaning, now=NOW).found


def test_another_encoder_reads_all_of_it_again(archive: Archive) -> None:
    def embed(some: Sequence[str]) -> Floats:
        return np.ones((len(some), 7), np.float32)

    one, other = Meaning(embed, "a" * 64), Meaning(embed, "b" * 64)
    assert read_for_meaning(archive, one, 5) == 5 and archive.unread(one.model) == 8
    assert archive.unread(other.model) == 13
    assert read_for_meaning(archive, other, 1000) == 13 and archive.unread(one.model) == 13


def test_a_page_of_vectors_at_a_time_gives_the_same(
    archive: Archive, meaning: Meaning, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_for_meaning(archive, meaning, 1000)
    whole = texts(archive, "water for the flowers", meaning)
    monkeypatch.setattr("edge_agent.archive.meaning.PAGE", 5)
    assert whole[0] == texts(archive, "water for the flowers", meaning)[0] == "please water the plants"


# ── the recap ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def days(tmp_path: Path) -> Archive:
    """A week with a car at the gate each day, and a day on which more happened."""
    archive, events = Archive(tmp_path / NAME), []
    for day in range(8):
        for part in range(10):
            at = START + day * DAY + part * 3600
            events.append(event(100 * day + part, "object", at, "gate", label="car"))
            events.append(event(10_000 + 100 * day + part, "object", at + 60, "gate", label="car", phase="end"))
    for part in range(40):
        events.append(event(5000 + part, "object", START + 7 * DAY + part * 60, "gate", label="dog"))
    events.append(event(6000, "anomaly", START + 7 * DAY + 3000, "pump", unusual=True))
    archive.add(events)
    return archive


def test_a_recap_counts_things_and_says_what_was_unusual(days: Archive) -> None:
    found = recap(days, START + 7 * DAY, START + 8 * DAY)
    rows = {(row.pipeline, row.label): row for row in found.rows}
    dog, car = rows["gate", "dog"], rows["gate", "car"]
    assert (dog.count, dog.usual, dog.unusual) == (40, 0, "never in the 7 days before")
    assert (car.count, car.usual, car.unusual) == (10, 10, "") and car.first == START + 7 * DAY
    assert car.last == START + 7 * DAY + 9 * 3600, "of a thing its coming counts"
    assert found.notable == [(START + 7 * DAY + 3000, "pump", "unusual")]
    assert found.rows[0] == dog and found.compared == 7


def test_what_is_missing_is_unusual_too(days: Archive) -> None:
    days.remove(Wanted(since=START + 7 * DAY, labels=["car"]))
    (car,) = [row for row in recap(days, START + 7 * DAY, START + 8 * DAY).rows if row.label == "car"]
    assert (car.count, car.unusual) == (0, "far fewer than usual")


def test_the_first_days_are_held_against_nothing(days: Archive) -> None:
    found = recap(days, START + DAY, START + 2 * DAY)
    assert found.compared == 1 and [row.usual for row in found.rows] == [None]
