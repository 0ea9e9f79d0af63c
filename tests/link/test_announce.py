"""What lasts is announced once, outside of the device's own topics too, and again where the broker has lost it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.config import Mqtt
from edge_agent.link import broker as broker_module
from edge_agent.link.budget import Budget
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from tests.broker import Consumer, Mosquitto, broker, until

TAIL = "/homeassistant/device/d/config"


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "FIRST_PAUSE_S", 0.05)


def heard(consumer: Consumer, tail: str = TAIL[1:]) -> list[bytes]:
    return [payload for topic, payload, _ in consumer.heard if topic == tail]


def test_it_is_said_once_and_again_where_it_was_lost(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mqtt, box = Mqtt(url=mosquitto.url), Outbox(tmp_path / "store", "d")
    with Consumer(mqtt) as consumer:
        link = Link(mqtt, "d", box)
        link.announce(TAIL, b"one")
        link.say("health", b"well")
        assert not link.stands(TAIL), "before it starts nothing has been said"
        link.start()
        until(lambda: link.stands(TAIL), "the broker has it")
        until(lambda: heard(consumer, "edge/v1/d/health"), "and the state")
        order = [topic for topic, _, _ in consumer.heard]
        assert order.index(TAIL[1:]) < order.index("edge/v1/d/health"), "what is announced first comes first"
        link.reload()
        until(lambda: len(heard(consumer, "edge/v1/d/health")) == 2, "it connects anew")
        assert heard(consumer) == [b"one"], "the broker has kept the session: it is not said again"
        link.announce(TAIL, b"one")
        link.announce(TAIL, b"two")
        until(lambda: heard(consumer) == [b"one", b"two"] and link.stands(TAIL), "the broker has the other one")
        link.say_again()
        until(lambda: heard(consumer) == [b"one", b"two", b"two"], "it is said again to who has come")
        mosquitto.stop(kill=True)
        until(lambda: not link.connected, "the link notices")
        mosquitto.start()  # it keeps nothing on disk
        until(lambda: heard(consumer)[3:] == [b"two"], "it is said to the broker that has forgotten it")
        link.stop()
    box.close()


def test_a_restart_repeats_nothing_and_clears_what_nobody_serves(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mqtt = Mqtt(url=mosquitto.url)
    box = Outbox(tmp_path / "store", "d")
    link = Link(mqtt, "d", box)
    link.announce(TAIL, b"one")
    link.start()
    until(lambda: link.stands(TAIL), "the broker has it")
    link.stop()
    with Consumer(mqtt) as consumer:
        until(lambda: heard(consumer) == [b"one"], "it is retained")
        for last in (False, True):
            again = Link(mqtt, "d", box)
            if not last:
                again.announce(TAIL, b"one", known=True)
                assert again.stands(TAIL)
            again.say("health", b"%d" % last)
            again.clear_others()
            again.start()
            until(lambda: consumer.last("health") == b"%d" % last, "it is connected")  # noqa: B023
            until(lambda: again.retained._ghosts == [], "nothing is left to clear")  # noqa: B023
            again.stop()
            until(lambda: consumer.last("d/status") == b"offline", "all is said")
            assert heard(consumer) == ([b"one", b""] if last else [b"one"])
    box.close()


def test_what_the_broker_denies_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "acl").write_text("topic readwrite edge/#\n")
    box = Outbox(tmp_path / "store", "d")
    with broker(tmp_path, config=f"allow_anonymous true\nacl_file {tmp_path / 'acl'}") as server:
        link = Link(Mqtt(url=server.url), "d", box)
        link.announce(TAIL, b"one")
        link.start()
        until(lambda: "the broker denies homeassistant/device/d/config" in caplog.text, "it says so")
        link.stop()
    box.close()


def test_a_metered_link_announces_and_repeats_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    box, budget = Outbox(tmp_path / "store", "d"), Budget(10_000, clock=lambda: 86400.0 * 20_000)
    budget.spend(9_000)
    assert budget.saving
    mqtt = Mqtt(url=mosquitto.url)
    with Consumer(mqtt) as consumer:
        link = Link(mqtt, "d", box, budget)
        link.announce(TAIL, b"one")
        link.say("health", b"well")
        link.start()
        until(lambda: link.stands(TAIL) and consumer.last("health"), "it is said")
        link.say_again()
        until(lambda: len(heard(consumer)) == 2, "what lasts is said again")
        link.stop()
        until(lambda: consumer.last("d/status") == b"offline", "all is said")
        assert len(heard(consumer, "edge/v1/d/health")) == 1, "a state that was said is not, while bytes are short"
        budget.spend(2_000)
        link = Link(mqtt, "d", box, budget)
        link.announce(TAIL, b"two")
        link.start()
        until(lambda: link.connected, "it is connected")
        link.stop()
        until(lambda: consumer.last("d/status") == b"offline", "all is said")
        assert b"two" not in heard(consumer), "nothing once the day's bytes are used"
    box.close()
