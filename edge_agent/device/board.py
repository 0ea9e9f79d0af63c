"""The board as the kernel shows it: processor, heat, power, disks, clock. With the standard library alone.

Formats: proc(5), adjtimex(2), Documentation/ABI/testing/sysfs-class-thermal, sysfs-bus-mmc (JEDEC JESD84: life time in
tenths), and the bits of the Raspberry Pi's get_throttled.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edge_agent import programs

SENSORS = "EDGE_AGENT_SYS"
"""environment: a folder that stands for /sys, as for sensors that a test makes up"""
PROC, SYS, DEV = Path("/proc"), Path(os.environ.get(SENSORS, "/sys")), Path("/dev")
HOT_C = 80.0
"""degrees Celsius at which boards begin to slow down"""
WORN, SPENT = 9, 11
"""tenths of a flash's life, plus one, from which on it is worn, and spent"""
THROTTLED = {0: "under-voltage now", 1: "slowed down now", 2: "throttled now", 3: "too warm now",
             16: "under-voltage since the start", 17: "slowed down since the start",
             18: "throttled since the start", 19: "too warm since the start"}  # fmt: skip
"""bits of get_throttled"""
_UNSYNCED, _STATUS_AT = 0x40, 40
"""of struct timex: STA_UNSYNC, and where `status` stands on 64-bit Linux"""
VOLATILE, WEAK = {"tmpfs", "ramfs", "overlay"}, {"vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "nfs", "nfs4", "cifs"}
"""file systems that may be gone at the next start, and those without the locks and renames that a store wants"""


def read(path: Path) -> str:
    """A small file of the kernel's; "" where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def model() -> str:
    """What the board calls itself; "" where it does not."""
    return read(PROC / "device-tree/model") or read(SYS / "class/dmi/id/product_name")


def flags() -> set[str]:
    """What the processor can do, in the kernel's words."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", read(PROC / "cpuinfo"), re.MULTILINE)
    return set(found[1].split()) if found else set()


def means(machine: str, flags: set[str]) -> tuple[bool, str]:
    """Whether int8 models gain much on this processor, and what it can do of that, in words."""
    if machine in ("x86_64", "AMD64"):
        if flags & {"avx512_vnni", "avx_vnni"}:
            return True, "VNNI: int8 is fast and exact"
        return (
            False,
            f"no VNNI{'' if 'avx2' in flags else ', no AVX2'}: int8 gains less; the race picks what is fastest",
        )
    if machine != "aarch64":
        return False, f"nobody has tried {machine}"
    has = {"dotprod": "asimddp" in flags, "fp16": "asimdhp" in flags, "i8mm": "i8mm" in flags}
    words = ", ".join(name if there else f"no {name}" for name, there in has.items())
    if has["dotprod"]:
        return True, f"{words}: int8 is fast"
    return False, f"{words} (as on a Raspberry Pi 4): int8 gains little; the race picks what is fastest"


def troubles() -> tuple[list[str], list[str]]:
    """What slows the board down now, and what did since it started."""
    bits = _throttled()
    found = {bit: words for bit, words in THROTTLED.items() if bits >> bit & 1}
    now = [words for bit, words in found.items() if bit < 16]
    before = [words for bit, words in found.items() if bit >= 16]
    for alarm in SYS.glob("class/hwmon/hwmon*/in*_lcrit_alarm"):
        if read(alarm) == "1" and not bits:
            now.append("under-voltage now")
    heat = warmest()
    return now + [f"{heat:.0f} °C"] * (heat >= HOT_C), before


def _throttled() -> int:
    """The bits that a Raspberry Pi tells; 0 where nothing is wrong, or nothing is told."""
    raw = read(SYS / "devices/platform/soc/soc:firmware/get_throttled") or _vcgencmd()
    return int(raw, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]+", raw) else 0


def _vcgencmd() -> str:
    program = programs.which("vcgencmd")
    if program is None:
        return ""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=10)
        return done.stdout.strip().removeprefix("throttled=")
    return ""


