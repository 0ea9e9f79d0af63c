"""Cameras and microphones that are here. With the standard library alone; microphones are asked in a child process.

Formats: linux/videodev2.h (VIDIOC_QUERYCAP, VIDIOC_ENUM_FMT, VIDIOC_ENUM_FRAMESIZES).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edge_agent import programs

DEV = Path("/dev")
_QUERYCAP, _ENUM_FMT, _FRAMESIZES = 0x80685600, 0xC0405602, 0xC02C564A
_CAPTURE, _CAPTURE_MPLANE, _DEVICE_CAPS = 0x1, 0x1000, 0x80000000
_DISCRETE = 1
MOST = 64
"""formats, and sizes of one, that are asked for: a driver may have no end of them"""
HEAR_S = 20.0
"""seconds that the microphones have to answer"""


class Camera(NamedTuple):
    """One V4L2 device that gives pictures."""

    path: Path
    name: str
    formats: list[str]
    """e.g. "MJPG 1920x1080\""""
    wrong: str = ""
    """why it cannot be used, one line"""


def cameras() -> Iterator[Camera]:
    """Each /dev/videoN that gives pictures, and those that this user may not open."""
    for path in sorted(DEV.glob("video*"), key=lambda path: (len(path.name), path.name)):
        try:
            handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            yield Camera(path, "", [], error.strerror or str(error))
            continue
        try:
            found = _camera(path, handle)
        except OSError as error:
            found = None if error.errno in (errno.ENOTTY, errno.EINVAL) else Camera(path, "", [], str(error.strerror))
        finally:
            os.close(handle)
        if found is not None:
            yield found


def _camera(path: Path, handle: int) -> Camera | None:
    """What a device says; None for one that gives no pictures, such as a decoder. OSError."""
    answer = bytearray(104)
    fcntl.ioctl(handle, _QUERYCAP, answer)
    _, card, _, _, every, own = struct.unpack_from("16s32s32sIII", answer)
    able = own if every & _DEVICE_CAPS else every
    if not able & (_CAPTURE | _CAPTURE_MPLANE):
        return None
    formats = list(_formats(handle, 1 if able & _CAPTURE else 9))
    # a camera's second device for its metadata has none
    return Camera(path, _text(card), formats) if formats else None


def _formats(handle: int, kind: int) -> Iterator[str]:
    """Each pixel format with its largest size."""
    for index in range(MOST):
        answer = bytearray(struct.pack("III52x", index, kind, 0))
        try:
            fcntl.ioctl(handle, _ENUM_FMT, answer)
        except OSError:
            return
        code = struct.unpack_from("I", answer, 44)[0]
        sizes = list(_sizes(handle, code))
        width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
        name = _text(struct.pack("I", code))
        yield f"{name} {width}x{height}" if width else name


def _sizes(handle: int, code: int) -> Iterator[tuple[int, int]]:
    for index in range(MOST):
        answer = bytearray(struct.pack("II36x", index, code))
        with suppress(OSError):
            fcntl.ioctl(handle, _FRAMESIZES, answer)
            kind, first, second, _, fourth = struct.unpack_from("IIIII", answer, 8)
            yield (first, second) if kind == _DISCRETE else (second, fourth and struct.unpack_from("I", answer, 28)[0])
            if kind == _DISCRETE:
                continue
        return


def _text(raw: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in raw.split(b"\0")[0].decode("ascii", "replace")).strip()


HEAR = """
import json, math, sys
sys.path[:] = {path}
import sounddevice as sd
found = []
for number, one in enumerate(sd.query_devices()):
    if one['max_input_channels'] < 1:
        continue
    row = dict(name=one['name'], rate=one['default_samplerate'], level=None, wrong='')
    if number == sd.default.device[0]:
        try:
            with sd.RawInputStream(device=number, channels=1, dtype='int16') as stream:
                raw = bytes(stream.read(int(one['default_samplerate'] * 0.3))[0])
            values = memoryview(raw).cast('h')
            power = sum(v * v for v in values) / max(len(values), 1)
            row['level'] = 10 * math.log10(power / 32768**2) if power else -99.0
        except Exception as error:
            row['wrong'] = str(error)[:200]
    found.append(row)
print('\\n#' + json.dumps(found))
"""


class Microphone(NamedTuple):
    """One input of sound."""

    name: str
    rate: float
    level: float | None
    """decibels of full scale, of 0.3 s; None: not listened to, as it is not the default one"""
    wrong: str


def microphones() -> list[Microphone] | None:
    """What sounddevice finds; None where it, or PortAudio, is not there or gives no answer."""
    command = [sys.executable, "-I", "-c", HEAR.format(path=ascii(programs.import_path()))]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HEAR_S)
    except (subprocess.TimeoutExpired, OSError):
        return None
    for line in done.stdout.splitlines():
        if line.startswith("#["):
            return [Microphone(**row) for row in json.loads(line[1:])]
    return None
