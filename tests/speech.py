"""Spoken samples for tests, and a source of WAV files."""

from __future__ import annotations

import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_agent.errors import SourceError
from edge_agent.sources import Here, Opened
from edge_agent.types import Audio, Floats
from edge_agent.uri import Uri


def samples_of(path: Path) -> Floats:
    """A WAV file of 16 bits, or raw ones, as float32."""
    raw = path.read_bytes()
    if path.suffix == ".wav":
        with wave.open(str(path)) as file:
            raw = file.readframes(file.getnframes())
    found: Floats = np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(32768)
    return found


def wav(uri: Uri, here: Here) -> Opened:
    """``tests.speech:wav:PATH``: a file as one segment."""
    if not Path(uri.rest).is_file():
        raise SourceError(f"{uri.rest}: no such file")

    def run(stop: threading.Event) -> Iterator[Audio]:
        yield Audio(samples_of(Path(uri.rest)), time.time(), time.monotonic(), last=True)

    return Opened(run, Audio, live=False)
