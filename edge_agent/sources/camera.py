"""``camera:N``, ``camera:/dev/videoN``, ``rtsp://…`` and ``rtsps://…``: what cv2.VideoCapture reads, under watch.

Options: those of judge.RULES; ``fps=N`` keeps about N frames a second; ``width=``, ``height=``, ``fps=`` and
``fourcc=MJPG`` are asked of a V4L2 camera, which may do otherwise.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import numpy as np

from edge_agent.errors import ConfigError, InputError, SourceError, tenfold
from edge_agent.pictures.read import STREAM as PICTURES
from edge_agent.pictures.read import Limits, as_jpegs, bgr, cv2, decode
from edge_agent.sources import Here, Opened
from edge_agent.sources.feed import OPENING
from edge_agent.sources.judge import RULES, Rules, rules
from edge_agent.sources.tunnel import Tunnel
from edge_agent.sources.watch import StreamReader, queued, thinner, watch
from edge_agent.sources.web import STEPS, led
from edge_agent.types import Frame
from edge_agent.uri import Uri, choice, number, option, whole

DEVICE = {"width": "", "height": "", "fps": "", "fourcc": "", **RULES}
PORTS = {"rtsp": 554, "rtsps": 322, "https": 443}
REACH = 2.0
"""seconds that a network camera has to accept a connection"""
STREAM = {"fps": "", "ca": "", "verify": "yes", "megapixels": "33", "megabytes": "8", **RULES}
"""of a network camera; one picture may have so many megapixels, and as a JPEG or PNG so many megabytes"""
MOST_NUMBER = 255
"""of a V4L2 camera (Linux, VIDEO_NUM_DEVICES)"""
BAD_IN_A_ROW = 100
"""frames that cannot be decoded before the stream is given up"""

log = logging.getLogger("edge_agent")


def camera(uri: Uri, here: Here) -> Opened:
    """Bind a V4L2 camera; yields Frames. ConfigError for the address; a camera that is not there is waited for."""
    if not (uri.rest.isdecimal() or uri.rest.startswith("/")):
        raise ConfigError(f'"{uri}": give the number of a camera (camera:0) or its path (camera:/dev/video0)')
    if uri.rest.isdecimal() and (len(uri.rest) > 4 or int(uri.rest) > MOST_NUMBER):
        raise ConfigError(f'"{uri}": cameras have numbers from 0 to {MOST_NUMBER}; `ls /dev/video*` shows those here')
    path = uri.rest if uri.rest.startswith("/") else f"/dev/video{int(uri.rest)}"
    fps, asked = number(uri, DEVICE, "fps", 0.001, 1000), _asked_of(uri)
    believed = rules(uri, DEVICE)

    def open_() -> StreamReader:
        if not Path(path).exists():
            raise SourceError(f"no camera at {path}")
        if not os.access(path, os.R_OK | os.W_OK):
            raise SourceError(f"{path} may not be opened; add this user to the group video")
        capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
        if not capture.isOpened():
            capture.release()
            raise SourceError(f"{path} is in use elsewhere, or is no camera")
        for prop, value in asked:
            capture.set(prop, value)
        return reader_of(capture, path, fps)

    return Opened(run=lambda stop: watch(open_, believed, stop), yields=Frame, live=True)


def _asked_of(uri: Uri) -> list[tuple[int, float]]:
    """What a V4L2 camera is asked for: (property of cv2, value). ConfigError."""
    fourcc = option(uri, DEVICE, "fourcc")
    if fourcc and not (len(fourcc) == 4 and fourcc.isascii()):
        raise ConfigError(f'"{uri}": fourcc={fourcc}: give the four letters of a pixel format, e.g. MJPG or YUYV')
    wanted = [
        (cv2.CAP_PROP_BUFFERSIZE, 1.0),
        (cv2.CAP_PROP_FOURCC, float(cv2.VideoWriter.fourcc(*fourcc)) if fourcc else 0.0),
        (cv2.CAP_PROP_FRAME_WIDTH, float(whole(uri, DEVICE, "width", 1, 32768))),
        (cv2.CAP_PROP_FRAME_HEIGHT, float(whole(uri, DEVICE, "height", 1, 32768))),
        (cv2.CAP_PROP_FPS, number(uri, DEVICE, "fps", 0.001, 1000)),
    ]
    return [(prop, value) for prop, value in wanted if value]


def rtsp(uri: Uri, here: Here) -> Opened:
    """Bind an RTSP address (over TCP); yields Frames. ConfigError for the address; a dead one is waited for."""
    parts, safe = address(uri)
    believed = rules(safe, STREAM)
    fps = number(safe, STREAM, "fps", 0.001, 1000)
    tls, limits = trust(safe, STREAM), bounds(safe)

    def open_() -> StreamReader:
        return open_stream(parts, believed, fps, tls, limits)

    return Opened(run=lambda stop: watch(open_, believed, stop), yields=Frame, live=True)


def address(uri: Uri) -> tuple[SplitResult, Uri]:
    """The address in its parts, and the same Uri fit to be shown: no password, no query (which may hold one)."""
    scheme, text = uri.scheme, f"{uri.scheme}:{uri.rest}"
    signs = f"{scheme}: write the signs # ? / @ and % of a user or password as %23 %3F %2F %40 and %25"
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        if "@" in text:
            raise ConfigError(f"{signs}; the address is {scheme}://user:password@host[:port]/path") from None
        raise ConfigError(f"{scheme}: the address is not {scheme}://host[:port]/path") from None
    if _ends_early(parts, uri):
        raise ConfigError(f"{signs}; as it stands, the address ends before its @")
    if not parts.hostname:
        raise ConfigError(f'"{text}": has no host; write {scheme}://host[:port]/path')
    if parts.fragment:
        raise ConfigError(f"{scheme}: behind the # of an address stand our options, as in #fps=5")
    return parts, Uri(scheme, f"//{parts.hostname}{port}{parts.path}", uri.options)


def _ends_early(parts: SplitResult, uri: Uri) -> bool:
    """Whether a sign in the password ended the address before its @."""
    behind = parts.fragment + "".join(uri.options.values())
    # an @ may stand in a path or query, but hardly where only half of an address stands before it
    half = ":" in parts.netloc and "@" in parts.path.split("/", 2)[:2][-1]
    return "@" not in parts.netloc and ("@" in behind or half or (not parts.path and "@" in parts.query))


def trust(safe: Uri, known: dict[str, str]) -> ssl.SSLContext | None:
    """How the certificate of an https or rtsps camera is checked; None for an address without TLS.

    ``verify=yes``: its chain and its name, by the authorities that the system trusts or by those of ``ca=FILE``;
    ``verify=chain``: not its name, as most cameras have none; ``verify=no``: not at all. ConfigError for the options.
    """
    how = choice(safe, known, "verify", ("yes", "chain", "no"))
    ca = option(safe, known, "ca")
    if safe.scheme not in ("https", "rtsps"):
        if ca or "verify" in safe.options:
            raise ConfigError(f'"{safe}": ca and verify are for https and rtsps; {safe.scheme} has no certificate')
        return None
    if ca and how == "no":
        raise ConfigError(f'"{safe}": with verify=no nobody looks at ca; leave one of them out')
    context = _authorities(safe, ca)
    if how != "yes":
        context.check_hostname = False
    if how == "no":
        context.verify_mode = ssl.CERT_NONE
    return context


def _authorities(safe: Uri, ca: str) -> ssl.SSLContext:
    """What trusts the authorities of a PEM file, or those of the system. ConfigError."""
    try:
        context = ssl.create_default_context(cafile=str(Path(ca).expanduser()) if ca else None)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigError(f'"{safe}": ca={ca}: no certificates can be read there ({said}); give a PEM file') from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # see link/tls.py
    return context


def bounds(safe: Uri) -> Limits:
    """What one picture of a network camera may have. ConfigError for the options."""
    pixels, size = number(safe, STREAM, "megapixels", 0.01, 200), number(safe, STREAM, "megabytes", 0.01, 512)
    return Limits(round(pixels * 1e6), round(size * (1 << 20)), any_kind=False)


def shown(parts: SplitResult) -> str:
    """Host and port, for messages that leave the device."""
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def reach(parts: SplitResult) -> socket.socket:
    """A connection to an address. SourceError where nothing answers: sooner than what waits until a stream is
    understood, so that a camera which is away is asked often.
    """
    port = parts.port or PORTS.get(parts.scheme, 80)
    try:
        return socket.create_connection((str(parts.hostname), port), timeout=REACH)
    except OSError as error:
        raise SourceError(f"{shown(parts)}: {error.strerror or 'does not answer'}") from None


def open_stream(
    parts: SplitResult, believed: Rules, fps: float, tls: ssl.SSLContext | None, limits: Limits
) -> StreamReader:
    """A network stream through FFmpeg, whose own time-outs come just after the watch has given up on it.

    FFmpeg checks no certificate unless asked, and some builds no name; in RTSP it goes wherever a camera leads it, with
    the password. So it talks to a tunnel of ours, but for plain HTTP. SourceError, also where it leads to another host.
    """
    opening, reading = int(1000 * (believed.stall + OPENING + 1)), int(1000 * (believed.stall + 1))
    what = shown(parts)
    for _ in range(STEPS):
        tunnel = _tunnel(parts, tls, believed.stall + OPENING, what)
        capture = cv2.VideoCapture(
            tunnel.url if tunnel else parts.geturl(),
            cv2.CAP_FFMPEG,
            [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, opening, cv2.CAP_PROP_READ_TIMEOUT_MSEC, reading],
        )
        if capture.isOpened():
            break
        capture.release()
        if tunnel:
            tunnel.close()
        if tunnel is None or tunnel.led is None:
            raise SourceError(f"{what}: {(tunnel and tunnel.why) or _why_not(parts, believed.stall)}")
        parts = led(parts, tunnel.led, what)
    else:
        raise SourceError(f"{what}: leads in a circle")
    stale = queued()
    return reader_of(
        capture, what, fps, lambda mono: stale(mono, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000), limits, tunnel
    )


def _tunnel(parts: SplitResult, tls: ssl.SSLContext | None, patience: float, what: str) -> Tunnel | None:
    """What FFmpeg is to talk to instead of the camera; None for plain HTTP. SourceError."""
    if parts.scheme == "http":
        return None
    context = tls or ssl.create_default_context() if parts.scheme in ("https", "rtsps") else None
    return Tunnel(reach(parts), parts, context, patience, what)


def _why_not(parts: SplitResult, limit: float) -> str:
    """What a plain connection to the same place says; cv2 says nothing."""
    port = parts.port or PORTS.get(parts.scheme, 80)
    try:
        socket.create_connection((str(parts.hostname), port), timeout=limit).close()
    except OSError as error:
        return error.strerror or str(error)
    return "answers, but gives no video; check the path, the user and the password"


def reader_of(
    capture: cv2.VideoCapture,
    what: str,
    fps: float,
    stale: Callable[[float], bool] = lambda mono: False,
    limits: Limits | None = None,
    tunnel: Tunnel | None = None,
) -> StreamReader:
    """A Reader of an open capture; a frame is stamped when it has arrived, before it is converted."""
    wanted, jpegs, bad = thinner(fps), as_jpegs(capture), 0

    def read() -> Frame | None:
        nonlocal bad
        for _ in range(BAD_IN_A_ROW):
            if not capture.grab():
                raise SourceError(f"{what}: {(tunnel and tunnel.why) or 'the stream ended'}")
            if tunnel:
                tunnel.since = 0
            at, mono = time.time(), time.monotonic()
            if stale(mono) or not wanted(mono):
                return None
            try:
                good, image = capture.retrieve()
                if good:
                    pixels = decode(np.asarray(image).tobytes(), limits or PICTURES) if jpegs else bgr(image)
                    height, width = pixels.shape[:2]
                    if limits and width * height > limits.pixels:
                        most = f"{limits.pixels / 1e6:g}"
                        raise SourceError(f"{what}: {width}×{height} pixels, more than {most} million; see megapixels")
                    return Frame(pixels, at, mono, decode_ms=1000 * (time.monotonic() - mono))
            except (cv2.error, InputError) as error:
                bad += 1
                if tenfold(bad):
                    log.warning("%s: a frame was left out, it %s (%d so far)", what, str(error).splitlines()[0], bad)
        raise SourceError(f"{what}: {BAD_IN_A_ROW} frames in a row could not be decoded")

    def close() -> None:
        capture.release()
        if tunnel:
            tunnel.close()

    return StreamReader(read, close)
