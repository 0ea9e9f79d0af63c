"""``http://…`` and ``https://…``: MJPEG cameras (multipart/x-mixed-replace), or one picture fetched again and again.

Own reader, because it knows what FFmpeg hides: a corrupt part, a server that drips, the reason of a refusal. Any other
kind of video over HTTP goes to FFmpeg. Options: those of watch.RULES; ``fps=N`` keeps about N frames a second, and is
how often a single picture is fetched (once a second when not given).
"""

from __future__ import annotations

import logging
import re
import select
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from urllib.parse import SplitResult, unquote

from edge_agent.errors import InputError, SourceError
from edge_agent.sources import Here, Opened
from edge_agent.sources.camera import STREAM, address, open_stream, shown
from edge_agent.sources.options import number
from edge_agent.sources.pictures import decode
from edge_agent.sources.text import tenfold
from edge_agent.sources.watch import OPENING, Reader, Rules, rules, thinner, watch
from edge_agent.types import Frame, Uri

LONGEST_PART = 32 << 20
"""bytes of one picture"""
LONGEST_LINE = 8192
"""bytes of one header line of a part"""
END_OF_JPEG = b"\xff\xd9"

log = logging.getLogger("edge_agent")


def http(uri: Uri, here: Here) -> Opened:
    """Bind an HTTP address; yields Frames. ConfigError for the address; a dead one is waited for."""
    parts, safe = address(uri)
    believed = rules(safe, STREAM)
    fps = number(safe, STREAM, "fps", 0.001, 1000)
    return Opened(run=lambda stop: watch(lambda: _open(parts, believed, fps), believed, stop), yields=Frame, live=True)


def _open(parts: SplitResult, believed: Rules, fps: float) -> Reader:
    # longer than the watch waits, so that it is the watch that judges
    limit = believed.stall + OPENING + 1
    answer = _get(parts, limit)
    kind = answer.headers.get_content_type()
    if kind.startswith("multipart/"):
        return _stream(answer, shown(parts), limit, fps)
    answer.close()
    if kind.startswith("image/"):
        return _pictures(parts, limit, fps or 1.0, believed.stall / 2)
    if kind.startswith("text/"):
        raise SourceError(f"{shown(parts)}: answers {kind}, not pictures; check the path")
    return open_stream(parts, believed, fps)


