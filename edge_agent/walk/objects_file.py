"""The objects of a pipeline that a restart has to know of, in a small file in the store's folder."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_agent.events import UNREADABLE
from edge_agent.files import read_regular, write_private

MOST_BYTES = 1_000_000
MOST = 1000
"""objects"""

log = logging.getLogger("edge_agent")


class Kept(msgspec.Struct, frozen=True):
    """One of them."""

    id: str
    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]
    """pixels"""
    size: tuple[int, int]
    """of the frame"""
    since: float
    seconds: float
    zones: tuple[str, ...]
    dwell: dict[str, float]
    still: bool
    open: bool
    """no end of it was told"""


class Memory(msgspec.Struct, frozen=True):
    """What the file holds."""

    size: tuple[int, int] | None = None
    """of the frames"""
    objects: list[Kept] = []


def read(file: Path | None) -> Memory:
    """What an earlier run left; nothing where there is no file, or it cannot be read, which is said."""
    if file is None:
        return Memory()
    try:
        return msgspec.json.decode(read_regular(file, MOST_BYTES), type=Memory)
    except FileNotFoundError:
        return Memory()
    except (OSError, *UNREADABLE) as error:
        log.warning("%s: cannot be read (%s): what was in view before is not known", file, error)
        return Memory()


def write(file: Path, size: tuple[int, int] | None, objects: Sequence[Kept]) -> None:
    """Keep these, whole or not at all. A disk that refuses is no reason to stop."""
    part = file.with_name(f".{file.name}")
    with contextlib.suppress(OSError):
        write_private(part, msgspec.json.encode(Memory(size, list(objects[:MOST]))))
        part.replace(file)
