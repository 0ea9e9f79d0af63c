"""What a process that handles a stranger's bytes may still do: read what its room names, write one folder, compute.

Three things of the Linux kernel, each by a system call of its own, none of them to be undone: no_new_privs, a Landlock
ruleset (files, TCP, signals) and a seccomp filter (no socket, no program, no look into another process). They hold for
the thread that enters and what it starts, so a process enters before it has a second thread; importing numpy makes one.

A kernel may lack some of it: what it has is used, and `missing` says what not. Formats: landlock(7), seccomp(2),
linux/landlock.h, linux/seccomp.h, linux/filter.h; numbers of system calls: linux/unistd.h of each processor.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import resource
from contextlib import suppress
from pathlib import Path

from edge_agent.device import landlock, seccomp
from edge_agent.device.room import Room


def enter(room: Room) -> None:
    """Give up all that the room does not name, for ever. To be called before there is a second thread."""
    _limit(room)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(seccomp.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    landlock.restrict(libc, room)
    seccomp.refuse_calls(libc, room)


def missing() -> list[str]:
    """What this kernel lacks of it, in words; empty when it has all."""
    libc, lacks = ctypes.CDLL(None, use_errno=True), []
    version = landlock.version(libc)
    if version == 0:
        lacks.append("Landlock")
    elif version < landlock.NET:
        lacks.append("Landlock for TCP")
    if platform.machine() not in seccomp.ARCHITECTURES:
        lacks.append(f"seccomp for {platform.machine()}")
    elif libc.prctl(seccomp.PR_SET_SECCOMP, 2, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EFAULT:
        lacks.append("seccomp")
    return lacks


def may_compile() -> bool:
    """Whether this process may run memory that it wrote: a service's unit can forbid it (MemoryDenyWriteExecute), and
    then runtimes that compile (CTranslate2, CUDA) fail.
    """
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return True


def _limit(room: Room) -> None:
    cores = len(os.sched_getaffinity(0))
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        # each thread reserves a stack, whatever it uses of it
        (resource.RLIMIT_AS, room.memory + (cores << 26)),
        (resource.RLIMIT_CPU, room.cpu_seconds * cores or resource.RLIM_INFINITY),
        (resource.RLIMIT_FSIZE, room.file_bytes),
        (resource.RLIMIT_NOFILE, 256),
    ):
        hard = resource.getrlimit(what)[1]
        if resource.RLIM_INFINITY in (most, hard):
            most = hard if most == resource.RLIM_INFINITY else most
        else:
            most = min(most, hard)
        # where both limits of processor time are the same the kernel sends SIGKILL, which says nothing of the reason
        later = what == resource.RLIMIT_CPU and most != resource.RLIM_INFINITY
        resource.setrlimit(what, (most, most + 1 if later and most != hard else most))
    # the first to go when memory is out
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
