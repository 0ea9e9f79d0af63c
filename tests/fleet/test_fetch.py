"""Files of a bundle over HTTP: within a day's bytes and a time of day, going on where they broke off."""

from __future__ import annotations

import random
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge_agent.fleet import child, verify
from edge_agent.fleet.fetch import Allowance
from tests.fleet.made import Device, publish, repository, some_files

pytest.importorskip("tuf", reason="the extra [update] is not installed")

SIZE = 300_000


def certified(place: Path) -> ssl.SSLContext:
    """TLS of a server on 127.0.0.1, whose certificate the authority in ca.pem has signed."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for name, more in (
        ("ca", ["-addext", "keyUsage=keyCertSign"]),
        ("own", ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]),
    ):
        of = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"]
        try:
            made = [*make, *of, "-addext", "subjectAltName=IP:127.0.0.1", *more]
            subprocess.run(made, check=True, capture_output=True, cwd=place)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no openssl that makes certificates (3.0 or later)")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "own.pem", place / "own.key")
    return context


@pytest.fixture
def served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[tuple[Device, list[int]]]:
    """A device of a repository behind a server that knows ranges, and the bytes of blobs that were sent; with any
    parameter by TLS, by an authority of its own.
    """
    monkeypatch.setattr(verify, "_answer", child.answered)
    data = random.Random(1).randbytes(SIZE)
    publish(repository(tmp_path / "repo", tmp_path / "keys"), some_files(a_bin=data), "a")
    sent: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = tmp_path / "repo" / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            whole, span = path.read_bytes(), re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(span[1]) if span else 0
            self.send_response(206 if span else 200)
            self.send_header("Content-Length", str(len(whole) - first))
            if span:
                self.send_header("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}")
            self.end_headers()
            if "blobs" in self.path:
                sent.append(len(whole) - first)
            try:
                self.wfile.write(whole[first:])
            except OSError:  # who has spent the day's bytes hangs up
                return

        def log_message(self, format: str, *args: object) -> None:
            pass

    server, scheme = ThreadingHTTPServer(("127.0.0.1", 0), Handler), "http"
    if hasattr(request, "param"):
        server.socket, scheme = certified(tmp_path).wrap_socket(server.socket, server_side=True), "https"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"{scheme}://127.0.0.1:{server.server_address[1]}/"
    yield Device(tmp_path / "home", address, tmp_path / "repo" / "metadata" / "1.root.json"), sent
    server.shutdown()
    server.server_close()


def test_a_day_s_bytes_are_kept_and_the_next_day_goes_on(served: tuple[Device, list[int]]) -> None:
    device, sent = served
    spent = device.home / "fleet" / "spent.json"
    device.allowance = Allowance(spent, 100_000)
    today = device.update.take("files/a")
    assert today.state == "IN_PROGRESS" and today.later and "100000 bytes of today are spent" in today.reason
    device.allowance = Allowance(spent, 100_000)  # a restart forgets nothing
    assert device.update.take("files/a").later and len(sent) == 1
    spent.write_text('["2026-01-01",100000]')  # another day
    device.allowance = Allowance(spent, 1_000_000)
    tomorrow = device.update.take("files/a")
    assert tomorrow.state == "SUCCEEDED" and len(device.holds("a")["a.bin"]) == SIZE
    assert sent[0] == SIZE and sent[1] <= SIZE - 100_000, "it went on where it broke off"


def test_outside_of_its_time_no_file_comes(served: tuple[Device, list[int]]) -> None:
    device, sent = served
    closed = ["files come between 02:00-05:00 only"]
    device.allowance = Allowance(device.home / "fleet" / "spent.json", None, lambda: closed[0])
    waits = device.update.take("files/a")
    assert waits.later and waits.step == "download" and waits.reason == closed[0] and not sent
    closed[0] = ""
    assert device.update.take("files/a").state == "SUCCEEDED"


def test_a_blob_that_is_not_there_yet_is_waited_for(served: tuple[Device, list[int]], tmp_path: Path) -> None:
    device, _ = served
    blob = next(path for path in (tmp_path / "repo" / "blobs").rglob("*") if path.is_file())
    blob.rename(tmp_path / "later")
    waits = device.update.take("files/a")
    assert waits.later and "cannot be had now: HTTP 404" in waits.reason
    (tmp_path / "later").rename(blob)
    assert device.update.take("files/a").state == "SUCCEEDED"


@pytest.mark.parametrize("served", ["tls"], indirect=True)
def test_by_tls_an_authority_of_one_s_own_is_trusted_once_it_is_named(
    served: tuple[Device, list[int]], tmp_path: Path
) -> None:
    device, sent = served
    stranger = device.update.take("files/a")
    assert stranger.later and "certificate verify failed" in stranger.reason and not sent
    device.ca = str(tmp_path / "ca.pem")
    assert device.update.take("files/a").state == "SUCCEEDED" and sent == [SIZE]
    device.ca = str(tmp_path / "own.key")
    wrong = device.update.take("files/a")
    assert wrong.later and "holds no certificate of an authority" in wrong.reason
