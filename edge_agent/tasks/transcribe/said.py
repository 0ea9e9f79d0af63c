"""What an engine of `transcribe` is: a function of sound, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from edge_agent.types import Floats


class Said(msgspec.Struct, frozen=True):
    """What is said in a segment."""

    text: str
    """one line, NFC, not empty"""
    score: float
    """0..1, how sure the engine is of its words"""
    language: str
    """ISO 639-1"""
    words: tuple[tuple[float, float], ...] | msgspec.UnsetType = msgspec.UNSET
    """seconds at which each word of the text begins and ends, where that was asked for"""


Engine: TypeAlias = Callable[[Floats], Said | None]
"""(n,) float32 in -1..1 at 16 kHz -> what is said; None for nothing. One thread at a time"""
