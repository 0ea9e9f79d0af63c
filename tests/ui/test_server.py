"""Who may reach the page, and what it withstands."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from edge_agent import config
from edge_agent.config import parse
from edge_agent.errors import ConfigError
from tests.broker import free_port, until
from tests.ui.serving import ask, page

from edge_agent.ui import access, server  # isort: skip
from edge_agent.ui.server import Page  # isort: skip

PIPE = '[[pipeline]]\nname = "p"\nsource = "lines:-"\n'
SESSION = "/api/v1/session"


@pytest.fixture(scope="module")
def open_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page(tmp_path_factory.mktemp("open")) as made:
        yield made


def written(folder: Path, **passwords: str) -> dict[str, Any]:
    for name, password in passwords.items():
        (folder / name).write_text(password + "\n")
    return {name: str(folder / name) for name in passwords}


# ── the config ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ('listen = "0.0.0.0:8484"', "0.0.0.0 can be reached by others, which needs page.password_file"),
        ('listen = "127.0.0.1:99999"', "there is no port 99999"),
        ('listen = "8484"', 'page.listen: must be HOST:PORT'),
        ('viewer_file = "v"', "need password_file beside them"),
        ('cert = "c"', "cert and key come together"),
        ('port = 8484', "port"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(section: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(f"[page]\n{section}\n{PIPE}")
    assert says in str(error.value)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    made = parse(
        f'[page]\nlisten = "[::]:80"\npassword_file = "p"\nviewer_file = "credential:v"\n{PIPE}', tmp_path
    ).page
    assert made is not None and made.at == ("::", 80)
    assert made.password_file == str(tmp_path / "p") and made.viewer_file == "credential:v"


def test_a_short_password_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="8 characters and more"),
        page(tmp_path, **written(tmp_path, password_file="x")),
    ):
        pass


def test_without_the_section_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from edge_agent.cli import main\n"
        "try: main(['run', '-c', 'agent.toml'])\n"
        "except SystemExit: pass\n"
        "print({'uvicorn', 'starlette', 'tomlkit', 'asyncio', 'edge_agent.ui'} & set(sys.modules))"
    )
    pipe = '[[pipeline]]\nname = "p"\nsource = "lines:t?follow=false"\n'
    (tmp_path / "agent.toml").write_text(f'[store]\npath = "s"\n{pipe}')
    (tmp_path / "t").write_text("one\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split("\n")[-2] == "set()", done.stdout + done.stderr


# ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_and_what_a_browser_may_do_with_it(open_page: Page) -> None:
    got = ask(open_page, "GET", "/")
    assert got.status == 200 and got.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in got.headers["content-security-policy"]
    assert "unsafe" not in got.headers["content-security-policy"] and got.headers["x-frame-options"] == "DENY"
    assert ask(open_page, "GET", "/", If_None_Match=got.headers["etag"]).status == 304
    missing = ask(open_page, "GET", "/static/../server.py")
    assert missing.status == 404 and "content-security-policy" in missing.headers


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Host": "evil.example"}, 421),
        ("GET", {"Host": "evil.example:8484"}, 421),
        ("GET", {"Host": "192.168.7.7:8484"}, 200),
        ("GET", {"Host": "[fe80::1]:8484"}, 200),
        ("GET", {"Host": "LOCALHOST."}, 200),
        ("GET", {"Host": ""}, 421),
        ("POST", {"Origin": "http://evil.example"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("GET", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}, 403),
        ("POST", {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate"}, 403),
        ("GET", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}, 200),
        ("GET", {"Sec_Fetch_Site": "same-origin"}, 200),
        ("GET", {"X_Forwarded_For": "1.2.3.4"}, 403),
    ],
)
def test_strangers_are_refused(open_page: Page, method: str, headers: dict[str, str], status: int) -> None:
    assert ask(open_page, method, SESSION, {"password": "x"} if method == "POST" else None, **headers).status == status


def test_who_runs_the_agent_is_admin_and_others_of_this_machine_may_look(open_page: Page) -> None:
    assert ask(open_page, "GET", SESSION).json["role"] == "admin"
    if os.geteuid() != 0:
        pytest.skip("only root can ask as somebody else")
    code = f"""import encodings.idna, os, urllib.request
os.setuid({pwd.getpwnam("nobody").pw_uid})
print(urllib.request.urlopen("http://127.0.0.1:{open_page.port}{SESSION}").read().decode())"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert '"role":"viewer"' in done.stdout, done.stderr