def _get(parts: SplitResult, limit: float) -> HTTPResponse:
    """GET with the user and password of the address (Basic or Digest), straight, as cameras stand behind no proxy."""
    host = parts.netloc.rpartition("@")[2]
    url = parts._replace(netloc=host, fragment="").geturl()
    secrets = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        secrets.add_password(None, url, unquote(parts.username), unquote(parts.password or ""))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPDigestAuthHandler(secrets),
        urllib.request.HTTPBasicAuthHandler(secrets),
    )
    try:
        answer = opener.open(url, timeout=limit)
    except urllib.error.HTTPError as error:
        error.close()
        hint = ""
        if error.code == 401:
            wrong = "the user or the password is wrong"
            hint = f"; {wrong if parts.username is not None else 'put user:password@ before the host'}"
        raise SourceError(f"{shown(parts)}: HTTP {error.code} {error.reason}{hint}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise SourceError(f"{shown(parts)}: {_reason(error)}") from None
    if not isinstance(answer, HTTPResponse):
        raise SourceError(f"{shown(parts)}: leads away from HTTP")
    return answer


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    return getattr(inner, "strerror", None) or str(inner) or type(error).__name__


def _stream(answer: HTTPResponse, what: str, limit: float, fps: float) -> Reader:
    """Frames of a multipart answer; a part that is no whole JPEG is left out."""
    gone = threading.Event()
    arrived = select.poll()
    arrived.register(answer.fileno(), select.POLLIN)
    parts = multipart(lambda: _more(answer, what, gone), what, limit, lambda: bool(arrived.poll(0)))
    wanted = thinner(fps)
    bad = 0

    def read() -> Frame | None:
        nonlocal bad
        for data in parts:
            at, mono = time.time(), time.monotonic()
            if not wanted(mono):
                return None
            try:
                return Frame(decode(data), at, mono, decode_ms=1000 * (time.monotonic() - mono))
            except InputError as error:
                bad += 1
                if tenfold(bad):
                    log.warning("%s: a frame of %d bytes was left out, it %s (%d so far)", what, len(data), error, bad)
        raise SourceError(f"{what}: the stream ended")

    return Reader(read, answer.close, gone.set)


def _more(answer: HTTPResponse, what: str, gone: threading.Event) -> bytes:
    """What has arrived; SourceError when the stream is over or not wanted any more."""
    if gone.is_set():
        raise SourceError("left")
    try:
        data = answer.read1(1 << 16)
    except (OSError, HTTPException, ValueError) as error:
        raise SourceError(f"{what}: {_reason(error)}") from None
    if not data:
        raise SourceError(f"{what}: the server closed the stream")
    return data


def multipart(
    more: Callable[[], bytes], what: str, limit: float, arrived: Callable[[], bool] = lambda: False
) -> Iterator[bytes]:
    """The bodies of a multipart stream (RFC 2046, section 5.1), the delimiter being its first line that begins with --
    (cameras often misstate it in the header). A body of no stated length that ends as a JPEG does, with nothing behind
    it yet, is whole: its delimiter comes with the next one.

    `more` gives the next bytes or raises; `arrived` says whether it has some at once. A body behind which another whole
    one has arrived already is left out: whoever takes them is slower than they come, and would get ever older ones.
    SourceError when no whole part comes within `limit` seconds, or one is larger than LONGEST_PART.
    """
    buffer = bytearray()
    delimiter = b""
    until = 0.0

    def grow() -> None:
        if time.monotonic() > until:
            raise SourceError(f"{what}: no whole picture within {limit:g} s")
        if len(buffer) > LONGEST_PART:
            raise SourceError(f"{what}: a picture of more than {LONGEST_PART >> 20} MiB")
        buffer.extend(more())

    def take(count: int) -> bytes:
        taken = bytes(buffer[:count])
        del buffer[:count]
        return taken

    def line() -> bytes:
        looked = 0
        while (end := buffer.find(b"\n", looked)) < 0:
            looked = len(buffer)
            if looked > LONGEST_LINE:
                return take(looked)
            grow()
        return take(end + 1).strip()

    while True:
        until = time.monotonic() + limit
        first = line()
        if not (first.startswith(delimiter) if delimiter else first.startswith(b"--") and len(first) > 2):
            continue
        if delimiter and first == delimiter + b"--":
            return
        delimiter = delimiter or first
        length = 0
        while header := line():
            stated = re.fullmatch(rb"content-length:\s*(\d{1,9})", header, re.IGNORECASE)
            length = int(stated[1]) if stated else length
        if length > LONGEST_PART:
            raise SourceError(f"{what}: a picture of {length >> 20} MiB")
        if length:
            while len(buffer) < length:
                grow()
        else:
            looked = 0
            while (length := buffer.find(b"\n" + delimiter, looked)) < 0:
                looked = max(0, len(buffer) - len(delimiter))
                if not arrived() and buffer.rstrip().endswith(END_OF_JPEG):
                    length = len(buffer.rstrip())
                    break
                grow()
        body = take(length)
        try:
            while arrived() and len(buffer) <= LONGEST_PART:
                buffer.extend(more())
        except SourceError:
            yield body
            raise
        # the delimiter of the next body and that of the one after it
        if buffer.count(b"\n" + delimiter) < 2:
            yield body


def _pictures(parts: SplitResult, limit: float, fps: float, alive: float) -> Reader:
    """Frames of an address that answers one picture at a time; while the next is not due, none each `alive` seconds."""
    gone = threading.Event()
    due = time.monotonic()

    def read() -> Frame | None:
        nonlocal due
        left = due - time.monotonic()
        gone.wait(min(max(0.0, left), alive))
        if left > alive:
            return None
        due = max(due, time.monotonic() - 1 / fps) + 1 / fps
        answer = _get(parts, limit)
        data = bytearray()
        until = time.monotonic() + limit
        try:
            while len(data) <= LONGEST_PART and time.monotonic() < until and (chunk := answer.read1(1 << 16)):
                data += chunk
            at, mono = time.time(), time.monotonic()
            return Frame(decode(bytes(data)), at, mono, decode_ms=1000 * (time.monotonic() - mono))
        except (OSError, HTTPException, ValueError) as error:
            raise SourceError(f"{shown(parts)}: {_reason(error)}") from None
        except InputError as error:
            raise SourceError(f"{shown(parts)}: the picture {error}") from None
        finally:
            answer.close()

    return Reader(read, lambda: None, gone.set)
