"""A source of pictures in a process of its own, which is locked in (device/sandbox.py).

What a camera sends that takes over a decoder gets no further than that process, and the camera that it came from.

What that process says is bounded by kind and size; a frame is copied before it is looked at.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from typing import IO, Annotated

import msgspec
import numpy as np

from edge_agent.device.room import Room
from edge_agent.errors import ConfigError
from edge_agent.programs import environment, python
from edge_agent.sources import Opened
from edge_agent.sources.feed import TICK
from edge_agent.types import Frame, Pixels, StreamCondition, StreamState
from edge_agent.uri import Uri, option

PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}
"""schemes that can be isolated, and their ports"""
CHILD = python("edge_agent.sources.decoder")
ALIVE = 2.0
"""seconds between two signs of life"""
SILENCE = 30.0
"""seconds without any after which the process is ended, and another one begun"""
RENEW = 300.0
"""seconds without a frame after which another one is begun: how names are looked up may be another file by now"""
PAUSE, LAST_PAUSE = 0.5, 30.0
"""seconds before another process is begun"""
FAREWELL = 1.0
"""seconds that it is given to take leave of its camera"""
MEMORY = 2 << 30
"""bytes of address space"""
LONGEST, MOST_MESSAGE = 500, 4096
"""characters of a text, bytes of a message"""

log = logging.getLogger("edge_agent")

Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Words = Annotated[str, msgspec.Meta(max_length=LONGEST)]


class Asked(msgspec.Struct, frozen=True):
    """What the process is to do."""

    source: Uri
    memory: int
    """descriptor of the memory that both see"""
    most: int
    """its bytes"""
    level: int
    """of what it logs"""
    port: int
    """on 127.0.0.1 where it may take connections: for its tunnel"""


class Picture(msgspec.Struct, frozen=True, tag=True):
    """The memory holds a frame; it stays until a byte is answered."""

    width: Side
    height: Side
    at: float
    mono: float
    name: Words
    decode_ms: float


class State(msgspec.Struct, frozen=True, tag=True):
    """A StreamState."""

    condition: StreamCondition
    why: Words


class Said(msgspec.Struct, frozen=True, tag=True):
    """What it logs."""

    level: Annotated[int, msgspec.Meta(ge=0, le=50)]
    text: Words


class Alive(msgspec.Struct, frozen=True, tag=True):
    """A sign of life."""


class Over(msgspec.Struct, frozen=True, tag=True):
    """Nothing more will come."""

    why: Words = "the stream ended"


Message = Picture | State | Said | Alive | Over


def isolated(uri: Uri, opened: Opened) -> Opened:
    """The same source, read in a process of its own. ConfigError for one that is not of the network."""
    if uri.scheme not in PORTS:
        raise ConfigError(
            f'isolate: "{uri.scheme}" is not of the network; leave isolate out, it is for {", ".join(PORTS)}'
        )
    pixels = float(option(uri, {**dict.fromkeys(uri.options, ""), "megapixels": "33"}, "megapixels")) * 1e6
    return msgspec.structs.replace(opened, run=lambda stop: _run(uri, 3 * math.ceil(pixels), stop))


def _run(uri: Uri, most: int, stop: threading.Event) -> Iterator[Frame | StreamState]:
    """Its frames and states for ever, from one process after another."""
    pause = PAUSE
    while not stop.is_set():
        began = time.monotonic()
        why = yield from _of_one(uri, most, stop)
        if stop.is_set():
            return
        yield StreamState("reconnecting", why)
        pause = PAUSE if time.monotonic() - began > LAST_PAUSE else min(2 * pause, LAST_PAUSE)
        stop.wait(pause)


def _of_one(uri: Uri, most: int, stop: threading.Event) -> Generator[Frame | StreamState, None, str]:
    """Frames and states of one process; why it ended."""
    with ExitStack() as stack:
        memory = os.memfd_create("frame", os.MFD_CLOEXEC)
        stack.callback(os.close, memory)
        said = stack.enter_context(os.fdopen(os.memfd_create("said"), "rb"))
        os.ftruncate(memory, most)
        seen = stack.enter_context(mmap.mmap(memory, most, prot=mmap.PROT_READ))
        # held, so that nobody else takes it between two of its connections
        place = stack.enter_context(socket.socket())
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        asked = Asked(uri, memory, most, log.getEffectiveLevel(), place.getsockname()[1])
        try:
            child = _started(asked, said)
        except OSError as error:
            return f"its process could not be started ({error.strerror})"
        stack.callback(_end, child)
        why = yield from _frames(child, seen, stop)
        return _why_ended(child, said.fileno()) if why is None else why


def _started(asked: Asked, said: IO[bytes]) -> subprocess.Popen[bytes]:
    """The process, told what it is to do; its stderr goes to `said`. OSError."""
    command = [*CHILD, msgspec.json.encode(_room(asked.source, asked.most, asked.port)).decode()]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment(), cwd="/",
        pass_fds=[asked.memory], bufsize=0,
    )  # fmt: skip
    told = msgspec.msgpack.encode(asked)
    assert child.stdin is not None
    with suppress(BrokenPipeError):
        child.stdin.write(struct.pack("<I", len(told)) + told)
    return child


def _frames(
    child: subprocess.Popen[bytes], seen: mmap.mmap, stop: threading.Event
) -> Generator[Frame | StreamState, None, str | None]:
    """What the process says, and the pictures that it puts into `seen`; why no more is taken, None: it ended."""
    assert child.stdin is not None and child.stdout is not None
    lines = _Messages(child.stdout.fileno())
    heard = fresh = time.monotonic()
    while not stop.is_set():
        now = time.monotonic()
        if now - heard > SILENCE:
            return "its process gives no sign of life"
        if now - fresh > RENEW:
            return f"no frame for {RENEW:g} s"
        try:
            message = lines.next()
        except (msgspec.MsgspecError, ValueError) as error:
            return f"its process says what cannot be ({error})"
        except EOFError:
            return None
        if message is None:
            continue
        heard = time.monotonic()
        match message:
            case Picture():
                image = _image(message, seen)
                if image is None:
                    return "its process says what cannot be"
                with suppress(BrokenPipeError):
                    child.stdin.write(b"\0")
                mono = min(message.mono, heard)
                yield Frame(image, message.at, mono, _clean(message.name), message.decode_ms)
                heard = fresh = time.monotonic()
            case State():
                yield StreamState(message.condition, _clean(message.why))
            case Said():
                log.log(message.level, "%s", _clean(message.text))
            case Over():
                return _clean(message.why)
    return "stopped"


def _image(message: Picture, seen: mmap.mmap) -> Pixels | None:
    """A copy of the picture in the shared memory; None where it cannot be as the message says."""
    size = 3 * message.width * message.height
    if size > len(seen) or not all(map(math.isfinite, (message.at, message.mono, message.decode_ms))):
        return None
    image: Pixels = np.frombuffer(seen, np.uint8, size).reshape(message.height, message.width, 3).copy()
    return image


def _why_ended(child: subprocess.Popen[bytes], said: int) -> str:
    """The exit status of the process and the last line that it wrote to stderr, which is the file `said`."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(FAREWELL)
    size = os.fstat(said).st_size
    last = os.pread(said, 1000, max(0, size - 1000)).decode(errors="replace").split("\n")
    words = next((line for line in reversed(last) if line.strip()), "")
    return _clean(f"its process ended ({child.returncode}){words and ': '}{words[:200]}")


