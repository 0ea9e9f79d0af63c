"""The consumer's side: hear what devices report, acknowledge it, count whether all of it came."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import msgspec

from edge_agent.config import Mqtt
from edge_agent.errors import LinkError
from edge_agent.types import UNREADABLE
from edge_agent.wire import BACKOFF, Broker, Client, MQTTMessage, ReasonCode, close, turn, wait_before

CONNECTED = "connected"


def listen(
    mqtt: Mqtt, topics: list[str], stop: threading.Event, ack: bool = False
) -> Iterator[tuple[str, bytes, bool] | str]:
    """Yield (topic, payload, retained) of each message, and a str when the connection changes, until `stop`.

    `ack`: acknowledge each event to its device once whoever iterates has asked for the next message.
    Reconnects for ever with the same back-off. Raises LinkError when the broker refuses the connection.
    """
    broker = Broker(mqtt)
    heard: list[tuple[str, bytes, bool] | str] = []
    refused: list[str] = []

    def on_connect(client: Any, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            refused.append(reason.getName())
        else:
            client.subscribe([(topic, 1) for topic in topics])

    def on_subscribe(client: Any, _: Any, mid: int, reasons: list[ReasonCode], __: Any) -> None:
        denied = [topic for topic, reason in zip(topics, reasons, strict=False) if reason.is_failure]
        if denied:
            refused.append(f"subscription denied: {', '.join(denied)}")
        else:
            heard.append(CONNECTED)

    def on_message(client: Any, _: Any, message: MQTTMessage) -> None:
        heard.append((message.topic, bytes(message.payload), message.retain))

    wait = BACKOFF[0]
    while not stop.is_set():
        client = broker.client()
        client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
        try:
            broker.connect(client)
            alive = True
            while alive and not stop.is_set():
                alive = turn(client, None, 0.1)
                if refused:
                    raise LinkError(f"{mqtt.url}: {refused[0]}; check user, password and the broker's rights")
                if heard:
                    wait = BACKOFF[0]
                while heard:
                    message = heard.pop(0)
                    yield message
                    if ack and not isinstance(message, str):
                        _acknowledge(client, message[0], message[1])
            if not stop.is_set():
                yield "the connection was lost"
        except OSError as error:
            yield f"{broker.host}:{broker.port}: {error.strerror or error}"
        finally:
            close(client)
        stop.wait(wait_before(wait))
        wait = min(BACKOFF[1], wait * 2)


def _acknowledge(client: Client, topic: str, payload: bytes) -> None:
    """Tell an event's device that the consumer has it."""
    base, _, tail = topic.rpartition("/")
    if tail != "events":
        return
    with contextlib.suppress(*UNREADABLE, KeyError, TypeError):
        name = msgspec.json.decode(payload)["id"]
        client.publish(f"{base.rpartition('/')[0]}/ack", msgspec.json.encode({"ids": [name]}), qos=1)
