"""A TCP proxy that harms what it carries: put it between the agent and the broker.

pass        forward
black hole  swallow both ways, connections stay open and nobody is told
half-open   swallow what comes from the agent only
delay       hold every piece back by `delay` seconds
cut         after `cut_after` more bytes from the agent, reset both ends
refuse      accept no connection, and reset those there are
gone        as if nothing stood at this port

It tells whoever wants to know which bytes go up to the broker (`tap`): they are told before the broker has them.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

CHUNK = 65536


@dataclass(eq=False)
class _Pipe:
    """One direction of one connection."""

    source: socket.socket
    target: socket.socket
    up: bool
    """from the agent to the broker"""
    held: deque[tuple[float, bytes]] = field(default_factory=deque)


class Proxy(threading.Thread):
    """Listens on `port` of 127.0.0.1; set `mode` at any time."""

    def __init__(self, target: int) -> None:
        super().__init__(daemon=True)
        self.mode, self.delay, self.cut_after = "pass", 0.0, 0
        self.target = target
        self.connections = 0
        self.tap: Callable[[bytes], None] = lambda data: None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pipes: list[_Pipe] = []
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            if self.mode in ("refuse", "gone"):
                self._reset_all()
            if self.mode == "gone":
                self._listener.close()
                time.sleep(0.002)
                continue
            if self._listener.fileno() < 0:
                self._listener = socket.create_server(("127.0.0.1", self.port))
            listening = [] if self.mode == "refuse" else [self._listener]
            ready, _, _ = select.select(listening + [pipe.source for pipe in self._pipes], [], [], 0.01)
            if self._listener in ready:
                self._accept()
            for pipe in list(self._pipes):
                if pipe.source in ready and pipe in self._pipes:
                    self._read(pipe)
                while pipe.held and pipe.held[0][0] <= time.monotonic():
                    self._forward(pipe, pipe.held.popleft()[1])
        self._reset_all()
        self._listener.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            _reset(near)
            return
        self.connections += 1
        self._pipes += [_Pipe(near, far, True), _Pipe(far, near, False)]

    def _read(self, pipe: _Pipe) -> None:
        try:
            data = pipe.source.recv(CHUNK)
        except OSError:
            data = b""
        if self.mode == "black hole" or (self.mode == "half-open" and pipe.up):
            if not data:  # the end is swallowed too
                self._pipes.remove(pipe)
            return
        if not data:
            self._drop(pipe)
            return
        if pipe.up:
            self.tap(data)
        if self.mode == "delay":
            pipe.held.append((time.monotonic() + self.delay, data))
        elif self.mode == "cut" and pipe.up:
            self._forward(pipe, data[: self.cut_after])
            self.cut_after -= len(data)
            if self.cut_after <= 0:
                self.mode = "pass"
                self._drop(pipe)
        else:
            self._forward(pipe, data)

    def _forward(self, pipe: _Pipe, data: bytes) -> None:
        try:
            pipe.target.sendall(data)
        except OSError:
            self._drop(pipe)

    def _drop(self, pipe: _Pipe) -> None:
        """Reset a connection, both ends."""
        _reset(pipe.source)
        _reset(pipe.target)
        self._pipes = [other for other in self._pipes if other.source not in (pipe.source, pipe.target)]

    def _reset_all(self) -> None:
        for pipe in self._pipes:
            _reset(pipe.source)
        self._pipes = []

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(10)


def _reset(sock: socket.socket) -> None:
    """Close with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
