"""A pipeline that asks a neighbour: a real one that serves, one that leaves, and what a config may not ask for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.agent.line import make_line
from edge_agent.config import Config, parse
from edge_agent.errors import ConfigError
from edge_agent.events import DetectionsEvent, Event
from edge_agent.serving.models import Models
from edge_agent.tasks.detect.also import Also
from tests.agent.test_controls import running
from tests.broker import until
from tests.tiny import tiny_detector


def config(folder: Path, also: str, more: str = "") -> Config:
    task = f'tasks = ["detect:{folder}/model?also={also}"]\nreport = "every"\n{more}'
    pipe = f'[[pipeline]]\nname = "door"\nsource = "files:{folder}/photos?fps=20&loop=yes"\n{task}'
    return parse(f'[store]\npath = "{folder}/store"\n{pipe}\n', base=folder)


@pytest.fixture
def place(tmp_path: Path, demo_pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    (tmp_path / "photos").mkdir()
    shutil.copy(demo_pictures / "coffee.png", tmp_path / "photos")
    tiny_detector(tmp_path / "model")
    return tmp_path


@pytest.mark.parametrize(
    ("also", "more", "told"),
    [
        ("neighbour:8484", "", "is no address"),
        ("ftp://me:secret@neighbour", "", "is no address"),
        ("http://neighbour:8484&also_ms=1", "", "also_ms"),
        ("http://neighbour:8484", 'blur = ["person"]', "blur hides things"),
    ],
)
def test_what_cannot_be_is_refused(place: Path, also: str, more: str, told: str) -> None:
    made = config(place, also, more)
    with pytest.raises(ConfigError, match=told) as refused:
        make_line(made.pipeline[0], Models(threads=1), None)
    assert "secret" not in str(refused.value)


def test_a_neighbour_that_is_not_there_costs_nothing_but_its_absence(place: Path) -> None:
    # nobody listens on port 9 of this machine
    with running(config(place, "http://127.0.0.1:9")) as agent:
        (line,) = agent.lines
        (task,) = line.teams[0]
        assert isinstance(task, Also) and task.send is not None
        until(lambda: task.fails > 0 and line.stats.samples > 10, "it has been asked, and the detector goes on")
        assert task.trouble and not task.answered


@pytest.mark.slow
def test_a_neighbour_answers_where_the_governor_asks_for_it(place: Path) -> None:
    told: list[Event] = []
    words = [sys.executable, "-m", "edge_agent", "serve", str(place / "model"), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ}) as serve:
        try:
            assert serve.stderr is not None
            lines = iter(serve.stderr.readline, "")
            address = next(found[1] for line in lines if (found := re.search(r"serving at (http\S+/infer|\S+),", line)))
            with running(config(place, f"{address.removesuffix(',')}/infer&also_ms=5000"), told) as agent:
                agent.work.urged = lambda: True
                until(lambda: any("answered by" in why for why in _whys(told)), "it answers", 60)
        finally:
            serve.terminate()


def _whys(told: list[Event]) -> list[str]:
    return [event.model.why for event in told if isinstance(event, DetectionsEvent) and event.model is not None]
