"""A POST to a server that hangs, drips, floods, leads elsewhere or is somebody else."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edge_agent.notify import post as posts
from edge_agent.notify.post import post
from tests.broker import free_port
from tests.notify.hook import Act, certified, drips, floods, hangs, hook, leads, no_http, reply


def test_what_is_sent_and_what_is_said_of_an_answer() -> None:
    with hook() as server:
        address = server.url.replace("//", "//who%40x:pass%2Fword@") + "?key=1"
        answer = post(address, b"hello", {"X-Own": "yes"})
        assert (answer.status, answer.why, answer.body) == (200, "", b"")
        server.answers = [lambda to: reply(to, 503, Retry_After="17"), lambda to: reply(to, 429, Retry_After="9999999")]
        assert post(server.url, b"", {})[:2] == (503, "HTTP 503")
        assert post(server.url, b"", {}).wait == posts.LONGEST_WAIT_S
        server.answers = [lambda to: reply(to, 200, b"[1]", "Application/JSON; charset=x")]
        assert post(server.url, b"", {}, most=3)[2:4] == (b"[1]", "application/json")
        first = server.requests[0]
        assert (first.path, first.body, first.headers["x-own"]) == ("/hook?key=1", b"hello", "yes")
        assert first.headers["authorization"] == "Basic d2hvQHg6cGFzcy93b3Jk"


@pytest.mark.parametrize(
    ("act", "why"), [(hangs, "no whole answer in time"), (drips, "no whole answer in time"), (no_http, "HTTP")]
)
def test_a_server_that_does_not_answer_is_left(act: Act, why: str) -> None:
    with hook() as server:
        server.answers = [act]
        answer = post(server.url, b"", {}, most=1000, limit_s=60.0 if act is no_http else 0.5)
        assert (answer.status, answer.body) == (0, b"") and why in answer.why


def test_of_a_flood_nothing_is_kept() -> None:
    with hook() as server:
        server.answers = [floods]
        answer = post(server.url, b"", {}, most=1000)
        assert answer[:3] == (200, "answers with too much", b"")


def test_a_redirection_is_not_followed_and_the_login_goes_nowhere_else() -> None:
    with hook() as server, hook() as other:
        server.answers = [leads(other.url), leads("/elsewhere", 302)]
        for status in (307, 302):
            answer = post(server.url, b"secret", {})
            assert answer.status == status and "not followed" in answer.why
        assert not other.requests and len(server.requests) == 2


def test_nobody_there_and_a_name_that_is_none_and_an_address_that_is_none() -> None:
    assert post(f"http://127.0.0.1:{free_port()}/", b"", {}).why == "Connection refused"
    assert post("http://no-such-host.invalid/", b"", {}).why == "its name has no address"
    assert post("http://127.0.0.1:1/a b", b"", {}).status == 0


def test_certificates_are_checked(tmp_path: Path) -> None:
    context, cert = certified(tmp_path)
    with hook(context) as server:
        address = server.url.replace("http:", "https:")
        assert "certificate is not trusted" in post(address, b"", {}).why
        assert post(address, b"", {}, ca=str(cert)).status == 200
        another = address.replace("127.0.0.1", "localhost")
        assert "certificate is not trusted" in post(another, b"", {}, ca=str(cert)).why
        assert len(server.requests) == 1


def test_a_handshake_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = post(f"https://127.0.0.1:{silent.getsockname()[1]}/", b"", {})
        assert answer.status == 0 and answer.why
