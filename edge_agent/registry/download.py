"""Getting a file over HTTP: it goes on where it broke off, and gives up on what is too slow or does not end."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

from edge_agent import __version__
from edge_agent.errors import FetchError, WrongFileError
from edge_agent.manifest import File
from edge_agent.registry import store

Say: TypeAlias = Callable[[int, int], None]
"""(bytes done, bytes in all)"""

TIMEOUT = 30.0
"""seconds without a byte"""
PAUSES = (1.0, 4.0)
"""seconds before the second and third try; a try that brought `PROGRESS` bytes starts the count anew"""
PROGRESS = 1 << 16
HEAD_S = 60.0
"""seconds at most from a request to the end of its answer's headers, redirects among them"""
WINDOW_S, LEAST = 10.0, 4096
"""seconds in which an answer has to bring so many bytes"""
TRICKLE = 5
"""pieces of less than that in such a time are no line that stood still for a while: another try would bring no more"""
ANEW = 2
"""times that a server may make all that came worthless, with another range than was asked for"""
INFORMATIONAL = 10
"""answers 1xx before the real one"""
DEADLINE_S, SLOWEST = 900.0, 2000.0
"""seconds at most for one source, and the bytes a second that give a large file more"""


class SameOrSafer(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, but never from https to anything else, nor from http to what is no HTTP."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise urllib.error.HTTPError(req.full_url, code, f"redirects away from {req.type}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(home: Path, url: str, row: File, say: Say, ca: str | None = None) -> Path:
    """Download, going on where an earlier try (or an earlier run of the program) broke off. `ca`: as of `trusting`.
    FetchError.
    """
    part = store.scratch(home) / f"{row.sha256}.part"
    os.close(store.private(part))
    if part.stat().st_size > row.bytes:
        part.write_bytes(b"")
    resumed = part.stat().st_size > 0
    _bring(url, row, part, say, trusting(ca))
    try:
        return store.keep(home, part, row.sha256)
    except FetchError:
        if not resumed:
            raise
    # what an earlier run left may have been of another file
    return download(home, url, row, say, ca)


def trusting(ca: str | None) -> ssl.SSLContext | None:
    """Who is trusted: the authority of a PEM file alone; None: as the system has it. FetchError for a file of none."""
    try:
        return ssl.create_default_context(cafile=ca) if ca is not None else None
    except (OSError, ssl.SSLError) as error:
        raise FetchError(f"{ca}: holds no certificate of an authority ({error.strerror or error})") from None


def _bring(url: str, row: File, part: Path, say: Say, context: ssl.SSLContext | None) -> None:
    """Try until `part` has the promised size. FetchError after too many tries that brought little, or too long."""
    barren = anew = 0
    deadline = time.monotonic() + patience(row)
    while (have := part.stat().st_size) < row.bytes:
        if time.monotonic() > deadline:
            raise FetchError(f"brought {have} of {row.bytes} bytes in {patience(row):.0f} s")
        why = _tried(url, row, part, have, say, context)
        have, before = part.stat().st_size, have
        anew += have < before
        if anew > ANEW:
            raise FetchError(f"{why}, {anew} times, each after other bytes")
        barren = 0 if have - before >= PROGRESS else barren + 1
        if have < row.bytes:
            if barren > len(PAUSES):
                raise FetchError(f"{why}, {barren} times")
            time.sleep(PAUSES[max(barren - 1, 0)])


def _tried(url: str, row: File, part: Path, have: int, say: Say, context: ssl.SSLContext | None) -> str:
    """One request, and why it did not bring all; FetchError where another one would not either."""
    try:
        _request(url, row, part, have, say, context)
        return f"ended after {part.stat().st_size} of {row.bytes} bytes"
    except urllib.error.HTTPError as error:
        error.close()
        why = f"HTTP {error.code} {error.reason}"
        if error.code == 416:
            part.write_bytes(b"")
        elif error.code < 500 and error.code not in (408, 425, 429):
            raise FetchError(why) from None
        return why
    except (OSError, http.client.HTTPException) as error:
        return reason(error)


def _request(url: str, row: File, part: Path, have: int, say: Say, context: ssl.SSLContext | None) -> None:
    """One request: appends to `part`, which has `have` bytes, what comes, at most up to the promised size."""
    headers = {"User-Agent": f"edge-agent/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    guard = _Guard()
    opener = urllib.request.build_opener(SameOrSafer, _Watched(guard, context))
    with guard, opener.open(request_of(url, headers), timeout=TIMEOUT) as answer:
        have = _begins_at(answer, row, part, have)
        with part.open("ab" if have else "wb") as file:
            _receive(answer, file, have, row, guard, say)


def request_of(url: str, headers: Mapping[str, str]) -> urllib.request.Request:
    """A request; user and password of the address go as Basic, and to no host that is redirected to."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)), headers=dict(headers))
    if at:
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _begins_at(answer: Any, row: File, part: Path, have: int) -> int:
    """With which byte the answer begins: `have`, or 0. OSError for another range, WrongFileError for another size."""
    if answer.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not span or int(span[1]) != have or span[2] not in ("*", str(row.bytes)):
            part.write_bytes(b"")
            raise OSError("answers another range than was asked for")
        return have
    length = answer.headers.get("Content-Length")
    if length is not None and length != str(row.bytes):
        raise WrongFileError(f"offers {length} bytes, promised were {row.bytes}")
    return 0


def _receive(answer: Any, file: IO[bytes], have: int, row: File, guard: _Guard, say: Say) -> None:
    """Write what comes to `file`. OSError, or FetchError where another try would bring no more, when it is too slow."""
    since, then, pieces = time.monotonic(), have, 0
    while have < row.bytes:
        # a chunk's length, too, may come a byte at a time
        guard.allow(WINDOW_S + TIMEOUT)
        if not (piece := answer.read1(min(1 << 16, row.bytes - have))):
            break
        file.write(piece)
        have, pieces = have + len(piece), pieces + 1
        say(have, row.bytes)
        if (now := time.monotonic()) - since >= WINDOW_S:
            if have - then < LEAST:
                slow = f"brought {have - then} bytes in {now - since:.0f} s"
                raise FetchError(f"{slow}, which is too slow") if pieces >= TRICKLE else OSError(slow)
            since, then, pieces = now, have, 0


def patience(row: File) -> float:
    """Seconds that one source may take for a file."""
    return DEADLINE_S + row.bytes / SLOWEST


class _Guard:
    """Cuts a connection that is not done in time: what comes a byte at a time never times out by itself."""

    def __init__(self) -> None:
        self._until = time.monotonic() + HEAD_S
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()
        self._cut = False

    def watch(self, connected: socket.socket) -> None:
        """Have a connection cut, from before its first byte on."""
        self._sockets.append(connected.dup())  # TLS takes the original for itself

    def allow(self, seconds: float) -> None:
        """So long from now on."""
        self._until = time.monotonic() + seconds

    def __enter__(self) -> None:
        threading.Thread(target=self._run, name="guard", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._cut:
            raise FetchError("is too slow, or does not end what it answers") from None

    def _run(self) -> None:
        while not self._over.wait(max(0.0, min(1.0, self._until - time.monotonic()))):
            if time.monotonic() >= self._until:
                self._cut = True
                for each in self._sockets:
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                self._over.wait(1.0)
        for each in self._sockets:
            each.close()


class _Answer(http.client.HTTPResponse):
    """One before which only so many preliminary ones may come."""

    _begun = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._begun += 1
        if self._begun > INFORMATIONAL:
            raise OSError(f"answers nothing but 1xx, {INFORMATIONAL} times")
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return found


class _Plain(http.client.HTTPConnection):
    response_class = _Answer
    guard: _Guard

    def connect(self) -> None:
        super().connect()
        self.guard.watch(self.sock)


class _Secure(http.client.HTTPSConnection, _Plain):
    """The same below TLS, whose handshake is watched too."""


class _Watched(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections that a guard watches."""

    def __init__(self, guard: _Guard, context: ssl.SSLContext | None) -> None:
        urllib.request.HTTPSHandler.__init__(self, context=context)
        self._guard, self._trusted = guard, context

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made(_Plain), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made(_Secure), request, context=self._trusted)

    def _made(self, kind: type[_Plain]) -> Any:
        def make(host: str, **how: Any) -> _Plain:
            connection = kind(host, **how)
            connection.guard = self._guard
            return connection

        return make


def reason(error: Exception) -> str:
    """An error in a few words on one line."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, Exception):
        return reason(inner)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__
