"""Bytes of a picture become pixels; cv2, quiet."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import InputError
from edge_agent.files import open_regular
from edge_agent.pictures import formats
from edge_agent.pictures.formats import CUT, JPEG, PNG
from edge_agent.types import Frame, Pixels

MOST_PIXELS = 200_000_000
"""that may be asked for: a picture takes 3 to 6 bytes of memory for each, however few it has on disk"""
BIGGEST = 1 << 29
"""bytes of a picture file that are read"""
SCANS = 12
"""scans of a picture of the most pixels that are decoded, as each goes over all of it; a smaller one may have more"""
PADDING = 16
"""bytes that a scan may hold beside its picture: webcams put a few before their markers"""
ODD_HEADERS = ("JFIF revision", "Adobe color transform", "subsampling level")
"""what simplejpeg stops at in headers that cv2 understands"""

# read when cv2 is loaded or first used; what the user has set stays
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))
_FORMATS = (
    "rtsp,avi,mov,matroska,webm,mpegts,mpegtsraw,mpeg,mpegvideo,m4v,flv,live_flv,kux,asf,asf_o,ogg,nut,mxf,gxf,wtv,rm,"
    "swf,dv,dhav,nsv,ivf,ivr,obu,av1,h261,h263,h264,hevc,vvc,evc,apv,vc1,vc1test,dirac,dnxhd,cavsvideo,avs2,avs3,mjpeg,"
    "mpjpeg,mjpeg_2000,ingenient,yuv4mpegpipe,gif,apng,bmp_pipe,j2k_pipe,jpeg_pipe,png_pipe,tiff_pipe,webp_pipe"
)
"""films and streams that FFmpeg may open: none that only name other addresses (HLS, DASH, SDP, lists)"""
_FFMPEG = {
    # UDP loses packets, and with them the lower half of a picture
    "rtsp_transport": "tcp",
    # FFmpeg looks at a stream for 3 s and more before it gives a frame, 1 s (here in µs) is enough to know the codec
    "analyzeduration": "1000000",
    # where a camera leads to is followed by us, or not at all
    "max_redirects": "0",
    "format_whitelist": _FORMATS,
}
_theirs = os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS", "")
_kept = {part.partition(";")[0] for part in _theirs.split("|")}
_ours = [f"{name};{value}" for name, value in _FFMPEG.items() if name not in _kept]
os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "|".join([_theirs, *_ours] if _theirs else _ours)

import cv2  # noqa: E402

if os.environ["OPENCV_LOG_LEVEL"] == "SILENT":
    # it may have been loaded before by another room
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

try:
    import simplejpeg
except ImportError:  # no wheel for this machine: cv2 alone, which says nothing of a scan with a hole
    simplejpeg = None

__all__ = [
    "FILES",
    "MOST_PIXELS",
    "STREAM",
    "Limits",
    "as_jpegs",
    "bgr",
    "cv2",
    "decode",
    "for_cv2",
    "read_picture",
    "shown",
]


class Limits(msgspec.Struct, frozen=True):
    """What a picture may cost, known before it is decoded."""

    pixels: int = 100_000_000
    size: int = BIGGEST
    """bytes"""
    any_kind: bool = True
    """False: only what cameras send, a JPEG or a PNG"""


FILES = Limits()
"""of pictures on this device"""
STREAM = Limits(33_000_000, 8 << 20, any_kind=False)
"""of a camera's"""


def read_picture(path: Path, limits: Limits = FILES) -> Frame:
    """One picture file as a Frame. InputError, without the path, when it cannot be read."""
    at, mono = time.time(), time.monotonic()
    try:
        with path.open("rb") as file:
            data = file.read(BIGGEST + 1)  # what a device gives has no size, and no end
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return Frame(decode(data, limits), at, mono, shown(path), 1000 * (time.monotonic() - mono))


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
        held = open_regular(path)
    except OSError:
        yield os.devnull
        return
    try:
        yield f"/proc/self/fd/{held}"
    finally:
        os.close(held)


