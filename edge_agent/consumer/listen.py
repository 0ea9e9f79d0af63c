"""The consumer's side: hear what devices report, acknowledge it, count whether all of it came."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from edge_agent.config import Mqtt
from edge_agent.errors import LinkError
from edge_agent.events import UNREADABLE
from edge_agent.link import topics
from edge_agent.link.broker import FIRST_PAUSE_S, Broker, said, wait_before
from edge_agent.link.signing import Signer
from edge_agent.link.wire import Client, MQTTMessage, ReasonCode, close, turn

CONNECTED = "connected"


def listen(
    mqtt: Mqtt, filters: list[str], stop: threading.Event, ack: bool = False, signer: Signer | None = None
) -> Iterator[tuple[str, bytes, bool] | str]:
    """Yield (topic, payload, retained) of each message, and a str when the connection changes, until `stop`.

    `ack`: acknowledge each event to its device, signed by `signer`, once the next message is asked for.
    Reconnects for ever with the pauses of the link. Raises LinkError when the broker refuses the connection.
    """
    broker = Broker(mqtt)
    heard: list[tuple[str, bytes, bool] | str] = []
    refused: list[str] = []

    answered = False

    def on_connect(client: Any, _: Any, __: Any, reason: Any, ___: Any) -> None:
        nonlocal answered
        answered = True
        if reason.is_failure:
            refused.append(reason.getName())
        else:
            client.subscribe([(topic, 1) for topic in filters])

    def on_subscribe(client: Any, _: Any, mid: int, reasons: list[ReasonCode], __: Any) -> None:
        denied = [topic for topic, reason in zip(filters, reasons, strict=False) if reason.is_failure]
        if denied:
            refused.append(f"subscription denied: {', '.join(denied)}")
        else:
            heard.append(CONNECTED)

    def on_message(client: Any, _: Any, message: MQTTMessage) -> None:
        if client.passed_over:
            heard.append(f"{message.topic}: a message of {client.passed_over} bytes was passed over")
            client.passed_over = 0
            return
        heard.append((message.topic, bytes(message.payload), message.retain))

    wait = FIRST_PAUSE_S
    while not stop.is_set():
        client, answered, why = None, False, "the connection was lost"
        try:
            broker.choose()
            deadline = time.monotonic() + broker.patience
            client = broker.client()
            client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
            broker.connect(client)
            alive = True
            while alive and not stop.is_set():
                alive = turn(client, None, 0.1)
                if not answered and (not alive or time.monotonic() > deadline):
                    why = "the broker does not answer the connect" if alive else broker.why(client) or broker.closed
                    break
                if refused:
                    raise LinkError(f"{mqtt.url}: {refused[0]}; check user, password and the broker's rights")
                if heard:
                    wait = FIRST_PAUSE_S
                    broker.worked()
                while heard:
                    message = heard.pop(0)
                    yield message
                    if ack and not isinstance(message, str):
                        _acknowledge(client, message[0], message[1], signer)
        except LinkError as error:
            if refused:
                raise
            why = f"{broker.host}:{broker.port}: {error}"
        except OSError as error:
            why = f"{broker.host}:{broker.port}: {said(error)}"
        finally:
            if client is not None:
                close(client)
        if not stop.is_set():
            yield why
        if not broker.more:
            stop.wait(wait_before(wait))
            wait = min(mqtt.longest_pause_s, wait * 2)


def _acknowledge(client: Client, topic: str, payload: bytes, signer: Signer | None) -> None:
    """Tell an event's device that the consumer has it."""
    if not topics.holds_events(topic):
        return
    with contextlib.suppress(*UNREADABLE, KeyError, TypeError):
        name = msgspec.json.decode(payload)["id"]
        to, body = topics.ack_of(topic), {"ids": [name]}
        client.publish(to, signer.sign(to, body) if signer else msgspec.json.encode(body), qos=1)
