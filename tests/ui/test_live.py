"""Pictures as they come, for whoever looks and only then."""

from __future__ import annotations

import http.client
import select
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.pictures.read import decode
from tests.broker import free_port, until
from tests.ui.conftest import both
from tests.ui.serving import ask, at_work, comes_true, page, scene_of

from edge_agent.ui import live, scene  # isort: skip
from edge_agent.ui.server import Page  # isort: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Page]]:
    folder = tmp_path_factory.mktemp("live")
    with at_work(folder, scene_of(folder, "<img src=x onerror=alert(1)> & \"'")) as made:
        yield made


class Viewer:
    """Reads a stream of pictures."""

    def __init__(self, made: Page, path: str) -> None:
        self.wire = http.client.HTTPConnection("127.0.0.1", made.port, timeout=120)
        self.wire.request("GET", path)
        self.socket = self.wire.sock
        self.answer = self.wire.getresponse()

    def brings(self, seconds: float) -> bool:
        """Whether a picture comes within these."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def next(self) -> tuple[dict[str, Any], bytes]:
        """What a part says of itself, and its picture."""
        told, size = {}, 0
        while (line := self.answer.readline()) != b"\r\n":
            if line.lower().startswith(b"x-about: "):
                told = msgspec.json.decode(line[9:])
            if line.lower().startswith(b"content-length: "):
                size = int(line[16:])
        data = self.answer.read(size)
        self.answer.readline()
        return told, data


@contextmanager
def viewer(made: Page, path: str = "/api/v1/pipelines/cam/live?always=1") -> Iterator[Viewer]:
    one = Viewer(made, path)
    assert one.answer.status == 200
    try:
        yield one
    finally:
        one.wire.close()
        one.answer.close()


def drawers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "page-draw"]


def test_who_does_not_look_costs_nothing_and_ten_cost_as_one(
    work: tuple[Agent, Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, made = work
    line, drawn, picture = agent.lines[0], list[bytes](), scene.picture

    def draw(*given: Any) -> bytes:
        drawn.append(picture(*given))
        return drawn[-1]

    monkeypatch.setattr(scene, "picture", draw)
    until(lambda: line.stats.samples > 0, "frames are answered")
    until(lambda: not line.watchers and not drawers(), "nothing is there for who looked before")
    with ExitStack() as stack:
        several = [stack.enter_context(viewer(made)) for _ in range(10)]
        got = [{one.next()[1] for _ in range(5)} for one in several]
        assert len(line.watchers) == 1 and len(drawers()) == 1
    shown = set[bytes]().union(*got)
    assert shown <= set(drawn), "each picture is drawn once, for all"
    assert len(shown) < 50, "which took other pictures for each"
    until(lambda: not line.watchers and not drawers(), "the last one takes it along")


def test_a_picture_says_whose_it_is_and_how_old(work: tuple[Agent, Page]) -> None:
    _, made = work
    with viewer(made, "/api/v1/live?pipelines=cam&always=1") as one:
        assert one.answer.getheader("content-type") == "multipart/x-mixed-replace; boundary=picture"
        told, data = one.next()
    assert told["pipeline"] == "cam" and told["seen"] == ["1 <img src=x onerror=alert(1)> & \"'"]
    assert 0 <= time.monotonic() - told["mono"] < 30 and abs(time.time() - told["at"]) < 30
    assert decode(data).shape == (480, 640, 3)


def test_a_still_until_something_happens(work: tuple[Agent, Page], monkeypatch: pytest.MonkeyPatch) -> None:
    _, made = work
    monkeypatch.setattr(scene, "happens", lambda found: False)
    with viewer(made, "/api/v1/pipelines/cam/live") as one:
        assert one.next()[0]["live"] is False
        assert not one.brings(1.5)
    with viewer(made, "/api/v1/pipelines/cam/live") as one:
        one.next()
        monkeypatch.undo()
        assert one.next()[0]["live"] is True


def test_one_picture_with_and_without_what_was_found(work: tuple[Agent, Page]) -> None:
    _, made = work
    pictures = [ask(made, "GET", f"/api/v1/pipelines/cam/picture{more}") for more in ("", "?plain=1")]
    assert [got.headers["content-type"] for got in pictures] == ["image/jpeg"] * 2
    assert [decode(got.body).shape for got in pictures] == [(480, 640, 3)] * 2
    assert ask(made, "GET", "/api/v1/pipelines/nothing/picture").status == 404
    assert ask(made, "GET", "/api/v1/live?pipelines=cam,nothing").status == 404


def test_viewers_are_bounded(work: tuple[Agent, Page], monkeypatch: pytest.MonkeyPatch) -> None:
    _, made = work
    monkeypatch.setattr(live, "MOST_VIEWERS", 2)
    with viewer(made) as one, viewer(made) as other:
        one.next(), other.next()
        got = ask(made, "GET", "/api/v1/live")
        assert got.status == 503 and "close some" in got.json["error"]


def test_the_state_tells_rate_age_and_zones(work: tuple[Agent, Page]) -> None:
    _, made = work
    ask(made, "GET", "/api/v1/state")
    until(lambda: ask(made, "GET", "/api/v1/state").json["pipelines"][0]["rate"] > 0, "frames come")
    (pipe,) = ask(made, "GET", "/api/v1/state").json["pipelines"]
    assert pipe["takes"] == "pictures" and pipe["tracks"] and pipe["age_ms"] > 0
    assert pipe["zones"][0]["name"] == "yard" and len(pipe["zones"][0]["points"]) == 4


STALE = "document.querySelector('.view').classList.contains('stale')"
OVER = "/^(dark|frozen)/.test(document.querySelector('article .over').innerText)"

# ── in a browser ─────────────────────────────────────────────────────────────────────────────────────────


@both
def test_the_page_shows_it(work: tuple[Agent, Page], tab: Any) -> None:
    agent, made = work
    tab.goto(f"{made.address}#live")
    comes_true(tab, "document.querySelector('.view img')?.naturalWidth === 640")
    card = tab.locator("article", has=tab.get_by_role("heading", name="cam"))
    comes_true(tab, "document.querySelector('article').innerText.includes('fps')")
    assert "s old" in card.locator(".age").inner_text()
    hostile = "1 <img src=x onerror=alert(1)> & \"'"
    comes_true(tab, "words => document.querySelector('.seen').textContent === words", hostile)
    comes_true(tab, "words => document.querySelector('.view img').alt === words", f"cam: {hostile}")
    assert tab.locator(".seen img").count() == 0, "a label is a text"
    # the clip goes black, then freezes: no picture is shown as if it were live
    comes_true(
        tab, f"{STALE} && {OVER} && ['dark', 'frozen'].includes(document.querySelector('article .tag').innerText)"
    )
    comes_true(tab, "!document.querySelector('.view').classList.contains('stale')")
    tab.goto("about:blank")
    until(lambda: not agent.lines[0].watchers, "who leaves looks no more")


def test_it_connects_again_by_itself(tmp_path: Path, work: tuple[Agent, Page], tab: Any) -> None:
    agent, _ = work
    port = free_port()
    with page(tmp_path, listen=f"127.0.0.1:{port}") as first:
        first.show(agent)
        tab.goto(f"{first.address}#live")
        comes_true(tab, "document.querySelector('.view img')?.naturalWidth > 0")
    comes_true(tab, "document.body.classList.contains('lost')")
    assert "no word from the device" in tab.locator("#link").inner_text()
    comes_true(tab, "document.querySelector('.view').classList.contains('stale')")
    with page(tmp_path, listen=f"127.0.0.1:{port}") as second:
        second.show(agent)
        comes_true(tab, "!document.body.classList.contains('lost')")
        comes_true(tab, "parseFloat(document.querySelector('.age').textContent) < 3")
        assert tab.locator("#link").inner_text() == "connected"


def test_a_tab_that_is_hidden_lets_go(work: tuple[Agent, Page], tab: Any) -> None:
    agent, made = work
    tab.goto(f"{made.address}#live")
    comes_true(tab, "document.querySelector('.view img')?.naturalWidth > 0")
    hide = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    tab.evaluate(hide, True)
    until(lambda: not agent.lines[0].watchers, "nobody looks")
    tab.evaluate(hide, False)
    until(lambda: bool(agent.lines[0].watchers), "somebody looks again")


def test_pictures_are_shown_as_the_pipeline_hides_them(
    work: tuple[Agent, Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, made = work
    line = agent.lines[0]
    monkeypatch.setattr(line, "show", lambda frame, found: np.zeros_like(frame.image))
    status, _, data = ask(made, "GET", "/api/v1/pipelines/cam/picture?plain=1")
    assert status == 200 and decode(data).max() < 8
    with viewer(made) as one:
        assert np.median(decode(one.next()[1])) < 8
    monkeypatch.setattr(line, "show", lambda frame, found: None)
    status, _, data = ask(made, "GET", "/api/v1/pipelines/cam/picture?plain=1")
    assert status == 409 and b"is not shown" in data
