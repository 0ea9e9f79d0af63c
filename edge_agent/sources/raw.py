"""Frames out of what a program writes: raw ones of a known size, YUV4MPEG2 (which states its size), JPEGs.

YUV4MPEG2: a line of parameters, then "FRAME" and the planes of each picture (mjpegtools, yuv4mpeg(5)).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import numpy as np

from edge_agent.errors import InputError, SourceError
from edge_agent.sources import parts
from edge_agent.sources.program import Program
from edge_agent.sources.watch import StreamReader, thinner
from edge_agent.types import Frame, Pixels

FORMATS: dict[str, tuple[int, int, str]] = {
    "bgr24": (3, 1, ""),
    "rgb24": (3, 1, "COLOR_RGB2BGR"),
    "gray": (1, 1, "COLOR_GRAY2BGR"),
    "yuv420p": (3, 2, "COLOR_YUV2BGR_I420"),
    "nv12": (3, 2, "COLOR_YUV2BGR_NV12"),
    "yuyv422": (2, 1, "COLOR_YUV2BGR_YUY2"),
}
"""ffmpeg's name -> bytes a pixel as a fraction, cv2's name of the conversion"""
STATED = ("y4m", "mjpeg")
"""formats that state the size of their pictures"""
MEANT = {"i420": "yuv420p", "bgr": "bgr24", "rgb": "rgb24", "yuyv": "yuyv422", "yuv4mpeg": "y4m", "jpeg": "mjpeg"}
"""what people call a format -> what it is called here"""
MOST_PIXELS = 33_000_000
"""of a picture that states its own size"""
MOST_JPEG, JPEG_S = 8 << 20, 3600.0
"""bytes of one JPEG; seconds that one may take, as the watch looks after what stalls"""
LONGEST_HEADER = 512
_SIDES = re.compile(rb"YUV4MPEG2 W([0-9]{1,5}) H([0-9]{1,5})[ \n]")
_COLOUR = re.compile(rb" C(420|420jpeg|420mpeg2|420paldv|mono)(?=[ \n])")

Take = Callable[[], Callable[[], Pixels]]
"""waits for the next picture; what it gives decodes that"""


def reader(program: Program, what: str, layout: str, size: tuple[int, int], fps: float) -> StreamReader:
    """Frames as the program writes them, `fps` a second of them (0: all). `layout`: of FORMATS, or STATED.

    Its `read` raises SourceError with the program's last words when it has ended, or writes something else.
    """
    wanted, take = thinner(fps), _take(program, what, layout, size)

    def read() -> Frame | None:
        decode = take()
        at, mono = time.time(), time.monotonic()
        if not wanted(mono):
            return None
        try:
            image = decode()
        except InputError as error:
            raise SourceError(f"{what}: a picture {error}") from None
        return Frame(image, at, mono, decode_ms=1000 * (time.monotonic() - mono))

    return StreamReader(read, program.close, program.abort, program.ready)


def _take(program: Program, what: str, layout: str, size: tuple[int, int]) -> Take:
    if layout == "mjpeg":
        return _jpegs(program, what)
    return _y4m(program, what) if layout == "y4m" else _raw(program, what, layout, *size)


def _raw(program: Program, what: str, layout: str, width: int, height: int) -> Take:
    over, under, _ = FORMATS[layout]

    def take() -> Callable[[], Pixels]:
        buffer = _filled(program, what, width * height * over // under)
        return lambda: pixels(buffer, width, height, layout)

    return take


def _filled(program: Program, what: str, size: int) -> bytearray:
    """The next bytes. SourceError where there are fewer."""
    buffer = bytearray(size)
    got = program.fill(buffer)
    if got < size:
        half = f"; its last frame has {got} of {size} bytes (another size or format?)" if got else ""
        raise SourceError(f"{what}: {program.obituary()}{half}")
    return buffer


def _y4m(program: Program, what: str) -> Take:
    layout, width, height = "", 0, 0

    def take() -> Callable[[], Pixels]:
        nonlocal layout, width, height
        if not layout:
            layout, width, height = _header(program, what)
        over, under, _ = FORMATS[layout]
        buffer = _filled(program, what, len(b"FRAME\n") + width * height * over // under)
        if not buffer.startswith(b"FRAME\n"):
            raise SourceError(f"{what}: writes something between its frames that is none")
        return lambda: pixels(buffer[len(b"FRAME\n") :], width, height, layout)

    return take


def _header(program: Program, what: str) -> tuple[str, int, int]:
    """Layout, width and height. SourceError for what is no YUV4MPEG2, or one that is not taken."""
    line = bytearray()
    while not line.endswith(b"\n"):
        line += _filled(program, what, 1)
        if len(line) > LONGEST_HEADER or not b"YUV4MPEG2 ".startswith(line[:10]):
            raise SourceError(f"{what}: does not write YUV4MPEG2")
    found = _sizes(bytes(line))
    if found is None:
        told = bytes(line).decode("ascii", "replace").strip()[:100]
        raise SourceError(f"{what}: gives pictures that are not taken ({told}): 420 or mono, with even sides")
    return found


def _sizes(line: bytes) -> tuple[str, int, int] | None:
    """Layout, width and height as a header states them; None for what is not taken."""
    sides, colour = _SIDES.match(line), _COLOUR.search(line)
    if not sides or (not colour and b" C" in line):
        return None
    width, height = int(sides[1]), int(sides[2])
    layout = "gray" if colour and colour[1] == b"mono" else "yuv420p"
    odd = layout == "yuv420p" and (width | height) % 2
    return None if odd or not 0 < width * height <= MOST_PIXELS else (layout, width, height)


def _jpegs(program: Program, what: str) -> Take:
    def more() -> bytes:
        came = program.read(1 << 16)
        if came == b"":
            raise SourceError(f"{what}: {program.obituary()}")
        return came or b""

    found = parts.jpegs(more, what, JPEG_S, MOST_JPEG)

    def take() -> Callable[[], Pixels]:
        from edge_agent.pictures.read import STREAM, decode

        data = next(found)
        return lambda: decode(data, STREAM)

    return take


def pixels(buffer: bytearray, width: int, height: int, layout: str) -> Pixels:
    """One raw frame as (height, width, 3) BGR; bgr24 shares the buffer, which is not used again."""
    over, under, code = FORMATS[layout]
    from edge_agent.pictures.read import bgr, cv2  # a program that gives sound needs none of it

    raw = np.frombuffer(buffer, np.uint8)
    if not code:
        return raw.reshape(height, width, 3)
    shape = (height * over // under, width) if under > 1 else (height, width, over)
    return bgr(cv2.cvtColor(raw.reshape(shape), getattr(cv2, code)))
