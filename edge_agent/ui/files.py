"""The page's own files: read once, packed, and known by their hash, so that a browser asks for each but once."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


def routes() -> list[Route]:
    """One for each file: the page at /, what it needs below /static/."""
    found = {path.name: path for path in sorted((Path(__file__).parent / "static").iterdir()) if path.suffix in TYPES}
    return [_route("/" if name == "index.html" else f"/static/{name}", path) for name, path in found.items()]


def _route(at: str, path: Path) -> Route:
    data, kind = path.read_bytes(), TYPES[path.suffix]
    packed, tag = gzip.compress(data, mtime=0), f'"{hashlib.sha256(data).hexdigest()[:16]}"'

    async def give(request: Request) -> Response:
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == tag:
            return Response(b"", 304, headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, 200, {**headers, "Content-Encoding": "gzip"}, kind)
        return Response(data, 200, headers, kind)

    return Route(at, give, methods=["GET"])
