"""A link through a network that swallows, delays, cuts and refuses: everything arrives, found again in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.config import Mqtt
from edge_agent.events import TextEvent
from edge_agent.link import broker as broker_module
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from tests.broker import broker, until
from tests.faults.consumer import Consumer
from tests.faults.proxy import Proxy
from tests.faults.storm import PERSISTENT

Net = tuple[Outbox, Proxy, Consumer, Link]


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    """A link that sends through a proxy what a consumer hears from the broker directly."""
    monkeypatch.setattr(broker_module, "FIRST_PAUSE_S", 0.05)
    box = Outbox(tmp_path / "store", "d")
    with (
        broker(tmp_path, config=PERSISTENT.format(tmp_path)) as server,
        Proxy(server.port) as proxy,
        Consumer(server.port) as consumer,
    ):
        until(lambda: consumer.ready, "the consumer is subscribed")
        link = Link(Mqtt(url=f"mqtt://127.0.0.1:{proxy.port}", ack=True, keepalive=2), "d", box)
        link.start()
        yield box, proxy, consumer, link
        link.stop(drain=0)
    box.close()


def put(box: Outbox, n: int) -> None:
    for i in range(n):
        box.put(TextEvent(pipeline="p", at="2026-01-01T00:00:00Z", text=f"{i} " + "t" * 300), "alert")


def all_arrive(box: Outbox, consumer: Consumer) -> None:
    until(lambda: box.empty, "the store drains", 60)
    (count,) = consumer.counts.values()
    assert not count.missing and not count.gaps


@pytest.mark.parametrize("mode", ["black hole", pytest.param("half-open", marks=pytest.mark.faults)])
def test_a_silent_network_is_noticed_and_left(net: Net, mode: str) -> None:
    box, proxy, consumer, link = net
    put(box, 20)
    until(lambda: consumer.heard >= 20, "the first ones arrive")
    proxy.mode = mode
    put(box, 20)
    until(lambda: not link.connected, "the silence is noticed")
    proxy.mode = "refuse"
    put(box, 20)
    proxy.mode = "pass"
    all_arrive(box, consumer)
    assert len(next(iter(consumer.counts.values())).seen) == 60


def test_connections_cut_in_the_middle_of_a_packet(net: Net) -> None:
    box, proxy, consumer, link = net
    until(lambda: link.connected, "it is connected")
    for n in (1, 3, 100, 777, 5000):
        before = proxy.connections
        proxy.cut_after, proxy.mode = n, "cut"
        put(box, 20)
        until(lambda: proxy.connections > before, "it connects again")  # noqa: B023
        proxy.mode = "pass"
    all_arrive(box, consumer)
    assert len(next(iter(consumer.counts.values())).seen) == 100
    assert consumer.duplicates <= 5 * 20


def test_a_slow_network_only_takes_longer(net: Net) -> None:
    box, proxy, consumer, link = net
    proxy.delay, proxy.mode = 0.15, "delay"
    put(box, 60)
    all_arrive(box, consumer)
    assert consumer.duplicates == 0 and link.connected
