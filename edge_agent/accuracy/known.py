"""What is known of the accuracy of models, kept over a restart: ``STORE/accuracy.json``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent import files
from edge_agent.accuracy.contract import Agreement
from edge_agent.accuracy.drift import Drift

log = logging.getLogger("edge_agent")

NAME, MOST_BYTES = "accuracy.json", 8_000_000


class Known(msgspec.Struct):
    """All of it; JSON on disk."""

    agreement: dict[str, Agreement] = msgspec.field(default_factory=dict)
    """model -> how far it agreed"""
    drift: dict[str, Drift] = msgspec.field(default_factory=dict)
    """pipeline -> what it sees and says"""
    back: dict[str, str] = msgspec.field(default_factory=dict)
    """model -> SHA-256 of the file of it that may serve alone"""
    version: dict[str, str] = msgspec.field(default_factory=dict)
    """model -> the version that all this is known of; of another one nothing is"""
    read: int = 0
    """bytes of people's checks that were counted"""


def remembered(store: Path) -> Known:
    """What is known; of a file that is none of ours nothing, and that is said."""
    try:
        return msgspec.json.decode(files.read_regular(store / NAME, MOST_BYTES), type=Known)
    except FileNotFoundError:
        return Known()
    except (OSError, ValueError) as error:
        log.warning("%s: what was known of accuracy is begun anew: %s", store / NAME, error)
        return Known()


def keep(store: Path, known: Known) -> None:
    """Write it down; where that cannot be, it is said."""
    try:
        files.exchange(store / NAME, msgspec.json.encode(known))
    except OSError as error:
        log.warning("%s: what is known of accuracy cannot be kept: %s", store / NAME, error)


def keep_to_parents(keep_to: Callable[[str, str], None], store: Path) -> None:
    """Tell `keep_to` each model that went back, and the file (SHA-256) that serves since; before any is opened."""
    for name, sha256 in remembered(store).back.items():
        keep_to(name, sha256)
