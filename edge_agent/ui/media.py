"""Snapshots and clips that events name, as long as they are kept."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from starlette.responses import Response

from edge_agent.files import open_regular
from edge_agent.ui.calls import Ask, Call, Refused

if TYPE_CHECKING:
    from edge_agent.ui.server import Page

AT_ONCE = 4_000_000
"""bytes of a film that are given in one answer; players ask for the rest"""
TYPES = {"jpg": "image/jpeg", "mp4": "video/mp4", "avi": "video/x-msvideo"}


def calls(page: Page) -> list[Call]:
    """Those of pictures that are kept."""

    def give(ask: Ask) -> Response:
        name, pictures = ask.path("name"), page.now.pictures
        path = pictures.path(name) if pictures is not None else None
        kind = TYPES.get(name.rpartition(".")[2])
        if path is None or kind is None:
            raise Refused(404, "this picture is not kept, or no more")
        try:
            file = open_regular(path)
        except OSError:
            raise Refused(404, "this picture is not kept any more") from None
        try:
            return _part(file, ask.request.headers.get("range", ""), kind)
        finally:
            os.close(file)

    return [
        Call("GET", "/api/v1/snapshot/{name}", "viewer", "The picture of an event (its `snapshot`).", give,
             media="image/jpeg"),
        Call("GET", "/api/v1/clip/{name}", "viewer", "The film of an event (its `clip`); takes ranges.", give,
             media="video/mp4"),
    ]  # fmt: skip


def _part(file: int, asked: str, kind: str) -> Response:
    """A file, or the part of it that is asked for (RFC 9110, 14: one range of bytes). Refused."""
    size, headers = os.fstat(file).st_size, {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=86400"}
    found = re.fullmatch(r"bytes=(\d{1,15})-(\d{0,15})", asked)
    if not found and size <= AT_ONCE:
        return Response(os.pread(file, size, 0), 200, headers, kind)
    first = int(found[1]) if found else 0
    last = min(int(found[2]) if found and found[2] else size - 1, size - 1, first + AT_ONCE - 1)
    if first > last:
        raise Refused(416, "the film is shorter", {"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(os.pread(file, last - first + 1, first), 206, headers, kind)
