"""``pipe:COMMAND?width=W&height=H&format=F``: raw frames from the standard output of a program.

For what cv2 cannot open: CSI cameras (rpicam-vid), GStreamer (gst-launch-1.0 … ! fdsink), ffmpeg. No shell: the
command is split as a shell would split it, and quotes work. Further options: those of judge.RULES, ``fps=N``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

import numpy as np

from edge_agent.errors import ConfigError, SourceError
from edge_agent.pictures.read import bgr, cv2
from edge_agent.programs import which
from edge_agent.sources import Here, Opened
from edge_agent.sources.judge import RULES, rules
from edge_agent.sources.watch import TICK, StreamReader, thinner, watch
from edge_agent.types import Frame, Pixels
from edge_agent.uri import Uri, choice, number, whole

KNOWN = {"width": "", "height": "", "format": "bgr24", "fps": "", **RULES}

FORMATS: dict[str, tuple[int, int, int | None]] = {
    "bgr24": (3, 1, None),
    "rgb24": (3, 1, cv2.COLOR_RGB2BGR),
    "gray": (1, 1, cv2.COLOR_GRAY2BGR),
    "yuv420p": (3, 2, cv2.COLOR_YUV2BGR_I420),
    "nv12": (3, 2, cv2.COLOR_YUV2BGR_NV12),
    "yuyv422": (2, 1, cv2.COLOR_YUV2BGR_YUY2),
}
"""ffmpeg's name -> bytes a pixel as a fraction, cv2's conversion."""

FAREWELL = 1.0
"""seconds that a program is given to end by itself"""
LISTEN = 1.0
"""seconds between looks whether anybody still wants to know what a program complains about"""


def pipe(uri: Uri, here: Here) -> Opened:
    """Bind a program; yields Frames. It is started again when it ends.

    ConfigError for the options, SourceError when the program is not installed.
    """
    # its arguments may hold an address with a password
    said = Uri(uri.scheme, f"{''.join(uri.rest.split()[:1])} …", uri.options)
    command = _command(uri.rest, said)
    width, height = whole(said, KNOWN, "width", 1, 32768), whole(said, KNOWN, "height", 1, 32768)
    if not (width and height):
        raise ConfigError(f'"{said}": raw frames state no size; give width=W&height=H')
    layout = choice(said, KNOWN, "format", tuple(FORMATS))
    if (layout in ("yuv420p", "nv12", "yuyv422") and width % 2) or (layout in ("yuv420p", "nv12") and height % 2):
        raise ConfigError(f'"{said}": {layout} needs an even width and height')
    believed = rules(said, KNOWN)
    fps = number(said, KNOWN, "fps", 0.001, 1000)

    def open_() -> StreamReader:
        return _start(command, width, height, layout, fps)

    return Opened(run=lambda stop: watch(open_, believed, stop), yields=Frame, live=True)


def _command(text: str, said: Uri) -> list[str]:
    """The program, by its whole path, and its arguments. ConfigError, SourceError when it is not installed."""
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f'"{said}": the command cannot be split ({error}); close each quote') from None
    if not command:
        raise ConfigError(f'"{said}": give a command')
    found = which(command[0])
    if found is None:
        raise SourceError(f"pipe: {command[0]} is not installed, or not on the PATH; check how it is written")
    return [found, *command[1:]]


def _start(command: list[str], width: int, height: int, layout: str, fps: float) -> StreamReader:
    """Start the program in a process group of its own; the Reader ends that whole group.

    It is killed with the thread that calls this, so also where the agent is killed; what it started itself is not.
    """
    program, stdout = _started(command)
    out = stdout.fileno()
    gone = threading.Event()
    last_words = bytearray()
    closed = threading.Event()
    listener = threading.Thread(target=_listen, args=(program.stderr, last_words, closed), daemon=True, name="stderr")
    listener.start()
    wanted = thinner(fps)
    over, under, _ = FORMATS[layout]
    size = width * height * over // under

    def read() -> Frame | None:
        buffer = bytearray(size)
        if not _fill(out, buffer, gone):
            raise SourceError(f"{command[0]}: {_obituary(program, listener, last_words)}")
        at, mono = time.time(), time.monotonic()
        if not wanted(mono):
            return None
        image = _pixels(buffer, width, height, layout)
        return Frame(image, at, mono, decode_ms=1000 * (time.monotonic() - mono))

    def abort() -> None:
        gone.set()
        _end(program, signal.SIGTERM)

    def close() -> None:
        _end(program, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(FAREWELL)
        # also for what the program itself has started
        _end(program, signal.SIGKILL)
        program.wait()
        stdout.close()
        closed.set()

    return StreamReader(read, close, abort)


def _started(command: list[str]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """The program, and what it writes. SourceError."""
    try:
        program = subprocess.Popen(
            [*_tied(), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise SourceError(f"{command[0]}: cannot be started ({error.strerror})") from None
    assert program.stdout is not None
    # a frame is megabytes, a pipe 64 KiB; the system may allow no more to this user
    with contextlib.suppress(OSError):
        fcntl.fcntl(program.stdout.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
    return program, program.stdout


def _pixels(buffer: bytearray, width: int, height: int, layout: str) -> Pixels:
    """One raw frame as (height, width, 3) BGR; bgr24 shares the buffer, which is not used again."""
    over, under, code = FORMATS[layout]
    raw = np.frombuffer(buffer, np.uint8)
    if code is None:
        return raw.reshape(height, width, 3)
    shape = (height * over // under, width) if under > 1 else (height, width, over)
    return bgr(cv2.cvtColor(raw.reshape(shape), code))


def _fill(fd: int, buffer: bytearray, gone: threading.Event) -> bool:
    """Fill the buffer; False when the program closed its end or nobody wants more."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    view, got = memoryview(buffer), 0
    while got < len(buffer):
        if gone.is_set():
            return False
        if poller.poll(1000 * TICK):
            count = os.readv(fd, [view[got:]])
            if not count:
                return False
            got += count
    return True


def _tied() -> list[str]:
    """What ties a program to the thread that starts it (PR_SET_PDEATHSIG, which is called after a fork, where Python
    must not run in a process with threads): setpriv of util-linux; nothing, where it is not installed.
    """
    path = which("setpriv")
    return [path, "--pdeathsig", "KILL", "--"] if path and Path(path).resolve().name == "setpriv" else []


def _listen(stream: IO[bytes], last_words: bytearray, closed: threading.Event) -> None:
    """Keep the end of what the program complains about; unread, it would block the program.

    Until its end, or until `closed`, as what the program has started may hold the pipe for ever.
    """
    poller = select.poll()
    poller.register(stream, select.POLLIN)
    with stream:
        while not closed.is_set():
            if not poller.poll(1000 * LISTEN):
                continue
            if not (chunk := os.read(stream.fileno(), 4096)):
                return
            last_words += chunk
            del last_words[:-500]


def _obituary(program: subprocess.Popen[bytes], listener: threading.Thread, last_words: bytearray) -> str:
    try:
        code = program.wait(FAREWELL)
    except subprocess.TimeoutExpired:
        return "closed its output"
    listener.join(FAREWELL)
    said = [line.strip() for line in bytes(last_words).decode(errors="replace").splitlines() if line.strip()]
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit status {code}"
    return how + (f": {said[-1][-200:]}" if said else "")


def _end(program: subprocess.Popen[bytes], number: int) -> None:
    """Signal the program's whole group, if there is one left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, number)
