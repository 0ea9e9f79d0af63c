"""How a connection is made: by MQTT 5, or by 3.1.1 where the broker does not know 5.

MQTT 5 first at each connect, 3.1.1 when the broker says that it does not know 5 (MQTT 5.0 section 3.1.2.2; CONNACK
reason 0x84, or 1 in 3.1.1): by 3.1.1 it cannot say that it denies a publish, and may acknowledge it.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from edge_agent.config import Mqtt
from edge_agent.errors import LinkError
from edge_agent.events import KNOWN_TIME
from edge_agent.link.broker import Broker
from edge_agent.link.flight import SPARE, WINDOW, Limits
from edge_agent.link.wire import Client, ReasonCode, close, turn

log = logging.getLogger("edge_agent")

MUTE, ANSWERS = 3, 3
"""connects by MQTT 5 in a row that a broker closes without a word until 3.1.1 is tried, and the times that it is to
answer that, closing at 5 in between, until it is believed not to know 5"""
OLD_S = 600.0
"""seconds until MQTT 5 is tried again then; a broker that says that it does not know 5 is asked at each connect"""


def client_id(mqtt: Mqtt, device: str) -> str:
    """Under which name the broker keeps the device's session."""
    name = f"edge-agent-{device}"
    if mqtt.prefix == Mqtt().prefix:
        return name
    # the same device name of another site on the same broker
    return f"{name}-{zlib.crc32(mqtt.prefix.encode()):08x}"


class Will(NamedTuple):
    """What the broker says when the connection is lost, with QoS 1."""

    topic: str
    payload: bytes
    retain: bool


class Connector:
    """Makes one connection after the other, and remembers what the broker spoke. Of one thread."""

    def __init__(self, broker: Broker, name: str, will: Callable[[], Will], wake: int, kept: bool = True) -> None:
        """`name`: the client's id. `will`: asked for each connect; retained where the broker retains at all. `wake`:
        see wire.turn. `kept`: the broker keeps the session for a while after the connection has ended.
        """
        self.broker, self.name, self._will, self._wake, self._kept = broker, name, will, wake, kept
        self.speaks = ""
        """the version of MQTT, "5" or "3.1.1"; empty before the first connection"""
        self.old_until = 0.0
        """monotonic time until which 3.1.1 is spoken without asking for 5 first"""
        self.kept = False
        """whether the broker has kept our session, and with it what it retains"""
        self._mute = self._answers = 0
        """connects by MQTT 5 in a row that were closed without a word, and those by 3.1.1 between them that were not"""
        self._retains = True
        self._prepare: Callable[[Client], object] = lambda client: None
        self._connack: ReasonCode | None = None
        self._properties: Any = None

    def connect(self, prepare: Callable[[Client], object]) -> tuple[Client, Limits]:
        """A client that the broker has let in, and what the broker takes. `prepare` sets each client's callbacks.

        Raises LinkError when the broker refuses, OSError when it cannot be reached.
        """
        if self.broker.secure and time.time() < KNOWN_TIME:
            raise LinkError("the clock is not set yet, so no certificate can be checked; waiting for the time")
        self.broker.choose()
        self._prepare = prepare
        client = self._attempt(v5=time.monotonic() >= self.old_until)
        told = self._properties
        if not getattr(told, "RetainAvailable", 1):
            self._retain_nothing()
        return client, Limits(
            min(WINDOW + SPARE, getattr(told, "ReceiveMaximum", WINDOW + SPARE)),
            getattr(told, "MaximumPacketSize", None),
            self._retains,
            bool(getattr(told, "SubscriptionIdentifierAvailable", True)),
        )

    def _attempt(self, v5: bool) -> Client:
        """Connect by MQTT 5 or 3.1.1 to the address that was chosen."""
        client = self.broker.client(self.name, v5, kept=self._kept)
        self._prepare(client)
        client.on_connect = self._on_connect
        client.manual_ack_set(True)  # what a source does not take any more is for the next process
        client.max_inflight_messages_set(WINDOW + SPARE)
        will = self._will()
        client.will_set(will.topic, will.payload, qos=1, retain=will.retain and self._retains)
        deadline = time.monotonic() + self.broker.patience
        self.broker.connect(client, self._kept)
        try:
            answer = self._answer(client, deadline)
            if answer is not None and not answer.is_failure:
                self._spoke(v5)
                return client
            why = self.broker.why(client) if answer is None else None
        except BaseException:
            close(client)
            raise
        close(client)
        return self._closed(why, v5) if answer is None else self._refused(answer.getName(), v5)

    def _on_connect(self, client: Any, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._connack, self._properties, self.kept = reason, properties, bool(flags.session_present)

    def _answer(self, client: Client, deadline: float) -> ReasonCode | None:
        """The broker's CONNACK; None when it closed the connection. LinkError when it says nothing."""
        self._connack = None
        while self._connack is None:
            if time.monotonic() > deadline:
                raise LinkError("the broker does not answer the connect")
            if not turn(client, self._wake, 0.2):
                break
        return self._connack

    def _spoke(self, v5: bool) -> None:
        """The broker has let us in."""
        if v5:
            self._mute = self._answers = 0
        elif self.speaks != "3.1.1":
            where = f"{self.broker.host}:{self.broker.port}"
            log.warning("mqtt: %s does not speak MQTT 5; by 3.1.1 it may acknowledge what it denies", where)
        self.speaks = "5" if v5 else "3.1.1"

    def _closed(self, why: str | None, v5: bool) -> Client:
        """The broker closed the connection instead of an answer."""
        if why is None and v5:
            self._mute += 1
            if self._mute >= MUTE:
                return self._ask_in_3_1_1()
        raise LinkError(why or self.broker.closed)

    def _refused(self, name: str, v5: bool) -> Client:
        """The broker answered with a reason to go, by name."""
        if name == "Unsupported protocol version" and v5:
            return self._attempt(v5=False)
        if name == "Retain not supported" and self._retains:
            self._retain_nothing()
            return self._attempt(v5)
        if name == "QoS not supported":
            raise LinkError("the broker takes messages of QoS 0 only, which may be lost; allow QoS 1 there")
        raise LinkError(f"the broker refuses the connection: {name}; check [mqtt] username, password_file, cert")

    def _ask_in_3_1_1(self) -> Client:
        """Some old brokers close at MQTT 5 without a word, but so does a proxy without a broker behind it. The broker
        is believed to be old when it answers 3.1.1 ANSWERS times while it closes at 5 each time between them.
        """
        speaks = self.speaks
        try:
            self.speaks = "3.1.1"  # it is said once it is believed
            client = self._attempt(v5=False)
        except (LinkError, OSError):
            self._answers = 0
            raise
        finally:
            self.speaks = speaks
        self._answers += 1
        if self._answers < ANSWERS:
            close(client)
            raise LinkError("the broker closes at MQTT 5 and answers 3.1.1; asking again")
        log.warning("mqtt: it closes at each connect by MQTT 5 and answers 3.1.1, which is spoken for 10 minutes")
        self.old_until = time.monotonic() + OLD_S
        self._mute, self._answers = MUTE - 1, ANSWERS - 1
        self.speaks = "3.1.1"
        return client

    def _retain_nothing(self) -> None:
        """Such a broker would end the connection for each retained message; a later listener hears the next one."""
        if self._retains:
            where = f"{self.broker.host}:{self.broker.port}"
            log.warning("mqtt: %s retains nothing: status and states reach only those that listen already", where)
        self._retains = False
