"""How the link gets in: certificates and passwords that are renewed, TLS that fails, addresses, WebSockets."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli import main
from edge_agent.config import Mqtt, parse_broker
from edge_agent.consumer.listen import listen
from edge_agent.errors import ConfigError
from edge_agent.events import TextEvent
from edge_agent.link.broker import Broker
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from tests.broker import Consumer, Mosquitto, broker, free_port, is_open, password_file, until
from tests.link.test_link import (
    box,  # noqa: F401
    quick_backoff,  # noqa: F401
)


def event(text: str = "x") -> TextEvent:
    return TextEvent(pipeline="words", at="2026-01-01T00:00:00Z", text=text)


class Authority:
    """Signs certificates with openssl."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        self.folder, self.name = folder, name
        self.pem, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        self._openssl("req", "-x509", *self._fresh(name), "-days", "30", "-out", str(self.pem))

    def _fresh(self, name: str) -> list[str]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        return [*curve, "-subj", f"/CN={name}", "-keyout", str(self.folder / f"{name}.key")]

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)

    def sign(self, name: str, san: str = "IP:127.0.0.1,DNS:localhost", begins: str = "", ends: str = "") -> None:
        """NAME.pem and NAME.key; `begins`, `ends`: YYYYMMDDHHMMSSZ."""
        request, pem = self.folder / "request", self.folder / f"{name}.pem"
        self._openssl("req", *self._fresh(name), "-out", str(request))
        serial = self.folder / "db"
        shutil.rmtree(serial, ignore_errors=True)
        serial.mkdir()
        (serial / "index").write_text("")
        (serial / "serial").write_text("01")
        settings = self.folder / "ca.cnf"
        settings.write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={serial}/index\nserial={serial}/serial\nnew_certs_dir={serial}\n"
            f"certificate={self.pem}\nprivate_key={self._key}\ndefault_md=sha256\npolicy=p\n"
            f"[p]\ncommonName=supplied\n[x]\nsubjectAltName={san}\n"
        )
        dates = ["-startdate", begins or "20200101000000Z", "-enddate", ends or "20491231000000Z"]
        words = ["-batch", "-notext", "-config", str(settings), "-extensions", "x", "-in", str(request)]
        self._openssl("ca", *words, "-out", str(pem), *dates)
        for file in self.folder.glob("*.key"):
            file.chmod(0o644)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serving(folder: Path, name: str = "server", more: str = "") -> str:
    return f"allow_anonymous true\ncertfile {folder}/{name}.pem\nkeyfile {folder}/{name}.key\n{more}"


def why(mqtt: Mqtt, box: Outbox, expected: str) -> None:  # noqa: F811
    """The link says it, and so does `listen`."""
    link = Link(mqtt, "d", box)
    link.start()
    until(lambda: expected in link.why, f'"{expected}" instead of "{link.why}"')
    link.stop(drain=0)
    stop, lines = threading.Event(), []
    for line in listen(mqtt, ["#"], stop):
        lines.append(line)
        if expected in line or len(lines) > 9:
            stop.set()
    assert expected in lines[-1], lines


@pytest.mark.parametrize(
    ("begins", "ends", "san", "expected"),
    [
        ("", "20210101000000Z", "IP:127.0.0.1", "certificate expired"),
        ("20480101000000Z", "", "IP:127.0.0.1", "not valid yet"),
        ("", "", "DNS:other.example", "host name does not match"),
    ],
)
def test_why_the_broker_s_certificate_is_refused(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    authority: Authority,
    begins: str,
    ends: str,
    san: str,
    expected: str,
) -> None:
    authority.sign("server", san, begins, ends)
    with broker(tmp_path, config=serving(tmp_path), scheme="mqtts") as server:
        why(Mqtt(url=server.url, ca=str(authority.pem)), box, expected)


def test_tls_that_cannot_be_is_said_with_the_mend(tmp_path: Path, box: Outbox, authority: Authority) -> None:  # noqa: F811
    authority.sign("server")
    other = Authority(tmp_path, "other")
    other.sign("stranger")
    authority.sign("expired", ends="20210101000000Z")
    more = f"cafile {authority.pem}\nrequire_certificate true"
    ca = str(authority.pem)
    with broker(tmp_path, config=serving(tmp_path, more=more), scheme="mqtts") as server:
        why(Mqtt(url=server.url), box, "unknown CA: the authority that signed the broker's certificate is not known")
        why(Mqtt(url=server.url, ca=str(other.pem)), box, "(mqtt.ca) holds others")
        why(Mqtt(url=server.url, ca=ca), box, "requires a client certificate: set mqtt.cert and mqtt.key")
        for name, expected in (("stranger", "does not know the authority"), ("expired", "mqtt.cert: certificate exp")):
            cert, key = str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key")
            why(Mqtt(url=server.url, ca=ca, cert=cert, key=key), box, expected)
        why(Mqtt(url=server.url.replace("mqtts", "mqtt")), box, "this is a TLS port: use mqtts://")
    with broker(tmp_path) as server:
        why(Mqtt(url=server.url.replace("mqtt", "mqtts"), ca=ca), box, "does not speak TLS: use mqtt://")


