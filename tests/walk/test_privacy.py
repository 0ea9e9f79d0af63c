"""What of captured text goes on: nothing that names a person, or no word at all."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
import pytest

from edge_agent import config
from edge_agent.agent.agent import Agent
from edge_agent.config import parse
from edge_agent.errors import ConfigError, InputError
from edge_agent.events import EVENTS, AnyEvent, Event, SpansEvent, TextEvent, is_captured
from edge_agent.types import Embedding, Finding, Heard, ModelRef, Sample, Scores, Spans, Text
from edge_agent.walk.pipeline import Stats, Terms, run
from edge_agent.walk.privacy import UNCHECKED, Guard, Hider
from edge_agent.walk.report import Report
from tests.broker import until

MODEL = ModelRef("m", "1", "0" * 64)
CARD = "pay 4111 1111 1111 1111 by ada@example.com"


def text(line: str = CARD) -> Text:
    return Text(line, time.time(), time.monotonic(), got=Heard("ear 1", 0.9, 1.0, "en"))


class Finds:
    """Tells all kinds of a text, and what it was given."""

    takes: tuple[type, ...] = (Text,)

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, item: Text) -> Iterator[Sample | Finding]:
        self.seen.append(item.text)
        end = len(item.text)
        yield Finding(item, Spans(np.array([4], "i4"), np.array([end], "i4"), ("who",), np.ones(1, "f4")), MODEL)
        yield Finding(item, Scores("money", 0.9, {"money": 0.9}), MODEL)
        yield Finding(item, Embedding(np.full(4, 0.5, np.float32)), MODEL)
        yield text("again: " + CARD)
        if "bad" in item.text:
            raise InputError(f"cannot read {item.text}")


def through(guard: Guard, line: str = CARD) -> tuple[list[Event], Finds, Stats]:
    """The events of one line of text."""
    task, events, stats = Finds(), list[Event](), Stats()
    pipe = config.Pipeline("p", "lines:-", report="every", text=guard.words)
    report = Report(
        pipe, False, lambda event, kind, mark: events.append(event), lambda mark: None, lambda: False, guard
    )
    run([text(line)], [task], report.worth, report.keep, stats, terms=Terms(guard=guard))
    return events, task, stats


def test_tasks_and_events_see_only_what_is_left_and_places_fit_it() -> None:
    events, task, _ = through(Guard(Hider(["card", "email"], {})))
    clean = "pay [card] by [email]"
    assert task.seen == [clean]
    spans = events[0]
    assert isinstance(spans, SpansEvent) and spans.text == clean
    assert spans.spans[0].text == "[card] by [email]" == clean[spans.spans[0].start : spans.spans[0].end]
    assert [getattr(event, "text", None) for event in events[1:]] == [clean, clean, "again: " + clean]


def test_without_words_labels_places_and_scores_are_left() -> None:
    events, _, _ = through(Guard(words=False))
    told = msgspec.json.encode(events).decode()
    assert not any(word in told for word in ("pay", "4111", "ada", "again", '"embedding":[0'))
    bodies: list[dict[str, Any]] = msgspec.json.decode(told)
    assert bodies[0]["spans"] == [{"label": "who", "text": "", "start": 4, "end": len(CARD), "score": 1.0}]
    assert (bodies[1]["label"], bodies[1]["score"], bodies[1]["text"]) == ("money", 0.9, "")
    assert bodies[2]["embedding"] is None and bodies[0]["heard"]["engine"] == "ear 1"


@pytest.mark.parametrize(
    ("guard", "why"),
    [
        (Guard(Hider(["card", "email"], {})), "cannot read bad [card]"),
        (Guard(words=False), "InputError on a text that is kept private"),
    ],
)
def test_what_is_wrong_with_a_text_does_not_tell_it(guard: Guard, why: str, caplog: pytest.LogCaptureFixture) -> None:
    _, _, stats = through(guard, "bad 4111111111111111")
    assert stats.trouble == why
    assert caplog.messages == [f"skipped a sample: {why}"]


def test_what_a_task_says_of_its_own_is_looked_through_too() -> None:
    hide = Hider(["email"], {})
    event = TextEvent(pipeline="p", at="", text="from a document: ada@example.com")
    seen = Guard(hide).event(event, text("which?"))
    assert isinstance(seen, TextEvent) and seen.text == "from a document: [email]"


def test_what_is_found_only_behind_what_was_taken_out_is_taken_out_too() -> None:
    hide = Hider(["email", "phone"], {})
    assert hide("ada@example.co+49 30 901820") == "[email][phone]"


SECRET = "secret words of ada@example.com"


def made(hint: Any, captured: bool = False) -> Any:
    """A value of a type, with SECRET in each text that says what was captured."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return made(parts[0], captured or is_captured(hint))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        hints = get_type_hints(hint, include_extras=True)
        return hint(**{field.name: made(hints[field.name]) for field in msgspec.structs.fields(hint)})
    if origin is Literal:
        return parts[0]
    if origin in (list, tuple):
        return [made(parts[0], captured)] if origin is list else tuple(made(p, captured) for p in parts if p is not ...)
    if origin in (dict, Mapping):
        return {made(parts[0], captured): made(parts[1], captured)}
    if parts:  # a union
        return made(next(part for part in parts if part not in (type(None), msgspec.UnsetType)), captured)
    return {str: SECRET if captured else "plain", int: 1, float: 0.5, bool: True, type(None): None}[hint]


