"""What a process that handles a stranger's bytes may use."""

from __future__ import annotations

import msgspec


class Room(msgspec.Struct, frozen=True):
    """What a process may use."""

    memory: int
    """bytes of address space, beside what its threads' stacks reserve"""
    cpu_seconds: int
    """of the processor, on every core; 0: for as long as it likes"""
    file_bytes: int
    """of each file that it writes, its answer among them"""
    files: list[int] = []
    """descriptors of files that it may read, also through /proc/self/fd"""
    read: list[str] = []
    """files and folders that it may read, beside Python, its packages and what the runtimes ask of the processor"""
    write: list[str] = []
    """folders in which it may make, write and remove files"""
    network: bool = False
    """it may look up names and connect"""
    ports: list[int] = []
    """TCP ports that it may connect to, where it may connect at all; empty: any, and it may take connections"""
    listen: list[int] = []
    """TCP ports on which it may take connections, where `ports` says to which it may connect"""
    devices: bool = False
    """it may use what is below /dev and ask the kernel for devices: for runtimes that ask for another processor"""
