"""A page that listens, and what asks it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("uvicorn", reason="the extra [page] is not installed")

from edge_agent import config
from edge_agent.agent.agent import Agent
from edge_agent.sources.clip import make_clip
from edge_agent.ui.server import Page
from tests.broker import until
from tests.conftest import ROOT
from tests.tiny import tiny_detector


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
    wire = http.client.HTTPConnection("127.0.0.1", page.port, timeout=120)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        wire.request(method, path, data, sent)
        got = wire.getresponse()
        return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
    finally:
        wire.close()


def comes_true(tab: Any, expression: str, given: Any = None) -> None:
    """Wait until an expression of a tab is true; our policy lets no driver evaluate one there again and again."""
    until(lambda: tab.evaluate(expression, given), expression)


@contextmanager
def at_work(folder: Path, text: str, **settings: Any) -> Iterator[tuple[Agent, Page]]:
    """An agent of this config at work, and its page; models are proved once, in a home that is the tests'."""
    (folder / "agent.toml").write_text(f'[device]\nid = "porch"\n[store]\npath = "store"\n{text}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(folder.parent / "home"))
        agent = Agent(config.load(folder / "agent.toml"), reread=lambda: config.load(folder / "agent.toml"))
        stop = threading.Event()
        worker = threading.Thread(target=agent.run, args=(stop,), daemon=True)
        with page(folder, folder / "agent.toml", **settings) as made:
            made.show(agent)
            worker.start()
            try:
                yield agent, made
            finally:
                stop.set()
                worker.join(120)


def scene_of(folder: Path, label: str = "person") -> str:
    """The tables of a pipeline `cam` that shows the demo's clip again and again, in which a thing of this name is seen,
    and of a zone in it.
    """
    make_clip(ROOT / "deploy" / "demo", folder / "clip.avi")
    model = tiny_detector(folder / "model", least=0.6)
    manifest = (model / "manifest.toml").read_text()
    (model / "manifest.toml").write_text(manifest.replace('["person"]', json.dumps([label])))
    return (
        f'[[pipeline]]\nname = "cam"\nsource = "files:{folder}/clip.avi?pace=own&loop=true&frozen=1.5"\n'
        f'tasks = ["detect:{model}", "track"]\n'
        '[[zone]]\nname = "yard"\npipeline = "cam"\npoints = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.95], [0.1, 0.95]]\n'
    )
