"""What the bytes of a picture say before anything is decoded: its size, its scans, which way is up, what is missing."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

import msgspec

from edge_agent.errors import InputError

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
END_OF_JPEG = b"\xff\xd9"
CUT = "is cut off before its end"

UPRIGHT = 1
"""orientation of a picture that is stored as it is to be seen; the others as EXIF numbers them, 2 to 8"""
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""in a scan: what neither belongs to it nor only divides it"""
_KEPT = (b"tRNS", b"eXIf")
"""chunks of a PNG that are read although a decoder need not know them: what is transparent, and which way is up"""


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the header of a JPEG, PNG, GIF, BMP, WebP or TIFF states them; None when it is none."""
    try:
        if data.startswith(JPEG):
            frame = jpeg_frame(data)
            return (frame.width, frame.height) if frame else None
        if data.startswith(PNG):
            return _two(">II", data, 16)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _two("<HH", data, 6)
        if data.startswith(b"BM"):
            width, height = _two("<ii", data, 18)
            return abs(width), abs(height)
        if data.startswith(b"RIFF"):
            return _webp_size(data)
        if data.startswith((b"II*\0", b"MM\0*")):
            sides = _directory(data, 0, (256, 257))
            return (sides[256], sides[257]) if len(sides) == 2 else None
    except struct.error:
        pass
    return None


def is_picture(data: bytes) -> bool:
    """Whether it begins as a picture does, of any kind that is known here."""
    begins = (JPEG, PNG, b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
    webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    return data.startswith(begins) or webp or is_avif(data) or bool(re.match(rb"P[1-7]\s", data))


def _two(layout: str, data: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(layout, data, at)
    return first, second


# ── JPEG: ISO/IEC 10918-1, B.1 and B.2 ──────────────────────────────────────────────────────────────────────

START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
START_OF_SCAN = 0xDA
WITHOUT_BODY = {0x01, *range(0xD0, 0xD9)}
"""markers, B.1.1.3"""


class JpegFrame(msgspec.Struct, frozen=True):
    """What stands before the first scan."""

    width: int
    height: int
    progressive: bool
    components: bytes
    """the id of each, one byte"""
    orientation: int
    """as EXIF numbers it, 1 to 8"""
    scan: int
    """offset of the first start of scan"""


def jpeg_frame(data: bytes | bytearray) -> JpegFrame | None:
    """The header of a JPEG up to its first scan; None where it is none, or ends before that."""
    frame, orientation = None, UPRIGHT
    for marker, at, body in _segments(data):
        if marker == START_OF_SCAN:
            return msgspec.structs.replace(frame, orientation=orientation, scan=at) if frame else None
        if marker in START_OF_FRAME and len(body) >= 6:
            height, width = _two(">HH", body, 1)
            frame = JpegFrame(width, height, marker in PROGRESSIVE, body[6 : 6 + 3 * body[5] : 3], UPRIGHT, 0)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(body[6:])
    return None


def _segments(data: bytes | bytearray) -> Iterator[tuple[int, int, bytes]]:
    """(marker, its offset, its content) of what has a content, up to the first scan's bytes."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in WITHOUT_BODY:
            at += 1 if marker == 0xFF else 2
            continue
        body = bytes(data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")])
        yield marker, at, body
        at += 4 + len(body)


def jpeg_scans(data: bytes, frame: JpegFrame) -> tuple[int, bool]:
    """How many scans a JPEG has, and whether they hold all of it: every component, each bit of each coefficient.

    Looks at the markers alone: whether a scan is as long as it should be is for the decoder to say. A file of one scan
    is not gone through.
    """
    if not frame.progressive and data[frame.scan + 4 : frame.scan + 5] == bytes([len(frame.components)]):
        return 1, True
    lacks = _Lacks(frame)
    count, at = 0, frame.scan
    while at >= 0:
        kind, body = data[at + 1], data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
        if kind == START_OF_SCAN and body and len(body) >= 4 + 2 * body[0]:
            count += 1
            lacks.take(body)
        if kind == 0xD9:
            break
        found = _MARKER.search(data, at + 4 + len(body)) if kind != 0xD8 else None
        at = found.end() - 2 if found else -1
    return count, not lacks


class _Lacks:
    """Of each coefficient of each component, how many of its lowest bits have not come yet."""

    def __init__(self, frame: JpegFrame) -> None:
        self.progressive = frame.progressive
        self.bits = {component: [16] * (64 if frame.progressive else 1) for component in frame.components}

    def take(self, header: bytes) -> None:
        """A scan with this header has come."""
        first, last, low = header[-3], min(header[-2], 63), header[-1] & 15
        for component in set(header[1 : 1 + 2 * header[0] : 2]) & self.bits.keys():
            if not self.progressive:
                self.bits[component] = [0]
            elif first <= last:
                self.bits[component][first : last + 1] = [low] * (last + 1 - first)

    def __bool__(self) -> bool:
        return any(any(bits) for bits in self.bits.values())


def with_end(data: bytes, frame: JpegFrame) -> bytes:
    """A JPEG with the marker that ends it: some cameras leave it out, or zeros in its place."""
    if data.find(END_OF_JPEG, frame.scan) >= 0:
        return data
    bare = data.rstrip(b"\0")
    return bare + (b"\0" if bare.endswith(b"\xff") and len(bare) < len(data) else b"") + END_OF_JPEG


def without_zeros(data: bytes) -> bytes:
    """A JPEG without the zeros that some cameras put between its scan and its end marker."""
    end = data.rfind(END_OF_JPEG)
    bare = data[:end].rstrip(b"\0")
    return (bare + (b"\0" if bare.endswith(b"\xff") else b"") + END_OF_JPEG) if len(bare) < end - 1 else data


# ── PNG: the W3C's recommendation, third edition, section 5 ─────────────────────────────────────────────────


def png_core(data: bytes) -> bytes:
    """The chunks of a PNG that make its pixels: no texts, no colour profile, no further frames of an animation.

    InputError when it is cut off, or a chunk of those is not as it was written.
    """
    kept, view = [data[:8]], memoryview(data)
    for kind, at, size in _chunks(data):
        if size < 0 or at + size + 4 > len(data):
            break
        if kind[:1].isupper() or kind in _KEPT:
            if zlib.crc32(view[at - 4 : at + size]) != int.from_bytes(view[at + size : at + size + 4], "big"):
                raise InputError(f"is damaged (its chunk {kind.decode('latin-1')} is not what was written)")
            kept.append(data[at - 8 : at + size + 4])
        if kind == b"IEND":
            return b"".join(kept)
    raise InputError(CUT)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, offset of its content, length of its content)."""
    at = 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, size
        at += 12 + size


# ── the others ──────────────────────────────────────────────────────────────────────────────────────────────


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """RFC 9649, sections 2.5 to 2.7."""
    kind = data[12:16] if data[8:12] == b"WEBP" else b""
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = _two("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _exif_orientation(block: bytes) -> int:
    """Orientation (274) of an EXIF block, 1 where it is not there or nonsense."""
    try:
        found = _directory(block, 0, (274,)).get(274, UPRIGHT)
    except struct.error:
        return UPRIGHT
    return found if 1 <= found <= 8 else UPRIGHT


def _directory(data: bytes, at: int, wanted: tuple[int, ...]) -> dict[int, int]:
    """Whole numbers of the first directory of the TIFF structure at `at`; TIFF 6.0, section 2."""
    order = "<" if data[at : at + 2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", data, at + 4)
    (count,) = struct.unpack_from(f"{order}H", data, at + first)
    found: dict[int, int] = {}
    for entry in range(at + first + 2, at + first + 2 + 12 * count, 12):
        tag, kind = _two(f"{order}HH", data, entry)
        if tag in wanted:
            (found[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, entry + 8)
    return found


def is_avif(data: bytes) -> bool:
    """ISO/IEC 14496-12, 4.3: the file type of a picture coded as AV1."""
    return data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"mif1", b"msf1")


def avif_turns(data: bytes) -> list[tuple[bytes, int]]:
    """What an AVIF asks to be done with its decoded picture, in order; ISO/IEC 23008-12, 6.5.10 and 6.5.12.

    (b"irot", quarter turns against the clock) or (b"imir", 0: top and bottom change places, 1: left and right).
    """
    try:
        meta = dict(_boxes(data, 0, len(data))).get(b"meta")
        if meta is None:
            return []
        inside = dict(_boxes(data, meta[0] + 4, meta[1]))
        start = inside[b"pitm"][0]
        (primary,) = struct.unpack_from(">I" if data[start] else ">H", data, start + 4)
        parts = dict(_boxes(data, *inside[b"iprp"]))
        all_of_it = list(_boxes(data, *parts[b"ipco"]))
        turns = []
        for index in _properties_of(data, parts[b"ipma"][0], primary):
            kind, (at, _) = all_of_it[index - 1]
            bits = {b"irot": 3, b"imir": 1}.get(kind)
            if bits:
                turns.append((kind, data[at] & bits))
    except (KeyError, IndexError, struct.error):
        return []
    return turns


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """(kind, (where its content begins, where it ends)) of the boxes between two offsets."""
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        begin = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin)
            begin += 8
        stop = at + size if size else end
        if stop < begin or stop > end:
            return
        yield kind, (begin, stop)
        at = stop


def _properties_of(data: bytes, at: int, item: int) -> list[int]:
    """Numbers, from 1, of the properties of an item (box ipma)."""
    version, wide = data[at], data[at + 3] & 1
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(min(count, 1000)):
        (number,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        many = data[at]
        at += 1
        step = 2 if wide else 1
        found = [
            int.from_bytes(data[at + i * step : at + (i + 1) * step], "big") & (0x7FFF if wide else 0x7F)
            for i in range(many)
        ]
        if number == item:
            return found
        at += many * step
    return []
