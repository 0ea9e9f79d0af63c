"""Real cameras for the tests: an MJPEG server over HTTP and an RTSP server, on loopback, that can be made to fail."""

from __future__ import annotations

import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from edge_agent.sources import Opened
from edge_agent.types import Frame, Pixels, Sample, StreamState, Text

DEADLINE = 120.0
"""seconds that a condition is waited for"""


class Camera:
    """What the servers show; `mode` may be changed at any time."""

    def __init__(self, width: int = 160, height: int = 96) -> None:
        self.size = (width, height)
        self.mode = "live"
        self.served = 0
        self.every = 0.02
        self._rng = np.random.default_rng(1)
        self._still = self.encode(self.picture())

    def picture(self) -> Pixels:
        """Noise, never the same twice."""
        width, height = self.size
        return self._rng.integers(0, 255, (height, width, 3), dtype=np.uint8)

    @staticmethod
    def encode(image: Pixels) -> bytes:
        good, data = cv2.imencode(".jpg", image)
        assert good
        return bytes(data.tobytes())

    def jpeg(self) -> bytes | None:
        """The next picture; None while it hangs."""
        self.served += 1
        width, height = self.size
        if self.mode == "hang":
            return None
        if self.mode == "frozen":
            return self._still
        if self.mode == "black":
            return self.encode(np.zeros((height, width, 3), np.uint8))
        if self.mode == "flat":
            return self.encode(np.full((height, width, 3), (77, 135, 0), np.uint8))
        data = self.encode(self.picture())
        if self.mode == "corrupt" and self.served % 2:
            return data[: len(data) // 2]
        return data


class _Mjpeg(BaseHTTPRequestHandler):
    camera: ClassVar[Camera]
    stated_length: ClassVar[bool] = True
    password: ClassVar[str] = ""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        # Basic: base64 of "me:secret"
        if self.path.startswith("/private") and self.headers.get("Authorization") != "Basic bWU6c2VjcmV0":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        if self.path == "/page":
            self._whole("text/html", b"<p>hello</p>")
        elif self.path == "/snapshot":
            self._whole("image/jpeg", self.camera.jpeg() or b"")
        elif self.path == "/drip":
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
            self.end_headers()
            self._show(self._drip)
        elif self.path == "/gone":
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=--frame")
            self.end_headers()
            self._show(self._part)

    def _whole(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _show(self, one: Callable[[], None]) -> None:
        try:
            while True:
                one()
                time.sleep(self.camera.every)
        except OSError:
            self.close_connection = True

    def _drip(self) -> None:
        self.wfile.write(b"x")

    def _part(self) -> None:
        data = self.camera.jpeg()
        if data is None:
            return
        stated = f"Content-Length: {len(data)}\r\n" if self.stated_length and not self.path.endswith("bare") else ""
        self.wfile.write(f"--frame\r\nContent-Type: image/jpeg\r\n{stated}\r\n".encode() + data + b"\r\n")


class _Rtsp(socketserver.StreamRequestHandler):
    """RTSP (RFC 2326) with RTP over the same connection; JPEG in RTP (RFC 2435). As much as a client asks for."""

    camera: ClassVar[Camera]

    def handle(self) -> None:
        lock = threading.Lock()
        try:
            while request := self._request():
                method, sequence = request
                extra, body = "", ""
                if method == "OPTIONS":
                    extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif method == "DESCRIBE":
                    body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\n"
                    body += "m=video 0 RTP/AVP 26\r\na=control:track0\r\n"
                    extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif method == "SETUP":
                    extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                with lock:
                    self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{extra}\r\n{body}".encode())
                if method == "PLAY":
                    threading.Thread(target=self._play, args=(lock,), daemon=True).start()
                if method == "TEARDOWN":
                    return
        except OSError:
            pass

    def _request(self) -> tuple[str, str] | None:
        method, sequence = "", "0"
        while line := self.rfile.readline().decode(errors="replace").strip():
            method = method or line.split()[0]
            if line.lower().startswith("cseq:"):
                sequence = line.split(":")[1].strip()
        return (method, sequence) if method else None

    def _play(self, lock: threading.Lock) -> None:
        sequence, began = 0, time.monotonic()
        try:
            while True:
                data = self.camera.jpeg()
                stamp = int((time.monotonic() - began) * 90_000)
                for packet in rtp_jpeg(data) if data else []:
                    marker = 0x80 if packet[0] else 0
                    head = struct.pack(">BBHII", 0x80, marker | 26, sequence & 0xFFFF, stamp & 0xFFFFFFFF, 7)
                    whole = head + packet[1]
                    with lock:
                        self.wfile.write(struct.pack(">cBH", b"$", 0, len(whole)) + whole)
                    sequence += 1
                time.sleep(self.camera.every)
        except (OSError, ValueError):
            pass


def rtp_jpeg(data: bytes) -> Iterator[tuple[bool, bytes]]:
    """(last, payload) of a baseline 4:2:0 JPEG with the standard Huffman tables; RFC 2435, section 3.1."""
    at, tables, size = 2, b"", (0, 0)
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDB:
            for begin in range(0, len(body), 65):
                tables += body[begin + 1 : begin + 65]
        elif marker == 0xC0:
            height, width = struct.unpack_from(">HH", body, 1)
            size = (width // 8, height // 8)
        elif marker == 0xDA:
            break
    scan = data[at:-2]
    for offset in range(0, len(scan), 1300):
        part = scan[offset : offset + 1300]
        head = struct.pack(">I", offset) + struct.pack("BBBB", 1, 255, *size)
        if offset == 0:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        yield offset + 1300 >= len(scan), head + part


class Server:
    """A server that is stopped and started on one port."""

    def __init__(
        self, kind: type[socketserver.BaseRequestHandler], camera: Camera, tls: ssl.SSLContext | None = None
    ) -> None:
        self.tls = tls
        self._handler = type("Handler", (kind,), {"camera": camera})
        self._server: socketserver.TCPServer | None = None
        self._clients: list[socket.socket] = []
        self.connections = 0
        self.port = 0
        self.start()

    def start(self) -> None:
        outer = self

        class Kept(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[socket.socket, object]:
                client, peer = super().get_request()
                if outer.tls is not None:
                    client = outer.tls.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
                outer._clients.append(client)
                outer.connections += 1
                return client, peer

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        self._server = Kept(("127.0.0.1", self.port), self._handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Listen no more and cut every client off."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._clients.clear()


@contextmanager
def mjpeg_server(camera: Camera, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(_Mjpeg, camera, tls)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def rtsp_server(camera: Camera, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(_Rtsp, camera, tls)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def talking(serve: Callable[[socket.socket, str], None]) -> Iterator[Server]:
    """A server that answers each request, its text given, with whatever `serve` writes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                serve(self.request, self.request.recv(65536).decode("latin-1"))

    server = Server(Handler, Camera())
    try:
        yield server
    finally:
        server.stop()


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A certificate that signs itself, for these names (IP:127.0.0.1, DNS:localhost), and its key; PEM files."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = folder / "cert.pem", folder / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=camera", "-addext", f"subjectAltName={','.join(names)}"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def served_with(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


class Seen:
    """What a source yielded so far, in order."""

    def __init__(self) -> None:
        self.items: list[Sample | StreamState] = []
        self.error: BaseException | None = None
        self.done = threading.Event()

    @property
    def frames(self) -> list[Frame]:
        return [item for item in list(self.items) if isinstance(item, Frame)]

    @property
    def texts(self) -> list[str]:
        return [item.text for item in list(self.items) if isinstance(item, Text)]

    @property
    def states(self) -> list[str]:
        return [item.condition for item in list(self.items) if isinstance(item, StreamState)]

    @property
    def whys(self) -> list[str]:
        return [item.why for item in list(self.items) if isinstance(item, StreamState)]

    def until(self, condition: Callable[[], bool], what: str = "") -> None:
        """Wait for a condition; fails with what was seen instead."""
        end = time.monotonic() + DEADLINE
        while not condition():
            if self.error is not None:
                raise self.error
            states = [item for item in self.items if isinstance(item, StreamState)]
            assert time.monotonic() < end, f"{what or 'it'} never came; states {states[-10:]}, {len(self.items)} items"
            time.sleep(0.01)

    def until_state(self, condition: str, behind: int = 0) -> None:
        self.until(lambda: condition in self.states[behind:], condition)

    def until_frames(self, count: int) -> None:
        """`count` frames more than now."""
        goal = len(self.frames) + count
        self.until(lambda: len(self.frames) >= goal, f"{count} frames")


@contextmanager
def running(opened: Opened) -> Iterator[Seen]:
    """Run a source in a thread; at the end it must obey `stop`."""
    seen, stop = Seen(), threading.Event()

    def take() -> None:
        try:
            for item in opened.run(stop):
                seen.items.append(item)
        except BaseException as error:
            seen.error = error
        finally:
            seen.done.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        assert seen.done.wait(DEADLINE), "the source does not obey stop"
    if seen.error is not None:
        raise seen.error


def everything(opened: Opened) -> Seen:
    """Run a source to its own end, in this thread."""
    seen = Seen()
    seen.items = list(opened.run(threading.Event()))
    return seen
