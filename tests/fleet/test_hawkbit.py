"""hawkBit's DDI API as a device speaks it: with a real gooseBit, and with servers that mean no good.

$EDGE_AGENT_GOOSEBIT names the Python of an environment with goosebit 0.2.12 (pip install goosebit==0.2.12).
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edge_agent.errors import UsageError
from edge_agent.fleet.hawkbit import AGAIN_S, Hawkbit, target_of
from edge_agent.fleet.outcome import Outcome, Tell, untold
from tests.broker import free_port, until

PYTHON = os.environ.get("EDGE_AGENT_GOOSEBIT", "")


class Taker:
    def __init__(self) -> None:
        self.state, self.taken = "SUCCEEDED", list[str]()

    def take(self, target: str, tell: Tell = untold) -> Outcome:
        self.taken.append(target)
        tell(Outcome("IN_PROGRESS", target, "download"))
        state: Any = self.state
        return Outcome(state, target, "done", "" if state == "SUCCEEDED" else "it agrees too little")


def swu(description: bytes) -> bytes:
    """A .swu file: a cpio archive that begins with its description."""

    def entry(name: bytes, data: bytes) -> bytes:
        numbers = (1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, sum(data))
        head = b"070702" + b"".join(b"%08X" % number for number in numbers) + name + b"\0"
        return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)

    return entry(b"sw-description", description) + entry(b"TRAILER!!!", b"")


class Goose:
    """A gooseBit, as its operator has it."""

    def __init__(self, port: int) -> None:
        self.url, self._auth = f"http://127.0.0.1:{port}", {"Content-Type": "application/x-www-form-urlencoded"}

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        headers = {"Content-Type": kind, **self._auth}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers, method=method)) as answer:
            return json.loads(answer.read())

    def begins(self) -> bool:
        try:
            found = self.ask("POST", "/login", b"username=tester&password=tester")
        except OSError:
            return False
        self._auth = {"Authorization": f"Bearer {found['access_token']}"}
        return True

    def assign(self, name: str, version: str) -> None:
        """Have the device take a software module."""
        text = f'software = {{ version = "{version}"; description = "x"; hardware-compatibility = [ "default" ]; }}'
        head = f'--B\r\nContent-Disposition: form-data; name="file"; filename="{name}.swu"\r\n\r\n'.encode()
        body = head + swu(text.encode()) + b"\r\n--B--\r\n"
        made = self.ask("PUT", "/api/v1/software", body, "multipart/form-data; boundary=B")
        given = {"devices": ["porch"], "software": str(made["id"])}
        self.ask("PATCH", "/api/v1/devices", json.dumps(given).encode())

    def device(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "/api/v1/devices")["devices"][0]
        return found


@pytest.fixture(scope="module")
def goose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Goose]:
    if not Path(PYTHON or "/nowhere").is_file():
        pytest.skip("EDGE_AGENT_GOOSEBIT names no Python of an environment with goosebit 0.2.12")
    port, place = free_port(), tmp_path_factory.mktemp("goose")
    script = Path(__file__).with_name("goosebit_server.py")
    server = subprocess.Popen([PYTHON, script, place, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made = Goose(port)
    try:
        until(made.begins, "gooseBit serves", 60)
        yield made
    finally:
        server.terminate()
        server.wait()


def test_a_deployment_is_done_and_told(goose: Goose) -> None:
    taker = Taker()
    device = Hawkbit(f"{goose.url}/DEFAULT", "porch", lambda: "", taker.take)
    assert 5 <= device.poll() <= 60 and not device.trouble and not taker.taken
    goose.assign("model.people", "3.0.0")
    device.poll()
    assert taker.taken == ["model/people/3"] and not device.trouble
    assert (goose.device()["last_state"], goose.device()["sw_version"]) == ("Finished", "3.0.0")
    device.poll()
    assert len(taker.taken) == 1, "it is not asked for again"
    taker.state = "FAILED"
    goose.assign("model.people4", "4.0.0")
    device.poll()
    assert (goose.device()["last_state"], goose.device()["sw_version"]) == ("Error", "3.0.0")
    assert "FAILED: it agrees too little" in goose.ask("GET", "/api/v1/devices/porch/log")["log"]


@pytest.mark.parametrize(
    ("name", "version", "target"),
    [
        ("model.people", "3", "model/people/3"),
        ("model.people.swu", "3.0.0", "model/people/3"),
        ("config.shop", "12-beta", "config/shop/12"),
    ],
)
def test_which_bundle_a_module_is(name: str, version: str, target: str) -> None:
    assert target_of(name, version) == target


@pytest.mark.parametrize(
    ("name", "version"),
    [("people", "3"), ("model.people", "x"), ("model.people", "0"), ("model.../etc", "3"), ("", "")],
)
def test_what_is_no_bundle_is_refused(name: str, version: str) -> None:
    with pytest.raises(UsageError, match="is no bundle"):
        target_of(name, version)


class Server(BaseHTTPRequestHandler):
    """Answers with what it is told to."""

    answers: ClassVar[dict[str, tuple[int, dict[str, str], bytes]]] = {}
    heard: ClassVar[list[tuple[str, str, bytes]]] = []

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.heard.append((self.command, self.path, self.rfile.read(length)))
        status, headers, body = self.answers.get(self.path, (200, {}, b"{}"))
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Server]]]:
    handler = type("Handler", (Server,), {"answers": {}, "heard": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}", handler
        made.shutdown()


BASE = "/DEFAULT/controller/v1/porch"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((200, {}, b"nonsense"), "JSONDecodeError"),
        ((200, {}, b"[1]"), ""),
        ((200, {}, b'{"_links": 5}'), "AttributeError"),
        ((500, {}, b""), "HTTPError"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "HTTPError"),
        ((200, {}, b'"' + b"x" * 1_100_000 + b'"'), "more than 1000 kB"),
        ((200, {}, b'{"_links": {"deploymentBase": {"href": "http://127.0.0.1:1/x"}}}'), "another host"),
        ((200, {}, b'{"_links": {"deploymentBase": {"href": "file:///etc/passwd"}}}'), "another host"),
        ((200, {}, b'{"config": {"polling": {"sleep": "99:99:99"}}}'), ""),
    ],
)
def test_a_server_that_means_no_good_leads_nowhere(
    server: tuple[str, type[Server]], answer: tuple[int, dict[str, str], bytes], says: str
) -> None:
    url, handler = server
    handler.answers[BASE] = answer
    taker = Taker()
    device = Hawkbit(f"{url}/DEFAULT", "porch", lambda: "secret", taker.take)
    assert 5 <= device.poll() <= 3600 and says in device.trouble and bool(device.trouble) is bool(says)
    assert not taker.taken and "\n" not in device.trouble and "secret" not in device.trouble
    if says:
        assert device.poll() == AGAIN_S


def test_what_is_no_bundle_is_told_as_a_failure(server: tuple[str, type[Server]]) -> None:
    url, handler = server
    links = {"deploymentBase": {"href": f"{url}{BASE}/deploymentBase/7?c=1"}}
    handler.answers[BASE] = (200, {}, json.dumps({"_links": links}).encode())
    deployment = {"update": "forced", "chunks": [{"name": "firmware", "version": "1", "part": "os"}]}
    told = {"id": "7", "deployment": deployment}
    handler.answers[f"{BASE}/deploymentBase/7?c=1"] = (200, {}, json.dumps(told).encode())
    taker = Taker()
    Hawkbit(f"{url}/DEFAULT", "porch", lambda: "", taker.take).poll()
    method, path, body = handler.heard[-1]
    assert (method, path) == ("POST", f"{BASE}/deploymentBase/7/feedback") and not taker.taken
    status = json.loads(body)["status"]
    assert (status["execution"], status["result"]["finished"]) == ("closed", "failure")
    assert "REJECTED" in status["details"][0] and "is no bundle" in status["details"][0]
