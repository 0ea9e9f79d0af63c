"""Bytes of a picture become pixels; cv2, quiet."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edge_agent.errors import InputError
from edge_agent.types import Frame, Pixels

MOST_PIXELS = 200_000_000
"""a picture that claims more is not decoded: 600 MB of memory for a few bytes on disk"""
BIGGEST = 1 << 29
"""bytes of a picture file that are read"""

# read when cv2 is loaded or first used; whoever set them otherwise meant it
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))
# UDP loses packets, and with them the lower half of a picture; FFmpeg looks at a stream for 3 s and more before it
# gives a frame, 1 s (here in µs) is enough to know the codec
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|analyzeduration;1000000")

import cv2  # noqa: E402

if os.environ["OPENCV_LOG_LEVEL"] == "SILENT":
    # it may have been loaded before by another room
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

__all__ = ["MOST_PIXELS", "bgr", "cv2", "decode", "for_cv2", "read_picture", "shown"]


def read_picture(path: Path) -> Frame:
    """One picture file as a Frame. InputError, without the path, when it cannot be read."""
    at, mono = time.time(), time.monotonic()
    try:
        with path.open("rb") as file:
            data = file.read(BIGGEST + 1)  # what a device gives has no size, and no end
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(data) > BIGGEST:
        raise InputError(f"is larger than {BIGGEST >> 20} MiB")
    return Frame(decode(data), at, mono, shown(path), 1000 * (time.monotonic() - mono))


def shown(path: Path) -> str:
    """A file's name as an event can hold it: ? for bytes that are not UTF-8."""
    return path.name.encode("utf-8", "replace").decode()


@contextmanager
def for_cv2(path: Path) -> Iterator[str]:
    """A path as cv2 takes it, good while the context lasts: cv2 dies of a name that is not UTF-8."""
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError:
        pass
    else:
        yield name
        return
    try:
        held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield os.devnull
        return
    try:
        yield f"/proc/self/fd/{held}"
    finally:
        os.close(held)


def decode(data: bytes) -> Pixels:
    """A whole picture file as (height, width, 3) uint8 BGR, turned upright as its EXIF orientation says.

    Grey becomes BGR, alpha is left out, 16 bits become 8. Raises InputError, to be read behind the picture's name, when
    the data is no picture, is cut off, or claims more than MOST_PIXELS (known before anything is decoded).
    """
    size = claimed_size(data)
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        raise InputError(f"claims {size[0]}×{size[1]} pixels, more than {MOST_PIXELS // 10**6} million")
    if data.startswith(b"\xff\xd8") and not _jpeg_ends(data):
        raise InputError("is cut off before its end")
    try:
        # None for what cannot be decoded, whatever cv2's stubs say
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except (cv2.error, MemoryError):
        image = None
    if image is None:
        raise InputError("is no picture that can be decoded" if data else "is empty")
    return bgr(image)


def bgr(image: object) -> Pixels:
    """What cv2 gave as (height, width, 3) uint8 BGR; InputError when it is neither BGR nor grey of 8 bits."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
        if image.ndim == 3 and image.shape[2] == 3:
            return image
    raise InputError("has pixels that are neither BGR nor grey")


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the header of a JPEG, PNG, GIF, BMP, WebP or TIFF states them; None when it is none."""
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _two(">II", data, 16)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _two("<HH", data, 6)
        if data.startswith(b"BM"):
            width, height = _two("<ii", data, 18)
            return abs(width), abs(height)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data.startswith((b"II*\0", b"MM\0*")):
            return _tiff_size(data)
    except struct.error:
        pass
    return None


def _two(layout: str, data: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(layout, data, at)
    return first, second


def _jpeg_segments(data: bytes) -> list[tuple[int, int]]:
    """(marker, offset behind its length field) up to the first start of scan; ISO/IEC 10918-1, B.1."""
    found, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        found.append((marker, at + 4))
        if marker == 0xDA:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return found


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    for marker, at in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = _two(">HH", data, at + 1)
            return width, height
    return None


def _jpeg_ends(data: bytes) -> bool:
    """Whether an end-of-image marker follows the start of scan; a thumbnail's own lies before it."""
    segments = _jpeg_segments(data)
    return bool(segments) and segments[-1][0] == 0xDA and data.find(b"\xff\xd9", segments[-1][1]) >= 0


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """RFC 9649, sections 2.5 to 2.7."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = _two("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """ImageWidth (256) and ImageLength (257) of the first directory; TIFF 6.0, section 2."""
    order = "<" if data.startswith(b"II") else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    sides: dict[int, int] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = _two(f"{order}HH", data, entry)
        if tag in (256, 257):
            (sides[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, entry + 8)
    return (sides[256], sides[257]) if len(sides) == 2 else None
