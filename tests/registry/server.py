"""A real HTTP server on loopback that serves bytes well or badly, as its path says."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODES = ("cut", "cut-norange", "long", "short", "unlabelled", "wrong", "busy", "stop", "away", "shifted", "hang")
Log = list[tuple[str, str | None]]


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[tuple[str, Log]]:
    """Serve `files` by name; gives the base URL and the log of (path, Range header).

    The first path segment may say how: cut (the connection ends after 250,000 bytes of each answer),
    cut-norange (the same, once, and Range is ignored), long (a Content-Length that is too big), short (one that is
    too small), unlabelled (no Content-Length), wrong (other bytes of the same size), busy (503 once), stop (503),
    away (redirects to the plain path), shifted (206 for another range), hang (half of it, once).
    """
    log: Log = []
    done: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            log.append((self.path, self.headers.get("Range")))
            if "Authorization" in self.headers:
                log.append((self.headers["Authorization"], None))
            how, _, name = self.path.lstrip("/").partition("/")
            if how not in MODES:
                how, name = "", self.path.lstrip("/")
            if name not in files:
                self.send_error(404)
                return
            once = self.path not in done
            done.add(self.path)
            body = files[name]
            if how == "stop" or (how == "busy" and once):
                self.send_error(503)
                return
            if how == "away":
                self.send_response(302)
                self.send_header("Location", f"/{name}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if how == "wrong":
                body = bytes(len(body))
            start, total = 0, len(body)
            span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if span and how != "cut-norange":
                start = int(span[1])
                if start >= total:
                    self.send_error(416)
                    return
                self.send_response(206)
                told = start + 1 if how == "shifted" else start
                self.send_header("Content-Range", f"bytes {told}-{total - 1}/{total}")
            else:
                self.send_response(200)
            body = body[start:]
            length = {"long": len(body) + 1000, "short": len(body) - 1000}.get(how, len(body))
            if how == "unlabelled":
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if how == "hang" and once:
                self.wfile.write(body[: total // 2])
                time.sleep(0.6)
                self.close_connection = True
                return
            if how == "cut" or (how in ("cut-norange", "shifted") and once):
                self.wfile.write(body[:250_000])
                self.close_connection = True
                return
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Not to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
