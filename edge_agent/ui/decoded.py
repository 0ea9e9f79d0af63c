"""Pictures and texts in a request become samples, and what is found in them becomes JSON."""

from __future__ import annotations

import time
import unicodedata
from typing import Any

import msgspec

from edge_agent.errors import InputError
from edge_agent.types import Audio, Finding, Frame, Task, Text

IMAGE, TEXT, SOUND, FOUND = "image", "text", "sound", "found"
"""names of inputs of BYTES, and of their output"""
LONGEST = 20_000
"""characters of a text"""
MOST_S = 30.0
"""seconds of sound: what Whisper hears at once"""


def sample_of(kind: str, data: bytes) -> Frame | Text | Audio:
    """A picture, a text, or the sound of a WAV file. InputError."""
    at, mono = time.time(), time.monotonic()
    if kind == IMAGE:
        from edge_agent.pictures.read import STREAM, decode  # OpenCV, which a device of texts does not load

        image = decode(data, STREAM)
        return Frame(image, at, mono, decode_ms=1e3 * (time.monotonic() - mono))
    if kind == SOUND:
        from edge_agent.sources.wav import sound_of

        try:
            return Audio(sound_of(data, MOST_S), at, mono, last=True)
        except InputError as error:
            raise InputError(f'"{SOUND}" {error}') from None
    try:
        text = unicodedata.normalize("NFC", data.decode()).strip()
    except UnicodeDecodeError:
        raise InputError("a text is UTF-8") from None
    if not text or len(text) > LONGEST:
        raise InputError(f"a text has 1 to {LONGEST} characters")
    return Text(text, at, mono)


def decoded(task: Task, show: Any, sample: Frame | Text | Audio) -> bytes:
    """What is found in a sample, as JSON: the one thing, or a list of them under `found`."""
    items = [item for item in task(sample) if isinstance(item, Finding | Text)]
    rows = [show(item)[0] for item in items]
    return msgspec.json.encode(rows[0] if len(rows) == 1 else {FOUND: rows})
