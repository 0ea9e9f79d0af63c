"""``ffmpeg:ADDRESS`` and ``ffmpeg:FILE``: video decoded by the program ffmpeg (5.1 or later), with the board's decoder
where it has one.

The address goes to ffmpeg on stdin, as a list of its demuxer concat: in its arguments every user of the device could
read the password. Options stand behind a ``#``, as of other network cameras.
"""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult

from edge_agent.errors import ConfigError, SourceError
from edge_agent.programs import environment, which
from edge_agent.sources import Here, Opened
from edge_agent.sources.camera import address, reach, shown, trust
from edge_agent.sources.feed import OPENING
from edge_agent.sources.judge import RULES, Rules, rules
from edge_agent.sources.program import Program
from edge_agent.sources.raw import reader
from edge_agent.sources.sparing import sparing
from edge_agent.sources.tunnel import Tunnel
from edge_agent.sources.watch import StreamReader, watch
from edge_agent.types import Frame
from edge_agent.uri import Uri, choice, number, whole

PROTOCOLS = {"rtsp": "rtsp,rtp,tcp", "rtsps": "rtsp,rtp,tcp", "http": "http,tcp", "https": "http,tcp",
             "rtmp": "rtmp,tcp", "srt": "srt", "udp": "udp"}  # fmt: skip
"""scheme of an address -> protocols that ffmpeg may use; TLS is ours"""
TUNNELLED = ("rtsp", "rtsps", "https")
FORMATS = "concat,rtsp,avi,mov,matroska,webm,mpegts,mpeg,flv,live_flv,ogg,h264,hevc,av1,mjpeg,mpjpeg,ivf,obu"
"""what ffmpeg may open: no lists of other addresses but ours"""
THINNED = 1.0
"""frames a second from which on ffmpeg leaves out the others; where fewer are wanted, those are a sign of life here"""
ASK_S = 20.0
"""seconds that ffmpeg has to say what it can do"""

log = logging.getLogger("edge_agent")


class Hardware(NamedTuple):
    """A decoder of a board."""

    asks: str
    """the option by which ffmpeg lists it"""
    listed: str
    device: Path
    """which is there where the board has it"""
    options: tuple[str, ...]


HARDWARE = {
    "nvdec": Hardware("-hwaccels", "cuda", Path("/dev/nvidia0"), ("-hwaccel", "cuda")),
    "v4l2m2m": Hardware("-decoders", "h264_v4l2m2m", Path("/dev/video10"), ("-c:v", "h264_v4l2m2m")),
    "vaapi": Hardware(
        "-hwaccels",
        "vaapi",
        Path("/dev/dri/renderD128"),
        ("-hwaccel", "vaapi", "-hwaccel_device", "/dev/dri/renderD128"),
    ),
}
"""in the order in which they are taken"""
KNOWN = {"width": "", "height": "", "fps": "", "keyframes": "", "decoder": "auto", "ca": "", "verify": "yes", **RULES}
KEY_STALL = 30.0
"""seconds without a frame where keyframes alone are decoded: a camera may send one in 20 s"""


class Asked(NamedTuple):
    """How ffmpeg is started."""

    program: str
    place: SplitResult | Path
    what: str
    """where from, fit to be shown"""
    size: tuple[int, int]
    fps: float
    keys: bool = False
    """whether keyframes alone are decoded"""


def ffmpeg(uri: Uri, here: Here) -> Opened:
    """Bind an address or a file; yields Frames. ConfigError for the address, SourceError without ffmpeg."""
    place, safe = _place(uri)
    size = whole(safe, KNOWN, "width", 16, 16384), whole(safe, KNOWN, "height", 16, 16384)
    if any(side % 2 for side in size):
        raise ConfigError(f'"{safe}": give an even width and height')
    fps, (seconds, believed) = number(safe, KNOWN, "fps", 0.001, 1000), _keyframes(safe, place)
    tls = trust(safe, KNOWN)
    wanted = choice(safe, KNOWN, "decoder", ("auto", "software", *HARDWARE))
    program = which("ffmpeg")
    if program is None:
        raise SourceError("ffmpeg: it is not installed; sudo apt install ffmpeg")
    decoder = _decoder(program, wanted)
    asked = Asked(program, place, str(place) if isinstance(place, Path) else shown(place), size, fps)
    hard = bool(decoder)

    def failed() -> None:
        """The next start is without, or again with, the board's decoder."""
        nonlocal hard
        if decoder:
            hard = not hard
            log.warning("%s: gave no frame; now with decoder %s", asked.what, decoder if hard else "software")

    def open_(keys: bool = False) -> StreamReader:
        tunnel = None
        if not isinstance(place, Path) and place.scheme in TUNNELLED:
            tunnel = Tunnel(reach(place), place, tls, believed.stall + OPENING, asked.what)
        return _open(asked._replace(keys=keys), tunnel, HARDWARE[decoder].options if hard else (), failed)

    begin = (lambda: sparing(open_, seconds, asked.what)) if seconds else open_
    return Opened(
        run=lambda stop: watch(begin, believed, stop), yields=Frame, live=True,
        about=lambda: f"decoded by {decoder if hard else 'software'}",
    )  # fmt: skip


