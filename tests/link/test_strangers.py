"""What strangers on the broker can do: giants, guessed acknowledgements, unsigned commands, floods."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.config import Mqtt
from edge_agent.consumer.listen import listen
from edge_agent.errors import ConfigError
from edge_agent.events import TextEvent
from edge_agent.link import acks, wire
from edge_agent.link.commands import BURST, Commands
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from tests.broker import Consumer, Mosquitto, broker, until
from tests.link.test_link import (
    acks_of,
    box,  # noqa: F401
    publish,  # noqa: F401
    quick_backoff,  # noqa: F401
)


def alerts(box: Outbox, count: int) -> None:  # noqa: F811
    for i in range(count):
        box.put(TextEvent(pipeline="p", at="2026-01-01T00:00:00Z", text=str(i)))


def send(server: Mosquitto, topic: str, payload: bytes | str) -> None:
    """Publish what may be longer than a command line; it is acknowledged when this returns."""
    tool = ["mosquitto_pub", "-p", str(server.port), "-q", "1", "-t", topic, "-s"]
    subprocess.run(tool, input=payload if isinstance(payload, bytes) else payload.encode(), check=True)


@pytest.mark.parametrize("v5", [True, False])
def test_a_giant_is_passed_over_once_and_for_all(tmp_path: Path, box: Outbox, v5: bool) -> None:  # noqa: F811
    with broker(tmp_path) as server:
        heard: list[bytes] = []
        for start in (1, 2):
            link = Link(Mqtt(url=server.url), "d", box)
            link.connector.old_until = 0.0 if v5 else float("inf")
            link.subscribe("house/said", lambda topic, payload: heard.append(payload))
            link.start()
            until(lambda: link.session.subscribed and not link.flight.others, "it is subscribed")  # noqa: B023
            if start == 1:
                send(server, "house/said", b"x" * wire.LARGEST)
                send(server, "house/said", b"y" * (9 << 20))
            send(server, "house/said", f"after {start}")
            until(lambda: f"after {start}".encode() in heard, "what comes behind it is heard")  # noqa: B023
            assert link.connected and link.session.passed_over == (2 if start == 1 and not v5 else 0)
            link.stop(drain=0)
        assert heard == [b"after 1", b"after 2"], "it does not come again"


def memory(process: subprocess.Popen[bytes]) -> int:
    """Its most resident memory, MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def test_a_giant_takes_no_memory(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url), "edge/#") as consumer:
        config.write_text(
            f'[device]\nid = "d"\n[mqtt]\nurl = "{server.url}"\n[store]\npath = "{tmp_path}/store"\n'
            '[[pipeline]]\nname = "said"\nsource = "mqtt:house/said"\n'
        )
        agent = subprocess.Popen([sys.executable, "-m", "edge_agent", "run", "-c", str(config)])
        send(server, "house/said", "first")
        until(lambda: consumer.last("d/status") == b"online", "it is connected")
        until(lambda: send(server, "house/said", "second") or consumer.events(), "it hears")  # type: ignore[func-returns-value]
        before = memory(agent)
        for topic in ("house/said", "edge/v1/d/cmd/ping"):
            send(server, topic, b"x " * (20 << 20))
        send(server, "house/said", "last")
        until(lambda: consumer.events()[-1]["text"] == "last", "it goes on")
        assert memory(agent) < before + 15
        agent.terminate()
        agent.wait(120)


