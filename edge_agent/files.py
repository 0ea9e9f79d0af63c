"""Reading small files that others may have put there: only regular ones, and no more of them than is asked for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular(path: str | Path, most: int) -> bytes:
    """All bytes of a regular file of at most `most` bytes.

    Raises OSError, whose strerror says what is wrong, also for a device, a FIFO, a folder, and a file that is larger:
    it is neither waited for nor read into memory.
    """
    path = Path(path)
    _regular(path, path.stat().st_mode)  # before it is opened: for some devices that alone is an order
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _regular(path, status.st_mode)
        data = b"" if status.st_size > most else file.read(most + 1)
        if status.st_size > most or len(data) > most:
            raise OSError(errno.EFBIG, f"larger than {most // 1000} kB", str(path))
    return data


def _regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
