"""Samples and labels that the device recorded of its own pipelines."""

from __future__ import annotations

from pathlib import Path

from edge_agent import paths
from edge_agent.files import read_regular, stats
from edge_agent.registry import store

MOST_SAMPLES = 64
"""files in HOME/samples that are looked at"""
MOST_LABELS = 100_000_000
"""bytes of a file of boxes or texts that this device recorded"""
MOST_LINES = 1000
"""of what the device recorded"""


def samples() -> list[Path]:
    """What this device recorded to hold variants against: HOME/samples/*.jpg, .png and .txt (a sentence a line)."""
    found = [path for path in (paths.home() / "samples").glob("*") if path.suffix in (".jpg", ".png", ".txt")]
    return sorted(found)[:MOST_SAMPLES]


def labels() -> Path | None:
    """The boxes that people drew in them: HOME/samples/instances.json, in COCO's format; None where there are none."""
    return place() if place().is_file() else None


def place() -> Path:
    """Where these stand."""
    return paths.home() / "samples" / "instances.json"


def fingerprint() -> list[str]:
    """Another list as soon as a sample or a label is another one."""
    # what was written into one since, of the same length too
    rows = sorted(stats(samples()), key=lambda row: row[1])
    found = [f"{path.name} {status.st_size} {status.st_mtime_ns}" for status, path in rows]
    drawn = labels()
    return [*found, store.digest(drawn)] if drawn else found


def lines() -> list[str]:
    """The lines of the recorded texts that are not blank."""
    texts = [read_regular(path, MOST_LABELS).decode("utf-8", "replace") for path in samples() if path.suffix == ".txt"]
    return [line for text in texts for line in text.splitlines() if line.strip()]
