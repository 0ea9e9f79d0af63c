"""Which events are meant, and what people read of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge_agent.config import Choice, Notify
from edge_agent.events import EVENTS, AnyEvent, Event
from edge_agent.notify.chosen import chosen
from edge_agent.notify.message import MOST_TEXT, note_of

COMMON = {"pipeline": "door", "device": "porch", "at": "2026-11-01T10:00:00.000Z", "id": "porch/1/2"}
BOX = {
    "label": "person",
    "class_id": 0,
    "score": 0.9,
    "box": [0, 1, 2, 3],
    "width": 9,
    "height": 9,
    "object": "person-1",
}
OPINION = {"kind": "opinion", "about": "porch/1/1", "by": "big", "answer": ""}
THING = {**BOX, "kind": "object", "phase": "new", "since": COMMON["at"], "seconds": 0.0}


def event(**body: object) -> Event:
    made: Event = msgspec.convert({**COMMON, **body}, type=AnyEvent)
    return made


def rule(phase: str = "on", name: str = "yard") -> Event:
    """As `[[rule]]` makes them, or one that is like it."""

    class Rule(Event, frozen=True, kw_only=True, tag="rule"):
        rule: str
        phase: str

    return Rule(pipeline="agent", at="2026-11-01T10:00:00.000Z", rule=name, phase=phase)


@pytest.mark.parametrize(
    ("choice", "body", "is_so"),
    [
        ({}, THING, False),
        ({"kinds": ["object"]}, THING, True),
        ({"kinds": ["object"]}, {**THING, "phase": "end"}, False),
        ({"kinds": ["object"], "phases": ["end"]}, {**THING, "phase": "end"}, True),
        ({"kinds": ["object"], "labels": ["dog"]}, THING, False),
        ({"kinds": ["object"], "labels": ["dog", "Person"]}, THING, True),
        ({"kinds": ["object"], "pipelines": ["gate"]}, THING, False),
        ({"kinds": ["object"], "pipelines": ["door"]}, THING, True),
        ({"kinds": ["text"], "labels": ["dog"]}, {"kind": "text", "text": "a"}, True),
        ({"kinds": ["scores"], "labels": ["x"]}, {"kind": "scores", "label": "x", "score": 1.0, "scores": {}}, True),
        (
            {"kinds": ["detections"], "labels": ["person"]},
            {"kind": "detections", "width": 1, "height": 1, "detections": []},
            False,
        ),
        ({"kinds": ["opinion"], "labels": ["yes"]}, {**OPINION, "verdict": "yes"}, True),
        ({"kinds": ["opinion"], "labels": ["yes"]}, {**OPINION, "verdict": ""}, False),
        ({"kinds": ["crossing"]}, {**BOX, "kind": "crossing", "line": "l", "direction": "in"}, True),
    ],
)
def test_what_is_meant(choice: dict[str, Any], body: dict[str, object], is_so: bool) -> None:
    assert chosen(Choice(**choice), event(**body)) is is_so


@pytest.mark.parametrize(
    ("choice", "phase", "is_so"),
    [
        ({}, "on", True),
        ({}, "off", False),
        ({"phases": ["on", "off"]}, "off", True),
        ({"rules": ["yard"]}, "on", True),
        ({"rules": ["gate"]}, "on", False),
        ({"kinds": ["object"]}, "on", False),
        ({"kinds": ["object", "rule"]}, "on", True),
        ({"kinds": ["object"], "rules": ["yard"]}, "on", True),
        ({"labels": ["dog"], "kinds": ["rule"]}, "on", True),
        ({"pipelines": ["door"]}, "on", False),
    ],
)
def test_rules_that_are_meant(choice: dict[str, Any], phase: str, is_so: bool) -> None:
    assert chosen(Choice(**choice), rule(phase)) is is_so


def test_the_words_of_a_message() -> None:
    config = Notify(name="a", url_file="x", title="{device}/{label} {zones}", message="{words} {score} {direction}.")
    note = note_of(config, [event(**THING, zones=["yard", "gate"])], 0)
    assert note.title == "porch/person yard, gate"
    assert note.text == "person person-1 is new 0.9 ."


def test_what_is_captured_moves_nothing_and_has_an_end() -> None:
    config = Notify(name="a", url_file="x", title="{text}")
    note = note_of(config, [event(kind="text", text="a\r\nBcc: x@y.z\x1b[2J{words}" + "é" * 5000)], 0)
    assert note.title.startswith("a Bcc: x@y.z [2J{words}é") and len(note.title) == 200
    assert len(note.text) <= MOST_TEXT and all(c.isprintable() for c in note.text)


def test_of_a_rule_people_read_why_it_is_on() -> None:
    fired = event(
        kind="rule", rule="yard", phase="on", since=COMMON["at"], why="person enters gate", because=["porch/1/1"]
    )
    note = note_of(Notify(name="a", url_file="x"), [fired], 0)
    assert (note.title, note.text) == ("porch: yard", "person enters gate")


def test_what_was_held_back_is_said() -> None:
    config = Notify(name="a", url_file="x")
    events = [event(**{**THING, "object": f"person-{number}"}) for number in range(1, 10)]
    lines = note_of(config, events, dropped=3).text.splitlines()
    assert lines[0] == "person person-9 is new" and lines[1].startswith("and 8 more, held back since ")
    assert [line.split()[2] for line in lines[2:-1]] == [f"person-{number}" for number in range(4, 9)]
    assert lines[-1] == "(3 older ones could not be sent)"


def test_every_kind_of_event_has_words() -> None:
    assert set(EVENTS) >= {"detections", "object", "text"}
    lacking = event(kind="detections", width=1, height=1, detections=[])  # no model: made by hand
    assert note_of(Notify(name="a", url_file="x"), [lacking], 0).text == "detections"
