"""The MQTT connection against brokers that deny, limit and break off."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import link as link_module
from edge_agent.config import Mqtt
from edge_agent.link import Link
from edge_agent.outbox import Outbox
from edge_agent.types import TextEvent
from tests.broker import Consumer, broker, until
from tests.test_link import box, quick_backoff  # noqa: F401


def event(text: str = "x", pipeline: str = "words") -> TextEvent:
    return TextEvent(pipeline=pipeline, at="2026-01-01T00:00:00Z", text=text)


def test_a_topic_that_the_broker_denies_keeps_no_other_back(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "HOLD_S", 0.3)
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
        assert box.waiting == 100, "what is denied waits"
        acl.write_text("topic readwrite #\n")
        server.stop(kill=True)
        server.start()
        until(lambda: box.empty, "it goes once the broker lets it")
        link.stop()
