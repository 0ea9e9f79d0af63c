"""Files that a verb lays down beside a config: read within bounds, whole or not at all, and said."""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent import files
from edge_agent.cli.say import note
from edge_agent.errors import UsageError

MOST_FILE = 65_536
"""bytes of a PEM, a token or a root"""


def read(path: str, what: str) -> bytes:
    """A file of at most MOST_FILE bytes. UsageError, which begins with `what`."""
    try:
        return files.read_regular(path, MOST_FILE)
    except OSError as error:
        raise UsageError(f"{what} {path}: cannot be read ({error.strerror}); give a file") from None


def keep(path: Path, data: bytes, mode: int = 0o600) -> None:
    """A file, by default for its owner alone; one that is there already stays. UsageError where that is another one."""
    if not path.exists():
        files.folder(path.parent, 0o700)
        write(path, data, mode)
    elif read(str(path), "what is there") != data:
        raise UsageError(f"{path} is there and holds something else; move it away first")


def write(path: Path, data: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """A file whole or not at all, with its mode, and its owner where that is to stay."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.unlink(missing_ok=True)
        files.write_private(part, data, confirm=True)
        part.chmod(mode)
        if owner is not None and os.geteuid() == 0:
            os.chown(part, *owner)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    files.sync(path.parent)
    note(f"wrote {path} ({mode:04o})")