def test_a_password_opens_what_its_role_may(tmp_path: Path) -> None:
    files = written(tmp_path, password_file="admin's own", viewer_file="looking only")
    with page(tmp_path, **files) as made:
        assert ask(made, "GET", SESSION).json == {"role": "", "password": True, "version": "", "device": ""}
        assert ask(made, "GET", "/api/v1/tokens").status == 401
        cookies = {}
        for password, role in (("admin's own", "admin"), ("looking only", "viewer")):
            got = ask(made, "POST", SESSION, {"password": password})
            assert "HttpOnly" in got.headers["set-cookie"] and "samesite=strict" in got.headers["set-cookie"].lower()
            cookies[role] = got.headers["set-cookie"].partition(";")[0]
            assert ask(made, "GET", SESSION, Cookie=cookies[role]).json["role"] == role
        assert ask(made, "GET", "/api/v1/tokens", Cookie=cookies["viewer"]).status == 403
        forged = cookies["viewer"].replace("viewer", "admin", 1)
        assert ask(made, "GET", SESSION, Cookie=forged).json["role"] == ""
    with page(tmp_path, **files) as made:
        assert ask(made, "GET", SESSION, Cookie=cookies["admin"]).json["role"] == "admin", "it outlives a restart"
    with page(tmp_path, **written(tmp_path, password_file="another one")) as made:
        assert ask(made, "GET", SESSION, Cookie=cookies["admin"]).json["role"] == "", "and no other password"


def test_who_guesses_is_slowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "SLOWEST_S", 2.0)
    with page(tmp_path, **written(tmp_path, password_file="right horse")) as made:
        statuses = [ask(made, "POST", SESSION, {"password": f"guess {n}"}).status for n in range(12)]
        assert statuses[0] == 401 and 429 in statuses
        got = ask(made, "POST", SESSION, {"password": "right horse"})
        if got.status == 429:
            assert int(got.headers["retry-after"]) >= 1
        until(lambda: ask(made, "POST", SESSION, {"password": "right horse"}).status == 200, "it counts again")


def test_tokens_are_for_programs(tmp_path: Path) -> None:
    with page(tmp_path) as made:
        token = ask(made, "POST", "/api/v1/tokens", {"name": "ha", "role": "operator"}).json["token"]
        assert ask(made, "POST", "/api/v1/tokens", {"name": "ha", "role": "viewer"}).status == 409
        assert ask(made, "POST", "/api/v1/tokens", {"name": "<b>", "role": "viewer"}).status == 400
        assert ask(made, "POST", "/api/v1/tokens", {"name": "x", "role": "king"}).status == 400
        kept = (tmp_path / "page" / "tokens.json").read_text()
        assert token not in kept and (tmp_path / "page" / "tokens.json").stat().st_mode & 0o077 == 0
    with page(tmp_path) as made:
        assert ask(made, "GET", SESSION, Authorization=f"Bearer {token}").json["role"] == "operator"
        basic = "Basic " + __import__("base64").b64encode(f"any:{token}".encode()).decode()
        assert ask(made, "GET", SESSION, Authorization=basic).json["role"] == "operator"
        assert ask(made, "GET", "/api/v1/tokens", Authorization="Bearer wrong").status == 401
        assert ask(made, "GET", "/api/v1/tokens").json[0]["name"] == "ha"
        assert ask(made, "DELETE", "/api/v1/tokens/ha").status == 200
        assert ask(made, "DELETE", "/api/v1/tokens/ha").status == 404
        assert ask(made, "GET", "/api/v1/tokens", Authorization=f"Bearer {token}").status == 401


# ── what it withstands ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x", {"Content_Length": "2000000000"}, 413),
        (b" " * 1_100_000, {}, 413),
        (b"{", {}, 400),
        (b"[" * 900_000, {}, 400),
        (b"\xff", {}, 400),
        (b'{"password": 1}', {}, 400),
    ],
)
def test_a_body_that_is_none(open_page: Page, body: bytes, headers: dict[str, str], status: int) -> None:
    got = ask(open_page, "POST", SESSION, body, **headers)
    assert got.status == status and b"error" in got.body and b"Traceback" not in got.body


def test_who_is_too_slow_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    monkeypatch.setattr(server, "IDLE_S", 1)
    with page(tmp_path) as made:
        for head in (
            b"",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET",
        ):
            with socket.create_connection(("127.0.0.1", made.port), timeout=120) as slow:
                slow.sendall(head)
                with suppress(ConnectionResetError):
                    while slow.recv(100_000):
                        pass
        assert ask(made, "GET", "/").status == 200


def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 20)
    with page(tmp_path) as made, ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", made.port))) for _ in range(30)]
        until(lambda: ask(made, "GET", "/").status == 503, "more are refused")
        for one in held:
            one.close()
        until(lambda: ask(made, "GET", "/").status == 200, "there is room again")


def test_a_port_that_is_taken_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "AGAIN_S", 0.1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port := free_port()))
        taken.listen()
        made = Page(parse(f'[page]\nlisten = "127.0.0.1:{port}"\n{PIPE}').page or pytest.fail(), tmp_path / "page")
        made.start()
        time.sleep(0.3)
        assert made.port == 0
    until(lambda: made.port == port and ask(made, "GET", "/").status == 200, "it listens")
    made.stop()
    assert not made._thread.is_alive()


def test_short_answers_do_not_wait_for_more() -> None:
    """asyncio turns Nagle's algorithm off for sockets that name their protocol, and what they accept inherits it."""
    with server._listen(config.page.Listen("127.0.0.1", 0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP
