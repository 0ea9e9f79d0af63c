"""A file that stays the one whose hash was computed, whatever is put under its name or written into it meanwhile.

It is opened once, and read again only through its descriptor. What somebody else could write into (another owner than
this user and root, or write permission for others) is copied into memory first, where nobody can.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import RefusedError
from edge_agent.files import open_regular

CHUNK = 1 << 20


class Held(NamedTuple):
    """An open file."""

    fd: int
    path: Path
    """under which this very file is read; in a child as well that is given the descriptor"""


@contextmanager
def held(path: Path, sha256: str) -> Iterator[Held]:
    """Hold the file at `path`. RefusedError, one line, for one that is not there, or has another hash."""
    with ExitStack() as stack:
        try:
            fd = open_regular(path)
            stack.callback(os.close, fd)
            if not is_ours(fd):
                fd = _copied(fd, os.memfd_create(path.name[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), stack)
                seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            again = Path(f"/proc/self/fd/{fd}")
            if not _leads_to(again, fd):
                # no /proc, or not all of it: a folder of our own
                again = Path(stack.enter_context(tempfile.TemporaryDirectory()), path.name)
                fd = _copied(fd, os.open(again, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), stack)
            found = digest(fd)
        except OSError as error:
            raise RefusedError(f"{path}: cannot be read ({error.strerror}); check the path and its owner") from None
        if found != sha256:
            wrong = f"sha256 {found[:12]}…, not {sha256[:12]}…"
            raise RefusedError(f"{path}: it is no longer the file that was looked at ({wrong}); try again")
        yield Held(fd, again)


def digest(fd: int) -> str:
    """SHA-256 of an open file from its beginning, in lower-case hex."""
    hasher, at = hashlib.sha256(), 0
    while piece := os.pread(fd, CHUNK, at):
        hasher.update(piece)
        at += len(piece)
    return hasher.hexdigest()


def is_ours(fd: int) -> bool:
    """Whether only this user and root can write into it; rights that an ACL gives show in those of the group."""
    found = os.fstat(fd)
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _leads_to(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except OSError:
        return False


def _copied(fd: int, copy: int, stack: ExitStack) -> int:
    """`copy`, once it holds what `fd` does; the stack closes it."""
    stack.callback(os.close, copy)
    at = 0
    while piece := os.pread(fd, CHUNK, at):
        at += os.pwrite(copy, piece, at)
    return copy
