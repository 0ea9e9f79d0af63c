"""``http://…`` and ``https://…``: MJPEG cameras (multipart/x-mixed-replace), or one picture fetched again and again.

Own reader, because it knows what FFmpeg hides: a corrupt part, a server that drips, the reason of a refusal. Any other
kind of video over HTTP goes to FFmpeg, but for playlists: they lead anywhere, to what is seconds old.

Options: those of judge.RULES, ``ca`` and ``verify`` as in camera.trust; ``fps=N`` keeps about N frames a second, and is
how often a single picture is fetched (once a second when not given); ``megapixels=`` and ``megabytes=`` bound one
picture, so that a camera that is not what it seems takes no memory.
"""

from __future__ import annotations

import logging
import re
import select
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.client import HTTPException, HTTPResponse
from urllib.parse import SplitResult, urlsplit

from edge_agent.errors import InputError, SourceError, tenfold
from edge_agent.pictures.formats import JPEG, PNG
from edge_agent.pictures.read import decode
from edge_agent.sources import Here, Opened
from edge_agent.sources.camera import STREAM, address, bounds, open_stream, reach, shown, trust
from edge_agent.sources.feed import OPENING
from edge_agent.sources.judge import rules
from edge_agent.sources.parts import jpegs, multipart
from edge_agent.sources.watch import StreamReader, thinner, watch
from edge_agent.sources.web import Login, get, reason
from edge_agent.types import Frame
from edge_agent.uri import Uri, number

PART = re.compile(rb"^content[-_](type|length)\s*:", re.IGNORECASE | re.MULTILINE)
"""a header of a part, where the answer itself does not say that it has parts"""
PLAYLIST = re.compile(rb"#EXTM3U|<MPD\b")
"""HLS and DASH: no video, but addresses of pieces of one"""

log = logging.getLogger("edge_agent")


class _Camera:
    """One address, and what is kept of it from one connection to the next."""

    def __init__(self, parts: SplitResult, safe: Uri) -> None:
        self.parts, self.what, self.login = parts, shown(parts), Login(parts)
        self.tls = trust(safe, STREAM)
        self.believed = rules(safe, STREAM)
        self.fps = number(safe, STREAM, "fps", 0.001, 1000)
        self.limits = bounds(safe)
        # longer than the watch waits, so that it is the watch that judges
        self.patience = self.believed.stall + OPENING + 1

    def get(self) -> HTTPResponse:
        return get(self.parts, self.login, self.tls, self.patience, self.what)


def http(uri: Uri, here: Here) -> Opened:
    """Bind an HTTP address; yields Frames. ConfigError for the address; a dead one is waited for."""
    camera = _Camera(*address(uri))
    return Opened(run=lambda stop: watch(lambda: _open(camera), camera.believed, stop), yields=Frame, live=True)


def single(uri: Uri) -> Frame | None:
    """The one picture that an address gives; None where it goes on giving some, or another kind of video.

    ConfigError for the address, SourceError and InputError where there is none to be had.
    """
    camera = _Camera(*address(uri))
    answer = camera.get()
    kind = answer.headers.get_content_type() if "Content-Type" in answer.headers else ""
    try:
        if kind.startswith("multipart/"):
            return None
        first = answer.read1(1 << 16)
        if first.startswith(JPEG) and "Content-Length" not in answer.headers:
            more = partial(_more, answer, camera.what, threading.Event())
            come = jpegs(more, camera.what, camera.patience, camera.limits.size, first=first)
            data = next(come)
            try:
                next(come)
            except SourceError:
                pass  # nothing behind it
            else:
                return None
        elif first.startswith((JPEG, PNG)) or kind.startswith("image/"):
            data = first + fetched(answer, camera.what, camera.limits.size, camera.patience)
        elif kind in ("text/html", "application/json"):
            raise SourceError(f"{camera.what}: answers {kind}, not pictures; check the path")
        else:
            return None
    except (OSError, HTTPException, ValueError) as error:
        raise SourceError(f"{camera.what}: {reason(error)}") from None
    finally:
        answer.close()
    at, mono = time.time(), time.monotonic()
    return Frame(decode(data, camera.limits), at, mono, decode_ms=1000 * (time.monotonic() - mono))


