"""The whole of it: an agent whose int8 kernel breaks while it serves, seen from its broker and its page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.config import Mqtt
from edge_agent.manifest import load
from edge_agent.paths import carried
from tests.broker import Consumer, broker, until
from tests.conftest import ROOT

CONFIG = """
[device]
id = "shop"
[store]
path = "store"
[mqtt]
url = "{url}"
[accuracy]
agreement = 0.8
every = 1
[[pipeline]]
name = "street"
source = "files:shown?fps=2&loop=true"
tasks = ["detect:edge-yolo"]
"""


@pytest.mark.slow
def test_a_kernel_that_breaks_is_noticed_and_the_parent_serves(tmp_path: Path, demo_pictures: Path) -> None:
    (tmp_path / "shown").mkdir()
    for at, path in enumerate(sorted(demo_pictures.glob("*.png"))):
        shutil.copyfile(path, tmp_path / "shown" / f"{at}.png")
    manifest = load(carried("models", "edge-yolo") / "manifest.toml")
    parent, int8 = manifest.original(), next(row for row in manifest.file if row.precision == "int8")
    (tmp_path / "store").mkdir()
    # as if it had been gone back to: what is fastest on this processor may be another file
    (tmp_path / "store" / "accuracy.json").write_text(json.dumps({"back": {"edge-yolo": int8.sha256}}))
    switch = tmp_path / "broken"
    told = {"EDGE_AGENT_HOME": str(tmp_path / "home"), "BROKEN_INT8": str(switch), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.accuracy.broken", "run", "-c", str(tmp_path / "agent.toml")]
    with broker(tmp_path) as it, Consumer(Mqtt(url=it.url)) as consumer:
        (tmp_path / "agent.toml").write_text(CONFIG.format(url=it.url))
        with (tmp_path / "stderr").open("w") as stderr:
            agent = subprocess.Popen(command, stderr=stderr, env={**os.environ, **told})
        said = (tmp_path / "stderr").read_text

        def serves() -> str:
            return str(consumer.events()[-1]["model"]["sha256"]) if consumer.events() else ""

        try:
            until(lambda: "contract of edge-yolo is kept" in said(), "20 answers agree with the parent's", 240)
            assert int8.sha256.startswith(serves()) and serves()
            switch.touch()
            until(lambda: "went back to its parent model.onnx" in said(), "the broken kernel is noticed", 120)
            assert "the contract of edge-yolo is broken" in said()
            until(lambda: parent.sha256.startswith(serves()), "its parent answers")
        finally:
            agent.terminate()
            agent.wait(60)
    known = json.loads((tmp_path / "store" / "accuracy.json").read_text())
    assert known["back"] == {"edge-yolo": parent.sha256}, "also after a restart"
