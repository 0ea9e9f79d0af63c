"""A seccomp filter: system calls that a process which handles a stranger's bytes has no need of answer EPERM.

Format: seccomp(2), linux/seccomp.h, linux/filter.h; numbers of system calls: linux/unistd.h of each processor.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from edge_agent.device.room import Room

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22

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


def program(machine: str, pid: int, room: Room) -> bytes:
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


def refuse_calls(libc: ctypes.CDLL, room: Room) -> None:
    """Refuse what the room does not need, on processors whose calls are known."""
    if platform.machine() in ARCHITECTURES:
        code = program(platform.machine(), os.getpid(), room)
        libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(_Program(len(code) // 8, code)), 0, 0)
