"""A page that listens, and what asks it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("uvicorn", reason="the extra [page] is not installed")

from edge_agent import config
from edge_agent.ui.server import Page


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def page(folder: Path, config_file: Path | None = None, **settings: Any) -> Iterator[Page]:
    """A page without an agent, on a free port."""
    made = Page(config.Page(**{"listen": "127.0.0.1:0", **settings}), folder / "page", config_file)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def ask(page: Page, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """One request, as a program makes it; a `_` in a header's name stands for a hyphen."""
    wire = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        wire.request(method, path, data, sent)
        got = wire.getresponse()
        return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
    finally:
        wire.close()
