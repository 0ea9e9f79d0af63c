"""What `evaluate --card` found of a model: its figures and its worst pictures, in HOME/evaluated/NAME, for the page."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import Annotated

import msgspec

from edge_agent import files, paths
from edge_agent.errors import UsageError
from edge_agent.events import UNREADABLE
from edge_agent.toml import NAME

ABOUT, MOST = "evaluated.json", 1_000_000
PICTURE = re.compile(r"[\w.-]{1,200}\.jpg")


class Evaluated(msgspec.Struct, frozen=True):
    """What was found."""

    version: str
    sha256: str
    at: Annotated[float, msgspec.Meta(description="when, seconds since 1970")]
    lines: Annotated[list[str], msgspec.Meta(description="the figures, for people")]
    pictures: Annotated[list[str], msgspec.Meta(description="the worst: truth left, answer right")] = []


def place(name: str) -> Path:
    """Where it is kept of a model. UsageError for what cannot be a name."""
    if not re.fullmatch(NAME, name):
        raise UsageError(f'"{name[:80]}": only what a model of the registry does is kept for its card; add it first')
    return paths.home() / "evaluated" / name


def fresh(name: str) -> Path:
    """An empty folder for what is to be kept of a model."""
    made = place(name).with_name(f".{name}.new")
    shutil.rmtree(made, ignore_errors=True)
    return files.folder(made, files.PRIVATE)


def keep(name: str, found: Evaluated) -> Path:
    """Have what lies in `fresh` be what is known of it, and nothing that was before."""
    made, kept = place(name).with_name(f".{name}.new"), place(name)
    pictures = sorted(one.name for one in made.iterdir() if PICTURE.fullmatch(one.name))
    for one in made.iterdir():
        one.chmod(0o600)
    files.write_private(made / ABOUT, msgspec.json.encode(msgspec.structs.replace(found, pictures=pictures)))
    shutil.rmtree(kept, ignore_errors=True)
    return made.replace(kept)


def read(name: str) -> Evaluated | None:
    """What is known of a model; None where it was not evaluated, or that cannot be read."""
    with contextlib.suppress(OSError, *UNREADABLE):
        return msgspec.json.decode(files.read_regular(place(name) / ABOUT, MOST), type=Evaluated)
    return None
