"""What people said of answers: how far what was found is what they corrected it to. HOME/samples/checks.jsonl."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from edge_agent import files, paths
from edge_agent.figures.overlap import Row, shared

log = logging.getLogger("edge_agent")

MOST_BYTES = 1_000_000
"""of the file, which is begun anew then"""


class Check(msgspec.Struct, frozen=True):
    """One picture that a person looked at."""

    model: str
    at: float
    """seconds since 1970"""
    agreed: float
    """0..1"""


class Reader(Protocol):
    """Who knows up to where it has read."""

    read: int


def place() -> Path:
    """The file."""
    return paths.home() / "samples" / "checks.jsonl"


def note(model: str, at: float, found: Sequence[Row], right: Sequence[Row]) -> None:
    """A person corrected what `model` found to what is right; a disk that takes nothing costs the check."""
    try:
        files.folder(place().parent, files.PRIVATE)
        append = not place().exists() or place().stat().st_size < MOST_BYTES
        line = msgspec.json.encode(Check(model, at, shared(found, right))) + b"\n"
        files.write_private(place(), line, append=append)
    except OSError as error:
        log.warning("%s: a check cannot be kept: %s", place(), error)


def since(reader: Reader) -> Iterator[tuple[str, float, float]]:
    """Model, time and agreement of each check that `reader` has not read yet."""
    try:
        size = place().stat().st_size
        if size < reader.read:
            reader.read = 0
        if size == reader.read:
            return
        raw = files.read_regular(place(), 2 * MOST_BYTES)[reader.read :]
    except OSError:
        return
    whole = raw[: raw.rfind(b"\n") + 1]
    reader.read += len(whole)
    for line in whole.splitlines():
        try:
            one = msgspec.json.decode(line, type=Check)
        except msgspec.MsgspecError:
            continue
        yield one.model, one.at, min(1.0, max(0.0, one.agreed))
