"""Words about time in a question."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from edge_agent.archive.times import span

NOW = datetime(2026, 3, 18, 20, 0)
"""a Wednesday"""
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
"""its rules themselves: a machine may have no table of zones"""


@pytest.fixture(autouse=True, params=["UTC", BERLIN, "PST8PDT,M3.2.0,M11.1.0"])
def zone(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


def told(question: str, now: datetime = NOW) -> tuple[str, str, str]:
    found = span(question, now)
    assert found.since is not None and found.until is not None
    since, until = (datetime.fromtimestamp(at).strftime("%m-%d %H:%M") for at in (found.since, found.until))
    return since, until, found.rest


@pytest.mark.parametrize(
    ("question", "since", "until", "rest"),
    [
        ("red car at the gate last night", "03-17 18:00", "03-18 06:00", "red car at the gate"),
        ("what happened yesterday", "03-17 00:00", "03-18 00:00", "what happened"),
        ("yesterday morning", "03-17 05:00", "03-17 12:00", ""),
        ("who came monday at 8", "03-16 07:30", "03-16 09:00", "who came"),
        ("On Monday evening at 8", "03-16 19:30", "03-16 21:00", ""),
        ("last wednesday", "03-11 00:00", "03-12 00:00", ""),
        ("wednesday", "03-18 00:00", "03-19 00:00", ""),
        ("early this morning cat", "03-18 05:00", "03-18 12:00", "cat"),
        ("two hours ago", "03-18 17:30", "03-18 18:30", ""),
        ("5 minutes ago", "03-18 19:52", "03-18 19:57", ""),
        ("in the last 3 days", "03-15 20:00", "03-18 20:00", ""),
        ("last hour", "03-18 19:00", "03-18 20:00", ""),
        ("last week", "03-09 00:00", "03-16 00:00", ""),
        ("dogs at the weekend", "03-14 00:00", "03-16 00:00", "dogs"),
        ("3 days ago", "03-15 00:00", "03-16 00:00", ""),
        ("between 2 and 4 pm", "03-18 14:00", "03-18 16:00", ""),
        ("from 22:00 to 3:00 yesterday", "03-17 22:00", "03-18 03:00", ""),
        ("after 10 pm last night", "03-17 22:00", "03-18 06:00", ""),
        ("on 12 March", "03-12 00:00", "03-13 00:00", ""),
        ("March 5th", "03-05 00:00", "03-06 00:00", ""),
        ("24 December", "12-24 00:00", "12-25 00:00", ""),
        ("in february", "02-01 00:00", "03-01 00:00", ""),
        ("2026-03-01 dog", "03-01 00:00", "03-02 00:00", "dog"),
        ("at 21", "03-17 20:30", "03-17 22:00", ""),
        ("at noon", "03-18 11:30", "03-18 13:00", ""),
        ("car in the night before tuesday", "03-16 18:00", "03-17 06:00", "car"),
        ("light at the shed monday night", "03-16 18:00", "03-17 06:00", "light at the shed"),
        ("how many cars since monday", "03-16 00:00", "03-18 20:00", "how many cars"),
    ],
)
def test_a_question_names_a_time(question: str, since: str, until: str, rest: str) -> None:
    assert told(question) == (since, until, rest)


@pytest.mark.parametrize(
    "question",
    [
        *("no time at all, the last one of may", "good night said", "night light on", "tomorrow is the dentist", ""),
        *("2026-13-45", "the fire drill at the second door", "one two three", "a minute of silence"),
    ],
)
def test_what_is_no_time_stays_in_the_question(question: str) -> None:
    found = span(question, NOW)
    assert (found.since, found.until, found.rest) == (None, None, question)


def test_last_night_at_four_in_the_morning_still_goes_on() -> None:
    assert told("last night", datetime(2026, 3, 18, 4, 0))[:2] == ("03-17 18:00", "03-18 06:00")


def test_a_day_on_which_clocks_change_has_its_own_hours() -> None:
    found = span("yesterday", datetime(2026, 3, 30, 12, 0))
    assert found.since is not None and found.until is not None
    hours = 23 if os.environ["TZ"] == BERLIN else 24
    assert found.until - found.since == hours * 3600


def test_a_long_question_is_read_to_its_end() -> None:
    assert span("last " * 20_000 + "between 2 and " * 5_000 + "yesterday", NOW).since is not None
