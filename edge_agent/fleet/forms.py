"""Smaller forms in which a file travels: packed with xz, or as the difference to a file that the device has (bsdiff).

A form is carried only where it pays. Measured on this project's own networks: one that was trained anew shares nothing
with the one before it that packing alone does not find (xz: 0.69 of an int8 network, 0.92 of float32); of the same
weights (a graph that was simplified, a head that was trained) a difference is a thousandth to a seventieth.

The format of differences is that of bsdiff 4.3: https://www.daemonology.net/bsdiff/ (three streams of bz2).
"""

from __future__ import annotations

import bz2
import lzma
import struct
from typing import TYPE_CHECKING

from edge_agent.errors import RefusedError

if TYPE_CHECKING:
    from edge_agent.fleet.bundle import Method

PAYS = 0.85
"""of a file's bytes: a form that has more is not carried"""
MOST = 64 << 20
"""bytes of a file of which differences are made: making one takes seventeen times as many bytes of memory"""
MOST_UNPACKING = 128 << 20
"""bytes of memory that unpacking may take"""
_HEAD, _STEP = struct.Struct("<8sQQQ"), 24
_MOST_STEPS = 4_000_000


def packed(data: bytes) -> bytes:
    """As xz."""
    return lzma.compress(data, preset=6)


def difference(base: bytes, data: bytes) -> bytes:
    """From `base` to `data`. ImportError where bsdiff4 is missing."""
    import bsdiff4

    made: bytes = bsdiff4.diff(base, data)
    return made


def restored(method: Method, form: bytes, size: int, base: bytes = b"") -> bytes:
    """The file of `size` bytes that a form stands for. RefusedError for what gives more, or no such file."""
    try:
        return _unpacked(form, size) if method == "xz" else _patched(base, form, size)
    except (lzma.LZMAError, OSError, EOFError, ValueError, struct.error, MemoryError) as error:
        raise RefusedError(f"a form as {method} does not give its file: {str(error) or 'out of memory'}") from None


def _unpacked(form: bytes, size: int) -> bytes:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_UNPACKING)
    data = unpacker.decompress(form, max_length=size + 1)
    if len(data) != size:
        raise ValueError(f"gives {'more' if len(data) > size else 'less'} than the {size} bytes that were said")
    return data


def _patched(base: bytes, form: bytes, size: int) -> bytes:
    """Apply a difference. Control: triples of bytes to add to those of `base`, bytes to insert, a step in `base`."""
    import numpy as np

    raw, added, extra = _streams(form, size)
    diff, old, new = np.frombuffer(added, np.uint8), np.frombuffer(base, np.uint8), np.zeros(size, np.uint8)
    position = put = taken = inserted = 0
    for words in struct.iter_unpack("<QQQ", raw):
        add, insert, step = (-(word & ~(1 << 63)) if word >> 63 else word for word in words)
        inside = put + add + insert <= size and taken + add <= len(diff) and inserted + insert <= len(extra)
        if min(add, insert) < 0 or not inside:
            raise ValueError("leads out of its file")
        new[put : put + add] = diff[taken : taken + add]
        first, last = max(0, position), min(len(old), position + add)
        if last > first:
            new[put + first - position : put + last - position] += old[first:last]
        put, taken, position = put + add, taken + add, position + add
        new[put : put + insert] = np.frombuffer(extra[inserted : inserted + insert], np.uint8)
        put, inserted, position = put + insert, inserted + insert, position + step
    if put != size:
        raise ValueError(f"gives {put} of {size} bytes")
    return new.tobytes()


def _streams(form: bytes, size: int) -> tuple[bytes, bytes, bytes]:
    """The three streams of a difference. ValueError for what is none, or one of a file of another size."""
    magic, control, diff, said = _HEAD.unpack_from(form)
    if magic != b"BSDIFF40" or said != size:
        raise ValueError("is none, or one of another file")
    at = _HEAD.size
    parts = (form[at : at + control], form[at + control : at + control + diff], form[at + control + diff :])
    steps, added, extra = (
        _stream(part, most) for part, most in zip(parts, (_MOST_STEPS * _STEP, size, size), strict=True)
    )
    return steps, added, extra


def _stream(data: bytes, most: int) -> bytes:
    """A stream of bz2. ValueError for one that gives more than `most` bytes."""
    if not data:
        return b""
    unpacker = bz2.BZ2Decompressor()
    out = unpacker.decompress(data, max_length=most + 1)
    if len(out) > most:
        raise ValueError(f"unpacks to more than {most} bytes")
    return out
