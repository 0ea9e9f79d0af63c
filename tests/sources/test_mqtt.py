"""Text from other devices, through whatever the agent's link gives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from edge_agent.sources import open_source
from edge_agent.sources.mqtt import MOST_BYTES, MOST_WAITING
from edge_agent.sources.text import LONGEST
from edge_agent.types import Text
from edge_agent.uri import parse_uri
from tests.sources.servers import running


class Broker:
    """Keeps the subscription and publishes into it."""

    def __init__(self) -> None:
        self.topic = ""
        self.publish: Callable[[str, bytes], bool] | None = None

    def subscribe(self, topic: str, on_message: Callable[[str, bytes], bool]) -> None:
        self.topic, self.publish = topic, on_message

    def say(self, *payloads: bytes) -> list[bool]:
        """Whether each was taken."""
        assert self.publish is not None
        return [self.publish("house/hall/said", payload) for payload in payloads]


def test_payloads_become_texts_in_order() -> None:
    broker = Broker()
    with running(open_source(parse_uri("mqtt:house/+/said"), subscribe=broker.subscribe)) as seen:
        seen.until_state("ok")
        assert broker.topic == "house/+/said"
        broker.say(
            b"plain",
            b'{"text": "caf\xc3\xa9", "volume": 3}',
            b'{"text": 7}',
            b'{"words": "no text"}',
            b"{broken",
            b'{"text": ""}',
            b"",
            b"two\r\nlines",
            b"bad \xff utf-8",
            b'{"text": "' + b"y" * 100_000 + b'"}',
            b'{"a":' * 5000,
            b"end",
        )
        seen.until(lambda: "end" in seen.texts)
    assert seen.texts == [
        "plain",
        "café",
        '{"text": 7}',
        '{"words": "no text"}',
        "{broken",
        "two lines",
        "bad \ufffd utf-8",
        "y" * LONGEST,
        '{"a":' * 5000,
        "end",
    ]
    assert all(item.mark is None for item in seen.items if isinstance(item, Text))


def test_more_than_may_wait_is_dropped_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    broker, stop = Broker(), threading.Event()
    run = open_source(parse_uri("mqtt:a/#"), subscribe=broker.subscribe).run(stop)
    next(run)
    with caplog.at_level(logging.WARNING, "edge_agent"):
        broker.say(*[str(index).encode() for index in range(MOST_WAITING + 12)])
    assert [record.getMessage().rsplit("; ", 1)[1] for record in caplog.records] == [
        "1 dropped so far",
        "10 dropped so far",
    ]
    got = [next(run) for _ in range(MOST_WAITING)]
    assert [item.text for item in got if isinstance(item, Text)] == [str(index) for index in range(MOST_WAITING)]
    broker.say(b"after")
    item = next(run)
    assert isinstance(item, Text) and item.text == "after"
    stop.set()
    assert list(run) == []


def test_bytes_that_wait_are_bounded_too() -> None:
    broker = Broker()
    opened = open_source(parse_uri("mqtt:a"), subscribe=broker.subscribe)
    assert broker.say(*[b"x" * 1_000_000] * 20) == [True] * 20, "dropped ones are acknowledged: the others would wait"
    run, stop = opened.run(threading.Event()), threading.Event()
    assert opened.left() == 20, "kept or dropped, they have not been given"
    run = opened.run(stop)
    stop.set()
    assert sum(isinstance(item, Text) for item in run) == MOST_BYTES // 1_000_000
    assert opened.left() == 20 - MOST_BYTES // 1_000_000


def test_one_message_above_the_bound_is_taken_alone() -> None:
    broker, stop = Broker(), threading.Event()
    opened = open_source(parse_uri("mqtt:a"), subscribe=broker.subscribe)
    broker.say(b'{"text": "short", "more": "' + b"x" * (MOST_BYTES + 1) + b'"}', b"dropped")
    stop.set()
    assert [item.text for item in opened.run(stop) if isinstance(item, Text)] == ["short"]


def test_a_stop_ends_what_was_taken_and_takes_no_more() -> None:
    broker, stop = Broker(), threading.Event()
    opened = open_source(parse_uri("mqtt:a"), subscribe=broker.subscribe)
    assert broker.say(b"before the run") == [True]
    run = opened.run(stop)
    next(run)
    assert broker.say(b"two", b"three") == [True, True]
    stop.set()
    assert broker.say(b"for the next process") == [False]
    assert [item.text for item in run if isinstance(item, Text)] == ["before the run", "two", "three"]
    assert opened.left() == 0


@pytest.mark.parametrize(
    ("place", "payload", "texts"),
    [
        ("text", b'{"text": "a"}', ["a"]),
        ("state.items.0.name", b'{"state": {"items": [{"name": "first"}, {"name": "b"}]}}', ["first"]),
        ("items.*.name", b'{"items": [{"name": "a"}, {"name": 2}, {"name": -1.5e3}]}', ["a", "2", "-1500.0"]),
        ("*.*", b'[["a", "b"], ["c"]]', ["a", "b", "c"]),
        ("1", b'["a", "b"]', ["b"]),
        ("1", b'{"1": "one"}', ["one"]),
        ("a", b'{"a": "two\\nlines \\u00e9"}', ["two lines \u00e9"]),
    ],
)
def test_a_text_is_taken_from_its_place_in_json(place: str, payload: bytes, texts: list[str]) -> None:
    broker = Broker()
    with running(open_source(parse_uri(f"mqtt:house/##json={place}"), subscribe=broker.subscribe)) as seen:
        seen.until_state("ok")
        assert broker.topic == "house/#"
        broker.say(payload)
        seen.until(lambda: len(seen.texts) == len(texts))
    assert seen.texts == texts


def test_payloads_without_it_are_counted_and_said_seldom(caplog: pytest.LogCaptureFixture) -> None:
    bad = [
        b"{broken",
        b"\xff",
        b"",
        b"{}",
        b'{"a": null}',
        b'{"a": true}',
        b'{"a": {"b": "c"}}',
        b"[" * 100_000,
        b'{"a": []}',
    ]
    broker = Broker()
    with running(open_source(parse_uri("mqtt:t#json=a"), subscribe=broker.subscribe)) as seen:
        seen.until_state("ok")
        broker.say(*bad, b'["a"]', b'{"a": "end"}')
        seen.until(lambda: "end" in seen.texts)
    assert seen.texts == ["end"]
    assert caplog.messages == [
        "mqtt:t: a payload is no JSON (1 so far)",
        "mqtt:t: a payload has no text or number at a (10 so far)",
    ]
