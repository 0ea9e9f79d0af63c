"""A way for FFmpeg to a camera whose certificate we check: plain on this device, TLS outside of it."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from urllib.parse import SplitResult

from edge_agent.errors import SourceError
from edge_agent.sources.web import reason

PORTS = {"rtsps": 322, "https": 443}
PLAIN = {"rtsps": "rtsp", "https": "http"}
CHUNK = 1 << 16
"""bytes"""


class Tunnel:
    """Connected to the camera from the start; takes one connection on 127.0.0.1, and no other.

    `url` is the address for FFmpeg, with the same path, user and password, which therefore go nowhere before the
    certificate is found to be good. SourceError where there is no camera, or its certificate is not to be trusted.
    """

    def __init__(self, parts: SplitResult, context: ssl.SSLContext, limit: float, what: str) -> None:
        self.why = ""
        """why it broke off, where that is known"""
        host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
        try:
            bare = socket.create_connection((host, port), timeout=limit)
            self._camera = context.wrap_socket(bare, server_hostname=host)
        except (OSError, ValueError) as error:
            raise SourceError(f"{what}: {reason(error)}") from None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._listener.settimeout(limit)
        self._over = threading.Event()
        login, at, _ = parts.netloc.rpartition("@")
        here = f"{login}{at}127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = parts._replace(scheme=PLAIN[parts.scheme], netloc=here, fragment="").geturl()
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
            ready = {fd for fd, _ in poller.poll(0 if self._camera.pending() else 1000)}
            if ffmpeg.fileno() in ready:
                if not (data := ffmpeg.recv(CHUNK)):
                    return
                self._camera.settimeout(None)
                self._camera.sendall(data)
            if self._camera.fileno() in ready or self._camera.pending():
                # what has come may be TLS's own, with nothing in it for us
                self._camera.settimeout(0)
                try:
                    data = self._camera.recv(CHUNK)
                except ssl.SSLWantReadError:
                    continue
                if data.startswith((b"RTSP/1.0 3", b"HTTP/1.1 3", b"HTTP/1.0 3")):
                    self.why = "leads to another address; give that one if you trust it"
                    return
                if not data:
                    return
                ffmpeg.sendall(data)