def warmest() -> float:
    """Degrees Celsius of the warmest zone; 0 where none is known."""
    return max(temperatures(), default=0.0)


def temperatures() -> list[float]:
    """Degrees Celsius of each zone, as it says."""
    values = (read(zone) for zone in sorted(SYS.glob("class/thermal/thermal_zone*/temp")))
    return [int(value) / 1000 for value in values if re.fullmatch(r"-?\d{1,9}", value)]


def watts() -> float | None:
    """What the board draws, by the sensor that says most, as one of all rails does; None where there is none."""
    places = ("class/hwmon/hwmon*/power*_average", "class/hwmon/hwmon*/power*_input")
    values = [read(one) for place in places for one in SYS.glob(place)]
    return max((int(value) / 1e6 for value in values if re.fullmatch(r"\d{1,12}", value)), default=None)


def synced() -> bool | None:
    """Whether the clock follows a time server; None where the kernel does not say."""
    timex = ctypes.create_string_buffer(256)  # `modes` 0: nothing is set
    try:
        if ctypes.CDLL(None).adjtimex(timex) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return not int.from_bytes(timex.raw[_STATUS_AT : _STATUS_AT + 4], "little") & _UNSYNCED


class Disk(NamedTuple):
    """Where a folder lies."""

    device: str
    kind: str
    """of the file system"""
    read_only: bool
    life: int
    """tenths of its life that are gone, at most, plus one; 0: not known"""
    written_gb_day: float
    """since the start; 0: not known"""


def disk(folder: Path) -> Disk:
    """The disk below a folder, or below what stands above it."""
    place = next(each for each in (folder, *folder.parents) if each.exists()).resolve()
    device, kind, options = max(
        (mount for mount in _mounts() if place.is_relative_to(mount[0])),
        key=lambda mount: len(mount[0]),
        default=("", "?", "?", ""),
    )[1:]
    block = SYS / "class/block" / Path(device).name
    # of a partition the device is the folder above
    whole = next((each for each in (block, block.resolve().parent) if (each / "stat").exists()), block)
    return Disk(device, kind, "ro" in options.split(","), _life(whole), _written(whole))


def _mounts() -> Iterator[tuple[str, str, str, str]]:
    """Mount point, device, kind and options of each mount."""
    for line in read(PROC / "mounts").splitlines():
        device, point, kind, options, *_ = [*line.split(), "", "", "", ""]
        yield point.replace("\\040", " "), device, kind, options


def _life(block: Path) -> int:
    """What an eMMC says of itself (two kinds of cells, the worse counts); SD cards say nothing."""
    for at in (block / "device/life_time", block.resolve().parent / "device/life_time"):
        numbers = [int(word, 16) for word in read(at).split() if re.fullmatch(r"0x[0-9a-fA-F]+", word)]
        if numbers:
            return max(numbers)
    return 0


def _written(block: Path) -> float:
    fields, up = read(block / "stat").split(), read(PROC / "uptime").split()
    if len(fields) < 7 or not up:
        return 0.0
    return int(fields[6]) * 512 / 1e9 / max(float(up[0]) / 86400, 1e-3)


def clock() -> tuple[bool, str]:
    """Whether the clock can be right: not before this program was installed."""
    built = Path(__file__).stat().st_mtime
    return time.time() >= built - 86400, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def libc() -> str:
    """The C library, "" where it is not glibc."""
    return " ".join(platform.libc_ver()).strip() if platform.libc_ver()[0] == "glibc" else ""


def unreachable(pattern: str) -> Iterator[tuple[Path, str]]:
    """Device files of a pattern that this user may not use, and the group that may."""
    import grp

    for node in sorted(DEV.glob(pattern)):
        if not os.access(node, os.R_OK | os.W_OK):
            try:
                yield node, grp.getgrgid(node.stat().st_gid).gr_name
            except (KeyError, OSError):
                yield node, ""
