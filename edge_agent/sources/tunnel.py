"""The way that FFmpeg takes to a camera: on this device to us, from here to the camera, and to nobody else.

We check the certificate, and an answer that would lead FFmpeg to another address does not reach it.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import threading
from urllib.parse import SplitResult

from edge_agent.errors import SourceError
from edge_agent.sources.web import reason

PLAIN = {"rtsps": "rtsp", "https": "http"}
CHUNK = 1 << 16
"""bytes"""
MOST_SINCE = 1 << 26
"""bytes between two frames: a camera that waits 10 s with its next whole picture sends 50 Mbit/s until then"""
MOST_ANSWER = 1 << 16
"""bytes of an answer that leads elsewhere, which is read to its end to learn where"""
LEADS = re.compile(rb"rtsp/\S*\s+[+0]*3\d\d|\nlocation:", re.IGNORECASE)
"""an answer that leads elsewhere, as FFmpeg reads it; what leads elsewhere in HTTP is left to its max_redirects"""
MIXED = re.compile(LEADS.pattern.replace(b"\\n", b""), re.IGNORECASE)
"""the same where frames stand between the lines of an answer: a line may begin behind any byte of them"""
KEPT = 64
"""bytes of what the camera said before that a sign of it may begin in"""
PORT = 0
"""on 127.0.0.1 where FFmpeg is met; 0: any. A process that is locked in may use only the one that it is given"""


class Tunnel:
    """From 127.0.0.1, where one connection is taken and no other, to a camera that is connected already.

    `url` is the address for FFmpeg, with the same path, user and password, which therefore go nowhere before the
    certificate is found to be good. SourceError where it is not to be trusted. `context` None: without TLS.
    """

    def __init__(
        self, camera: socket.socket, parts: SplitResult, context: ssl.SSLContext | None, limit: float, what: str
    ) -> None:
        self.led: str | None = None
        """where the camera would lead FFmpeg, "" where that is not said; None: nowhere"""
        self.why = ""
        """why it broke off, where that is known"""
        self.since = 0
        """bytes since a frame was made of them; the reader of frames sets it to 0"""
        self._camera = camera
        try:
            camera.settimeout(limit)
            if context is not None:
                self._camera = context.wrap_socket(camera, server_hostname=str(parts.hostname))
            self._listener = socket.create_server(("127.0.0.1", PORT), backlog=1)
        except (OSError, ValueError) as error:
            self._camera.close()
            raise SourceError(f"{what}: {reason(error)}") from None
        self._listener.settimeout(limit)
        self._over = threading.Event()
        self._looking = parts.scheme in ("rtsp", "rtsps")
        self._said, self._signs = b"\n", LEADS
        login, at, _ = parts.netloc.rpartition("@")
        here = f"{login}{at}127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = parts._replace(scheme=PLAIN.get(parts.scheme, parts.scheme), netloc=here, fragment="").geturl()
        threading.Thread(target=self._carry, daemon=True, name="tunnel").start()

    def close(self) -> None:
        """End both connections; what waits in one of them returns."""
        self._over.set()
        for end in (self._camera, self._listener):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _carry(self) -> None:
        """Bytes to and fro until one side ends it."""
        with self._camera, self._listener:
            try:
                ffmpeg, _ = self._listener.accept()
            except OSError:
                return
            self._listener.close()
            with ffmpeg, contextlib.suppress(OSError, ValueError):
                self._to_and_fro(ffmpeg)

    def _to_and_fro(self, ffmpeg: socket.socket) -> None:
        poller = select.poll()
        for end in (ffmpeg, self._camera):
            poller.register(end, select.POLLIN)
        while not self._over.is_set():
            ready = {fd for fd, _ in poller.poll(0 if self._pending() else 1000)}
            if ffmpeg.fileno() in ready and not self._ask(ffmpeg):
                return
            if (self._camera.fileno() in ready or self._pending()) and not self._answer(ffmpeg):
                return

    def _ask(self, ffmpeg: socket.socket) -> bool:
        """Give the camera what FFmpeg says; False at its end."""
        if not (data := ffmpeg.recv(CHUNK)):
            return False
        # FFmpeg lets itself be led only before
        self._looking = self._looking and not data.startswith(b"PLAY ")
        self._camera.settimeout(None)
        self._camera.sendall(data)
        return True

    def _answer(self, ffmpeg: socket.socket) -> bool:
        """Give FFmpeg what the camera says; False at its end, and for what FFmpeg is not to have."""
        # what has come may be TLS's own, with nothing in it for us
        self._camera.settimeout(0)
        try:
            data = self._camera.recv(CHUNK)
        except (ssl.SSLWantReadError, BlockingIOError):
            return True
        if not data or (self._looking and self._leads(data)):
            return False
        self.since += len(data)
        if self.since > MOST_SINCE:
            self.why = f"more than {MOST_SINCE / (1 << 20):.3g} MiB without a frame"
            return False
        ffmpeg.sendall(data)
        return True

    def _pending(self) -> bool:
        return isinstance(self._camera, ssl.SSLSocket) and self._camera.pending() > 0

    def _leads(self, data: bytes) -> bool:
        """Whether the answer that goes on with `data` leads elsewhere: then it is read to its end, to say where."""
        # FFmpeg leaves out each carriage return, wherever it stands, and skips frames at the beginning of a line
        self._said += data.replace(b"\r", b"")
        if b"\n$" in self._said:
            self._signs = MIXED
        if not self._signs.search(self._said):
            self._said = self._said[-KEPT:]
            return False
        self.led = ""
        self._camera.settimeout(1)
        with contextlib.suppress(OSError):
            while not self._said.endswith(b"\n\n") and len(self._said) < MOST_ANSWER:
                if not (data := self._camera.recv(CHUNK)):
                    break
                self._said += data.replace(b"\r", b"")
        if found := re.search(rb"\nlocation:[ \t]*(\S*)", self._said, re.IGNORECASE):
            self.led = found[1].decode("utf-8", "replace")
        return True