def decode(data: bytes, limits: Limits = FILES) -> Pixels:
    """A whole picture file as (height, width, 3) uint8 BGR, turned upright as its EXIF orientation says.

    Grey becomes BGR, alpha is left out, 16 bits become 8. Raises InputError, to be read behind the picture's name, when
    the data is no picture, is cut off or damaged, or is beyond `limits` (known before anything is decoded).
    """
    if not data:
        raise InputError("is empty")
    if len(data) > limits.size:
        raise InputError(f"is larger than {limits.size / (1 << 20):.3g} MiB")
    if not limits.any_kind and not data.startswith((JPEG, PNG)):
        raise InputError("is neither a JPEG nor a PNG")
    size = formats.claimed_size(data)
    if size is not None and size[0] * size[1] > limits.pixels:
        raise InputError(f"claims {size[0]}×{size[1]} pixels, more than {limits.pixels / 1e6:g} million")
    if data.startswith(JPEG):
        return _jpeg(data, limits)
    if data.startswith(PNG):
        return _by_cv2(formats.png_core(data))
    if formats.is_avif(data):
        return _avif(data)
    return _by_cv2(data)


def as_jpegs(capture: cv2.VideoCapture) -> bool:
    """Let an open film or stream of JPEGs give them as they are, before anything is read; False for any other.

    FFmpeg goes on where a part of one is missing, with what the frame before it had there.
    """
    kind = (int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little").upper()
    return capture.getBackendName() == "FFMPEG" and kind in (b"MJPG", b"JPEG") and capture.set(cv2.CAP_PROP_FORMAT, -1)


def _by_cv2(data: bytes, flags: int = cv2.IMREAD_COLOR) -> Pixels:
    try:
        # None for what cannot be decoded, whatever cv2's stubs say
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError):
        image = None
    if image is None and formats.is_picture(data):
        raise InputError("is cut off or damaged, or of a kind that cannot be decoded")
    if image is None:
        raise InputError("is no picture that can be decoded")
    return bgr(image)


def _avif(data: bytes) -> Pixels:
    """cv2 knows nothing of its turns; should that change, it is to leave them to us."""
    image = _by_cv2(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    for kind, by in formats.avif_turns(data):
        image = np.rot90(image, by) if kind == b"irot" else np.flip(image, by)
    return np.ascontiguousarray(image)


def _jpeg(data: bytes, limits: Limits) -> Pixels:
    """A JPEG. libjpeg goes on where data is missing and only warns: its warnings count here.

    It cannot notice everything: where some bytes are lost that code no whole block, it decodes on without a warning.
    """
    frame = formats.jpeg_frame(data)
    if frame is None:
        raise InputError(CUT)
    scans, whole = formats.jpeg_scans(data, frame)
    if scans > 1 and scans * frame.width * frame.height > SCANS * limits.pixels:
        raise InputError(f"has {scans} scans of {frame.width}×{frame.height} pixels; save it again with fewer")
    if not whole:
        raise InputError(CUT)
    ended = formats.with_end(data, frame)
    if simplejpeg is None:
        return _by_cv2(ended)
    image, odd = _strictly(ended)
    if image is not None:
        return _turned(image, frame.orientation)
    return _in_spite_of(odd, ended, frame.orientation, ended is not data)


def _in_spite_of(odd: str, ended: bytes, orientation: int, is_cut: bool) -> Pixels:
    """A JPEG with a warning that does no harm; InputError for any other. `is_cut`: it had no end."""
    extra = re.search(r"(\d+) extraneous bytes before marker 0xd", odd)
    if (extra and int(extra[1]) <= PADDING) or "SOS parameters" in odd:
        return _turned(simplejpeg.decode_jpeg(ended, "BGR", strict=False), orientation)
    if any(words in odd for words in ODD_HEADERS):
        return _by_cv2(ended)
    if is_cut:
        raise InputError(CUT)
    raise InputError(f"is cut off or damaged ({odd.removeprefix('Corrupt JPEG data: ')})")


def _strictly(data: bytes) -> tuple[Pixels | None, str]:
    """A JPEG decoded without a warning, zeros behind its scan left out; or None, and the warning."""
    odd = ""
    for attempt in (data, formats.without_zeros(data)):
        try:
            return simplejpeg.decode_jpeg(attempt, "BGR", strict=True), ""
        except MemoryError:
            raise InputError("does not fit into the memory that is free") from None
        except ValueError as error:
            odd = str(error)
        if "extraneous" not in odd:
            break
    return None, odd


def _turned(image: Pixels, orientation: int) -> Pixels:
    """A picture upright, that was stored as an orientation of EXIF says (2 to 8)."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def bgr(image: object) -> Pixels:
    """What cv2 gave as (height, width, 3) uint8 BGR; InputError when it is neither BGR nor grey of 8 bits."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
        if image.ndim == 3 and image.shape[2] == 3:
            return image
    raise InputError("has pixels that are neither BGR nor grey")
