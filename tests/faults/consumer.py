"""A consumer that counts, and acknowledges what it counted: with plain paho, so that it owes the agent nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

Stream = tuple[str, int]
"""device, epoch"""


@dataclass
class Count:
    """One device's epoch."""

    seen: Counter[int] = field(default_factory=Counter)
    gaps: list[tuple[int, int, int, str]] = field(default_factory=list)
    """first, last, count, why of each gap event"""
    texts: dict[int, str] = field(default_factory=dict)

    @property
    def missing(self) -> set[int]:
        """Numbers up to the highest that never came."""
        return set(range(1, max(self.seen, default=0) + 1)) - self.seen.keys()

    @property
    def declared(self) -> set[int]:
        """Numbers that gap events declare."""
        return {n for first, last, _, _ in self.gaps for n in range(first, last + 1)}


class Consumer:
    """Subscribed to every event; keeps its session at the broker; `counts` grows as events come."""

    def __init__(self, port: int, ack: bool = True, prefix: str = "edge/v1") -> None:
        self.counts: dict[Stream, Count] = {}
        self.heard = 0
        """events, the repeated ones too"""
        self.duplicates = 0
        """of the device's sending"""
        self.redelivered = 0
        """repeats by the broker alone: the event came oftener than the device sent it"""
        self.sent: Callable[[str], int] = lambda name: 1 << 30
        """how often the device sent an event, by its id"""
        self.newest = -1
        """highest line number among the texts, where texts begin with one"""
        self.newest_at = 0.0
        """monotonic time when it came"""
        self.ready = False
        self._ack, self._prefix = ack, prefix
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="counter", clean_session=False)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(0.05, 0.1)  # type: ignore[arg-type]
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_connect(self, client: Client, *_: Any) -> None:
        client.subscribe(f"{self._prefix}/+/+/events", qos=1)

    def _on_subscribe(self, *_: Any) -> None:
        self.ready = True

    def _on_message(self, client: Client, _: Any, message: MQTTMessage) -> None:
        event = msgspec.json.decode(message.payload)
        count = self.counts.setdefault((event["device"], event["epoch"]), Count())
        seq = event["seq"]
        count.seen[seq] += 1
        self.heard += 1
        if count.seen[seq] > 1:
            by_broker = count.seen[seq] > self.sent(event["id"])
            self.redelivered += by_broker
            self.duplicates += not by_broker
        elif event["kind"] == "gap":
            count.gaps.append((event["first"], event["last"], event["count"], event["why"]))
        elif event["kind"] == "text":
            count.texts[seq] = event["text"]
            number = event["text"].partition(" ")[0]
            if number.isdigit() and int(number) > self.newest:
                self.newest, self.newest_at = int(number), time.monotonic()
        if self._ack:
            ids = msgspec.json.encode({"ids": [event["id"]]})
            client.publish(f"{self._prefix}/{event['device']}/ack", ids, qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
