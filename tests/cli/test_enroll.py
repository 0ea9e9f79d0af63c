"""edge-agent enroll: what it writes, with which modes, and that a broker lets the device in with it."""

from __future__ import annotations

import io
import json
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edge_agent import cli, config, paths, toml
from edge_agent.cli import enroll
from edge_agent.config import edit
from edge_agent.errors import InputError, UsageError
from edge_agent.pictures.qr import text_of
from edge_agent.pictures.read import read_picture
from tests.broker import broker, password_file
from tests.link.test_broker_config import authority

pytest.importorskip("cryptography", reason="the extra [signed] makes keys and certificates")

TOKEN = "claim-7fJq2"
BASIC = '# mine\n[device]\nid = "back.door"\n[[pipeline]]\nname = "log"\nsource = "lines:in.txt"\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A config in a folder of its own."""
    (tmp_path / "in.txt").write_text("")
    path = tmp_path / "agent.toml"
    path.write_text(BASIC)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def signed(request: Path, authorities: Path) -> Path:
    """A certificate as an authority makes it of a request."""
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    asked = x509.load_pem_x509_csr(request.read_bytes())
    assert asked.is_signature_valid
    ca = x509.load_pem_x509_certificate((authorities / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((authorities / "ca.key").read_bytes(), None)
    now, day = datetime.now(timezone.utc), timedelta(days=1)
    made = x509.CertificateBuilder(
        ca.subject, asked.subject, asked.public_key(), x509.random_serial_number(), now - day, now + day
    )
    for each in asked.extensions:
        made = made.add_extension(each.value, each.critical)
    path = authorities / "signed.pem"
    path.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))  # type: ignore[arg-type]
    return path


def code(path: Path, text: str) -> Path:
    """A picture of a QR code."""
    modules = cv2.QRCodeEncoder.create().encode(text)
    large = cv2.resize(modules, None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(path), cv2.copyMakeBorder(large, 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=(255,)))
    return path


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_from_a_key_of_its_own_to_a_login(
    kind: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "authority"
    made.mkdir()
    authority(made, "server")
    rules = made / "acl"
    rules.write_text("pattern readwrite edge/v1/%u/#\n")
    rules.chmod(0o600)
    tls = f"cafile {made}/ca.pem\ncertfile {made}/server.pem\nkeyfile {made}/server.key\nrequire_certificate true\n"
    with broker(made, config=f"{tls}use_identity_as_username true\nacl_file {rules}", scheme="mqtts") as server:
        run = ["enroll", "-c", str(place)]
        assert cli.main([*run, "--kind", kind]) == 0
        key, request = tmp_path / "credentials" / "back_door.key", tmp_path / "back_door.csr"
        assert (mode(key), mode(key.parent)) == (0o600, 0o700)
        before = key.read_bytes()
        assert cli.main(run) == 0 and key.read_bytes() == before, "a key that is there stays"
        cert = str(signed(request, made))
        assert cli.main([*run, "--cert", cert, "--ca", f"{made}/ca.pem", "--url", server.url, "--write"]) == 0
        told = capsys.readouterr()
        assert "PRIVATE KEY" not in told.out + told.err
        assert place.read_text().startswith(BASIC), "what a person wrote stays"
        assert config.load(place).mqtt.key == str(key)
        assert cli.main(["check", "-c", str(place), "--connect"]) == 0, capsys.readouterr()
        text = place.read_text()
        assert cli.main([*run, "--cert", cert, "--write"]) == 0 and place.read_text() == text, "once is enough"


def test_a_qr_code_brings_a_token_that_logs_in(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "authority"
    made.mkdir()
    authority(made, "server")
    password_file(made / "users", porch=TOKEN).chmod(0o600)
    tls = f"cafile {made}/ca.pem\ncertfile {made}/server.pem\nkeyfile {made}/server.key\n"
    with broker(made, config=f"{tls}password_file {made}/users\nallow_anonymous false", scheme="mqtts") as server:
        said = {"url": server.url, "ca": (made / "ca.pem").read_text(), "token": TOKEN, "username": "porch"}
        picture = code(tmp_path / "code.png", json.dumps(said))
        assert cli.main(["enroll", "-c", str(place), "--qr", str(picture), "--write"]) == 0
        told = capsys.readouterr()
        assert TOKEN not in told.out + told.err and "the code leads to 127.0.0.1" in told.err
        secret = tmp_path / "credentials" / "mqtt"
        assert mode(secret) == 0o600 and secret.read_text() == f"{TOKEN}\n" and TOKEN not in place.read_text()
        assert cli.main(["check", "-c", str(place), "--connect"]) == 0, capsys.readouterr()


def test_a_camera_is_shown_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edge_agent.types import Frame

    blank = np.zeros((300, 300, 3), np.uint8)
    shown = read_picture(code(tmp_path / "code.png", "hello")).image
    frames = [Frame(image, 0.0, 0.0) for image in (blank, shown)]
    monkeypatch.setattr("edge_agent.sources.open_source", lambda uri: SimpleNamespace(run=lambda stop: iter(frames)))
    assert enroll._code("camera:0") == "hello"


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/login",
        '{"url": "mqtt://plain.example", "token": "x"}',
        '{"url": "mqtts://user:word@host"}',
        '{"url": "mqtts://host", "token": "two\\nlines"}',
        '{"url": "mqtts://host", "token": "end\\n"}',
        '{"url": "mqtts://host", "run": "rm -rf /"}',
        '{"url": "mqtts://host\\n[x]"}',
        "[" * 2000,
    ],
)
def test_what_a_code_may_not_say(text: str) -> None:
    with pytest.raises(InputError, match="the code is no invitation") as wrong:
        enroll.invitation(text)
    assert "word" not in str(wrong.value) and "rm -rf" not in str(wrong.value)