@pytest.mark.parametrize("kind", EVENTS)
def test_no_kind_of_event_tells_what_is_to_be_kept(kind: str) -> None:
    """Whatever its fields are: those that hold captured words are marked, which tests/test_house.py sees to."""
    event = made(EVENTS[kind])
    told = msgspec.json.encode(event).decode()
    kept = msgspec.json.encode(Guard(words=False).event(event, text("which?"))).decode()
    assert "ada" not in kept and "secret" not in kept
    clean = msgspec.json.encode(Guard(Hider(["email"], {})).event(event, text("which?"))).decode()
    assert clean == told.replace("ada@example.com", "[email]")
    msgspec.json.decode(kept, type=AnyEvent)
    assert isinstance(EVENTS[kind].words(msgspec.json.decode(kept)), str), "and it can still be shown"


# ── patterns of the config ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hider(request: pytest.FixtureRequest) -> Iterator[Hider]:
    made = Hider(["email"], request.param)
    yield made
    made.close()


@pytest.mark.parametrize("hider", [{"staff": r"\bE-\d{4}\b", "ward": "(?i)ward [a-z]"}], indirect=True)
def test_own_patterns_find_their_own_in_the_plain_form(hider: Hider) -> None:
    assert hider("E-1234 in Ward B, a@b.io") == "[staff] in [ward], [email]"
    assert hider("Ｅ－１２３４ in ward\u00a0c ö") == "[staff] in [ward] ö"
    assert hider(hider("E-1234")) == "[staff]"
    assert hider("nothing\nhere") == "nothing\nhere"


@pytest.mark.parametrize("hider", [{"slow": "(a+)+$"}], indirect=True)
def test_a_pattern_that_takes_for_ever_withholds_the_text_and_the_next_one_is_answered(
    hider: Hider, caplog: pytest.LogCaptureFixture
) -> None:
    assert hider("aaaa") == "[slow]"
    assert hider("a" * 64 + "!") == UNCHECKED
    assert hider("fine, a@b.io") == "fine, [email]"
    assert caplog.messages == ["privacy.patterns: take too long on a text; 1 texts withheld so far"]


@pytest.mark.parametrize("hider", [{"x": "x"}], indirect=True)
def test_a_child_that_died_withholds_one_text_and_is_started_anew(
    hider: Hider, caplog: pytest.LogCaptureFixture
) -> None:
    assert hider("x") == "[x]"
    assert hider._own and hider._own._child
    hider._own._child.kill()
    hider._own._child.wait()
    assert hider("x") == UNCHECKED
    assert hider("x") == "[x]"
    assert "cannot be looked for" in caplog.messages[0]


# ── in a config ──────────────────────────────────────────────────────────────────────────────────────────

PIPE = '[[pipeline]]\nname = "said"\nsource = "lines:{source}?follow=false"\n{more}\n'


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ('redact = ["mail"]', "privacy.redact"),
        ('patterns = {a = "("}', "privacy.patterns.a: no regular expression"),
        ('patterns = {a = "x*"}', "privacy.patterns.a: is found in the empty text"),
        ('patterns = {card = "x"}', "privacy.patterns.card: is taken"),
        ('patterns = {"A b" = "x"}', "privacy.patterns.A b: is no name"),
        (f'patterns = {{a = "{"x" * 1001}"}}', "privacy.patterns.a: is longer than 1000"),
    ],
)
def test_a_wrong_section_is_told(section: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(f"[privacy]\n{section}\n{PIPE.format(source='-', more='')}")
    assert told in str(error.value)


@pytest.mark.parametrize("more", ["", 'tasks = ["embed:edge-bert"]'])
def test_text_false_that_leaves_nothing_to_say_is_refused(more: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\n")
    loaded = parse(PIPE.format(source=tmp_path / "in.txt", more=f"text = false\n{more}"))
    with pytest.raises(ConfigError, match="text: false leaves nothing to say"):
        Agent(loaded)


def test_what_names_a_person_is_in_no_file_and_no_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole way: lines in, the store on the disk, state and log out."""
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    (tmp_path / "in.txt").write_text(f"{CARD}\nbadge E-1234\n")
    more = (
        '[privacy]\nredact = ["card", "email"]\npatterns = {staff = "E-[0-9]{4}"}\n'
        + f'[store]\npath = "{tmp_path}/s"\n'
    )
    agent = Agent(parse(more + PIPE.format(source=tmp_path / "in.txt", more="")))
    events: list[Event] = []
    agent.keep.listeners.append(events.append)
    with caplog.at_level(logging.DEBUG):
        stop = threading.Event()
        runner = threading.Thread(target=agent.run, args=(stop,))
        runner.start()
        until(lambda: len(events) == 2, "both lines are events")
        stop.set()
        runner.join(120)
    assert [event.text for event in events if isinstance(event, TextEvent)] == [
        "pay [card] by [email]",
        "badge [staff]",
    ]
    stored = b"".join(path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file())
    said = stored.decode(errors="replace") + caplog.text + repr(agent.state.states())
    assert "[card]" in said and not any(word in said for word in ("4111", "ada@", "E-1234"))
