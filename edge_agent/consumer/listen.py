"""The consumer's side: hear what devices report, acknowledge it, count whether all of it came."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeAlias

import msgspec

from edge_agent.config import Mqtt
from edge_agent.errors import LinkError
from edge_agent.events import UNREADABLE
from edge_agent.link import topics
from edge_agent.link.broker import Broker, Pauses, said
from edge_agent.link.signing import Signer
from edge_agent.link.wire import Client, MQTTMessage, ReasonCode, close, turn

CONNECTED = "connected"

Heard: TypeAlias = tuple[str, bytes, bool] | str
"""topic, payload, and whether it was retained; or what happened to the connection, one line"""


class _RefusedError(LinkError):
    """The broker does not let us hear, and will not the next time."""


def listen(
    mqtt: Mqtt,
    filters: list[str],
    stop: threading.Event,
    ack: bool = False,
    signer: Signer | None = None,
    beside: Callable[[Client], object] = lambda client: None,
) -> Iterator[Heard]:
    """Yield (topic, payload, retained) of each message, and a str when the connection changes, until `stop`.

    `beside` is called again and again while there is a connection, to send something by it.
    `ack`: acknowledge each event to its device, signed by `signer`, once the next message is asked for.
    Reconnects for ever with the pauses of the link. Raises LinkError when the broker refuses the connection.
    """
    broker, pauses = Broker(mqtt), Pauses(mqtt.longest_pause_s)
    while not stop.is_set():
        try:
            why = yield from _connected(broker, filters, stop, ack, signer, pauses, beside)
        except _RefusedError:
            raise
        except (LinkError, OSError) as error:
            why = f"{broker.host}:{broker.port}: {said(error)}"
        if not stop.is_set():
            yield why
        if not broker.more:
            stop.wait(pauses.next())


def _connected(
    broker: Broker,
    filters: list[str],
    stop: threading.Event,
    ack: bool,
    signer: Signer | None,
    pauses: Pauses,
    beside: Callable[[Client], object],
) -> Generator[Heard, None, str]:
    """What is heard over one connection; returns why that ended."""
    broker.choose()
    deadline = time.monotonic() + broker.patience
    client = broker.client()
    ear = _Ear(client, filters)
    try:
        broker.connect(client)
        alive = True
        while alive and not stop.is_set():
            alive = turn(client, None, 0.1)
            if not ear.answered and (not alive or time.monotonic() > deadline):
                return "the broker does not answer the connect" if alive else broker.why(client) or broker.closed
            if ear.refused:
                raise _RefusedError(
                    f"{broker.host}:{broker.port}: {ear.refused}; check user, password and the broker's rights"
                )
            if ear.heard:
                pauses.restart()
                broker.worked()
            yield from _messages(client, ear, ack, signer, beside)
        return "the connection was lost"
    finally:
        close(client)


def _messages(
    client: Client, ear: _Ear, ack: bool, signer: Signer | None, beside: Callable[[Client], object]
) -> Iterator[Heard]:
    """What was heard so far; each event is acknowledged once the next message is asked for."""
    if ear.hears:
        beside(client)
    while ear.heard:
        message = ear.heard.pop(0)
        yield message
        if ack and not isinstance(message, str):
            _acknowledge(client, message[0], message[1], signer)


class _Ear:
    """The callbacks of a client: they subscribe, and note what came."""

    def __init__(self, client: Client, filters: list[str]) -> None:
        self.filters = filters
        self.heard: list[Heard] = []
        self.refused = ""
        self.answered = False
        """the broker has answered the connect"""
        self.hears = False
        """it has taken what we subscribe to"""
        client.on_connect, client.on_subscribe, client.on_message = self._connect, self._subscribe, self._message

    def _connect(self, client: Any, _: Any, __: Any, reason: Any, ___: Any) -> None:
        self.answered = True
        if reason.is_failure:
            self.refused = reason.getName()
        else:
            client.subscribe([(topic, 1) for topic in self.filters])

    def _subscribe(self, client: Any, _: Any, mid: int, reasons: list[ReasonCode], __: Any) -> None:
        denied = [topic for topic, reason in zip(self.filters, reasons, strict=False) if reason.is_failure]
        if denied:
            self.refused = f"subscription denied: {', '.join(denied)}"
        else:
            self.heard.append(CONNECTED)
            self.hears = True

    def _message(self, client: Any, _: Any, message: MQTTMessage) -> None:
        if client.passed_over:
            self.heard.append(f"{message.topic}: a message of {client.passed_over} bytes was passed over")
            client.passed_over = 0
            return
        self.heard.append((message.topic, bytes(message.payload), message.retain))


def _acknowledge(client: Client, topic: str, payload: bytes, signer: Signer | None) -> None:
    """Tell an event's device that the consumer has it."""
    if not topics.holds_events(topic):
        return
    with contextlib.suppress(*UNREADABLE, KeyError, TypeError):
        name = msgspec.json.decode(payload)["id"]
        to, body = topics.ack_of(topic), {"ids": [name]}
        client.publish(to, signer.sign(to, body) if signer else msgspec.json.encode(body), qos=1)
