"""What a restart has to know of rules and profiles, in a small file in the store's folder."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from edge_agent.events import UNREADABLE
from edge_agent.files import read_regular, write_private
from edge_agent.rules.engine import KeptRule

log = logging.getLogger("edge_agent")

NAME, MOST_BYTES = "rules.json", 1_000_000


class Kept(msgspec.Struct, frozen=True):
    """What the file holds."""

    v: int = 1
    profile: str = ""
    since: float = 0.0
    """when it became active, seconds since 1970 UTC"""
    by: str = "start"
    """start, time, command, page: who chose it"""
    planned: str = ""
    """the one that the time asked for last"""
    rules: dict[str, KeptRule] = {}


def read(file: Path) -> Kept:
    """What an earlier run left; nothing where there is no file, or it cannot be read, which is said."""
    try:
        return msgspec.json.decode(read_regular(file, MOST_BYTES), type=Kept)
    except FileNotFoundError:
        return Kept()
    except (OSError, *UNREADABLE) as error:
        log.warning("%s: cannot be read (%s): rules and profiles begin anew", file, error)
        return Kept()


def write(file: Path, kept: Kept) -> None:
    """Keep it, whole or not at all. A disk that refuses is no reason to stop."""
    part = file.with_name(f".{file.name}")
    try:
        write_private(part, msgspec.json.encode(kept), confirm=True)
        part.replace(file)
    except OSError as error:
        log.warning("%s: cannot be written (%s): a restart may repeat an alert", file, error.strerror)
