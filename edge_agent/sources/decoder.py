"""The child process of a pipeline that is isolated: it talks to the camera and decodes what comes, and may do no more.

In the arguments: its Room as JSON. On stdin: how the source is opened, then a byte for each frame that was taken. On
stdout: messages (sources/isolated.py); a frame's pixels stand in memory that both see.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import mmap
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable

import msgspec

from edge_agent.device import sandbox
from edge_agent.device.room import Room

PR_SET_PDEATHSIG = 1


def _log_to(say: Callable[[logging.LogRecord], None], level: int) -> None:
    """Our log goes to `say`, and nowhere else."""

    class Passed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record)

    log = logging.getLogger("edge_agent")
    log.addHandler(Passed())
    log.propagate = False
    log.setLevel(level)


def main() -> None:
    """Read the source until nobody wants more."""
    out = os.dup(1)
    os.dup2(2, 1)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    sandbox.enter(msgspec.json.decode(sys.argv[-1], type=Room))
    # not before: numpy starts threads, which would stay outside
    import numpy as np

    from edge_agent.errors import SourceError
    from edge_agent.sources import open_source, tunnel
    from edge_agent.sources.isolated import ALIVE, LONGEST, Alive, Asked, Message, Over, Picture, Said, State
    from edge_agent.types import Frame, StreamState

    (size,) = struct.unpack("<I", os.read(0, 4))
    asked = msgspec.msgpack.decode(os.read(0, size), type=Asked)
    tunnel.PORT = asked.port
    slot = np.frombuffer(mmap.mmap(asked.memory, asked.most), np.uint8)
    stop, alone = threading.Event(), threading.Lock()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def say(message: Message) -> None:
        data = msgspec.msgpack.encode(message)
        with alone, contextlib.suppress(BrokenPipeError):
            os.write(out, struct.pack("<I", len(data)) + data)

    def live() -> None:
        while not stop.wait(ALIVE):
            say(Alive())

    _log_to(lambda record: say(Said(record.levelno, record.getMessage()[:LONGEST])), asked.level)
    threading.Thread(target=live, daemon=True).start()
    try:
        for item in open_source(asked.source).run(stop):
            if isinstance(item, StreamState):
                say(State(item.condition, item.why[:LONGEST]))
            elif isinstance(item, Frame):
                if item.image.nbytes > asked.most:
                    raise SourceError(f"a picture of {item.width}×{item.height} pixels, more than are taken")
                slot[: item.image.nbytes] = item.image.reshape(-1)
                say(Picture(item.width, item.height, item.at, item.mono, item.name[:LONGEST], item.decode_ms))
                if not os.read(0, 1):
                    break
        say(Over())
    except SourceError as error:
        say(Over(str(error)[:LONGEST]))
    # a thread may hang in a read, and the parent has all it wants
    os._exit(0)
