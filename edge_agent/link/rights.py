"""What a broker lets a device do: tried, and nothing delivered to anybody.

By MQTT 5 a broker answers a message of QoS 2 with a PUBREC that says whether it takes it, and gives it on once the
sender releases it (MQTT 5.0 section 4.3.3). It never is here. By 3.1.1 it takes all in silence, so nothing is known.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from edge_agent.config import Config
from edge_agent.errors import LinkError
from edge_agent.link import topics
from edge_agent.link.broker import Broker, said
from edge_agent.link.wire import Asking, ReasonCode, close, subscribe, turn

AT_ONCE = 8
"""messages that a broker is asked to hold at once; each of them takes at least 10"""
ANSWER_S = 10.0
"""seconds that a broker has to answer"""


class Tried(NamedTuple):
    """What came of one try."""

    good: bool | None
    """None: it cannot be known"""
    told: str
    """one line"""


def tried(config: Config) -> list[Tried]:
    """Log in at the broker of `config`, and try each of its topics; of several nodes at each, and at one of them.

    Raises LinkError or ConfigError as `Broker`.
    """
    url, rows = config.mqtt.url, list[Tried]()
    for node in url if isinstance(url, list) else [url]:
        one = msgspec.structs.replace(config, mqtt=msgspec.structs.replace(config.mqtt, url=node))
        rows += _tried(one, logged_in=any(row.good for row in rows))
    return rows


def _tried(config: Config, logged_in: bool) -> list[Tried]:
    """`logged_in`: the topics were tried at another node, and are not again."""
    broker = Broker(config.mqtt)
    name = f"edge-agent-{config.device.id}-check"  # not the agent's own, which may be connected
    where = f"mqtt: {broker.host}:{broker.port}"
    sent, heard = topics.published(config), topics.heard(config)
    rows: list[Tried] = []
    try:
        for at in range(0, len(sent), AT_ONCE):
            with Visit(broker, name) as visit:
                if not at:
                    version = "MQTT 5" if visit.v5 else "MQTT 3.1.1"
                    rows.append(Tried(True, f"{where}: logged in as {name} ({version})"))
                    if logged_in:
                        break
                    rows += [visit.may_hear(topic) for topic in heard]
                if visit.silent:
                    rows.append(Tried(None, f"mqtt: the right to publish cannot be known: {visit.silent}"))
                    break
                rows += visit.may_send(sent[at : at + AT_ONCE])
    except (OSError, ValueError, LinkError) as error:
        rows.append(Tried(False, f"{where}: {said(error)}"))
    return rows


class Visit:
    """One connection to the broker, in whose session nothing stays."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker, self.name = broker, name
        self.v5 = True
        self.silent = ""
        """why the broker does not say what may be published"""

    def __enter__(self) -> Visit:
        try:
            reason = self._connect()
            old = reason.getName() == "Unsupported protocol version"
        except LinkError:
            old = True  # some that do not know MQTT 5 close the connection
        if old:
            close(self.client)
            self.v5 = False
            reason = self._connect()
        if reason.is_failure:
            close(self.client)
            mend = "check [mqtt] username, password_file, cert"
            raise LinkError(f"the broker refuses {self.name}: {reason.getName()}; {mend}")
        if not self.v5:
            self.silent = "by MQTT 3.1.1 a broker acknowledges what it denies"
        return self

    def __exit__(self, *_: object) -> None:
        close(self.client)

    def _connect(self) -> ReasonCode:
        while True:  # each of the host's addresses
            try:
                self.broker.choose()
                answer = self._connected()
                self.broker.worked()
                return answer
            except (OSError, LinkError):
                if not self.broker.more:
                    raise

    def _connected(self) -> ReasonCode:
        self.client = self.broker.client(self.name, self.v5, Asking)
        answers: list[ReasonCode] = []
        self.granted: dict[int, ReasonCode] = {}

        def on_connect(_: Any, __: Any, ___: Any, reason: ReasonCode, properties: Any) -> None:
            answers.append(reason)
            if getattr(properties, "MaximumQoS", 2) < 2:
                self.silent = "this broker takes no messages of QoS 2, of which it could hold one back"

        def on_subscribe(_: Any, __: Any, mid: int, reasons: list[ReasonCode], ___: Any) -> None:
            self.granted[mid] = reasons[0]

        self.client.on_connect, self.client.on_subscribe = on_connect, on_subscribe
        self.broker.connect(self.client, kept=False)
        self._wait(lambda: bool(answers), self.broker.patience, "does not answer the connect")
        return answers[0]

    def _wait(self, done: Any, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            alive = turn(self.client, None, 0.1)
            if not done() and (not alive or time.monotonic() > deadline):
                why = None if alive else self.broker.why(self.client)
                raise LinkError(why or f"the broker {what if alive else 'closed the connection'}")

    def tell(self, topic: str, payload: bytes) -> None:
        """Have it retained. LinkError when the broker does not take it in time."""
        told = self.client.publish(topic, payload, qos=1, retain=True)
        self._wait(told.is_published, ANSWER_S, "does not acknowledge a message")

    def may_hear(self, topic: str) -> Tried:
        mid = subscribe(self.client, topic, numbered=False)
        self._wait(lambda: mid in self.granted, ANSWER_S, f"does not answer the subscription to {topic}")
        reason = self.granted[mid]
        if reason.is_failure:
            return Tried(False, f"mqtt: may not subscribe to {topic} ({reason.getName()}); give this user the right")
        return Tried(True, f"mqtt: may subscribe to {topic}")

    def may_send(self, topics: Sequence[str]) -> list[Tried]:
        asked = {self.client.publish(topic, b"", qos=2).mid: topic for topic in topics}
        assert isinstance(self.client, Asking)
        answers = self.client.answers
        self._wait(lambda: asked.keys() <= answers.keys(), ANSWER_S, "does not say what may be published")
        rows = []
        for mid, topic in asked.items():
            if answers[mid] >= 0x80:
                why = "Not authorized" if answers[mid] == 0x87 else f"reason 0x{answers[mid]:02X}"
                rows.append(Tried(False, f"mqtt: may not publish {topic} ({why}); give this user the right"))
            else:
                rows.append(Tried(True, f"mqtt: may publish {topic}"))
        return rows