def test_a_picture_without_a_code_is_said(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((200, 200, 3), 128, np.uint8))
    assert text_of(np.full((200, 200, 3), 128, np.uint8)) == ""
    for name, word in (("grey.png", "no QR code can be read"), ("none.png", "cannot be read")):
        assert cli.main(["enroll", "-c", str(place), "--qr", str(tmp_path / name)]) == 1
        assert word in capsys.readouterr().err
    assert not (tmp_path / "credentials").exists()


def test_what_is_wrong_is_refused_and_nothing_is_replaced(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority(tmp_path, "other")
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    run = ["enroll", "-c", str(place)]

    def refused(*more: str) -> str:
        assert cli.main([*run, *more]) == 2, more
        said = capsys.readouterr()
        assert TOKEN not in said.out + said.err
        return said.err

    assert "there is no key" in refused("--cert", f"{tmp_path}/other.pem")
    assert "only with TLS" in refused("--token", str(token), "--url", "mqtt://far.example")
    assert "does not go with a token" in refused("--token", str(token), "--cert", f"{tmp_path}/other.pem")
    assert "no PEM of certificates" in refused("--ca", str(token))
    assert "cannot be read" in refused("--token", str(tmp_path / "none"))
    assert cli.main(run) == 0
    assert "is no PEM of a certificate for the key" in refused("--cert", f"{tmp_path}/other.pem")
    assert "holds something else; move it away" in refused("--key", f"{tmp_path}/other.key")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"another\n")))
    assert cli.main([*run, "--token", str(token)]) == 0
    assert 'password_file = "credentials/mqtt"' in capsys.readouterr().out
    assert "move it away first" in refused("--token", "-")
    assert place.read_text() == BASIC


@pytest.mark.parametrize(
    "text", ["", "[mqtt]", '[mqtt]\nprefix = "a/b"\n[store]\n', "# a\n[ mqtt ] # b\r\n", 'x = """\n[y]\n"""\n']
)
def test_lines_are_added_and_nothing_else_changes(text: str) -> None:
    keys = {"url": "mqtts://h", "username": 'a"\\\n'}
    after = edit.with_keys(text, "mqtt", keys)
    before = toml.parse(text)
    assert toml.parse(after) == {**before, "mqtt": {**before.get("mqtt", {}), **keys}}
    assert edit.with_keys(after, "mqtt", keys) == after
    left = [line for line in after.splitlines() if line in text.splitlines()]
    assert left[: len(text.splitlines())] == text.splitlines()


@pytest.mark.parametrize("text", ['mqtt = {prefix = "a"}\n', 'x = """\n[mqtt]\n"""\n', '[mqtt]\nurl = "mqtt://b"\n'])
def test_what_cannot_be_added_to_is_left_alone(text: str) -> None:
    with pytest.raises(UsageError, match="by hand"):
        edit.with_keys(text, "mqtt", {"url": "mqtts://h"})


def test_the_service_s_secrets_are_handed_over_by_systemd(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SERVICE_CONFIG", place)
    for name in ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.setenv(name, str(tmp_path / "credentials"))
    monkeypatch.delenv("EDGE_AGENT_CONFIG", raising=False)
    place.chmod(0o640)
    (tmp_path / "token").write_text(TOKEN)
    given = ["--token", str(tmp_path / "token"), "--url", "mqtts://broker.local"]
    assert cli.main(["enroll", *given, "--write"]) == 0
    assert 'password_file = "credential:mqtt"' in place.read_text() and mode(place) == 0o640
    assert "sudo edge-agent install" in capsys.readouterr().err
