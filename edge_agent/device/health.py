"""How the process is: its memory."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path


def rss_bytes(peak: bool = False) -> int:
    """Resident memory of this process now, or at its highest; from /proc/self/status."""
    key = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def give_back() -> None:
    """Give freed memory back to the system: glibc keeps much of it; other C libraries have no such call."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