def test_alerts_that_were_never_sent_cannot_be_acknowledged(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    with broker(tmp_path) as server:
        mqtt = Mqtt(url=server.url, ack=True)
        link = Link(mqtt, "d", box)
        link.start()
        with Consumer(mqtt, "+/+/+/+/events") as consumer:
            alerts(box, 40)
            until(lambda: len(consumer.seqs()) == 12, "the first ones go")
            guesses = [f"d/{box.epoch}/{seq}" for seq in range(1, 100)]
            guesses += [f"d/{box.epoch}/{'9' * 5000}", f"d/{box.epoch}/\u0663", f"d/{box.epoch}/", "d/x", ""]
            send(server, "edge/v1/d/ack", json.dumps({"ids": guesses}))
            until(lambda: len(consumer.seqs()) == 24, "only those that were sent make room")
            time.sleep(0.3)
            assert len(consumer.seqs()) == 24
            ids = [f"d/{box.epoch}/{seq}" for seq in range(1, 41)]
            for count in (36, 40):
                send(server, "edge/v1/d/ack", json.dumps({"ids": ids}))
                until(lambda: len(consumer.seqs()) == count, "as many more as there is room for")  # noqa: B023
            send(server, "edge/v1/d/ack", json.dumps({"ids": ids}))
            until(lambda: box.empty, "and then acknowledged")
            link.stop()


def test_what_was_sent_is_known_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The acknowledgement comes while the device is dead; what it had not sent yet is no part of it."""
    monkeypatch.setattr(acks, "ACK_S", (1000.0, 1000.0))
    code = (
        "import sys, time; from pathlib import Path; from edge_agent.outbox.outbox import Outbox; "
        "from edge_agent.link.link import Link; from edge_agent.config import Mqtt; "
        "from edge_agent.events import TextEvent; "
        "box = Outbox(Path(sys.argv[2]), 'd'); Link(Mqtt(url=sys.argv[1], ack=True), 'd', box).start()\n"
        "for i in range(30): box.put(TextEvent(pipeline='p', at='2026-01-01T00:00:00Z', text=str(i)))\n"
        "print('put', flush=True); time.sleep(60)"
    )
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url), "+/+/+/+/events") as consumer:
        command = [sys.executable, "-c", code, server.url, str(tmp_path / "store")]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"put\n"
        until(lambda: len(consumer.seqs()) == 12, "the first ones go")
        child.kill()
        child.wait()
        box = Outbox(tmp_path / "store", "d")
        send(server, "edge/v1/d/ack", json.dumps({"ids": [f"d/{box.epoch}/{seq}" for seq in range(1, 31)]}))
        link = Link(Mqtt(url=server.url, ack=True), "d", box)
        link.start()
        until(lambda: consumer.seqs() >= set(range(13, 25)), "those that were never sent go now")
        until(lambda: box.counts.done == 12, "those that were are struck off")
        assert len(consumer.events()) == 24, "and not sent again"
        link.stop(drain=0)
        box.close()


class Keys:
    """An operator's key, and a stranger's."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("cryptography", reason="the extra [signed] is not installed")
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        from edge_agent.link.signing import Signer

        pem, raw = form.Encoding.PEM, form.NoEncryption()
        self.public, signers = folder / "operators.pem", []
        for name in ("operator", "stranger"):
            key = Ed25519PrivateKey.generate()
            file = folder / f"{name}.key"
            file.write_bytes(key.private_bytes(pem, form.PrivateFormat.PKCS8, raw))
            signers.append(Signer(str(file)))
            if name == "operator":
                other = Ed25519PrivateKey.generate().public_key()
                public = [other, key.public_key()]
                self.public.write_bytes(
                    b"".join(one.public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo) for one in public)
                )
        self.operator, self.stranger = signers
        self.operator_file = folder / "operator.key"


