"""What Apprise reaches, through its child: an ntfy server's interface, and a real SMTP server."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.agent.told import about_told
from edge_agent.config import Notify, load
from edge_agent.errors import ConfigError
from edge_agent.notify import send as sends
from edge_agent.notify.message import Note
from edge_agent.notify.send import Sent, send
from tests.broker import free_port
from tests.notify.hook import Hook, certified, floods, hangs, hook, leads, reply

pytest.importorskip("apprise", reason="Apprise is not installed: extra [notify]")

NOTE = Note("porch: door", "person person-1 is new <b>ü</b>\nand 2 more")


@pytest.fixture
def server() -> Iterator[Hook]:
    with hook() as made:
        yield made


def to(tmp_path: Path, address: str) -> Notify:
    (tmp_path / "url").write_text(address)
    return Notify(name="phone", url_file=str(tmp_path / "url"), kinds=["text"])


def test_ntfy_with_and_without_a_picture(tmp_path: Path, server: Hook) -> None:
    config = to(tmp_path, f"ntfy://me:pa55@127.0.0.1:{server.port}/door")
    assert send(config, NOTE) == Sent("taken")
    first = server.requests[0]
    assert first.json == {"topic": "door", "title": NOTE.title, "message": NOTE.text}
    assert first.headers["authorization"].startswith("Basic ")
    # nothing in it has the phone ask anybody else for a picture
    assert b"http" not in json.dumps(first.headers).lower().encode() + first.body
    picture = tmp_path / "best.jpg"
    picture.write_bytes(b"\xff\xd8\xff" + bytes(range(256)) * 100)
    assert send(config, NOTE._replace(picture=picture)) == Sent("taken")
    assert server.requests[-1].body == picture.read_bytes()


@pytest.mark.parametrize(
    ("answer", "how", "why"),
    [
        (403, "closed", "ntfy answers 403"),
        (400, "refused", "ntfy answers 400"),
        (429, "later", "ntfy answers 429"),
        (507, "later", "ntfy answers 507"),
        (leads("http://127.0.0.1:1/"), "refused", "ntfy answers 307"),
        (floods, "taken", ""),
    ],
)
def test_what_a_server_says(tmp_path: Path, server: Hook, answer: Any, how: str, why: str) -> None:
    server.answers = [answer]
    assert send(to(tmp_path, f"ntfy://127.0.0.1:{server.port}/door"), NOTE)[:2] == (how, why)
    assert len(server.requests) == 1


def test_nobody_there_and_a_server_that_hangs(tmp_path: Path, server: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    assert send(to(tmp_path, f"ntfy://127.0.0.1:{free_port()}/door"), NOTE) == Sent("later", "it cannot be reached")
    monkeypatch.setattr(sends, "CHILD_S", 2.0)
    server.answers = [hangs]
    assert send(to(tmp_path, f"ntfy://127.0.0.1:{server.port}/door?rto=50"), NOTE).how == "later"


def test_certificates_are_checked_there_too(tmp_path: Path) -> None:
    context, cert = certified(tmp_path)
    with hook(context) as server:
        config = to(tmp_path, f"ntfys://127.0.0.1:{server.port}/door")
        assert send(config, NOTE) == Sent("later", "it cannot be reached")
        assert send(msgspec.structs.replace(config, ca=str(cert)), NOTE) == Sent("taken")
        assert len(server.requests) == 1


def test_words_of_a_server_go_nowhere(tmp_path: Path, server: Hook, caplog: pytest.LogCaptureFixture) -> None:
    server.answers = [lambda to: reply(to, 500, b'{"error": "\x1b[2J t0psecret"}')]
    sent = send(to(tmp_path, f"ntfy://:t0psecret@127.0.0.1:{server.port}/t0psecret"), NOTE)
    assert sent == Sent("later", "ntfy answers 500") and not caplog.text


PIPELINE = '[[pipeline]]\nname = "p"\nsource = "lines:-"\n'


def test_an_address_that_apprise_does_not_know(tmp_path: Path) -> None:
    sent = send(to(tmp_path, "tgram://t0p"), NOTE)
    assert sent.how == "closed" and "for no address of tgram" in sent.why and "t0p" not in sent.why
    file = tmp_path / "a.toml"
    file.write_text(f'{PIPELINE}[[notify]]\nname = "phone"\nurl_file = "url"\nkinds = ["text"]\n')
    with pytest.raises(ConfigError, match="notify phone: url_file: Apprise takes it for no address of tgram"):
        list(about_told(load(file)))


class Post:
    """Takes mail for everybody but nobody@."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("nobody@"):
            return "550 no such mailbox"
        if address.startswith("later@"):
            return "451 come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


@pytest.fixture
def post() -> Iterator[tuple[Post, int]]:
    controllers = pytest.importorskip("aiosmtpd.controller", reason="aiosmtpd is not installed: extra [dev]")
    made = Post()
    controller = controllers.Controller(made, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield made, controller.port
    finally:
        controller.stop()


def test_mail(tmp_path: Path, post: tuple[Post, int]) -> None:
    office, port = post
    picture = tmp_path / "best.jpg"
    picture.write_bytes(b"\xff\xd8\xff picture")
    address = f"mailto://127.0.0.1:{port}?from=agent@home.example&to={{}}@home.example&mode=insecure"
    note = NOTE._replace(title="porch: door", picture=picture)
    assert send(to(tmp_path, address.format("me")), note) == Sent("taken")
    mail = office.mails[0]
    assert mail["subject"] == "porch: door" and mail["to"] == "me@home.example"
    parts = list(mail.walk())
    texts = [part.get_content() for part in parts if part.get_content_maintype() == "text"]
    assert any("person person-1 is new" in text and "and 2 more" in text for text in texts)
    assert any(part.get_payload(decode=True) == picture.read_bytes() for part in parts)
    assert send(to(tmp_path, address.format("nobody")), NOTE).how == "refused"
    assert send(to(tmp_path, address.format("later")), NOTE).how == "later"
    assert len(office.mails) == 1
