"""A server that takes messages on a free port of 127.0.0.1, and can be as bad as servers are."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Act = Callable[[BaseHTTPRequestHandler], None]


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Hook(ThreadingHTTPServer):
    """Keeps what it is sent; answers with what `answers` holds, one after the other, then as it chooses."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.requests: list[Request] = []
        self.taken: list[Request] = []
        """those of them that were answered with 200"""
        self.answers: list[int | Act] = []
        self.choose: Callable[[], int | Act] = lambda: 200
        """what it answers once `answers` is empty"""
        self.lock, self.over = threading.Lock(), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def messages(self) -> list[str]:
        return [request.json["message"] for request in self.taken]

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # whoever asked has gone


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        with self.server.lock:
            self.server.requests.append(request)
            answer = self.server.answers.pop(0) if self.server.answers else self.server.choose()
        if callable(answer):
            answer(self)
            return
        if answer == 200:
            self.server.taken.append(request)
        reply(self, answer)

    do_PUT = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


def reply(
    to: BaseHTTPRequestHandler, status: int, body: bytes = b"{}", kind: str = "application/json", **more: str
) -> None:
    to.send_response(status)
    headers = {"Content-Type": kind, "Content-Length": str(len(body))}
    for name, value in {**headers, **{key.replace("_", "-"): value for key, value in more.items()}}.items():
        to.send_header(name, value)
    to.end_headers()
    to.wfile.write(body)


def hangs(to: BaseHTTPRequestHandler) -> None:
    """Says nothing until the test is over."""
    assert isinstance(to.server, Hook)
    to.server.over.wait(60)


def drips(to: BaseHTTPRequestHandler) -> None:
    """An answer that never ends, a byte now and then."""
    assert isinstance(to.server, Hook)
    to.send_response(200)
    to.send_header("Content-Type", "application/json")
    to.end_headers()
    end = time.monotonic() + 60
    while time.monotonic() < end and not to.server.over.wait(0.1):
        to.wfile.write(b" ")
        to.wfile.flush()


def floods(to: BaseHTTPRequestHandler) -> None:
    """Ten megabytes."""
    reply(to, 200, bytes(10_000_000))


def no_http(to: BaseHTTPRequestHandler) -> None:
    to.wfile.write(b"220 mail.example ESMTP\r\n" * 3)


def falls_over(to: BaseHTTPRequestHandler) -> None:
    """Closes without a word."""
    to.close_connection = True


def leads(place: str, status: int = 307) -> Act:
    return lambda to: reply(to, status, b"", Location=place)


@contextmanager
def hook(tls: ssl.SSLContext | None = None) -> Iterator[Hook]:
    server = Hook()
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


def certified(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """TLS for a server on 127.0.0.1, and the PEM to trust; skips where openssl makes none."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    made += ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl that makes certificates")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert
