"""What this device lately heard and read, in memory alone: questions may be asked about it (answer.py).

The agent fills it with the texts of events, as far as these may hold words, where the config says how many.
"""

from __future__ import annotations

from collections import deque

LONGEST = 2000
"""characters of one that are remembered"""
_texts: deque[tuple[str, str]] = deque(maxlen=0)


def keep(most: int) -> None:
    """Remember so many texts from now on, and forget those of before."""
    global _texts
    _texts = deque(maxlen=most)


def note(text: str, pipeline: str) -> None:
    """Remember a text."""
    _texts.append((text[:LONGEST], pipeline))


def lately() -> list[tuple[str, str]]:
    """(text, pipeline), the oldest first."""
    return list(_texts)