def test_an_alert_that_was_lost_with_the_connection_is_asked_for_again(tmp_path: Path, authority: Authority) -> None:
    authority.sign("server")
    more = f"cafile {authority.pem}\nrequire_certificate true"
    with broker(tmp_path, config=serving(tmp_path, more=more), scheme="mqtts") as server:
        asked = Broker(Mqtt(url=server.url, ca=str(authority.pem)))
        assert "requires a client certificate" in (asked.why(asked.client()) or "")
    with broker(tmp_path, config=serving(tmp_path), scheme="mqtts") as server:
        asked = Broker(Mqtt(url=server.url, ca=str(authority.pem)))
        assert asked.why(asked.client()) is None and "client certificate" in asked.closed


def test_renewed_certificates_and_passwords_are_used_at_the_next_connect(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    authority: Authority,
) -> None:
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"

    def set_password(word: str) -> None:
        password_file(passwords, me=word)

    authority.sign("server")
    authority.sign("device")
    stranger = Authority(tmp_path, "stranger")
    more = f"cafile {authority.pem}\nrequire_certificate true\npassword_file {passwords}"
    set_password("first")
    secret.write_text("first\n")
    with broker(tmp_path, config=serving(tmp_path, more=more).replace("true", "false", 1), scheme="mqtts") as server:
        cert, key = str(tmp_path / "device.pem"), str(tmp_path / "device.key")
        ca = str(authority.pem)
        mqtt = Mqtt(url=server.url, ca=ca, username="me", password_file=str(secret), cert=cert, key=key)
        link = Link(mqtt, "d", box)
        link.start()
        until(lambda: link.connected, "it is let in")
        stranger.sign("device")  # which this broker refuses
        link.reload()
        until(lambda: "our certificate" in link.why, "the new files are used at once")
        set_password("second")
        server.stop()
        server.start()
        authority.sign("device")
        until(lambda: "ot authorized" in link.why, "the certificate is right again, the password is not")
        secret.unlink()
        until(lambda: "secret cannot be read" in link.why, "a file that is gone is said")
        secret.write_text("second\n")
        until(lambda: link.connected, "it is let in with the new password")
        link.stop(drain=0)


def test_sighup_connects_anew_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(f"line {i}\n" for i in range(500)))
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url)) as consumer:
        config = tmp_path / "agent.toml"
        config.write_text(
            f'[device]\nid = "d"\n[mqtt]\nurl = "{server.url}"\n[store]\npath = "{tmp_path}/store"\n'
            f'[[pipeline]]\nname = "words"\nsource = "lines:{tmp_path}/in?rate=200"\n'
        )
        command = [sys.executable, "-m", "edge_agent", "run", "-c", str(config)]
        log = tmp_path / "log"
        with log.open("w") as out:
            agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=out)
        for number in (2, 3):
            until(lambda: len(consumer.seqs()) > 20 * number, "events come")  # noqa: B023
            agent.send_signal(signal.SIGHUP)
            until(lambda: log.read_text().count("connected to") == number, "it connects anew")  # noqa: B023
        until(lambda: len(consumer.seqs()) == 500, "all come")
        assert b"offline" not in [payload for topic, payload, _ in consumer.heard if topic.endswith("/status")]
        agent.terminate()
        agent.wait(120)


