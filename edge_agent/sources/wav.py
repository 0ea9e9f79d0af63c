"""WAV files and streams: PCM of 8 to 32 bits and floats (RIFF of 1991 by IBM and Microsoft, WAVE_FORMAT_EXTENSIBLE).

A header is believed within bounds only, and of sizes only what is there.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edge_agent.errors import InputError
from edge_agent.sources.resample import MOST_CHANNELS, RATES, Funnel, samples, width
from edge_agent.types import Floats

MAGICS = (b"RIFF", b"RF64")
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
UNKNOWN = (0, 0x7FFFFF00)
"""sizes of data, this one and those from the other one on, that programs write which do not know it yet"""
LAYOUTS = {(PCM, 8): "u8", (PCM, 16): "s16", (PCM, 24): "s24", (PCM, 32): "s32", (FLOAT, 32): "f32", (FLOAT, 64): "f64"}
MOST_HEAD = 4096
"""bytes of the chunk that says the format"""
MOST_BESIDE = 64 << 20
"""bytes of what stands before the sound, such as a picture of the cover"""
PIECE = 1 << 16

Read = Callable[[int], bytes]
"""(bytes wanted) -> that many of them, fewer at the end"""


class Wav(NamedTuple):
    """What a header says."""

    layout: str
    """one of resample.FORMATS"""
    rate: int
    channels: int
    size: int | None
    """bytes of sound; None where the header does not know"""


class OddError(InputError):
    """A WAV file, but not of a kind that is read here: compressed."""


def header(read: Read) -> Wav:
    """Read up to the first byte of sound. InputError in words that follow "it"; OddError where another may read it."""
    _check_top(read(12))
    found: tuple[str, int, int] | None = None
    beside = 0
    while True:
        head = read(8)
        if len(head) < 8:
            raise InputError("is a WAV file without sound: it ends before the data")
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data":
            if found is None:
                raise InputError("is a WAV file that says no format before its data")
            unknown = size == UNKNOWN[0] or size >= UNKNOWN[1]
            return Wav(*found, None if unknown else size)
        if name == b"fmt ":
            if size > MOST_HEAD:
                raise InputError(f"has a header that lies: {size} bytes to say its format")
            found = _format(read(size + size % 2)[:size])
            continue
        beside += size
        if beside > MOST_BESIDE:
            raise InputError(f"has a header that lies: {beside} bytes before its sound")
        _skip(read, size + size % 2)


def sound_of(data: bytes, most_s: float) -> Floats:
    """A whole WAV file of at most so many seconds -> (n,) float32 at RATE. InputError in words that follow "it"."""
    file = io.BytesIO(data)
    wav = header(file.read)
    frame = width(wav.layout) * wav.channels
    raw = file.read() if wav.size is None else file.read(wav.size)
    if len(raw) < frame:
        raise InputError("holds no sound")
    if (seconds := len(raw) / frame / wav.rate) > most_s:
        raise InputError(f"has {seconds:.0f} s; up to {most_s:.0f} s are taken at once")
    funnel = Funnel(wav.rate, wav.channels)
    last = np.zeros((0, wav.channels), np.float32)
    return np.concatenate([funnel(samples(raw, wav.layout, wav.channels)), funnel(last, last=True)])


def _check_top(top: bytes) -> None:
    """InputError where these are not the first 12 bytes of a WAV file."""
    if not top:
        raise InputError("is empty")
    if len(top) < 12 or top[:4] not in MAGICS or top[8:] != b"WAVE":
        raise InputError("is no WAV file, whatever its name says")


def _skip(read: Read, left: int) -> None:
    """Read over so many bytes, or to the end."""
    while left and (piece := read(min(left, PIECE))):
        left -= len(piece)


def _format(said: bytes) -> tuple[str, int, int]:
    """Layout, rate and channels of a fmt chunk."""
    if len(said) < 16:
        raise InputError("is a WAV file whose format is cut off")
    code, channels, rate, _, align, bits = struct.unpack("<HHIIHH", said[:16])
    if code == EXTENSIBLE and len(said) >= 26:
        code = struct.unpack("<H", said[24:26])[0]
    layout = LAYOUTS.get((code, bits))
    if layout is None:
        if code in (PCM, FLOAT):
            raise InputError(f"has a header that lies: samples of {bits} bits")
        raise OddError(f"is a WAV file of kind {code}, not plain PCM")
    if not 1 <= channels <= MOST_CHANNELS:
        raise InputError(f"has {channels} channels by its header; 1 to {MOST_CHANNELS} are taken")
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"has {rate} samples a second by its header; {RATES[0]} to {RATES[1]} are taken")
    if align != channels * bits // 8:
        raise InputError(f"has a header that lies: {channels} channels of {bits} bits in {align} bytes")
    return layout, rate, channels
