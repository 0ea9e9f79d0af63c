"""Text that stays in view of a camera is told once, when it changes and when it is gone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_agent.config import Pipeline
from edge_agent.events import EVENTS, Event, TextEvent
from edge_agent.got import Read
from edge_agent.types import Finding, Frame, ModelRef, Scores, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from edge_agent.walk.pipeline import Stats, run
from edge_agent.walk.report import Report, reporter
from tests.pages import page

HERE = (10.0, 10.0, 110.0, 30.0)


def line(text: str, box: tuple[float, float, float, float] = HERE, score: float = 0.95) -> Text:
    return Text(text, 1.0, 2.0, got=Read("ocr 1", score, box, score < 0.8))


def told(pictures: Sequence[Sequence[Text]], how: str = "changes") -> list[list[str]]:
    """What is reported of each picture: +text, -text for one that is gone, old>new for one that was another one."""
    report, said = reporter(how), []
    for picture in pictures:
        said.append([_mark(item) for item in report(picture)])
    return said


def _mark(item: object) -> str:
    assert isinstance(item, Text) and isinstance(item.got, Read)
    if item.got.gone:
        return f"-{item.text}"
    return f"{item.got.was}>{item.text}" if item.got.was else f"+{item.text}"


def all_of(pictures: Sequence[Sequence[Text]]) -> list[str]:
    return [mark for marks in told(pictures) for mark in marks]


def at(x: float, y: float = 10.0) -> tuple[float, float, float, float]:
    return (x, y, x + 100, y + 20)


def test_it_is_told_once_then_what_it_became_then_that_it_is_gone() -> None:
    pictures = [[line("OPEN")]] * 5 + [[line("CLOSED")]] * 5 + [[]] * 6
    assert told(pictures) == [["+OPEN"], *[[]] * 5, ["OPEN>CLOSED"], *[[]] * 6, ["-CLOSED"], [], []]


def test_each_reading_is_told_where_that_is_asked_for() -> None:
    assert told([[line("OPEN")]] * 3 + [[]], "every") == [["+OPEN"]] * 3 + [[]]


def test_a_summary_tells_of_text_as_changes_do() -> None:
    assert told([[line("OPEN")]] * 3 + [[]] * 4, "summary:10s")[0] == ["+OPEN"]
    assert [mark for marks in told([[line("OPEN")]] * 3 + [[]] * 4, "summary:10s") for mark in marks] == [
        "+OPEN",
        "-OPEN",
    ]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.45])
def test_a_letter_that_flickers_makes_no_storm(share: float) -> None:
    rng = random.Random(1)
    pictures = [[line("ST0P" if rng.random() < share else "STOP")] for _ in range(2000)]
    assert len(all_of(pictures)) <= 6
    unsure = [[line("ST0P", score=0.7) if rng.random() < share else line("STOP")] for _ in range(2000)]
    assert all_of(unsure) == ["+STOP"], "what is guessed never stands in for what was read"


def test_a_line_that_is_missed_now_and_then_stays() -> None:
    rng = random.Random(2)
    pictures = [[line("STOP")] if i == 0 or rng.random() > 0.1 else [] for i in range(300)]
    assert all_of(pictures) == ["+STOP"]


def test_a_reading_that_changes_by_one_digit_is_told() -> None:
    pictures = [[line(f"{value}.0 bar")] for value in (41, 42, 43) for _ in range(10)]
    assert all_of(pictures) == ["+41.0 bar", "41.0 bar>42.0 bar", "42.0 bar>43.0 bar"]


def test_what_nobody_is_sure_of_is_told_once_it_is_read_twice() -> None:
    rng = random.Random(3)
    noise = [[line("".join(rng.choices("abcdefgh", k=5)), score=0.6)] for _ in range(200)]
    assert all_of(noise) == [], "a texture that looks like other letters each time is no text"
    faint = [[line("EXIT", score=0.7)]] * 4 + [[line("EXIT")]] * 3 + [[]] * 4
    assert told(faint)[:3] == [[], ["+EXIT"], []] and all_of(faint) == ["+EXIT", "-EXIT"]


def test_lines_are_told_apart_by_their_place_and_followed_by_what_they_say() -> None:
    two = [line("A12", at(0)), line("A12", at(300))]
    assert all_of([two] * 5) == ["+A12", "+A12"]
    passing = [[line("K AB 1234", at(40.0 * i)), line("EXIT", at(700, 200))] for i in range(12)]
    assert all_of([*passing, *[[line("EXIT", at(700, 200))]] * 4]) == ["+K AB 1234", "+EXIT", "-K AB 1234"]
    jitter = random.Random(4)
    shaken = [[line("EXIT", at(jitter.uniform(0, 25), jitter.uniform(0, 5)))] for _ in range(50)]
    assert all_of(shaken) == ["+EXIT"]


def test_many_lines_at_once_are_matched() -> None:
    many = [line(f"{i} {'x' * 300}{i}", at(110.0 * (i % 30), 22.0 * (i // 30))) for i in range(900)]
    assert len(all_of([many] * 3 + [[line(text.text + "y", text.got.box) for text in many]] * 2)) == 900  # type: ignore[union-attr]


def test_what_is_found_in_a_text_is_told_with_it() -> None:
    def labelled(text: Text) -> Finding:
        return Finding(text, Scores("shop", 0.9, {"shop": 0.9}), ModelRef("m", "1", "0" * 64))

    report = reporter("changes")
    open_, closed = line("OPEN"), line("CLOSED")
    assert [_event(item) for item in report([labelled(open_), labelled(open_)])] == [("scores", "OPEN", "")] * 2
    assert list(report([labelled(open_)])) == []
    assert list(report([labelled(closed)])) == []
    assert [_event(item) for item in report([labelled(closed)])] == [("scores", "CLOSED", "OPEN")]
    gone = [list(report([])) for _ in range(5)]
    assert [_event(item) for items in gone for item in items] == [("text", "CLOSED", "gone")]


def _event(item: object) -> tuple[str, str, str]:
    event = to_event(item, "p")  # type: ignore[arg-type]
    assert isinstance(event.read, Read)
    return str(event.__struct_config__.tag), event.text, "gone" if event.read.gone else event.read.was  # type: ignore[attr-defined]


def test_events_say_it_to_people_and_are_folded_by_it() -> None:
    report = reporter("changes")
    events = [
        to_event(item, "p") for text in ["OPEN"] * 2 + ["CLOSED"] * 2 + [""] * 4
        for item in report([line(text)] if text else [])
    ]  # fmt: skip
    bodies = [{"text": event.text, "read": {"was": event.read.was, "gone": event.read.gone}}  # type: ignore
              for event in events]  # fmt: skip
    assert [EVENTS["text"].words(body) for body in bodies] == ['"OPEN"', '"CLOSED", was "OPEN"', '"CLOSED" is gone']
    assert len({str(event.says()) for event in events}) == 3
    assert TextEvent.words({"text": "typed"}) == '"typed"'


# ── a film, with the real reader ─────────────────────────────────────────────────────────────────────────


def film(texts: Sequence[tuple[str, int]]) -> Iterator[Frame]:
    """A panel as a camera on a mast sees it: the picture shakes, is noisy, and brighter and darker."""
    rng = np.random.default_rng(0)
    for text, frames in texts:
        panel = page((text, "LEVEL 2"), size=1.0, margin=30) if text else np.full((120, 300, 3), 250, np.uint8)
        for _ in range(frames):
            image = np.full((240, 420, 3), 120, np.uint8)
            x, y = rng.integers(20, 26, 2)
            high, wide = min(panel.shape[0], 240 - y), min(panel.shape[1], 420 - x)
            image[y : y + high, x : x + wide] = panel[:high, :wide]
            noisy = image * rng.uniform(0.85, 1.05) + rng.normal(0, 8, image.shape)
            yield Frame(noisy.clip(0, 255).astype(np.uint8), 0.0, 0.0)


def test_a_panel_in_a_film_gives_an_event_for_each_change(ocr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_agent.serving.models import Models
    from edge_agent.tasks import make_task

    monkeypatch.setenv("EDGE_AGENT_HOME", str(ocr))
    task = make_task(parse_uri("read:ocr"), Models(threads=1).serve, Path())
    events: list[Event] = []
    report = Report(
        Pipeline("p", "camera:0", ["read:ocr"]),
        True,
        lambda event, kind, mark: events.append(event),
        lambda mark: None,
        bool,
    )
    shown = [("PUMP IS RUNNING", 8), ("PUMP IS STOPPED", 8), ("", 6)]
    run(film(shown), [task], report.worth, report.keep, Stats())
    said = [
        (event.text, event.read.was, event.read.gone)
        for event in events
        if isinstance(event, TextEvent) and isinstance(event.read, Read)
    ]
    running, stopped = "PUMP IS RUNNING", "PUMP IS STOPPED"
    assert said[:2] == [(running, "", False), ("LEVEL 2", "", False)]
    assert said[2] == (stopped, running, False)
    assert sorted(said[3:]) == [("LEVEL 2", "", True), (stopped, "", True)]
