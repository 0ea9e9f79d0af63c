"""What ends a connection is found out on evidence: proxies and brokers that close, and not one event is lost."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from edge_agent.config import Mqtt
from edge_agent.events import TextEvent
from edge_agent.link import blame as blame_module
from edge_agent.link import blame as link_blame
from edge_agent.link import connect
from edge_agent.link.blame import Alone, Blame
from edge_agent.link.link import Link
from edge_agent.outbox.entries import Entry, Record
from edge_agent.outbox.outbox import Outbox
from tests.broker import Consumer, Mosquitto, broker, until
from tests.link.test_link import (
    box,  # noqa: F401
    quick_backoff,  # noqa: F401
)
from tests.link.test_link_limits import cut

Ends = Callable[[int, int, str, bytes], bool]
"""(number of the connection, type of a packet from the agent, its topic, its body) -> whether the connection ends"""


class Closing:
    """A proxy in front of a broker that ends connections at the packets it is told to, or by time."""

    def __init__(self, target: int) -> None:
        self.ends: Ends = lambda n, kind, topic, body: False
        self.after_connack: float | None = None
        """seconds from the CONNACK on"""
        self.greets = True
        """else connections are closed before a byte of theirs is read"""
        self.connections = 0
        self.target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while self._server.fileno() >= 0:
            with suppress(OSError):
                near, _ = self._server.accept()
                self.connections += 1
                try:
                    if not self.greets:
                        raise ConnectionRefusedError
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                threading.Thread(target=self._up, args=(near, far, self.connections), daemon=True).start()
                threading.Thread(target=self._down, args=(near, far), daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket, n: int) -> None:
        data = bytearray()
        with suppress(OSError):
            while fresh := near.recv(65536):
                data += fresh
                passed = 0
                rest = bytearray(data)
                while (packet := cut(rest)) is not None:
                    kind, body = packet
                    size = int.from_bytes(body[:2], "big")
                    topic = body[2 : 2 + size].decode() if kind == 3 else ""
                    if self.ends(n, kind, topic, body):
                        far.sendall(data[:passed])
                        return _end(near, far)
                    passed = len(data) - len(rest)
                far.sendall(data[:passed])
                data = rest
        return _end(near, far)

    def _down(self, near: socket.socket, far: socket.socket) -> None:
        first = True
        with suppress(OSError):
            while fresh := far.recv(65536):
                near.sendall(fresh)
                if first and self.after_connack is not None:
                    time.sleep(self.after_connack)
                    break
                first = False
        _end(near, far)

    def close(self) -> None:
        self._server.close()


def _end(*socks: socket.socket) -> None:
    for sock in socks:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


@contextmanager
def closing(tmp_path: Path) -> Iterator[tuple[Mosquitto, Closing]]:
    with broker(tmp_path, config="allow_anonymous true\nmax_queued_messages 0") as server:
        proxy = Closing(server.port)
        yield server, proxy
        proxy.close()


def fill(box: Outbox, count: int, pipeline: str = "words") -> None:  # noqa: F811
    for i in range(count):
        box.put(TextEvent(pipeline=pipeline, at="2026-01-01T00:00:00Z", text=f"{pipeline} {i}"), "telemetry")


def gaps(consumer: Consumer) -> list[dict[str, object]]:
    return [event for event in consumer.events() if event["kind"] == "gap"]


@pytest.mark.parametrize("ack", [False, True])
def test_a_broker_that_closes_at_subscribe_gets_the_events(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    ack: bool,
) -> None:
    with closing(tmp_path) as (server, proxy):
        proxy.ends = lambda n, kind, topic, body: kind == 8
        fill(box, 20)
        link = Link(Mqtt(url=proxy.url, ack=ack, longest_pause_s=0.2), "d", box)
        link.subscribe("edge/v1/d/cmd/+", lambda topic, payload: None)
        with Consumer(Mqtt(url=server.url)) as consumer:
            link.start()
            until(lambda: len(consumer.seqs()) == 20, "all come without the subscription")
            assert not gaps(consumer) and not box.counts.dropped
            blamed = [line for line in caplog.messages if "ends the connection at" in line]
            assert blamed and all("SUBSCRIBE" in line for line in blamed)
            proxy.ends = lambda n, kind, topic, body: False
            until(
                lambda: len(link.session.subscribed) == 1 + ack and not link.flight.others,
                "it is subscribed once it may be",
            )
            link.stop(drain=0)


@pytest.mark.parametrize("tail", ["/status", "/state", "/bad/events", "/events"])
def test_a_topic_at_which_the_connection_is_closed_costs_no_event(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    tail: str,
) -> None:
    with closing(tmp_path) as (server, proxy):
        proxy.ends = lambda n, kind, topic, body: topic.endswith(tail)
        fill(box, 10, "bad")
        fill(box, 10, "good")
        link = Link(Mqtt(url=proxy.url, longest_pause_s=0.2), "d", box)
        link.say("good/state", b"{}")
        with Consumer(Mqtt(url=server.url)) as consumer:
            link.start()
            expected = {"/events": 0, "/bad/events": 10}.get(tail, 20)
            until(lambda: len(consumer.seqs()) == expected, "what may be sent comes")
            until(lambda: any("ends the connection at" in line for line in caplog.messages), "it is said")
            blamed = [line for line in caplog.messages if "ends the connection at" in line]
            if tail == "/bad/events":
                assert all("each event of bad" in line for line in blamed)
            elif tail != "/events":
                assert all(f"{tail};" in line for line in blamed)
            proxy.ends = lambda n, kind, topic, body: False
            until(lambda: len(consumer.seqs()) == 20 and box.empty, "all of it comes once it may")
            assert not gaps(consumer) and not box.counts.dropped
            link.stop(drain=0)


@pytest.mark.parametrize("mode", ["1 ms", "30 ms", "by chance", "each tenth packet", "each fifth event"])
def test_connections_that_end_by_themselves_cost_no_event(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    mode: str,
) -> None:
    rng = random.Random(7)
    seen: dict[int, int] = {}

    def ends(n: int, kind: int, topic: str, body: bytes) -> bool:
        if mode == "by chance":
            return kind == 3 and rng.random() < 0.3
        if mode == "each tenth packet" or (mode == "each fifth event" and topic.endswith("/events")):
            seen[n] = seen.get(n, 0) + 1
        return seen.get(n, 0) >= (10 if mode == "each tenth packet" else 5)

    with closing(tmp_path) as (server, proxy):
        if mode.endswith("ms"):
            proxy.after_connack = int(mode.split()[0]) / 1000
        else:
            proxy.ends = ends
        fill(box, 40)
        link = Link(Mqtt(url=proxy.url, longest_pause_s=0.2), "d", box)
        with Consumer(Mqtt(url=server.url)) as consumer:
            link.start()
            if mode.endswith("ms"):
                until(lambda: proxy.connections > 15, "it was tried often")
                proxy.after_connack = None
            until(lambda: len(consumer.seqs()) == 40 and box.empty, "all come")
            assert not gaps(consumer) and not box.counts.dropped
            link.stop(drain=0)


@pytest.mark.parametrize("ack", [False, True])
def test_an_event_that_ends_each_connection_is_found_among_good_ones(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    ack: bool,
) -> None:
    with closing(tmp_path) as (server, proxy):
        proxy.ends = lambda n, kind, topic, body: b"poison" in body
        for i in range(120):
            text = f"poison {i}" if i in (3, 4, 50) else f"good {i}"
            box.put(TextEvent(pipeline="words", at="2026-01-01T00:00:00Z", text=text), "alert" if ack else "telemetry")
        link = Link(Mqtt(url=proxy.url, ack=ack, longest_pause_s=0.2), "d", box)
        with Consumer(Mqtt(url=server.url), ack=ack) as consumer:
            link.start()
            more = 0

            def found() -> bool:
                nonlocal more
                if len(consumer.seqs()) >= 117 + more and len(gaps(consumer)) < 3:  # others that are to pass between
                    more += 10
                    fill(box, 10)
                return len(gaps(consumer)) == 3

            until(found, "all three are declared")
            until(lambda: box.empty, "all the others have gone")
            assert sorted(gap["first"] for gap in gaps(consumer)) == [4, 5, 51]  # type: ignore[type-var]
            assert all("sent alone" in str(gap["why"]) for gap in gaps(consumer))
            until(lambda: consumer.seqs() >= set(range(1, 121)) - {4, 5, 51}, "and have come")
            assert box.counts.dropped == 3
            link.stop(drain=0)
    assert (box.path / "refused.jsonl").read_text().count("poison") == 3


def test_one_closed_connection_is_no_reason_to_speak_3_1_1(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
) -> None:
    """By 3.1.1 this broker would acknowledge what it denies."""
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write edge/v1/+/status\n")
    acl.chmod(0o644)
    with broker(tmp_path, config=f"allow_anonymous true\nacl_file {acl}") as server:
        proxy = Closing(server.port)
        proxy.greets = False
        fill(box, 20)
        link = Link(Mqtt(url=proxy.url, longest_pause_s=0.2), "d", box)
        link.start()
        until(lambda: proxy.connections >= 6, "it was closed several times")
        proxy.greets = True
        until(lambda: "denies edge/v1/d/words/events" in link.why, "the denial is heard")
        assert link.speaks == "5" and box.waiting == 20
        link.stop(drain=0)
        proxy.close()


def test_an_old_broker_that_closes_without_a_word_is_spoken_to_in_3_1_1(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connect, "OLD_S", 1.0)
    with closing(tmp_path) as (server, proxy):
        proxy.ends = lambda n, kind, topic, body: kind == 1 and body[6:7] == b"\5"
        fill(box, 20)
        link = Link(Mqtt(url=proxy.url, longest_pause_s=0.2), "d", box)
        link.start()
        until(lambda: box.empty, "the events go")
        assert link.speaks == "3.1.1" and any("answers 3.1.1" in line for line in caplog.messages)
        proxy.ends = lambda n, kind, topic, body: False
        time.sleep(1.0)
        server.stop()
        until(lambda: not link.connected, "the broker is restarted")
        server.start()

        def asked() -> bool:
            if (
                link.connected and link.speaks != "5"
            ):  # where it was let in while the restart closed at MQTT 5 once more
                link.reload()
            return link.connected and link.speaks == "5"

        until(asked, "it is asked for MQTT 5 again")
        link.stop(drain=0)


class Played:
    """Events that are sent over connections which end by themselves, with no network and no time but a clock's."""

    def __init__(
        self,
        count: int,
        clock: list[float],
        bad: set[int],
        chance: float = 0.0,
        limit: int = 0,
        pause: float = 1.5,
    ) -> None:
        self.blame, self.clock, self.bad, self.chance, self.limit = Blame(), clock, bad, chance, limit
        self.pause = pause
        self.rng = random.Random(1)
        self.queue = [Record(Entry(n, "alert", "p", None, b""), None) for n in range(count)]
        self.refused: list[int] = []

    def connect(self) -> None:
        """One connection, until it ends or nothing is left."""
        blame = self.blame
        blame.begin()
        self.clock[0] += self.pause
        sent = 0
        while self.queue or blame.suspects:
            self.queue += blame.freed()
            careful, record = blame.careful(), blame.due()
            fresh = [one for one in self.queue if one.seq not in blame.suspects and "p" not in blame.held]
            record = record or (fresh[0] if fresh else blame.due(idle=True))
            if record is None:
                self.clock[0] += 5
                continue
            careful, sent = careful or not fresh, sent + 1
            self.clock[0] += 0.1
            if record.seq in self.bad or self.rng.random() < self.chance or sent == self.limit:
                verdict = blame.broke(Alone("an event", record, self.clock[0]) if careful else None, True)
                if verdict is not None and verdict.refuse is not None:
                    self.refused.append(verdict.refuse.seq)
                    self.queue = [one for one in self.queue if one is not verdict.refuse]
                return
            blame.acknowledged(record)
            self.queue = [one for one in self.queue if one.seq != record.seq]

    def run(self) -> list[int]:
        while self.queue or self.blame.suspects:
            self.connect()
        return sorted(self.refused)


WAITS = {name: getattr(blame_module, name) for name in ("QUIET_S", "AGAIN_S", "WAIT_S")}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of a play, which has the real waits, and always the same chance."""
    for name, value in WAITS.items():
        monkeypatch.setattr(blame_module, name, value)
    monkeypatch.setattr(link_blame, "random", random.Random(1))
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_those_that_are_to_blame_are_found_and_no_other(clock: list[float]) -> None:
    bad = {10, 60, 61, 62, 63, 64, 120}
    assert Played(700, clock, bad).run() == sorted(bad)
    assert clock[0] < 600, "within ten minutes, by the clock of the play"


@pytest.mark.parametrize("chance", [0.1, 0.3, 0.5])
def test_chance_is_not_blamed_on_events(clock: list[float], chance: float) -> None:
    assert Played(1000, clock, set(), chance).run() == []


@pytest.mark.parametrize("pause", [1.5, 30.0])
@pytest.mark.parametrize("limit", [2, 4, 7])
def test_a_limit_of_packets_is_not_blamed_on_events(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, limit: int, pause: float
) -> None:
    for seed in range(12):
        monkeypatch.setattr(link_blame, "random", random.Random(seed))
        assert Played(300, clock, set(), limit=limit, pause=pause).run() == []
