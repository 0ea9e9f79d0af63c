"""Landlock: a process gives up files, TCP ports, signals and abstract sockets that its room does not name.

Format: landlock(7), linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import functools
import os
import stat
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from edge_agent.device.room import Room
from edge_agent.programs import PACKAGE

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""the same numbers on every processor"""
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, REFER, TRUNCATE, IOCTL_DEV = 1 << 7, 1 << 8, 1 << 13, 1 << 14, 1 << 15
HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""version from which on -> accesses to files that are refused unless a rule allows them"""
BIND_TCP, CONNECT_TCP = 1, 2
NET, SCOPES = 4, 6
"""versions from which on TCP, and signals and abstract sockets, can be refused"""
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""what may be allowed of a file that is no folder"""
# a link or a device could lead the program that reads the folder afterwards elsewhere
WRITES = READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | REMOVE_FILE | REMOVE_DIR | MAKE_REG | MAKE_DIR

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64")
SETTINGS = ("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/usr/share/zoneinfo", "/usr/share/locale")
ABOUT = (
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm", "/proc/sys/kernel/osrelease",
    "/proc/device-tree", "/sys/firmware/devicetree", "/sys/devices", "/sys/bus/pci", "/sys/class/drm",
    "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom",
)  # fmt: skip
"""what runtimes read of the machine: cores, caches, instruction sets, memory, what else could compute"""
NAMES = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services",
    "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/etc/ssl", "/etc/pki", "/etc/ca-certificates",
    "/usr/share/ca-certificates", "/usr/share/pki",
)  # fmt: skip
"""by which hosts are looked up, and certificates checked"""
DRIVERS = ("/dev", "/proc", "/sys", "/etc", "/usr", "/opt")
"""what runtimes that ask for another processor read as well"""


@functools.cache
def version(libc: ctypes.CDLL) -> int:
    """Of the kernel's Landlock; 0: it has none, or it is switched off."""
    return max(0, int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def restrict(libc: ctypes.CDLL, room: Room) -> None:
    """Refuse what the room does not name, as far as this kernel can."""
    rules = _Ruleset(libc, room)
    if not rules.made:
        return
    more = (*(DRIVERS if room.devices else ()), *(NAMES if room.network else ()))
    for path in {*_python(), *LIBRARIES, *SETTINGS, *ABOUT, *room.read, *more}:
        rules.allow_path(path, READ_FILE | READ_DIR)
    for path in room.write:
        rules.allow_path(path, WRITES)
    rules.allow_path("/dev/null", READ_FILE | WRITE_FILE)
    if room.devices:
        rules.allow_path("/dev", READ_FILE | READ_DIR | WRITE_FILE | IOCTL_DEV)
    for fd in room.files:
        rules.allow(fd, READ_FILE)
    if room.network:
        rules.allow_ports(CONNECT_TCP, room.ports)
        rules.allow_ports(BIND_TCP, room.listen)
    rules.enforce()


class _Ruleset:
    """A ruleset of the kernel that is being put together."""

    def __init__(self, libc: ctypes.CDLL, room: Room) -> None:
        self.libc, self.version, self.number = libc, version(libc), -1
        if self.version:
            self.handled = HANDLED[max(known for known in HANDLED if known <= self.version)]
            tcp = 0 if room.network and not room.ports else BIND_TCP | CONNECT_TCP
            scoped = self.version >= SCOPES
            told = struct.pack("QQQ", self.handled, tcp if self.version >= NET else 0, 3 if scoped else 0)
            told = told[: 24 if scoped else 16 if self.version >= NET else 8]
            self.number = libc.syscall(CREATE_RULESET, told, ctypes.c_size_t(len(told)), 0)

    @property
    def made(self) -> bool:
        """Whether the kernel has it."""
        return self.number >= 0

    def allow(self, fd: int, access: int) -> None:
        """Accesses to an open file, or to all in an open folder."""
        access &= self.handled if stat.S_ISDIR(os.fstat(fd).st_mode) else self.handled & OF_A_FILE
        self.libc.syscall(ADD_RULE, self.number, 1, struct.pack("=Qi", access, fd), 0)

    def allow_path(self, path: str, access: int) -> None:
        """Nothing where there is no such path."""
        with suppress(OSError):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                self.allow(fd, access)
            finally:
                os.close(fd)

    def allow_ports(self, access: int, ports: Iterable[int]) -> None:
        """To connect to TCP ports, or to take connections there."""
        for port in ports if self.version >= NET else ():
            self.libc.syscall(ADD_RULE, self.number, 2, struct.pack("=QQ", access, port), 0)

    def enforce(self) -> None:
        """From now on, and for ever."""
        self.libc.syscall(RESTRICT_SELF, self.number, 0)
        os.close(self.number)


def _python() -> Iterable[str]:
    """Where this Python and its packages lie, and the libraries that the user names."""
    yield from _import_folders()
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix}:
        yield from (f"{prefix}/lib", f"{prefix}/lib64", f"{prefix}/pyvenv.cfg")
    # the carried models and pictures lie in the package, or beside it in a checkout
    yield from (str(PACKAGE), *(str(PACKAGE.parent / name) for name in ("models", "deploy")))
    yield from (folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder.startswith("/"))


def _import_folders() -> Iterable[str]:
    """Where modules are looked for, without the homes: a script that lies in one would open all of it."""
    homes = [Path(home) for name in ("HOME", "EDGE_AGENT_HOME") if (home := os.environ.get(name))]
    for folder in map(Path, sys.path):
        if folder.is_absolute() and not any(home.is_relative_to(folder) for home in homes):
            yield str(folder)