def _open(camera: _Camera) -> StreamReader:
    """By what the camera says that it sends, and where it says nothing or too little, by how that begins."""
    reach(camera.parts).close()
    answer = camera.get()
    kind = answer.headers.get_content_type() if "Content-Type" in answer.headers else ""
    boundary = str(answer.headers.get_param("boundary") or "")
    if kind.startswith("multipart/"):
        return _stream(camera, answer, boundary, b"")
    whole = "Content-Length" in answer.headers
    first = _more(answer, camera.what, threading.Event())
    if first.startswith(JPEG) and not whole:
        return _stream(camera, answer, None, first)
    if PART.search(first[:1024]) and not whole:
        return _stream(camera, answer, boundary, first)
    answer.close()
    if kind.startswith("image/") or first.startswith((JPEG, PNG)):
        return _pictures(camera)
    if PLAYLIST.search(first[:1024]):
        raise SourceError(
            f"{camera.what}: gives a playlist (HLS, DASH), and what it lists is seconds old; "
            "give the camera's rtsp or MJPEG address"
        )
    if kind.startswith("text/"):
        raise SourceError(f"{camera.what}: answers {kind}, not pictures; check the path")
    return open_stream(urlsplit(answer.geturl()), camera.believed, camera.fps, camera.tls, camera.limits)


def _stream(camera: _Camera, answer: HTTPResponse, boundary: str | None, first: bytes) -> StreamReader:
    """Frames of an answer that goes on; what is no whole picture is left out. `boundary` None: JPEGs without parts.

    A single JPEG may come without a length too: where the answer ends behind the first one, it is asked for again.
    """
    what, gone = camera.what, threading.Event()
    parts = _parts(camera, answer, boundary, first, gone)
    wanted = thinner(camera.fps)
    bad = count = 0
    single: StreamReader | None = None

    def read() -> Frame | None:
        nonlocal bad, count, single
        if single is not None:
            return single.read()
        try:
            for data in parts:
                at, mono = time.time(), time.monotonic()
                count += 1
                if not wanted(mono):
                    return None
                try:
                    image = decode(data, camera.limits)
                    return Frame(image, at, mono, decode_ms=1000 * (time.monotonic() - mono))
                except InputError as error:
                    bad += 1
                    if tenfold(bad):
                        log.warning(
                            "%s: a frame of %d bytes was left out, it %s (%d so far)", what, len(data), error, bad
                        )
        except SourceError:
            if boundary is None and count == 1 and not gone.is_set():
                single = _pictures(camera, gone)
                return None
            raise
        raise SourceError(f"{what}: the stream ended")

    return StreamReader(read, answer.close, gone.set)


def _parts(
    camera: _Camera, answer: HTTPResponse, boundary: str | None, first: bytes, gone: threading.Event
) -> Iterator[bytes]:
    """The pictures of an answer as bytes, as `_stream` takes them."""
    poller = select.poll()
    poller.register(answer.fileno(), select.POLLIN)
    more = partial(_more, answer, camera.what, gone)

    def arrived() -> bool:
        return bool(poller.poll(0))

    if boundary is None:
        return jpegs(more, camera.what, camera.patience, camera.limits.size, arrived, first)
    return multipart(more, camera.what, camera.patience, camera.limits.size, arrived, boundary, first)


def _more(answer: HTTPResponse, what: str, gone: threading.Event) -> bytes:
    """What has arrived; SourceError when the stream is over or not wanted any more."""
    if gone.is_set():
        raise SourceError("left")
    try:
        data = answer.read1(1 << 16)
    except (OSError, HTTPException, ValueError) as error:
        raise SourceError(f"{what}: {reason(error)}") from None
    if not data:
        raise SourceError(f"{what}: the server closed the stream")
    return data


def _pictures(camera: _Camera, gone: threading.Event | None = None) -> StreamReader:
    """Frames of an address that answers one picture at a time, once a second where nothing else is asked for; while the
    next is not due, none each half of the time that is taken for a stall.
    """
    left_alone = gone or threading.Event()
    fps, alive = camera.fps or 1.0, camera.believed.stall / 2
    due = time.monotonic()

    def read() -> Frame | None:
        nonlocal due
        left = due - time.monotonic()
        left_alone.wait(min(max(0.0, left), alive))
        if left > alive:
            return None
        due = max(due, time.monotonic() - 1 / fps) + 1 / fps
        data = fetched(camera.get(), camera.what, camera.limits.size, camera.patience)
        at, mono = time.time(), time.monotonic()
        try:
            return Frame(decode(data, camera.limits), at, mono, decode_ms=1000 * (time.monotonic() - mono))
        except InputError as error:
            raise SourceError(f"{camera.what}: the picture {error}") from None

    return StreamReader(read, lambda: None, left_alone.set)


def fetched(answer: HTTPResponse, what: str, most: int, limit: float) -> bytes:
    """All of an answer. SourceError when it is larger than `most` bytes, or takes more than `limit` seconds."""
    data = bytearray()
    until = time.monotonic() + limit
    try:
        while chunk := answer.read1(1 << 16):
            data += chunk
            if len(data) > most:
                raise SourceError(f"{what}: a picture of more than {most / (1 << 20):.3g} MiB")
            if time.monotonic() > until:
                raise SourceError(f"{what}: no whole picture within {limit:g} s")
    except (OSError, HTTPException, ValueError) as error:
        raise SourceError(f"{what}: {reason(error)}") from None
    finally:
        answer.close()
    return bytes(data)
