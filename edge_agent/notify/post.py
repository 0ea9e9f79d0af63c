"""One POST to an address of the user's. Whatever the other side does, it takes no longer and no more memory than is
said here, and leads nowhere else: redirections are not followed.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

CONNECT_S = 10.0
"""seconds for a connection"""
LONGEST_WAIT_S = 3600.0
"""seconds that a server may ask to be left alone for"""
LATE = "no whole answer in time"


class Answer(NamedTuple):
    """What came of it."""

    status: int
    """of HTTP; 0: there was no answer"""
    why: str
    """in words, without the address; empty where it was taken"""
    body: bytes = b""
    kind: str = ""
    """its content type, in lower case and without parameters"""
    wait: float = 0.0
    """seconds that it asks to be left alone for"""


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, ca: str | None = None, most: int = 0, limit_s: float = 30.0
) -> Answer:
    """POST `body`, straight, with checked certificates. `ca`: a PEM of the authority, `most`: bytes of the answer that
    are wanted, of a larger one none is given; `limit_s`: seconds for all of it, from the connection on.

    Never raises for what the other side does. The user and password of the address go as Basic.
    """
    parts = urlsplit(url)
    late = threading.Event()
    try:
        line = _line(parts, ca)
        line.connect()
        line.sock.settimeout(limit_s + CONNECT_S)  # `_cut` comes before
    except (OSError, HTTPException, ValueError) as error:
        return Answer(0, reason(error))
    timer = threading.Timer(limit_s, _cut, (line.sock, late))
    timer.daemon = True
    timer.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        line.request("POST", target, body, {**_login(parts), "Connection": "close", **headers})
        answer = _read(line, most)
        # where no length was said, an end that we made looks like the end
        return Answer(0, LATE) if most and late.is_set() else answer
    except (OSError, HTTPException, ValueError) as error:
        return Answer(0, LATE if late.is_set() else reason(error))
    finally:
        timer.cancel()
        line.close()


def _read(line: HTTPConnection, most: int) -> Answer:
    """The answer to a request."""
    answer = line.getresponse()
    data = answer.read(most + 1) if most else b""
    kind = answer.headers.get_content_type() if answer.headers.get("Content-Type") else ""
    long = len(data) > most
    wait = _seconds(answer.headers.get("Retry-After"))
    return Answer(answer.status, _why(answer.status, long), b"" if long else data, kind, wait)


def _line(parts: SplitResult, ca: str | None) -> HTTPConnection:
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        return HTTPSConnection(str(parts.hostname), parts.port, timeout=CONNECT_S, context=context)
    return HTTPConnection(str(parts.hostname), parts.port, timeout=CONNECT_S)


def _cut(sock: socket.socket, late: threading.Event) -> None:
    """End a connection that another thread waits on."""
    late.set()
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # that of TLS would take its state from under the reader


def _login(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}


def _why(status: int, long: bool) -> str:
    if 300 <= status < 400:
        return f"HTTP {status}: it leads elsewhere, which is not followed; give the address that it leads to"
    if not 200 <= status < 300:
        return f"HTTP {status}"
    return "answers with too much" if long else ""


def _seconds(told: str | None) -> float:
    """What Retry-After says, in seconds (RFC 9110, 10.2.3); 0 where it says a date, or nothing that is meant."""
    return min(float(told), LONGEST_WAIT_S) if told and told.isascii() and told.isdigit() and len(told) < 9 else 0.0


def reason(error: Exception) -> str:
    """An error of a connection in words, without the address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); see ca"
    if isinstance(error, ssl.SSLError):
        return "does not speak TLS as it should"
    if isinstance(error, socket.gaierror):
        return "its name has no address"
    if isinstance(error, TimeoutError):
        return "does not answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"does not speak HTTP as it should ({type(error).__name__})"
