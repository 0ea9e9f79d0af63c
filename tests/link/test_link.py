"""The MQTT connection against real brokers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from edge_agent.config import Mqtt
from edge_agent.consumer.listen import listen
from edge_agent.errors import ConfigError, LinkError
from edge_agent.events import TextEvent, rfc3339
from edge_agent.link import acks, blame, wire
from edge_agent.link import broker as broker_module
from edge_agent.link.budget import Budget
from edge_agent.link.link import Link
from edge_agent.link.pace import MOST
from edge_agent.outbox.outbox import Outbox
from tests.broker import Consumer, Mosquitto, broker, free_port, password_file, until


def acks_of(link: Link) -> acks.Acks:
    """The account of a link that waits for the consumer's acknowledgements."""
    assert link.delivery.acks is not None
    return link.delivery.acks


def event(text: str = "x") -> TextEvent:
    return TextEvent(pipeline="words", at="2026-01-01T00:00:00Z", text=text)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as server:
        yield server


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "store", "d")
    yield box
    box.close()


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(blame, "QUIET_S", 0.05)
    monkeypatch.setattr(blame, "AGAIN_S", (0.01, 0.05))
    monkeypatch.setattr(blame, "WAIT_S", (2.0, 8.0))
    monkeypatch.setattr(acks, "ACK_S", (0.3, 1.0))


def test_events_arrive_once_and_leave_the_store(mosquitto: Mosquitto, box: Outbox) -> None:
    mqtt = Mqtt(url=mosquitto.url)
    link = Link(mqtt, "d", box)
    with Consumer(mqtt) as consumer:
        link.start()
        for i in range(500):
            box.put(event(f"line {i}"), "telemetry")
        until(lambda: len(consumer.seqs()) == 500, "500 events arrive")
        assert [e["text"] for e in consumer.events()] == [f"line {i}" for i in range(500)]
        until(lambda: box.empty, "the broker acknowledges them")
        assert consumer.last("d/status") == b"online"
        link.stop()
        until(lambda: consumer.last("d/status") == b"offline", "it says offline")


def test_waits_for_a_broker_that_comes_later_and_survives_its_kill(tmp_path: Path, box: Outbox) -> None:
    server = Mosquitto(tmp_path)
    server.stop()
    mqtt = Mqtt(url=server.url, ack=True)
    link = Link(mqtt, "d", box)
    link.start()
    for _ in range(20):
        box.put(event())
    until(lambda: "refused" in link.why, "the link says why it waits")
    server.start()
    with Consumer(mqtt, ack=True) as consumer:
        until(lambda: box.empty, "the backlog drains")
        server.stop(kill=True)
        until(lambda: not link.connected, "the link notices")
        for _ in range(20):
            box.put(event())
        server.start()
        until(lambda: len(consumer.seqs()) >= 20 and box.empty, "the second backlog drains")
        assert set(range(21, 41)) <= consumer.seqs()
    link.stop()
    server.stop()


def test_last_will_when_the_connection_breaks(mosquitto: Mosquitto, box: Outbox, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from edge_agent.outbox.outbox import Outbox; "
        "from edge_agent.link.link import Link; from edge_agent.config import Mqtt; "
        "Link(Mqtt(url=sys.argv[1]), 'dying', Outbox(Path(sys.argv[2]), 'dying')).start(); time.sleep(60)"
    )
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        child = subprocess.Popen([sys.executable, "-c", code, mosquitto.url, str(tmp_path / "other")])
        until(lambda: consumer.last("dying/status") == b"online", "it is online")
        child.kill()
        child.wait()
        until(lambda: consumer.last("dying/status") == b"offline", "the broker tells its last will")


def test_retained_states_are_said_again_after_a_reconnect(mosquitto: Mosquitto, box: Outbox) -> None:
    mqtt = Mqtt(url=mosquitto.url)
    link = Link(mqtt, "d", box)
    link.start()
    link.say("camera/state", b"one")
    link.say("camera/state", b"two")
    with Consumer(mqtt) as consumer:
        until(lambda: consumer.last("camera/state") == b"two", "the newest is retained")
    mosquitto.stop(kill=True)  # without persistence it forgets what was retained
    mosquitto.start()
    with Consumer(mqtt) as consumer:
        until(lambda: consumer.last("camera/state") == b"two", "it is said again")
    link.stop()


