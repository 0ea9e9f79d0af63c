"""A new model beside the one that serves: how two answers are compared, and a whole update on a running agent."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.agent.canary import agreement
from edge_agent.config import Config, load
from edge_agent.fleet.pack import pack
from edge_agent.fleet.repository import Repository
from edge_agent.paths import carried
from edge_agent.samples import collected
from edge_agent.types import Detections, Embedding, Finding, ModelRef, Scores, Spans, Text
from tests.broker import broker, until
from tests.cli.test_cli import run
from tests.fleet.made import publish, repository

REF = ModelRef("m", "1", "0" * 64)
NAMES = {0: "person", 1: "car"}


def found(*boxes: tuple[float, float, float, float, float, int]) -> list[Finding]:
    rows = np.array(boxes, np.float32).reshape(-1, 6)
    what = Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int32), NAMES, sure=0.5)
    return [Finding(Text("a", 0.0, 0.0), what, REF)]


def said(what: Scores | Spans | Embedding) -> list[Finding]:
    return [Finding(Text("a", 0.0, 0.0), what, REF)]


def test_boxes_are_the_same_that_lie_alike_and_have_one_label() -> None:
    one = found((0, 0, 10, 10, 0.9, 0), (20, 0, 30, 10, 0.8, 0))
    assert agreement(one, one) == 1.0
    assert agreement(one, found((1, 0, 11, 10, 0.6, 0))) == pytest.approx(2 / 3)
    assert agreement(one, found((0, 0, 10, 10, 0.9, 1), (20, 0, 30, 10, 0.8, 0))) == 0.5
    assert agreement(one, found()) == 0.0 and agreement(found(), one) == 0.0
    assert agreement(found(), found()) is None  # both silent says nothing
    assert agreement(one, found((0, 0, 10, 10, 0.4, 0))) == 0.0  # too faint to count
    twice = found((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.9, 0))
    assert agreement(found((0, 0, 10, 10, 0.9, 0)), twice) == pytest.approx(2 / 3)


def test_labels_spans_and_vectors() -> None:
    hello, other = Scores("hello", 0.9, {"hello": 0.9}), Scores("bye", 0.9, {"bye": 0.9})
    assert agreement(said(hello), said(hello)) == 1.0 and agreement(said(hello), said(other)) == 0.0
    start, end, score = (np.array([0], np.int32), np.array([3], np.int32), np.array([0.5], np.float32))
    name = Spans(start, end, ("name",), score)
    assert agreement(said(name), said(Spans(start, end, ("town",), score))) == 0.0
    assert agreement(said(name), said(name)) == 1.0
    assert agreement(said(Embedding(np.ones(3, np.float32))), said(Embedding(np.zeros(3, np.float32)))) is None
    assert agreement(said(hello), []) == 0.0


CONFIG = """
[device]
id = "shop"
[mqtt]
url = "{url}"
[store]
path = "store"
[rollout]
[update]
repository = "{repository}"
root = "repo/metadata/1.root.json"
models = ["people"]
look = false
canary = 1
canary_samples = 10
health = "1s"
slower = 100
celsius = 130
[samples]
collect = ["disagreed"]
consent = "pictures that the program carries"
[[pipeline]]
name = "street"
source = "files:shown?fps=5&loop=true"
tasks = ["detect:people"]
"""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder at an address, by a server of static files."""
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_a_job_brings_a_model_and_live_samples_stop_a_worse_one(
    tmp_path: Path, demo_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Download, trial, race, canary, switch and window on an agent that runs, as an operator has it: the first one
    from a folder, the others by a rollout, over HTTP.
    """
    pytest.importorskip("tuf", reason="the extra [update] is not installed")
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    repo = repository(tmp_path / "repo", tmp_path / "keys")
    (tmp_path / "shown").mkdir()
    for at, path in enumerate(sorted(demo_pictures.glob("*.png"))):
        shutil.copyfile(path, tmp_path / "shown" / f"{at}.png")
    model = carried("models", "edge-yolo")
    deaf = tmp_path / "deaf"
    shutil.copytree(model, deaf)
    text = (deaf / "manifest.toml").read_text()
    worse = text.replace("score = 0.3", "score = 0.85").replace('version = "2"', 'version = "3"')

    def offered(folder: Path) -> None:
        publish(
            Repository(repo.place, repo.roles.keys), pack(str(folder), "people", lambda path: pytest.fail()), "people"
        )

    from edge_agent.agent.update import alone

    with broker(tmp_path) as mosquitto, served(repo.place) as address:

        def read(repository: str) -> Config:
            (tmp_path / "agent.toml").write_text(CONFIG.format(url=mosquitto.url, repository=repository))
            return load(tmp_path / "agent.toml")

        def rolled(number: int) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
            state = ("--state", str(tmp_path / f"{number}.json"))
            given = ("--group", "all", "--devices", "shop", "--url", mosquitto.url, "--soak", "1s", *state)
            done = run(tmp_path, "rollout", "start", f"model/people/{number}", *given)
            told = json.loads(run(tmp_path, "rollout", "status", "--json", *state).stdout)
            return done, told["devices"]["shop"]

        offered(model)
        config = read("repo")
        assert alone(config, lambda shared=None: config).take("model/people").state == "SUCCEEDED"
        for manifest in (worse, text.replace('version = "2"', 'version = "4"')):
            (deaf / "manifest.toml").write_text(manifest)
            offered(deaf)
        agent, stop = Agent(read(address)), threading.Event()
        running = threading.Thread(target=agent.run, args=(stop,))
        running.start()
        try:
            halted, worst = rolled(2)
            assert halted.returncode == 1 and "halted" in halted.stderr, halted.stderr
            assert (worst["status"], worst["details"]["step"]) == ("FAILED", "canary"), worst
            assert "at least 0.5 is asked for" in worst["details"]["reason"]
            assert agent.lines[0].versions["people"]["serves"] == "2"
            done, good = rolled(3)
            assert done.returncode == 0 and good["details"]["reason"] == "serves, and is healthy", (done.stderr, good)
            assert float(good["details"]["agreement"]) > 0.9 and float(good["details"]["samples"]) >= 10
            assert agent.lines[0].versions["people"]["serves"] == "4"
            until(collected.collected, "what they disagreed on is kept", 60)
            kept = collected.collected()
            assert kept[0].about.why == "disagreed" and "pictures that the program" in kept[0].about.consent
        finally:
            stop.set()
            running.join(60)
