"""deploy/broker under a real mosquitto: who may log in, and what a device may say and hear."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import config
from edge_agent.config import Mqtt
from edge_agent.link import topics
from edge_agent.link.rights import tried
from tests.broker import Consumer, Mosquitto, broker, until
from tests.conftest import ROOT

pytest.importorskip("cryptography", reason="the extra [signed] makes the certificates")

FOLDER = ROOT / "deploy" / "broker"


def authority(folder: Path, *names: str) -> None:
    """Our own authority, and a certificate for each name, as deploy/broker/README.md has openssl make them."""
    from datetime import datetime, timedelta, timezone
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    now, keys = datetime.now(timezone.utc), {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", *names)}
    for name, key in keys.items():
        made = x509.CertificateBuilder(
            named("ca"), named(name), key.public_key(), x509.random_serial_number(), now - timedelta(days=1),
            now + timedelta(days=1),
        )  # fmt: skip
        made = made.add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
        if name == "server":
            here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
            made = made.add_extension(here, critical=False)
        cert = made.sign(keys["ca"], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        raw = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(raw)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mosquitto, Path]]:
    """mosquitto with the two files as they are, but for folders, the port and who it runs as."""
    folder = tmp_path_factory.mktemp("broker")
    authority(folder, "server", "porch", "cellar", "consumer", "back_door")
    text = (FOLDER / "mosquitto.conf").read_text()
    assert text.count("/etc/mosquitto/edge/") == 5 and "\nlistener 8883\n" in text
    (folder / "acl").write_text((FOLDER / "acl").read_text())
    (folder / "acl").chmod(0o600)
    text = text.replace("/etc/mosquitto/edge", str(folder)).replace("/var/lib/mosquitto", str(folder))
    head, _, rest = text.partition("\nlistener 8883\n")
    # the fixture writes the listener, which has to stand before what belongs to it
    with broker(folder, config=f"{rest}\n{head}", scheme="mqtts") as server:
        yield server, folder


def as_(name: str, server: Mosquitto, folder: Path) -> Mqtt:
    return Mqtt(url=server.url, ca=f"{folder}/ca.pem", cert=f"{folder}/{name}.pem", key=f"{folder}/{name}.key")


def tool(program: str, name: str, served: tuple[Mosquitto, Path], *more: str) -> list[str]:
    server, folder = served
    files = ["--cafile", f"{folder}/ca.pem", "--cert", f"{folder}/{name}.pem", "--key", f"{folder}/{name}.key"]
    return [program, "-h", "127.0.0.1", "-p", str(server.port), *files, "-q", "1", "-V", "mqttv5", *more]


def write(path: Path, device: str, certificate: str, served: tuple[Mosquitto, Path]) -> config.Config:
    server, folder = served
    path.write_text(
        f'[device]\nid = "{device}"\n[mqtt]\nurl = "{server.url}"\nca = "{folder}/ca.pem"\nack = true\n'
        f'cert = "{folder}/{certificate}.pem"\nkey = "{folder}/{certificate}.key"\n'
        '[homeassistant]\n[[profile]]\nname = "home"\n[[pipeline]]\nname = "door"\nsource = "camera:0"\n'
    )
    return config.load(path)


@pytest.mark.parametrize(("device", "certificate"), [("porch", "porch"), ("back.door", "back_door")])
def test_a_device_may_all_that_its_config_needs(
    device: str, certificate: str, served: tuple[Mosquitto, Path], tmp_path: Path
) -> None:
    loaded = write(tmp_path / "agent.toml", device, certificate, served)
    rows = tried(loaded)
    assert len(rows) > 5 and all(row.good for row in rows), rows


def test_a_device_may_not_write_another_s_topics(served: tuple[Mosquitto, Path], tmp_path: Path) -> None:
    loaded = write(tmp_path / "agent.toml", "cellar", "porch", served)
    told = [row for row in tried(loaded) if "may not publish" in row.told]
    assert len(told) == len(topics.published(loaded))


def test_a_device_hears_nothing_of_another_and_what_it_says_for_it_reaches_nobody(
    served: tuple[Mosquitto, Path],
) -> None:
    server, folder = served
    spy = subprocess.Popen(
        tool("mosquitto_sub", "porch", served, "-t", "edge/v1/#", "-t", "edge/v1/cellar/#", "-v"),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    heard: list[str] = []
    threading.Thread(target=lambda: heard.extend(iter(spy.stdout.readline, "")), daemon=True).start()  # type: ignore[union-attr]
    with Consumer(as_("consumer", server, folder), "edge/v1/#") as consumer:
        forged = (
            "edge/v1/cellar/door/events",
            "edge/v1/cellar/ack",
            "edge/v1/cellar/cmd/ping",
            "edge/v1/porch/cmd/ping",
        )
        for topic in forged:
            subprocess.run(tool("mosquitto_pub", "porch", served, "-t", topic, "-m", "forged"), capture_output=True)
        for topic in ("edge/v1/cellar/status", "edge/v1/cellar/door/state", "edge/v1/cellar/reply/ping"):
            subprocess.run(tool("mosquitto_pub", "cellar", served, "-t", topic, "-m", "true"), check=True)
        mine = tool("mosquitto_pub", "consumer", served, "-t", "edge/v1/porch/cmd/ping", "-m", "yours")
        until(lambda: subprocess.run(mine, check=True) and heard, "the device hears what is meant for it")
        until(lambda: consumer.last("cellar/reply/ping") == b"true", "the consumer hears devices")
        assert not [topic for topic in forged if consumer.last(topic.removeprefix("edge/v1/")) == b"forged"]
        assert set(heard) == {"edge/v1/porch/cmd/ping yours\n"}, "and nothing else"
    spy.terminate()
    spy.wait()


def test_nobody_gets_in_without_a_certificate_of_ours(served: tuple[Mosquitto, Path], tmp_path: Path) -> None:
    server, folder = served
    authority(tmp_path, "porch")  # somebody else's, of the same names
    bare = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(server.port), "-t", "edge/v1/porch/status", "-m", "x"]
    strange = ["--cert", f"{tmp_path}/porch.pem", "--key", f"{tmp_path}/porch.key"]
    for more in ([], ["--cafile", f"{folder}/ca.pem"], ["--cafile", f"{folder}/ca.pem", *strange]):
        done = subprocess.run([*bare, "-q", "1", *more], capture_output=True, timeout=30)
        assert done.returncode != 0