def test_messages_reach_who_subscribed(mosquitto: Mosquitto, box: Outbox) -> None:
    link = Link(Mqtt(url=mosquitto.url), "d", box)
    heard: list[tuple[str, bytes]] = []
    end = link.subscribe("house/+/said", lambda topic, payload: heard.append((topic, payload)))
    link.start()
    other_box = Outbox(box.path / "other", "o")
    other = Link(Mqtt(url=mosquitto.url, prefix="house"), "kitchen", other_box)
    other.start()
    until(lambda: link.connected and other.connected, "both are connected")
    other.say("said", b"hello")
    until(lambda: ("house/kitchen/said", b"hello") in heard, "the message is heard")
    end()
    link.stop()
    other.stop()
    other_box.close()


def publish(port: int, topic: str, text: str, *more: str) -> bool:
    """True once the broker has acknowledged it."""
    tool = ["mosquitto_pub", "-p", str(port), "-q", "1", "-t", topic, "-m", text, *more]
    return subprocess.run(tool, check=True).returncode == 0


def test_filters_that_overlap_bring_each_text_once(mosquitto: Mosquitto, box: Outbox) -> None:
    link = Link(Mqtt(url=mosquitto.url), "d", box)
    heard: list[tuple[str, str, bytes]] = []
    for topics in ("house/+/said", "house/#", "house/hall/+", "house/#"):
        link.subscribe(topics, lambda topic, payload, topics=topics: heard.append((topics, topic, payload)))  # type: ignore[misc]
    publish(mosquitto.port, "house/hall/said", "retained", "-r")
    link.start()
    until(lambda: len(heard) >= 4, "the retained text has come")
    publish(mosquitto.port, "house/hall/said", "now")
    publish(mosquitto.port, "house/hall", "last")
    until(lambda: [payload for _, _, payload in heard].count(b"last") == 2, "all have come")
    link.stop()
    assert len(heard) == 10 and len(set(heard)) == 7, "two have the same filter"


@pytest.mark.parametrize("v5", [True, False])
def test_a_retained_text_comes_once_however_often_the_link_breaks(tmp_path: Path, box: Outbox, v5: bool) -> None:
    with broker(tmp_path, config=f"allow_anonymous true\npersistence true\npersistence_location {tmp_path}/") as server:
        link = Link(Mqtt(url=server.url), "d", box)
        link.connector.old_until = 0.0 if v5 else float("inf")
        heard: list[bytes] = []
        link.subscribe("a/#", lambda topic, payload: heard.append(payload))
        publish(server.port, "a/b", "retained", "-r")
        link.start()
        until(lambda: heard == [b"retained"], "it comes")
        for turn in range(2):
            server.stop()
            until(lambda: not link.connected, "the link is broken")
            server.start()
            until(lambda: link.connected, "it is back")
            publish(server.port, "a/b", f"new {turn}")
            until(lambda: b"new %d" % turn in heard, "it hears")  # noqa: B023
        publish(server.port, "a/b", "other", "-r")
        until(lambda: heard[-1] == b"other", "another one comes")
        link.stop()
    assert heard.count(b"retained") == 1


def test_the_device_does_not_hear_itself_unless_asked_by_name(mosquitto: Mosquitto, box: Outbox) -> None:
    link = Link(Mqtt(url=mosquitto.url), "d", box)
    heard: list[tuple[str, str]] = []
    for topics in ("#", "edge/v1/+/p/events", "edge/v1/d/p/events"):
        link.subscribe(topics, lambda topic, payload, topics=topics: heard.append((topics, topic)), own=False)  # type: ignore[misc]
    link.start()
    until(lambda: link.connected, "it is connected")
    box.put(TextEvent(pipeline="p", at="2026-01-01T00:00:00Z", text="one"))
    until(lambda: heard, "it is heard")
    publish(mosquitto.port, "other", "last")
    until(lambda: heard[-1][1] == "other", "all have come")
    link.stop()
    assert heard == [("edge/v1/d/p/events", "edge/v1/d/p/events"), ("#", "other")]


def test_what_is_not_taken_comes_again(mosquitto: Mosquitto, box: Outbox) -> None:
    heard: list[bytes] = []

    def receive(topic: str, payload: bytes) -> bool:
        heard.append(payload)
        return len(heard) > 1

    for count in (1, 2):
        link = Link(Mqtt(url=mosquitto.url), "d", box)
        link.subscribe("a", receive)
        link.start()
        until(lambda: link.connected, "it is connected")  # noqa: B023
        if count == 1:
            publish(mosquitto.port, "a", "one", "-r")
        until(lambda: len(heard) == count, "it comes")  # noqa: B023
        link.stop()
    assert heard == [b"one", b"one"]


