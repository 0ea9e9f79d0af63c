"""How a verb asks the agent that runs to take something: by files in HOME/fleet, as both may be other users' processes.

`running` is locked as long as an agent runs that takes updates; `asked.json` says what is wanted, `told.json` what came
of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent import files
from edge_agent.events import UNREADABLE
from edge_agent.fleet.outcome import Outcome

MOST = 1_000_000
"""bytes of each file"""
LOOK_S = 1.0
"""seconds between two looks"""


class Question(msgspec.Struct, frozen=True):
    """What is wanted."""

    token: str
    targets: list[str] = []
    """none: all that the config follows"""
    again: bool = False
    """also what failed here before"""


class Told(msgspec.Struct, frozen=True):
    """What came of it."""

    token: str
    outcomes: list[Outcome] = []


def running(folder: Path) -> int | None:
    """A lock that says that an agent runs which takes updates: a descriptor, None where another process holds it."""
    files.folder(folder, files.PRIVATE)
    handle = os.open(folder / "running", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except OSError:
        os.close(handle)
        return None


def question(folder: Path) -> Question | None:
    """What a verb asked for, once; None for nothing."""
    path = folder / "asked.json"
    if not path.exists():
        return None
    with contextlib.suppress(OSError, *UNREADABLE):
        raw = files.read_regular(path, MOST)
        path.unlink()
        return msgspec.json.decode(raw, type=Question)
    return None


def answer(folder: Path, told: Told) -> None:
    """Say what came of it. OSError."""
    files.exchange(folder / "told.json", msgspec.json.encode(told))


def ask(folder: Path, targets: list[str], again: bool, over: Callable[[], bool]) -> list[Outcome] | None:
    """Ask, and wait for what comes of it, as long as it is not `over`; None then. OSError."""
    asked = Question(secrets.token_hex(8), targets, again)
    files.exchange(folder / "asked.json", msgspec.json.encode(asked))
    while not over():
        with contextlib.suppress(OSError, *UNREADABLE):
            told = msgspec.json.decode(files.read_regular(folder / "told.json", MOST), type=Told)
            if told.token == asked.token:
                return told.outcomes
        time.sleep(LOOK_S)
    return None
