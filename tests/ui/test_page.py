"""All pages: for whom reads with a screen reader or uses a keyboard, on a phone and on a desk; and for many at once."""

from __future__ import annotations

import importlib.resources
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.agent import Agent
from tests.broker import until
from tests.ui.conftest import SIZES, both
from tests.ui.serving import ask, at_work, comes_true, page, scene_of
from tests.ui.test_events import some

from edge_agent.ui.server import Page  # isort: skip

PAGES = {
    "live": "document.querySelector('.view img')?.naturalWidth > 0",
    "events": "document.querySelectorAll('.event').length > 4",
    "words": "document.querySelectorAll('tbody tr').length > 1",
    "models": "document.querySelectorAll('article').length > 4",
    "settings": "document.querySelector('.view img')?.naturalWidth > 0",
    "training": "document.querySelector('main h3') !== null",
    "health": "document.querySelectorAll('tbody tr').length > 8",
}
"""each, and how it is known that it is filled"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Page]]:
    folder = tmp_path_factory.mktemp("page")
    profiles = '[[profile]]\nname = "home"\n[[profile]]\nname = "away"\n'
    with at_work(folder, f"{scene_of(folder)}[archive]\n{profiles}") as made:
        for event in some():
            made[0].keep.put(event)
        yield made


@both
def test_each_page_is_for_everybody(work: tuple[Agent, Page], tab: Any, size: str) -> None:
    _, made = work
    axe = pytest.importorskip("axe_playwright_python", reason="axe is not installed: extra [dev]")
    script = (importlib.resources.files(axe) / "axe.min.js").read_text()
    for name, filled in PAGES.items():
        tab.goto(f"{made.address}#{name}")
        comes_true(tab, filled)
        for box in tab.locator("main details").all()[:2]:
            box.locator("summary").click()
        tab.evaluate(script)
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            found = tab.evaluate("axe.run(document, { resultTypes: ['violations'] })")
            told = [
                (one["id"], one["help"], [node["target"] for node in one["nodes"]][:3])
                for one in found["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            assert not told, f"{name}, {scheme}"
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= SIZES[size][0], f"{name} is wider than the screen"


def test_a_keyboard_does(work: tuple[Agent, Page], tab: Any) -> None:
    _, made = work
    tab.goto(f"{made.address}#live")
    comes_true(tab, PAGES["live"])
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    tab.locator("nav a").nth(1).focus()
    tab.keyboard.press("Enter")
    comes_true(tab, PAGES["events"])
    assert tab.evaluate("document.querySelector('nav [aria-current]').textContent").startswith("≣Events")
    assert tab.title().startswith("Events · porch")


def test_who_is_not_logged_in_sees_nothing(work: tuple[Agent, Page], tmp_path: Path, tab: Any) -> None:
    agent, _ = work
    (tmp_path / "p").write_text("correct horse")
    (tmp_path / "v").write_text("just looking")
    with page(tmp_path, password_file=str(tmp_path / "p"), viewer_file=str(tmp_path / "v")) as made:
        made.show(agent)
        tab.goto(made.address)
        comes_true(tab, "document.querySelector('dialog').open")
        assert tab.locator("main").inner_text() == "" and "porch" not in tab.content()
        tab.get_by_label("Password").fill("wrong horse")
        tab.get_by_role("button", name="Log in").click()
        comes_true(tab, "document.querySelector('dialog .error').textContent === 'this is not the password'")
        tab.get_by_label("Password").fill("just looking")
        until(lambda: _in(tab), "it opens")
        comes_true(tab, PAGES["live"])
        # a viewer finds nothing that is not for viewers
        assert tab.locator("nav a:visible").all_inner_texts()[-1].endswith("Health")
        assert not tab.locator("nav a[href='#settings']:visible").count()
        tab.get_by_role("button", name="Log out").click()
        comes_true(tab, "document.querySelector('dialog').open")


def _in(tab: Any) -> bool:
    """Whether the password, given once more after the wait that a wrong one costs, opens the page."""
    if tab.evaluate("document.querySelector('dialog').open"):
        tab.get_by_role("button", name="Log in").click()
        tab.wait_for_timeout(300)
    return not tab.evaluate("document.querySelector('dialog').open")


def test_two_hundred_tabs(work: tuple[Agent, Page], tmp_path: Path) -> None:
    """Each with its two streams: some are told to come again, the pipeline goes on, and nothing stays behind."""
    agent, _ = work
    line = agent.lines[0]
    with page(tmp_path) as made, ExitStack() as stack:
        made.show(agent)
        head = "GET /api/v1/{} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        wires = []
        for number in range(400):
            wire = stack.enter_context(socket.create_connection(("127.0.0.1", made.port), timeout=120))
            wire.sendall(head.format("live" if number % 2 else "events/stream").encode())
            wires.append(wire)
        statuses = [wire.recv(12)[9:12] for wire in wires]
        assert set(statuses) == {b"200", b"503"} and statuses.count(b"200") == 256
        before, began = line.stats.samples, time.monotonic()
        until(lambda: line.stats.samples > before + 5, f"frames are answered since {began:.0f}")
        assert len(line.watchers) == 1, "one watcher for all of them"
        for wire in wires:
            wire.close()
        until(lambda: ask(made, "GET", "/").status == 200, "there is room again")
        until(lambda: not line.watchers, "nothing stays")
