"""The demo on the page: an address to open, the clip or a film of the user's, and a config that can be changed."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import parse
from edge_agent.errors import UsageError
from edge_agent.paths import carried
from edge_agent.sources import clip
from edge_agent.sources.clip import make_clip
from tests.broker import until
from tests.ui.serving import comes_true

pytest.importorskip("iotcore", reason="the extra [demo] is not installed")

from edge_agent.cli import demo, demo_source  # isort: skip
from edge_agent.cli.demo_source import clip_in, text_of  # isort: skip

PLACES = {"device": "d", "port": 1, "folder": "/f", "labels": carried("deploy", "demo", "intents.toml")}


def test_a_source_of_the_user_takes_the_clip_s_place(tmp_path: Path) -> None:
    said: list[str] = []
    made = parse(text_of(demo.CONFIG, "rtsp://cam/1", said.append, **PLACES))
    assert [pipe.source for pipe in made.pipeline] == ["rtsp://cam/1"] and made.pipeline[0].tasks[-1] == "track"
    assert made.page is not None and made.page.is_local and not said
    film = tmp_path / 'a "film".avi'
    make_clip(carried("deploy", "demo"), film)
    text = text_of(demo.CONFIG, str(film), said.append, **PLACES)
    assert parse(text).pipeline[0].source == f"files:{film}?pace=own&loop=true"
    text_of(demo.CONFIG, "camera:98", said.append, **PLACES)
    assert said == ["--source camera:98: there is no /dev/video98; the carried clip plays instead"]
    with pytest.raises(UsageError, match="gives no pictures"):
        text_of(demo.CONFIG, "lines:x", said.append, **PLACES)


def test_without_the_extra_there_is_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(demo_source, "find_spec", lambda name: None)
    assert parse(text_of(demo.CONFIG, None, said.append, **PLACES)).page is None
    assert said == ['without page: pip install "edge-agent-runtime[page]"']


def test_the_clip_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        clip_in(tmp_path / name)
        monkeypatch.setattr(clip, "make_clip", lambda *given: pytest.fail("it is there"))
    assert (tmp_path / "one" / "clip.avi").read_bytes() == (tmp_path / "two" / "clip.avi").read_bytes()


def test_it_opens_with_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tab: Any) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path.parent / "home"))
    make_clip(carried("deploy", "demo"), tmp_path / "mine.avi")
    said, heard, stop, done = list[str](), list[str](), threading.Event(), list[demo.Summary]()
    given = None, lambda tail, body: heard.append(tail), said.append, stop, False, str(tmp_path / "mine.avi")
    runs = threading.Thread(target=lambda: done.append(demo.run(*given)), daemon=True)
    runs.start()
    until(lambda: any("camera: " in line for line in said), "it begins")
    (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", "\n".join(said))
    tab.goto(address)
    comes_true(tab, "document.querySelector('.view img')?.naturalWidth === 640")
    until(lambda: "camera/events" in heard, "an event comes back")
    stop.set()
    runs.join(120)
    assert done and done[0].lost == 0
