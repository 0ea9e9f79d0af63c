"""Models switched while a real agent runs on them: it swaps between two frames, or the old one goes on."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_agent import registry
from edge_agent.config import Mqtt
from edge_agent.gate.read import seen
from edge_agent.registry import add, catalogue
from edge_agent.serving.models import Models
from tests.agent.test_agent import finish, pipeline, start, write
from tests.broker import Consumer, broker, until
from tests.tiny import tiny_detector

BOXES = {"1": [8, 8, 24, 24], "2": [32, 32, 60, 60]}


def model(tmp_path: Path, version: str) -> Path:
    return tiny_detector(tmp_path / f"v{version}", version, tuple(BOXES[version]))  # type: ignore[arg-type]


def constant(tmp_path: Path) -> Path:
    """A version that answers the same to whatever it is shown."""
    folder = tiny_detector(tmp_path / "v3", "3")
    graph = onnx.load(str(folder / "model.onnx"))
    for part in graph.graph.initializer:
        if part.name == "weight":
            part.CopyFrom(numpy_helper.from_array(np.zeros(6, np.float32), "weight"))
        if part.name == "box":
            part.CopyFrom(numpy_helper.from_array(np.array([[[8, 8, 24, 24, 0.9, 0]]], np.float32), "box"))
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    digest = registry.store.digest(folder / "model.onnx")
    text = (folder / "manifest.toml").read_text().splitlines()
    text = [f'sha256 = "{digest}"' if row.startswith("sha256") else row for row in text]
    text = [f"bytes = {(folder / 'model.onnx').stat().st_size}" if row.startswith("bytes") else row for row in text]
    (folder / "manifest.toml").write_text("\n".join(text))
    return folder


def test_swaps_lose_no_frame_and_a_refused_one_changes_nothing(
    tmp_path: Path, demo_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("chelsea.png", "coffee.png"):
        shutil.copy(demo_pictures / name, photos)
    add.add(model(tmp_path, "1"), "mine", seen)
    source = pipeline("yard", "files:photos?fps=10&loop=true", '"detect:mine"', 'report = "every"')

    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url)) as consumer:

        def versions() -> list[str]:
            return [event["model"]["version"] for event in consumer.events()]

        def state() -> dict[str, Any]:
            return json.loads(consumer.last("yard/state") or b"{}")  # type: ignore[no-any-return]

        agent = start(write(tmp_path, server.url, source))
        until(lambda: len(versions()) >= 5, "it answers")
        add.add(model(tmp_path, "2"), "mine", seen)
        until(lambda: "2" in versions(), "the second version answers")
        add.add(constant(tmp_path), "mine", seen)
        agent.send_signal(signal.SIGHUP)
        until(lambda: state().get("refused", "") != "", "the third version is refused")
        assert "mine: model.onnx is refused: it gives the same output" in state()["refused"]
        before = len(versions())
        until(lambda: len(versions()) > before + 5, "the second version goes on")
        assert catalogue.locate("mine").manifest.version == "3"
        add.rollback("mine")
        until(lambda: state().get("refused") == "", "the second version is the current one again")
        add.add(model(tmp_path, "1"), "mine", seen)
        until(lambda: versions()[-1] == "1", "the first version is back")
        agent.send_signal(signal.SIGTERM)
        said = finish(agent)
        until(lambda: consumer.last("porch/status") == b"offline", "it says goodbye")
        until(lambda: state()["events"] == len(versions()), "its last state counts every event")
        events = sorted(consumer.events(), key=lambda event: event["seq"])
        last = state()
    assert "mine: swapped to version 2: " in said
    assert "mine: the new version does not serve, the old one goes on: mine: model.onnx is refused: it gives" in said
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert last["samples"] == last["answered"] + last["dropped"] and last["bad"] == 0
    runs = [event["model"]["version"] for event in events]
    turns = [version for i, version in enumerate(runs) if i == 0 or runs[i - 1] != version]
    assert turns == ["1", "2", "1"]
    for event in events:
        # the canvas of 64 pixels holds the picture in its middle: the box is that of the version named
        scale = max(event["width"], event["height"]) / 64
        pads = [(64 * scale - event[side]) / 2 for side in ("width", "height")] * 2
        wanted = [x * scale - pad for x, pad in zip(BOXES[event["model"]["version"]], pads, strict=True)]
        limits = (event["width"], event["height"]) * 2
        (found,) = event["detections"]
        wanted = [min(max(x, 0), most) for x, most in zip(wanted, limits, strict=True)]
        assert found["box"] == pytest.approx(wanted, abs=8), "the other version's box is hundreds of pixels off"


def test_what_counts_as_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    folder = model(tmp_path, "1")
    models = Models(threads=1)
    models.serve(str(folder))
    assert models.changed() == []
    (folder / "manifest.toml").rename(tmp_path / "away")
    assert models.changed() == [], "what is gone goes on serving"
    shutil.copy(tmp_path / "away", folder / "manifest.toml")
    assert models.changed() == [str(folder)]
    served = models.open(str(folder))
    assert models.changed() == []
    models.adopt(str(folder), served)
    assert models.serve(str(folder)) is served
