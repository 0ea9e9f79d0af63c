"""Text from other devices, through whatever the agent's link gives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from edge_agent.config import parse_uri
from edge_agent.sources import open_source
from edge_agent.sources.mqtt import MOST_WAITING
from edge_agent.sources.text import LONGEST
from edge_agent.types import Text

from .servers import running


class Broker:
    """Keeps the subscription and publishes into it."""

    def __init__(self) -> None:
        self.topic = ""
        self.publish: Callable[[str, bytes], None] | None = None

    def subscribe(self, topic: str, on_message: Callable[[str, bytes], None]) -> Callable[[], None]:
        self.topic, self.publish = topic, on_message

        def unsubscribe() -> None:
            self.publish = None

        return unsubscribe

    def say(self, *payloads: bytes) -> None:
        for payload in payloads:
            assert self.publish is not None
            self.publish("house/hall/said", payload)


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
    assert broker.publish is None, "it has unsubscribed"
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
    assert broker.publish is None


def test_closing_the_generator_unsubscribes() -> None:
    broker = Broker()
    run = open_source(parse_uri("mqtt:a"), subscribe=broker.subscribe).run(threading.Event())
    next(run)
    run.close()  # type: ignore[attr-defined]
    assert broker.publish is None
