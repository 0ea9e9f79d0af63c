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
import functools
import os
import platform
import resource
import stat
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from edge_agent.programs import PACKAGE


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


def enter(room: Room) -> None:
    """Give up all that the room does not name, for ever. To be called before there is a second thread."""
    _limit(room)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _landlock(libc, room)
    _seccomp(libc, room)


def missing() -> list[str]:
    """What this kernel lacks of it, in words; empty when it has all."""
    libc, lacks = ctypes.CDLL(None, use_errno=True), []
    version = _version(libc)
    if version == 0:
        lacks.append("Landlock")
    elif version < NET:
        lacks.append("Landlock for TCP")
    if platform.machine() not in ARCHITECTURES:
        lacks.append(f"seccomp for {platform.machine()}")
    elif libc.prctl(PR_SET_SECCOMP, 2, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EFAULT:
        lacks.append("seccomp")
    return lacks


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


# ── Landlock ─────────────────────────────────────────────────────────────────────────────────────────────

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22
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
def _version(libc: ctypes.CDLL) -> int:
    """Of the kernel's Landlock; 0: it has none, or it is switched off."""
    return max(0, int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def _landlock(libc: ctypes.CDLL, room: Room) -> None:
    version = _version(libc)
    if not version:
        return
    handled = HANDLED[max(known for known in HANDLED if known <= version)]
    tcp = 0 if room.network and not room.ports else BIND_TCP | CONNECT_TCP
    told = struct.pack("QQQ", handled, tcp if version >= NET else 0, 3 if version >= SCOPES else 0)
    told = told[: 24 if version >= SCOPES else 16 if version >= NET else 8]
    ruleset = libc.syscall(CREATE_RULESET, told, ctypes.c_size_t(len(told)), 0)
    if ruleset < 0:
        return

    def allow(fd: int, access: int) -> None:
        access &= handled if stat.S_ISDIR(os.fstat(fd).st_mode) else handled & OF_A_FILE
        libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", access, fd), 0)

    def allow_path(path: str, access: int) -> None:
        with suppress(OSError):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                allow(fd, access)
            finally:
                os.close(fd)

    more = (*(DRIVERS if room.devices else ()), *(NAMES if room.network else ()))
    for path in {*_python(), *LIBRARIES, *SETTINGS, *ABOUT, *room.read, *more}:
        allow_path(path, READ_FILE | READ_DIR)
    for path in room.write:
        allow_path(path, WRITES)
    allow_path("/dev/null", READ_FILE | WRITE_FILE)
    if room.devices:
        allow_path("/dev", READ_FILE | READ_DIR | WRITE_FILE | IOCTL_DEV)
    for fd in room.files:
        allow(fd, READ_FILE)
    if version >= NET:
        for access, ports in ((CONNECT_TCP, room.ports), (BIND_TCP, room.listen)):
            for port in ports if room.network else ():
                libc.syscall(ADD_RULE, ruleset, 2, struct.pack("=QQ", access, port), 0)
    libc.syscall(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _python() -> Iterable[str]:
    """Where this Python and its packages lie, and the libraries that the user names."""
    # a script that lies in a home folder would open all of it
    homes = [Path(home) for name in ("HOME", "EDGE_AGENT_HOME") if (home := os.environ.get(name))]
    for folder in map(Path, sys.path):
        if folder.is_absolute() and not any(home.is_relative_to(folder) for home in homes):
            yield str(folder)
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix}:
        yield from (f"{prefix}/lib", f"{prefix}/lib64", f"{prefix}/pyvenv.cfg")
    # the carried models and pictures lie in the package, or beside it in a checkout
    yield from (str(PACKAGE), *(str(PACKAGE.parent / name) for name in ("models", "deploy")))
    yield from (folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder.startswith("/"))


# ── seccomp ──────────────────────────────────────────────────────────────────────────────────────────────

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""AUDIT_ARCH, and the column of its numbers in CALLS"""

CALLS: dict[str, tuple[int | None, int | None]] = {
    # other programs and processes
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    # the network, and other ways to talk
    "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "semget": (64, 190), "msgget": (68, 186), "msgsnd": (69, 189), "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # what would go past this filter, or past Landlock
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "userfaultfd": (323, 282), "bpf": (321, 280), "perf_event_open": (298, 241), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "setrlimit": (160, 164), "modify_ldt": (154, None),
    # of files what Landlock does not ask about: owners, modes, times, links
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "truncate": (76, 45), "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "mknod": (133, None), "mknodat": (259, 33),
    # the machine, and who one is
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "setns": (308, 268),
    "unshare": (272, 97), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None),
    "personality": (135, 92), "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145),
    "setregid": (114, 143), "setresuid": (117, 147), "setresgid": (119, 149), "setfsuid": (122, 151),
    "setfsgid": (123, 152), "setgroups": (116, 159), "capset": (126, 91),
}  # fmt: skip
"""what answers EPERM: name -> number on x86-64 and on aarch64"""
DRIVERS_TALK = ("bind", "sendto", "sendmsg")
CONNECTIONS = ("connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg")
"""what of them drivers may, to the kernel, and who may connect"""
SOCKET, SOCKETPAIR, CLONE, KILL, TGKILL, PRLIMIT = (41, 198), (53, 199), (56, 220), (62, 129), (234, 131), (302, 261)
CLONE3 = 435
NEWEST = 462
"""the last call of this table's kernels: later ones do not exist here, and libraries do without"""
CLONE_THREAD = 0x10000
AF_INET, AF_INET6, AF_NETLINK = 2, 10, 16
"""the last one is how drivers find their devices"""
STREAM, DATAGRAM, RAW = 1, 2, 3
"""kinds of sockets; the low four bits of the second argument"""

LOAD, MASK, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
"""classic BPF: load a word of seccomp_data; keep some bits; jump where it is equal, at least, has a bit; answer"""
ALLOW, REFUSE, ABSENT, END = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
NUMBER, ARCHITECTURE, FIRST, SECOND, THIRD = 0, 4, 16, 24, 32
"""where in seccomp_data the call, the processor and the low halves of arguments are, little-endian"""


def _program(machine: str, pid: int, room: Room) -> bytes:
    """The filter as its instructions."""
    talk: tuple[str, ...] = ()
    sockets = (-1, -1, -1, -1)  # two families, and two kinds
    if room.devices:
        sockets, talk = (AF_NETLINK, AF_NETLINK, DATAGRAM, RAW), DRIVERS_TALK
    elif room.network:
        sockets, talk = (AF_INET, AF_INET6, STREAM, DATAGRAM), CONNECTIONS
    audit, column = ARCHITECTURES[machine]
    code = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, audit), (RETURN, 0, 0, END), (LOAD, 0, 0, NUMBER)]
    # the x32 calls of x86-64 have numbers from 2**30 on
    code += [(AT_LEAST, 0, 1, NEWEST + 1), (RETURN, 0, 0, ABSENT), (EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ABSENT)]

    for name, numbers in CALLS.items():
        number = numbers[column]
        if number is not None and name not in talk:
            code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    code += [(EQUAL, 0, 1, SOCKETPAIR[column]), (RETURN, 0, 0, REFUSE)]
    # no family and no kind is -1
    one, other, kind, another = (value & 0xFFFFFFFF for value in sockets)
    code += [(EQUAL, 0, 9, SOCKET[column]), (LOAD, 0, 0, FIRST), (EQUAL, 1, 0, one), (EQUAL, 0, 4, other)]
    code += [(LOAD, 0, 0, SECOND), (MASK, 0, 0, 15), (EQUAL, 2, 0, kind), (EQUAL, 1, 0, another)]
    code += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    for call in (KILL, TGKILL):
        code += [(EQUAL, 0, 4, call[column]), (LOAD, 0, 0, FIRST), (EQUAL, 1, 0, pid)]
        code += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    # limits may be asked for, not set
    code += [(EQUAL, 0, 6, PRLIMIT[column]), (LOAD, 0, 0, THIRD), (EQUAL, 0, 3, 0), (LOAD, 0, 0, THIRD + 4)]
    code += [(EQUAL, 0, 1, 0), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    # a thread, not a process
    code += [(EQUAL, 0, 3, CLONE[column]), (LOAD, 0, 0, FIRST), (ANY_BIT, 1, 0, CLONE_THREAD)]
    code += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *one) for one in code)


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _seccomp(libc: ctypes.CDLL, room: Room) -> None:
    if platform.machine() in ARCHITECTURES:
        program = _program(platform.machine(), os.getpid(), room)
        libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(_Program(len(program) // 8, program)), 0, 0)
