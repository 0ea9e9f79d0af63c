"""Pictures and texts in a request become samples, and what is found in them becomes JSON."""

from __future__ import annotations

import time
import unicodedata
from typing import Any

import msgspec

from edge_agent.errors import InputError
from edge_agent.types import Finding, Frame, Task, Text

IMAGE, TEXT, FOUND = "image", "text", "found"
"""names of inputs of BYTES, and of their output"""
LONGEST = 20_000
"""characters of a text"""


def sample_of(kind: str, data: bytes) -> Frame | Text:
    """A picture or a text. InputError."""
    at, mono = time.time(), time.monotonic()
    if kind == IMAGE:
        from edge_agent.pictures.read import STREAM, decode  # OpenCV, which a device of texts does not load

        image = decode(data, STREAM)
        return Frame(image, at, mono, decode_ms=1e3 * (time.monotonic() - mono))
    try:
        text = unicodedata.normalize("NFC", data.decode()).strip()
    except UnicodeDecodeError:
        raise InputError("a text is UTF-8") from None
    if not text or len(text) > LONGEST:
        raise InputError(f"a text has 1 to {LONGEST} characters")
    return Text(text, at, mono)


def decoded(task: Task, show: Any, sample: Frame | Text) -> bytes:
    """What is found in a sample, as JSON: the one thing, or a list of them under `found`."""
    items = [item for item in task(sample) if isinstance(item, Finding | Text)]
    rows = [show(item)[0] for item in items]
    return msgspec.json.encode(rows[0] if len(rows) == 1 else {FOUND: rows})
