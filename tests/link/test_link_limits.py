"""The MQTT connection against brokers that deny, limit and break off."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from edge_agent import config
from edge_agent.agent.agent import Agent
from edge_agent.config import Mqtt
from edge_agent.errors import EdgeAgentError
from edge_agent.events import TextEvent, rfc3339
from edge_agent.link import delivery
from edge_agent.link.link import Link
from edge_agent.link.remembered import read_names
from edge_agent.link.wire import Client, MQTTMessage
from edge_agent.outbox import outbox
from edge_agent.outbox.outbox import Outbox
from edge_agent.types import StreamState
from tests.broker import Consumer, broker, until
from tests.link.test_link import (
    acks_of,
    box,  # noqa: F401
    quick_backoff,  # noqa: F401
)


def event(text: str = "x", pipeline: str = "words") -> TextEvent:
    return TextEvent(pipeline=pipeline, at="2026-01-01T00:00:00Z", text=text)


def test_a_topic_that_the_broker_denies_keeps_no_other_back(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "HOLD_S", 0.3)
    acl = tmp_path / "acl"
    allowed = ("status", "good/events", "agent/events")
    acl.write_text("topic read #\n" + "".join(f"topic write edge/v1/d/{tail}\n" for tail in allowed))
    acl.chmod(0o644)
    for _ in range(100):
        box.put(event(pipeline="bad"), "telemetry")
    with broker(tmp_path, config=f"allow_anonymous true\nacl_file {acl}") as server:
        mqtt = Mqtt(url=server.url)
        link = Link(mqtt, "d", box)
        with Consumer(mqtt) as consumer:
            link.start()
            until(lambda: "denies edge/v1/d/bad/events" in link.why, "the denial is named")
            for kind in ("alert", "telemetry"):
                for _ in range(5):
                    box.put(event(pipeline="good"), kind)
            until(lambda: len(consumer.seqs()) == 10, "what is not denied arrives")
            assert {e["pipeline"] for e in consumer.events()} == {"good"}
        until(lambda: box.waiting == 100, "what is denied waits, and nothing else does")
        acl.write_text("topic readwrite #\n")
        server.stop(kill=True)
        server.start()
        until(lambda: box.empty, "it goes once the broker lets it")
        link.stop()


class Scripted(threading.Thread):
    """A broker of a few lines, of MQTT 5, for what mosquitto does not do on request.

    What `answer(topic, body)` returns is sent at once upon a PUBLISH; its PUBACK follows when nothing has come for
    50 ms. A connection that exceeds the receive maximum is ended.
    """

    def __init__(self, answer: Callable[[str, bytes], bytes] = lambda topic, body: b"", most: int = 20) -> None:
        super().__init__(daemon=True)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self.server.getsockname()[1]}"
        self.answer, self.most = answer, most
        self.connections = 0
        self.topics: list[str] = []
        self.start()

    def run(self) -> None:
        while True:
            peer, _ = self.server.accept()
            self.connections += 1
            with peer, suppress(OSError):
                peer.settimeout(0.05)
                self._talk(peer)

    def _talk(self, peer: socket.socket) -> None:
        data, unacknowledged = bytearray(), list[bytes]()
        while len(unacknowledged) <= self.most:
            try:
                fresh = peer.recv(65536)
            except socket.timeout:  # noqa: UP041
                peer.sendall(b"".join(b"\x40\x02" + mid for mid in unacknowledged))
                unacknowledged.clear()
                continue
            if not fresh:
                return
            data += fresh
            while (packet := cut(data)) is not None:
                kind, body = packet
                if kind == 1:
                    peer.sendall(b"\x20\x06\0\0\x03\x21" + self.most.to_bytes(2, "big"))
                elif kind == 3:
                    n = 2 + int.from_bytes(body[:2], "big")
                    self.topics.append(body[2:n].decode())
                    unacknowledged.append(body[n : n + 2])
                    peer.sendall(self.answer(self.topics[-1], body[n + 3 :]))
                elif kind == 8:
                    peer.sendall(b"\x90\x04" + body[:2] + b"\0\1")


def cut(data: bytearray) -> tuple[int, bytes] | None:
    """The first packet of `data`, its type and what follows its length, which is removed; None: it is not whole."""
    n = next((i for i, byte in enumerate(data[1:5], 1) if byte < 128), 0)
    size = sum((byte & 127) << 7 * i for i, byte in enumerate(data[1 : n + 1]))
    if not n or len(data) <= n + size:
        return None
    kind, body = data[0] >> 4, bytes(data[n + 1 : n + 1 + size])
    del data[: n + 1 + size]
    return kind, body


def test_states_keep_to_the_receive_maximum(box: Outbox) -> None:  # noqa: F811
    server = Scripted(most=10)
    link = Link(Mqtt(url=server.url), "d", box)
    for i in range(12):
        link.say(f"p{i}/state", b"{}")
    link.start()
    box.put(event())
    until(lambda: box.empty, "the event goes beside them")
    until(lambda: len({topic for topic in server.topics if topic.endswith("/state")}) == 12, "all are said")
    assert link.connected and server.connections == 1
    link.stop(drain=0)


def test_what_is_too_large_is_neither_said_nor_ends_the_connection(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    with broker(tmp_path, config="allow_anonymous true\nmax_packet_size 1000") as server:
        mqtt = Mqtt(url=server.url, prefix="ü" * 40)
        link = Link(mqtt, "d", box)
        link.say("words/state", b"x" * 1100)
        link.say("words/other", b"x")
        around = len(msgspec.json.encode(box.put(event(""))))
        box.put(event("x" * (1000 - 16 - len(f"{link.base}/words/events") - around)))
        with Consumer(mqtt) as consumer:
            link.start()
            until(lambda: box.empty, "all is sent or declared")
            until(lambda: consumer.last("words/other"), "what follows is said")
            until(lambda: consumer.seqs() == {1, 3}, "what fits and the declaration arrive")
            assert "1000 bytes" in consumer.events()[-1]["why"]
            assert consumer.last("words/state") is None
        link.stop()


def test_an_event_that_ends_each_connection_is_set_aside(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    """In MQTT 3.1.1 a broker does not say how large a packet may be."""
    with broker(tmp_path, config="allow_anonymous true\nmax_packet_size 2000") as server:
        mqtt = Mqtt(url=server.url)
        box.put(event("x" * 3000))
        for _ in range(60):
            box.put(event(), "telemetry")
        link = Link(mqtt, "d", box)
        link.connector.old_until = float("inf")
        with Consumer(mqtt) as consumer:
            link.start()
            until(lambda: len(consumer.seqs()) == 61, "all the others and the declaration arrive")
            assert consumer.seqs() == set(range(2, 63))
            gap = next(e for e in consumer.events() if e["kind"] == "gap")
            assert gap["first"] == gap["last"] == 1 and "sent alone" in gap["why"]
            link.say("words/state", b"now")
            until(lambda: consumer.last("words/state") == b"now", "states are said again")
        link.stop()


def test_a_declaration_that_is_too_large_waits_instead_of_being_declared(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "HOLD_S", 0.2)
    with broker(tmp_path, config="allow_anonymous true\nmax_packet_size 250") as server:
        mqtt = Mqtt(url=server.url)
        link = Link(mqtt, "d", box)
        link.start()
        box.put(event("x" * 400))
        until(lambda: link.delivery.gap_wait > 0.5, "it was tried again")
        assert box.last == 2 and not box.empty
        server.file.write_text(server.file.read_text().replace("250", "2000"))
        server.stop(kill=True)
        server.start()
        with Consumer(mqtt) as consumer:
            until(lambda: consumer.events(), "it goes when the broker takes it")
            assert [(e["seq"], e["first"], e["last"]) for e in consumer.events()] == [(2, 1, 1)]
        link.stop()


def test_a_consumer_may_be_faster_than_the_broker(box: Outbox) -> None:  # noqa: F811
    """Its acknowledgement comes before the PUBACK, and keeps no further alert back."""

    def acknowledge(topic: str, body: bytes) -> bytes:
        if not topic.endswith("/events"):
            return b""
        ids = msgspec.json.encode({"ids": [msgspec.json.decode(body)["id"]]})
        rest = b"\0\x0dedge/v1/d/ack\0" + ids
        return b"\x30" + bytes([len(rest)]) + rest

    server = Scripted(acknowledge)
    link = Link(Mqtt(url=server.url, ack=True), "d", box)
    for _ in range(60):
        box.put(event())
    link.start()
    until(lambda: box.empty, "60 alerts go, with 12 on their way at most")
    acks = acks_of(link)
    until(lambda: not (link.flight.events or len(acks) or acks._tries or acks._faster), "the broker has answered all")
    link.stop(drain=0)


def test_states_leave_the_bytes_of_a_metered_link_to_the_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text("")
    with broker(tmp_path) as server:
        file = tmp_path / "agent.toml"
        file.write_text(
            f'[device]\nid = "d"\n[mqtt]\nurl = "{server.url}"\n[store]\npath = "{tmp_path}/store"\n'
            f'bytes_per_day = 10_000\n[[pipeline]]\nname = "words"\nsource = "lines:{tmp_path}/in"\n'
        )
        agent = Agent(config.load(file))
        assert agent.link is not None
        budget, today = agent.link.budget, agent.link.budget._today()
        monkeypatch.setattr(budget, "_today", lambda: today)  # no midnight while this runs
        with Consumer(Mqtt(url=server.url)) as consumer:

            def states() -> list[str]:
                return [topic for topic, _, _ in list(consumer.heard) if topic.endswith(("state", "health"))]

            agent.link.start()
            until(lambda: agent.link is not None and agent.link.connected, "it is connected")
            for taken in range(20):
                agent.lines[0].taken = taken
                agent.state.say_states()
                agent.state.say_health()
            until(lambda: len(states()) == 2, "both are said")
            agent.lines[0].stream = StreamState("stalled", "a test")
            agent.state.say_states()
            until(lambda: len(states()) == 3, "what tells something is said at once")
            budget.spend(8_000)
            agent.lines[0].stream = StreamState("ok", "")
            agent.state.say_states()
            agent.link.say("words/other", b"said by someone else")
            until(lambda: consumer.last("words/other"), "there are bytes for more")
            budget.spend(8_000)
            agent.link.say("words/other", b"too late")
            agent.link.stop()
            until(lambda: consumer.last("d/status") == b"offline", "it says offline")
            assert len(states()) == 3 and consumer.last("words/other") != b"too late"
        agent.outbox.close()


def test_times_of_an_earlier_boot_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, jumped = time.time(), [False]
    monkeypatch.setattr(time, "time", lambda: now if jumped[0] else 100.0)
    earlier = Outbox(tmp_path / "store", "d")
    at = earlier.put(TextEvent(pipeline="words", at=rfc3339(99.0), text="before")).at
    earlier.close()
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url)) as consumer:
        box = Outbox(tmp_path / "store", "d")
        link = Link(Mqtt(url=server.url), "d", box)
        box.put(TextEvent(pipeline="words", at=rfc3339(99.0), text="now"))
        jumped[0] = True
        link.start()
        until(lambda: len(consumer.events()) == 2, "both arrive")
        first, second = consumer.events()
        assert first["at"] == at and second["at"] > "2000"
        link.stop()
        box.close()


def test_a_connection_that_breaks_in_the_farewell(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    with broker(tmp_path) as server:
        link = Link(Mqtt(url=server.url), "d", box)
        link.start()
        until(lambda: link.connected, "it is connected")
        send = link.retained.send

        def cut_and_say(client: Client, most: int) -> None:
            if link._stop.is_set():
                client._sock_close()
            send(client, most)

        monkeypatch.setattr(link.retained, "send", cut_and_say)
        link.stop()
        assert not died and not link._thread.is_alive()


def test_devices_of_one_name_under_two_prefixes(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    assert Link(Mqtt(url="mqtt://x"), "d", box).connector.name == "edge-agent-d", "sessions that brokers keep go on"
    ids = {
        Link(Mqtt(url="mqtt://x", prefix=prefix), "d", box).connector.name for prefix in ("edge/v1", "site/a", "site/b")
    }
    assert len(ids) == 3


def test_a_broker_that_retains_nothing(tmp_path: Path, box: Outbox, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    with broker(tmp_path, config="allow_anonymous true\nretain_available false") as server:
        mqtt = Mqtt(url=server.url)
        link = Link(mqtt, "d", box)
        box.put(event())
        link.say("words/state", b"ok")
        with Consumer(mqtt) as consumer:
            link.start()
            until(lambda: box.empty and consumer.last("words/state") == b"ok", "event and state go unretained")
            assert link.connected
            link.stop()
            until(lambda: consumer.last("d/status") == b"offline", "it says offline")
        assert sum("retains nothing" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("which", ["outbox", "mqtt"])
def test_a_thread_that_dies_of_a_bug_ends_the_agent(
    tmp_path: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text("a line\n")
    file = tmp_path / "agent.toml"
    file.write_text(
        f'[device]\nid = "d"\n[mqtt]\nurl = "mqtt://127.0.0.1:9"\n[store]\npath = "{tmp_path}/store"\n'
        f'[[pipeline]]\nname = "words"\nsource = "lines:{tmp_path}/in"\n'
    )
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    monkeypatch.setattr(outbox, "PATIENCE", 0.2)
    agent = Agent(config.load(file))
    assert agent.link is not None

    def bug(*args: object) -> None:
        raise RuntimeError("a bug")

    if which == "outbox":
        monkeypatch.setattr(agent.outbox._committer, "write", bug)
    else:
        monkeypatch.setattr(agent.link, "_connect", bug)
    stop = threading.Event()
    guard = threading.Timer(120, stop.set)
    guard.start()
    with pytest.raises(EdgeAgentError, match=f"the thread {which} has died"):
        agent.run(stop)
    guard.cancel()


def test_what_nobody_wants_any_more_is_not_sent_after_a_restart(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    """The broker remembers a device's subscriptions."""
    with broker(tmp_path) as server:
        link = Link(Mqtt(url=server.url), "d", box)
        link.subscribe("big/#", lambda topic, payload: None)
        link.subscribe("small/#", lambda topic, payload: None)
        link.start()
        until(lambda: len(link.session.subscribed) == 2, "it is subscribed")
        link.stop(drain=0)
        link = Link(Mqtt(url=server.url), "d", box)
        heard: list[str] = []
        link.subscribe("small/#", lambda topic, payload: heard.append(topic))
        came: list[str] = []
        real = link._on_message

        def note(client: object, _: object, message: MQTTMessage) -> None:
            came.append(message.topic)
            real(client, _, message)

        link._on_message = note  # type: ignore[method-assign]
        link.start()
        until(lambda: link.session.remembered.names == {"small/#"}, "the other one is given up")
        for topic in ("big/x", "small/x"):
            subprocess.run(["mosquitto_pub", "-p", str(server.port), "-t", topic, "-m", "y"], check=True)
        until(lambda: heard, "what is wanted arrives")
        assert came == ["small/x"]
        link.stop()
    assert read_names(box.path / "subscriptions.json") == {"small/#"}