def test_wrong_password_is_said_as_what_it_is(tmp_path: Path, box: Outbox) -> None:
    passwords = password_file(tmp_path / "passwords", me="right")
    with broker(tmp_path, config=f"allow_anonymous false\npassword_file {passwords}") as server:
        (tmp_path / "secret").write_text("wrong\n")
        mqtt = Mqtt(url=server.url, username="me", password_file=str(tmp_path / "secret"))
        link = Link(mqtt, "d", box)
        link.start()
        until(lambda: "Not authorized" in link.why or "Bad user name" in link.why, "the refusal is named")
        link.stop(drain=0)
        with pytest.raises(LinkError, match="check user, password"):
            list(listen(mqtt, ["#"], threading.Event()))
        (tmp_path / "secret").write_text("right\n")
        link = Link(mqtt, "d", box)
        link.start()
        until(lambda: link.connected, "the right password connects")
        link.stop(drain=0)


def test_denied_publish_keeps_the_event_and_says_so(tmp_path: Path, box: Outbox) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write edge/v1/d/status\n")
    acl.chmod(0o644)
    with broker(tmp_path, config=f"allow_anonymous true\nacl_file {acl}") as server:
        link = Link(Mqtt(url=server.url), "d", box)
        link.start()
        box.put(event())
        until(lambda: "denies edge/v1/d/words/events" in link.why, "the denial is named")
        assert not box.empty
        link.stop(drain=0)


def test_packet_too_large_for_the_broker_is_declared(tmp_path: Path, box: Outbox) -> None:
    with broker(tmp_path, config="allow_anonymous true\nmax_packet_size 2000") as server:
        mqtt = Mqtt(url=server.url)
        link = Link(mqtt, "d", box)
        with Consumer(mqtt) as consumer:
            link.start()
            box.put(event("long " * 1000))
            box.put(event("short"))
            until(lambda: len(consumer.events()) == 2, "the short one and the gap arrive")
            gap = next(e for e in consumer.events() if e["kind"] == "gap")
            assert gap["first"] == gap["last"] == 1 and "2000 bytes" in gap["why"]
        link.stop()


def test_embedded_broker_without_mqtt5_is_spoken_to_in_3_1_1(box: Outbox) -> None:
    iotcore = pytest.importorskip("iotcore", reason="the extra [demo] is not installed")
    port = free_port()
    with iotcore.Broker(listen="127.0.0.1", port=port, max_payload_size=256 * 1024):
        mqtt = Mqtt(url=f"mqtt://127.0.0.1:{port}")
        link = Link(mqtt, "d", box)
        with Consumer(mqtt) as consumer:
            link.start()
            for _ in range(100):
                box.put(event("y" * 25_000), "telemetry")
            until(lambda: len(consumer.seqs()) == 100, "100 large events arrive")
        link.stop()


def test_tls_with_the_right_authority_only(tmp_path: Path, box: Outbox) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    ca, key, cert = tmp_path / "ca.pem", tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *names, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    ca.write_bytes(cert.read_bytes())
    for file in (key, cert, ca):
        file.chmod(0o644)
    config = f"allow_anonymous true\ncertfile {cert}\nkeyfile {key}"
    with broker(tmp_path, config=config, scheme="mqtts") as server:
        stranger = Link(Mqtt(url=server.url), "d", box)
        stranger.start()
        until(lambda: "unknown CA" in stranger.why and "set mqtt.ca" in stranger.why, "it says what is missing")
        stranger.stop(drain=0)
        link = Link(Mqtt(url=server.url, ca=str(ca)), "d", box)
        link.start()
        box.put(event())
        until(lambda: link.connected and box.empty, "the event goes through TLS")
        link.stop()