def test_acknowledgements_count_when_they_are_signed(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    keys = Keys(tmp_path)
    with broker(tmp_path) as server:
        mqtt = Mqtt(url=server.url, ack=True, signers=str(keys.public))
        link = Link(mqtt, "d", box)
        link.start()
        alerts(box, 3)
        until(lambda: len(acks_of(link)) == 3, "the broker has them")
        topic, body = "edge/v1/d/ack", {"ids": [f"d/{box.epoch}/{seq}" for seq in (1, 2, 3)]}
        right = keys.operator.sign(topic, body)
        text = json.loads(right)
        for wrong in (
            json.dumps(body).encode(),
            keys.stranger.sign(topic, body),
            keys.operator.sign("edge/v1/other/ack", body),
            json.dumps({**text, "signed": text["signed"].replace("/1", "/2")}).encode(),
            json.dumps({**text, "signature": "AAAA"}).encode(),
            json.dumps({**text, "signature": "\u00fc"}).encode(),
        ):
            send(server, topic, wrong)
        until(lambda: link.delivery.not_acks == 6, "they are refused")
        assert box.counts.done == 0
        stop = threading.Event()
        heard = listen(mqtt, ["+/+/+/+/events"], stop, True, keys.operator)
        threading.Thread(target=lambda: list(heard), daemon=True).start()
        until(lambda: box.empty, "the consumer's own are taken")
        stop.set()
        link.stop()


def test_commands_count_when_they_are_signed_once_and_in_time(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = Keys(tmp_path)
    ran: list[str] = []
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url), "edge/v1/d/reply/#") as consumer:
        link = Link(Mqtt(url=server.url, signers=str(keys.public)), "d", box)
        commands = Commands(link, box.path, {"ping": lambda: ran.append("x")}, lambda: None)
        link.start()
        until(lambda: link.session.subscribed and not link.flight.others, "it is subscribed")
        topic = "edge/v1/d/cmd/ping"

        def answered(payload: bytes) -> dict[str, object]:
            before = len(consumer.heard)
            send(server, topic, payload)

            def reply() -> bool:
                commands.run_waiting()
                return len(consumer.heard) > before

            until(reply, "it is answered")
            return dict(json.loads(consumer.heard[-1][1]))

        good = keys.operator.sign(topic, {"id": "1"})
        assert answered(good)["ok"]
        assert answered(good)["error"] == "this id was run before"
        assert "is not signed" in str(answered(b'{"id": "2"}')["error"])
        assert "none of the keys" in str(answered(keys.stranger.sign(topic, {"id": "3"}))["error"])
        assert "another topic" in str(answered(keys.operator.sign("edge/v1/d/cmd/swap", {"id": "4"}))["error"])
        real = time.time
        for off, told in ((-400.0, "signed 4"), (400.0, "signed -")):
            monkeypatch.setattr(time, "time", lambda off=off: real() + off)
            message = keys.operator.sign(topic, {"id": f"off {off}"})
            monkeypatch.setattr(time, "time", real)
            assert told in str(answered(message)["error"])
        assert ran == ["x"]
        link.stop(drain=0)


def test_keys_that_are_none_are_one_line(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    keys = Keys(tmp_path)
    (tmp_path / "no").write_text("x")
    for file, said in (
        ("no", "holds no public key"),
        ("operator.key", "no PEM of a public key"),
        ("none", "cannot be"),
    ):
        with pytest.raises(ConfigError, match=rf"mqtt\.signers: .*{said}"):
            Link(Mqtt(url="mqtt://h", signers=str(tmp_path / file)), "d", box)
    from edge_agent.link.signing import Signer

    with pytest.raises(ConfigError, match="no PEM of a private key"):
        Signer(str(keys.public))


def test_a_flood_of_commands_is_bounded(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    ran: list[str] = []
    with broker(tmp_path) as server:
        link = Link(Mqtt(url=server.url), "d", box)
        commands = Commands(link, box.path, {"ping": lambda: ran.append("x")}, lambda: None)
        for i in range(3000):
            commands._receive("edge/v1/d/cmd/ping", json.dumps({"id": f"{i:0128}"}).encode())
            commands.run_waiting()
        assert BURST <= len(ran) < BURST + 60
        assert sum(file.stat().st_size for file in box.path.glob("commands*")) < 60 * 140 * 2
        assert server.port


def test_ids_are_remembered_across_restarts_and_versions(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    (box.path / "commands.json").write_text('["old"]')
    told: list[dict[str, object]] = []
    ran: list[str] = []

    def ask(name: str) -> Callable[[], None]:
        link = Link(Mqtt(url="mqtt://h"), "d", box)
        link.tell = lambda tail, payload: told.append(json.loads(payload))  # type: ignore[method-assign]
        commands = Commands(link, box.path, {"ping": lambda: ran.append(name)}, lambda: None)
        commands._receive("edge/v1/d/cmd/ping", json.dumps({"id": name}).encode())
        return commands.run_waiting

    for name in ("old", "a", "b", "a"):
        ask(name)()
    file = box.path / "commands.log"
    file.write_bytes(file.read_bytes()[:-3])  # cut short by a power cut
    for name in ("a", "c", "old", "c", "b"):
        ask(name)()
    assert ran == ["a", "b", "c", "b"], "the one that was cut short is run again, and no other"