def _keyframes(safe: Uri, place: SplitResult | Path) -> tuple[float, Rules]:
    """For how long nothing has to move until keyframes alone are decoded (seconds; 0: never), and what is believed
    of such a stream. ConfigError for a file.
    """
    seconds, believed = number(safe, KNOWN, "keyframes", 1, 3600), rules(safe, KNOWN)
    if seconds and isinstance(place, Path):
        raise ConfigError(f'"{safe}": keyframes is for streams of the network; a file would begin anew each time')
    if seconds and "stall" not in safe.options:
        believed = replace(believed, stall=KEY_STALL)
    return seconds, believed


def _place(uri: Uri) -> tuple[SplitResult | Path, Uri]:
    """The address or file, and the address fit to be shown. ConfigError."""
    scheme, mark, rest = uri.rest.partition("://")
    if not mark:
        if not uri.rest or uri.rest.startswith("//") or re.search(r"[\0-\x1f]", uri.rest):
            raise ConfigError("ffmpeg: give an address or a file, as in ffmpeg:rtsp://host/path")
        return Path(uri.rest).expanduser().absolute(), uri
    if scheme not in PROTOCOLS:
        raise ConfigError(f'ffmpeg: "{scheme}" is none of {", ".join(PROTOCOLS)}, nor a file')
    parts, safe = address(Uri(scheme, f"//{rest}", uri.options))
    if re.search(r"[\0-\x20]", parts.geturl()):
        raise ConfigError(f'"{safe}": write a space in an address as %20')
    return parts, safe


def _decoder(program: str, wanted: str) -> str:
    """The board's decoder that is taken; "" for none. SourceError where this ffmpeg lacks the one that is asked for."""
    if wanted == "software":
        return ""
    if wanted == "auto":
        there = (name for name, row in HARDWARE.items() if row.device.exists() and _lists(program, row))
        return next(there, "")
    if not _lists(program, HARDWARE[wanted]):
        raise SourceError(f"ffmpeg: {program} is built without {wanted}; leave decoder out, or give decoder=software")
    return wanted


def _lists(program: str, row: Hardware) -> bool:
    """Whether ffmpeg says that it can."""
    try:
        done = subprocess.run(
            [program, "-hide_banner", row.asks], stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return row.listed.encode() in done.stdout.split()


def _open(asked: Asked, tunnel: Tunnel | None, decoder: tuple[str, ...], failed: Callable[[], None]) -> StreamReader:
    """Start ffmpeg. `failed` is called where it ends before its first frame."""
    program = Program(command(asked, decoder), environment(), given=listing(asked, tunnel.url if tunnel else ""))
    inner, seen = reader(program, asked.what, "y4m", (0, 0), 0 if asked.fps >= THINNED else asked.fps), False

    def read() -> Frame | None:
        nonlocal seen
        try:
            frame = inner.read()
        except SourceError as error:
            if not seen:
                failed()
            why = _led(tunnel) if tunnel else ""
            raise SourceError(f"{asked.what}: {why}") if why else error from None
        seen = True
        if tunnel:
            tunnel.since = 0
        return frame

    def close() -> None:
        inner.close()
        if tunnel:
            tunnel.close()

    return replace(inner, read=read, close=close)


def _led(tunnel: Tunnel) -> str:
    """Why the way to the camera broke off; "" where that is not known."""
    return "leads to another address; give that one" if tunnel.led is not None else tunnel.why


def command(asked: Asked, decoder: tuple[str, ...]) -> list[str]:
    """The command line of ffmpeg, which says nothing about the address."""
    file = isinstance(asked.place, Path)
    protocols = "file" if isinstance(asked.place, Path) else PROTOCOLS[asked.place.scheme]
    width, height = asked.size
    # frames that are not wanted are left out before they are scaled, a tenth early, as stamps are rounded; -2: as the
    # other side says, and even
    thin = (
        [f"select='isnan(prev_selected_t)+gte(t-prev_selected_t,{0.9 / asked.fps:.6f})'"]
        if asked.fps >= THINNED
        else []
    )
    scaled = [f"scale={width or -2}:{height or -2}"] if width or height else ["scale=trunc(iw/2)*2:trunc(ih/2)*2"]
    return [
        asked.program, "-hide_banner", "-nostats", "-v", "error", *decoder, *(["-re"] if file else []),
        *(["-skip_frame", "nokey"] if asked.keys else []),
        "-protocol_whitelist", f"pipe,{protocols}", "-format_whitelist", FORMATS, "-f", "concat", "-safe", "0",
        "-i", "pipe:0", "-an", "-sn", "-dn", "-vf", ",".join([*thin, *scaled]), "-fps_mode", "passthrough",
        "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "pipe:1",
    ]  # fmt: skip


def listing(asked: Asked, url: str = "") -> bytes:
    """What ffmpeg is given on stdin: a list of one address (ffmpeg-formats(1), concat)."""
    if isinstance(asked.place, Path):
        url, scheme = f"file:{asked.place}", "file"
    else:
        url, scheme = url or asked.place.geturl(), asked.place.scheme
    options = ["analyzeduration 1000000"]
    options += ["rtsp_transport tcp"] if scheme in ("rtsp", "rtsps") else []
    options += ["max_redirects 0"] if scheme in ("http", "https") else []
    quoted = url.replace("'", "'\\''")
    lines = ["ffconcat version 1.0", f"file '{quoted}'", *(f"option {one}" for one in options)]
    return ("\n".join(lines) + "\n").encode()
