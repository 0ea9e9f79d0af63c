"""Files as they are kept, and as they are read.

What the program keeps has modes of its own: the umask has no say in that. What root makes in somebody's
folder becomes theirs, as the service has to read, replace and delete what root adds. What others may have put there is
read only where it is a regular file, and no more of it than is asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

FOLDER, FILE = 0o755, 0o644
"""readable by the service, whichever user added it; nobody else writes"""
PRIVATE = 0o700


def folder(path: Path, mode: int = FOLDER) -> Path:
    """`path`, made with those above it that are missing; `mode` is its own, those above get FOLDER. OSError."""
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for place in reversed(missing):
        try:
            place.mkdir(PRIVATE)
        except FileExistsError:
            continue
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            settle(handle, place.parent, mode if place == path else FOLDER)
        finally:
            os.close(handle)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


def settle(handle: int, parent: Path, mode: int = FILE) -> None:
    """Give an open file or folder its mode, and, where root made it, to the owner of the folder that it stands in."""
    os.fchmod(handle, mode)
    if os.geteuid() == 0 and (owner := parent.stat()).st_uid != 0:
        # a service may not be allowed to
        with contextlib.suppress(OSError):
            os.fchown(handle, owner.st_uid, owner.st_gid)


def others_may(path: Path) -> tuple[bool, bool]:
    """Whether others than its owner and root may read, and change, a file or what stands in a folder. OSError.

    A group that is its owner's alone, as Debian gives each user one, is nobody else; what a sticky folder holds is
    changed by its owner only, and what lies on a disk without writing by nobody.
    """
    at = path.stat()
    write = bool(at.st_mode & stat.S_IWOTH) or bool(at.st_mode & stat.S_IWGRP and not _is_own(at.st_uid, at.st_gid))
    fixed = stat.S_ISDIR(at.st_mode) and (at.st_mode & stat.S_ISVTX or os.statvfs(path).f_flag & os.ST_RDONLY)
    return bool(at.st_mode & stat.S_IROTH), write and not fixed


def _is_own(user: int, group: int) -> bool:
    import grp
    import pwd

    try:
        name, members = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return members.gr_name == name and set(members.gr_mem) <= {name}


def stats(found: Iterable[Path]) -> list[tuple[os.stat_result, Path]]:
    """The status of each of these, the one changed first in front; without those that have gone meanwhile."""
    rows = []
    for path in found:
        with contextlib.suppress(FileNotFoundError):
            rows.append((path.stat(), path))
    return sorted(rows, key=lambda row: (row[0].st_mtime, row[1].name))


def read_regular(path: str | Path, most: int) -> bytes:
    """All bytes of a regular file of at most `most` bytes.

    Raises OSError as `open_regular` does, also for a file that is larger, which is not read into memory.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        too_large = os.fstat(file.fileno()).st_size > most
        data = b"" if too_large else file.read(most + 1)
        if too_large or len(data) > most:
            size = f"{most // 1_000_000} MB" if most >= 10_000_000 else f"{most // 1000} kB"
            raise OSError(errno.EFBIG, f"larger than {size}", str(path))
    return data


def open_regular(path: str | Path) -> int:
    """A descriptor of a regular file, to read it; it is the caller's to close.

    Raises OSError, whose strerror says what is wrong, also for a device, a FIFO and a folder, which are not waited for.
    """
    _regular(path, Path(path).stat().st_mode)  # before it is opened: for some devices that alone is an order
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _regular(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _regular(path: str | Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))


def write_private(path: Path, data: bytes, *, append: bool = False, confirm: bool = False) -> None:
    """Write a file that its owner alone may read: anew, or behind what it holds; `confirm`: have the disk confirm it.

    Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC)
    fd = os.open(path, flags, 0o600)
    try:
        write_all(fd, data)
        if confirm:
            os.fsync(fd)
    finally:
        os.close(fd)


def exchange(path: Path, data: bytes) -> None:
    """Put a file that its owner alone may read in the place of another: whole, and once the disk has confirmed it.
    OSError.
    """
    fresh = path.with_suffix(".new")
    write_private(fresh, data, confirm=True)
    with fresh.open("rb") as file:
        settle(file.fileno(), path.parent, 0o600)
    fresh.replace(path)
    sync(path.parent)


def put(part: Path, path: Path) -> None:
    """Put a finished file in the place of another. OSError, also where that is a device, a FIFO or a folder."""
    with contextlib.suppress(FileNotFoundError):
        _regular(path, path.stat().st_mode)
    part.replace(path)


def sync(path: Path) -> None:
    """Have the disk confirm a file's contents, or a folder's names."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, or raise OSError and leave the file as long as it was."""
    before = os.fstat(fd).st_size
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        os.ftruncate(fd, before)
        raise


def write(path: Path, text: str) -> None:
    """Write a small text file whole or not at all; its folder is made."""
    folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as file:
            settle(file.fileno(), path.parent)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)