class _Messages:
    """Messages out of a pipe, each with its length before it."""

    def __init__(self, fd: int) -> None:
        self._fd, self._held = fd, b""
        self._poller = select.poll()
        self._poller.register(fd, select.POLLIN)
        self._decoder = msgspec.msgpack.Decoder(Message)

    def next(self) -> Message | None:
        """The next one, waited for TICK seconds at most. EOFError, and ValueError for what is none."""
        if not self._whole() and self._poller.poll(1000 * TICK):
            data = os.read(self._fd, MOST_MESSAGE)
            if not data:
                raise EOFError
            self._held += data
        if not (size := self._whole()):
            return None
        data, self._held = self._held[4:size], self._held[size:]
        message: Message = self._decoder.decode(data)
        return message

    def _whole(self) -> int:
        """Bytes of the first message with its length, once all of it is here; else 0."""
        if len(self._held) < 4:
            return 0
        (size,) = struct.unpack("<I", self._held[:4])
        if size > MOST_MESSAGE:
            raise ValueError(f"{size} bytes")
        return size + 4 if len(self._held) >= size + 4 else 0


def _room(uri: Uri, most: int, port: int) -> Room:
    from edge_agent.sources.camera import address

    parts, _ = address(uri)
    ports = sorted({parts.port or PORTS[uri.scheme], PORTS[uri.scheme], port})
    ca = [os.path.expanduser(uri.options["ca"])] if uri.options.get("ca") else []  # noqa: PTH111, which raises
    return Room(MEMORY + most, 0, 1 << 20, read=ca, network=True, ports=ports, listen=[port])


def _clean(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End it: at once, where it does not by itself."""
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(FAREWELL)
    child.kill()
    child.wait()