def test_a_port_that_accepts_and_never_answers(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "CONNACK_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = Link(Mqtt(url=f"mqtt://127.0.0.1:{silent.getsockname()[1]}"), "d", box)
        link.start()
        until(lambda: "does not answer" in link.why, "the silence is named")
        link.stop(drain=0)


def test_wrong_files_and_addresses_are_one_line(tmp_path: Path, box: Outbox) -> None:
    with pytest.raises(LinkError, match="no broker"):
        Link(Mqtt(), "d", box)
    with pytest.raises(ConfigError, match="is not mqtt://"):
        Link(Mqtt(url="tcp://x"), "d", box)
    with pytest.raises(ConfigError, match=r"mqtt\.password_file: .*none cannot be read"):
        Link(Mqtt(url="mqtt://x", username="u", password_file=str(tmp_path / "none")), "d", box)
    with pytest.raises(ConfigError, match=r"mqtt\.ca: .*none cannot be read"):
        Link(Mqtt(url="mqtts://x", ca=str(tmp_path / "none")), "d", box)
    (tmp_path / "x.pem").write_text("no PEM")
    with pytest.raises(ConfigError, match=r"mqtt\.ca: .*x\.pem is no PEM file of certificates"):
        Link(Mqtt(url="mqtts://x", ca=str(tmp_path / "x.pem")), "d", box)
    with pytest.raises(ConfigError, match=r"mqtt\.cert, mqtt\.key: .*no PEM of a certificate and of the key"):
        Link(Mqtt(url="mqtts://x", cert=str(tmp_path / "x.pem"), key=str(tmp_path / "x.pem")), "d", box)


def test_alerts_stay_until_a_consumer_acknowledges(mosquitto: Mosquitto, box: Outbox, tmp_path: Path) -> None:
    mqtt = Mqtt(url=mosquitto.url, ack=True)
    link = Link(mqtt, "d", box)
    link.start()
    box.put(event("alert"), "alert")
    box.put(event("telemetry"), "telemetry")
    with Consumer(mqtt) as silent:
        until(lambda: len(silent.events()) >= 3, "what nobody acknowledges is sent again")
        assert {e["text"] for e in silent.events()[1:]} >= {"alert"}
    assert not box.empty
    with Consumer(mqtt, ack=True):
        until(lambda: box.empty, "acknowledged, it leaves the store")
    link.stop()
    box.close()
    again = Outbox(box.path, "d")
    assert again.take(9) == []
    again.close()


def test_nonsense_on_the_ack_topic_changes_nothing(mosquitto: Mosquitto, box: Outbox) -> None:
    mqtt = Mqtt(url=mosquitto.url, ack=True)
    link = Link(mqtt, "d", box)
    link.start()
    box.put(event())
    until(lambda: link.connected and len(acks_of(link)), "the broker has it")
    for nonsense in ("", "[]", '{"ids": 3}', '{"ids": ["d/0/1", "other"]}', "\\xff" * 500):
        tool = ["mosquitto_pub", "-p", str(mosquitto.port), "-t", "edge/v1/d/ack", "-m", nonsense]
        subprocess.run(tool, check=True)
    box.put(event("second"), "telemetry")
    until(lambda: box.counts.done == 1, "the second one is through")
    assert link.connected and not box.empty
    link.stop(drain=0)


def test_two_devices_of_one_name_are_told_apart(mosquitto: Mosquitto, box: Outbox, tmp_path: Path) -> None:
    first = Link(Mqtt(url=mosquitto.url), "d", box)
    first.start()
    until(lambda: first.connected, "the first is connected")
    other_box = Outbox(tmp_path / "other", "d")
    second = Link(Mqtt(url=mosquitto.url), "d", other_box)
    second.start()
    question = "does another device call itself d?"
    until(lambda: question in first.why or question in second.why, "one of them says what happened")
    for link in (first, second):
        link.stop(drain=0)
    other_box.close()


def test_times_from_before_the_clock_was_set_are_corrected(
    mosquitto: Mosquitto, box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, jumped = time.time, [False]
    monkeypatch.setattr(time, "time", lambda: real() if jumped[0] else 100.0)
    link = Link(Mqtt(url=mosquitto.url), "d", box)
    before = real()
    box.put(TextEvent(pipeline="words", at=rfc3339(99.0), text="a second before the start"))
    after = real()
    jumped[0] = True
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        link.start()
        until(lambda: consumer.events(), "the event arrives")
        link.stop()
    at = datetime.fromisoformat(consumer.events()[0]["at"].replace("Z", "+00:00")).timestamp()
    assert before - 2 < at < after


def test_tls_waits_for_the_clock(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 100.0)
    link = Link(Mqtt(url="mqtts://127.0.0.1:9"), "d", box)
    link.start()
    until(lambda: "the clock is not set" in link.why, "it says that it waits for the time")
    link.stop(drain=0)


def test_budget_keeps_the_last_fifth_for_alerts(mosquitto: Mosquitto, box: Outbox, tmp_path: Path) -> None:
    day = [86400.0 * 20_000]
    file = tmp_path / "budget.json"
    budget = Budget(20_000, file, clock=lambda: day[0])
    mqtt = Mqtt(url=mosquitto.url)
    link = Link(mqtt, "d", box, budget)
    with Consumer(mqtt) as consumer:
        link.start()
        for _ in range(100):
            box.put(event("t" * 200), "telemetry")
        until(lambda: budget.saving and box.counts.done > 10, "telemetry has to wait")
        assert not box.empty
        box.put(event("alert"), "alert")
        until(lambda: any(e["text"] == "alert" for e in consumer.events()), "an alert still goes")
        assert budget.left > 0
        spent = sum(len(payload) for _, payload, _ in consumer.heard)
        assert spent < 20_000
        assert Budget(20_000, file, clock=lambda: day[0]).left < 8_000, "the count survives a restart"
        done = box.counts.done
        day[0] += 86400
        link.wake()
        until(lambda: box.counts.done > done + 10, "the next day it goes on")
    link.stop(drain=0)


def test_a_clock_that_was_once_far_ahead_takes_no_days(tmp_path: Path) -> None:
    day, file = [86400.0 * 20_000], tmp_path / "budget.json"
    budget = Budget(20_000, file, clock=lambda: day[0])
    day[0] += 86400 * 1000
    budget.spend(19_000)
    day[0] -= 86400 * 1000
    for known in (budget, Budget(20_000, file, clock=lambda: day[0])):
        assert known.left < 1000, "setting the clock gives no new bytes"
    day[0] += 86400
    for known in (budget, Budget(20_000, file, clock=lambda: day[0])):
        assert known.left == 20_000


def test_what_was_acknowledged_while_the_agent_was_away_is_not_sent_again(
    mosquitto: Mosquitto, box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker keeps the consumer's acknowledgements for the agent; they come before the alerts go out again."""
    monkeypatch.setattr(acks, "ACK_S", (30.0, 60.0))
    mqtt = Mqtt(url=mosquitto.url, ack=True)
    link = Link(mqtt, "d", box)
    link.start()
    with Consumer(mqtt, "+/+/+/+/events") as consumer:
        for i in range(8):
            box.put(event(f"line {i}"))
        until(lambda: len(consumer.seqs()) == 8 and len(acks_of(link)) == 8, "the broker and the consumer have them")
        link.stop(drain=0)
        box.close()
        for seq in range(1, 7):
            ids = f'{{"ids": ["d/{box.epoch}/{seq}"]}}'
            tool = ["mosquitto_pub", "-p", str(mosquitto.port), "-q", "1", "-t", "edge/v1/d/ack", "-m", ids]
            subprocess.run(tool, check=True)
        again = Outbox(box.path, "d")
        link = Link(mqtt, "d", again)
        link.start()
        until(lambda: len(consumer.events()) == 10, "the two that were not acknowledged come again")
        until(lambda: again.counts.done == 6, "the others leave the store")
        assert [e["seq"] for e in consumer.events()][8:] == [7, 8]
        link.stop(drain=0)
        again.close()


def test_many_packets_go_out_in_one_call(mosquitto: Mosquitto, box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = wire.PahoClient._sock_send

    def counted(self: wire.Client, data: bytes) -> int:
        calls.append(id(self))
        return real(self, data)

    monkeypatch.setattr(wire.PahoClient, "_sock_send", counted)
    for i in range(200):
        box.put(event(f"line {i}"), "telemetry")
    link = Link(Mqtt(url=mosquitto.url), "d", box)
    begin = link.flight.pace.begin

    def at_full_pace() -> None:
        begin()
        link.flight.pace.window = float(MOST)

    monkeypatch.setattr(link.flight.pace, "begin", at_full_pace)  # however the answers come: one by one, or together
    bursts: list[tuple[int, int]] = []
    send = link.delivery.send

    def watched(client: wire.Client, most: int) -> None:
        flying, before = len(link.flight.events), calls.count(id(client))
        send(client, most)
        bursts.append((len(link.flight.events) - flying, calls.count(id(client)) - before))

    monkeypatch.setattr(link.delivery, "send", watched)
    link.start()
    until(lambda: box.empty, "the broker has them")
    link.stop()
    assert sum(events for events, _ in bursts) == 200 and max(events for events, _ in bursts) > 5
    assert all(sent <= 1 for _, sent in bursts)


def test_more_than_the_socket_takes_at_once(mosquitto: Mosquitto, box: Outbox) -> None:
    mqtt = Mqtt(url=mosquitto.url)
    link = Link(mqtt, "d", box)
    with Consumer(mqtt) as consumer:
        for i in range(60):
            box.put(event(f"{i} " + "y" * 110_000), "telemetry")
        link.start()
        until(lambda: len(consumer.seqs()) == 60, "60 large events arrive")
        assert [e["text"].split()[0] for e in consumer.events()] == [str(i) for i in range(60)]
    link.stop()