@pytest.mark.parametrize("frozen", ["accepts and is silent", "refuses"])
def test_the_second_address_of_a_host_is_tried_at_once(
    tmp_path: Path,
    box: Outbox,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    frozen: str,
) -> None:
    with broker(tmp_path) as server, contextlib.ExitStack() as stack:
        if frozen.startswith("accepts"):
            stack.enter_context(socket.create_server(("127.0.0.2", server.port)))
        real = socket.getaddrinfo

        def two(host: Any, port: Any, *more: Any, **options: Any) -> Any:
            hosts = ("127.0.0.2", "127.0.0.1") if host == "brokers.example" else (host,)
            return [found for one in hosts for found in real(one, port, *more, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", two)
        mqtt = Mqtt(url=f"mqtt://brokers.example:{server.port}")
        link = Link(mqtt, "d", box)
        caplog.set_level("INFO")
        link.start()
        until(lambda: link.connected, "it is connected to the second")
        link.reload()
        until(lambda: caplog.text.count("connected to") == 2, "it connects anew, to the one that worked, first")
        link.stop(drain=0)
        stop = threading.Event()
        lines = []
        for line in listen(mqtt, ["x"], stop):
            lines.append(line)
            if line == "connected":
                stop.set()
        assert len(lines) == 2


@contextlib.contextmanager
def over_websockets(folder: Path, more: str = "", scheme: str = "ws") -> Iterator[tuple[Mosquitto, str]]:
    """A broker with a second listener, and the address of that one; some mosquittos want a plain one too."""
    port = free_port()
    second = f"allow_anonymous true\nlistener {port} 127.0.0.1\nprotocol websockets\n{more}"
    with broker(folder, config=second) as server:
        until(lambda: is_open(port), "it listens for WebSockets")
        yield server, f"{scheme}://127.0.0.1:{port}"


def test_mqtt_over_websockets(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    with over_websockets(tmp_path) as (server, url):
        through_websockets(server, Mqtt(url=f"{url}/mqtt"), box)


def through_websockets(web: Mosquitto, mqtt: Mqtt, box: Outbox) -> None:  # noqa: F811
    link = Link(mqtt, "d", box)
    with Consumer(mqtt) as consumer:
        link.start()
        for i in range(300):
            box.put(event(f"{i} " + "y" * (50_000 if i % 100 == 0 else 100)), "telemetry")
        until(lambda: len(consumer.seqs()) == 300, "300 events arrive")
        until(lambda: box.empty, "the broker acknowledges them")
        web.stop(kill=True)
        until(lambda: not link.connected, "the link notices")
        before = consumer.connections
        web.start()
        until(lambda: consumer.connections > before, "the consumer is back")
        box.put(event("late"))
        until(lambda: any(e["text"] == "late" for e in consumer.events()), "it goes on")
    link.stop()


def test_websockets_with_tls(tmp_path: Path, box: Outbox, authority: Authority) -> None:  # noqa: F811
    authority.sign("server")
    tls = f"certfile {tmp_path}/server.pem\nkeyfile {tmp_path}/server.key"
    with over_websockets(tmp_path, tls, "wss") as (_, url):
        ca = str(authority.pem)
        link = Link(Mqtt(url=url, ca=ca), "d", box)
        link.start()
        for _ in range(50):
            box.put(event("x" * 2000), "telemetry")
        until(lambda: box.empty, "the events go")
        link.stop()
        why(Mqtt(url=url), box, "unknown CA")
        why(Mqtt(url=url.replace("wss", "ws")), box, "this is a TLS port: use wss://")


def test_a_port_without_websockets_says_so(tmp_path: Path, box: Outbox) -> None:  # noqa: F811
    with broker(tmp_path) as server:
        why(Mqtt(url=server.url.replace("mqtt", "ws")), box, "no MQTT over WebSockets at /mqtt")
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = odd.accept()
                    with peer:
                        peer.recv(4096)
                        peer.sendall(b"HTTP/1.1 101 x\r\nsec-websocket-accept:x\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        why(Mqtt(url=f"ws://127.0.0.1:{odd.getsockname()[1]}/x"), box, "WebSockets")


def test_addresses_of_brokers() -> None:
    assert parse_broker("ws://h")[1:] == (80, False, "/mqtt")
    assert parse_broker("wss://h:8884/a/b?c=d") == ("h", 8884, True, "/a/b?c=d")
    assert parse_broker("mqtts://h/")[1:] == (8883, True, None)
    for wrong in ("ws:///mqtt", "mqtt://h/mqtt", "ws://h/#x", "http://h", "ws://u:p@h"):
        with pytest.raises(ConfigError):
            parse_broker(wrong)


def test_listen_with_a_user_and_with_only_a_broker_in_the_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], authority: Authority
) -> None:
    passwords = password_file(tmp_path / "passwords", me="word")
    (tmp_path / "secret").write_text("word\n")
    authority.sign("server")
    authority.sign("reader")
    more = f"cafile {authority.pem}\nrequire_certificate true\npassword_file {passwords}"
    with broker(tmp_path, config=serving(tmp_path, more=more).replace("true", "false", 1), scheme="mqtts") as server:
        secret = ["--username", "me", "--password-file", str(tmp_path / "secret")]
        tls = [
            "--ca",
            str(authority.pem),
            "--cert",
            str(tmp_path / "reader.pem"),
            "--key",
            str(tmp_path / "reader.key"),
        ]
        until(lambda: main(["listen", "--url", server.url, *secret, *tls, "--seconds", "2"]) == 0, "it is let in")
        only = tmp_path / "broker.toml"
        only.write_text(
            f'[mqtt]\nurl = "{server.url}"\nusername = "me"\npassword_file = "secret"\nca = "ca.pem"\n'
            'cert = "reader.pem"\nkey = "reader.key"\n'
        )
        until(lambda: main(["listen", "-c", str(only), "--seconds", "2"]) == 0, "it is let in")
        assert "connected" in capsys.readouterr().err
        assert main(["run", "-c", str(only)]) == 2
        assert "no [[pipeline]]" in capsys.readouterr().err
    assert main(["listen", "--url", "mqtt://h", "--ca", "x"]) == 2
    assert main(["listen", "-c", str(only), *secret]) == 2
    assert main(["listen", "--url", "mqtt://h", "--password-file", "x"]) == 2
    err = capsys.readouterr().err
    assert "is not encrypted" in err and "--username" in err
