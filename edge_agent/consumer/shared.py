"""Events out of an MQTT broker: a shared subscription, so that workers part them; acknowledged when we say so.

By MQTT 5, and by 3.1.1 where the broker knows ``$share`` there (mosquitto, EMQX, HiveMQ do; NATS does not: read its
stream). Each worker has a session of its own under a name that stays, so what it did not acknowledge comes again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from edge_agent.config import Mqtt
from edge_agent.consumer.rows import Message
from edge_agent.errors import LinkError
from edge_agent.link import topics
from edge_agent.link.broker import Broker, said
from edge_agent.link.wire import Client, MQTTMessage, close, turn

GROUP = "archive"
SESSION_S = 7 * 86400
"""seconds that the broker keeps what comes while no worker is there"""
QUIET_S = 0.05
"""seconds without a further message that end a batch"""


class Shared:
    """The feed ``mqtt[s]://host[:port]``. Of one thread."""

    def __init__(self, mqtt: Mqtt, name: str) -> None:
        """`name`: of this worker, among those that share. ConfigError, LinkError for an address that cannot be."""
        self._broker, self._name = Broker(mqtt), f"edge-agent-archive-{name}"
        filter = topics.whole(topics.base_of(mqtt.prefix, "+"), topics.EVERY_EVENT)
        self._filter = f"$share/{GROUP}/{filter}"
        self.where = str(mqtt.url)
        self._client: Client | None = None
        self._heard: list[Message] = []
        self._refused = ""
        self.ready = False
        """the broker has taken the subscription"""

    def take(self, most: int, seconds: float) -> list[Message]:
        """As of Nats."""
        client = self._client or self._connect()
        deadline = time.monotonic() + seconds
        while len(self._heard) < most and time.monotonic() < deadline:
            before = len(self._heard)
            if not turn(client, None, QUIET_S if self._heard else 0.2):
                raise self._lost()
            if self._refused:
                raise LinkError(f"{self.where}: {self._refused}; check user, password and the broker's rights")
            if before and len(self._heard) == before:
                break
        taken, self._heard = self._heard[:most], self._heard[most:]
        return taken

    def _lost(self) -> OSError:
        """Let the connection go: what was not acknowledged comes again over the next one."""
        client, self._client, self._heard = self._client, None, []
        if client is not None:
            close(client)
        return OSError(f"{self.where}: the connection was lost")

    def _connect(self) -> Client:
        try:
            self._broker.choose()
            client = self._broker.client(self._name, v5=True)
            client.manual_ack_set(True)
            client.on_connect, client.on_subscribe, client.on_message = self._connected, self._subscribed, self._message
            self._broker.connect(client, session_s=SESSION_S)
        except (LinkError, OSError) as error:
            raise OSError(f"{self.where}: {said(error)}") from None
        self._client, self._heard = client, []
        return client

    def _connected(self, client: Any, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            self._refused = reason.getName()
        else:
            self._broker.worked()
            client.subscribe(self._filter, qos=1)

    def _subscribed(self, _: Any, __: Any, ___: int, reasons: Sequence[Any], ____: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refused = f"subscription denied: {self._filter}"
        self.ready = not self._refused

    def _message(self, _: Any, __: Any, message: MQTTMessage) -> None:
        self._heard.append(Message(bytes(message.payload), 0, (message.mid, message.qos)))

    def done(self, messages: Sequence[Message]) -> None:
        """As of Nats."""
        if self._client is None:
            return  # over another connection these numbers would mean other messages
        for one in messages:
            self._client.ack(*one.handle)
        turn(self._client, None, 0)

    def pending(self) -> int:
        """MQTT does not tell."""
        return 0

    def close(self) -> None:
        """End the connection; the session stays for the next time."""
        if self._client is not None:
            close(self._client)
