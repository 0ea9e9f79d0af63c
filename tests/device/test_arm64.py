"""The agent on a Raspberry Pi 4 and 5, emulated: Debian's arm64 in folders, QEMU as a Cortex-A72 or A76: docs/arm64.md.

`make test-arm64` makes what it needs. It shows that all of it works there, never how fast it would be.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edge_agent.config import Mqtt
from edge_agent.tasks.detect.places import iou
from tests.broker import Consumer, broker, until
from tests.conftest import ROOT
from tests.machine import Entered
from tests.roots import DEAD, SUITES, root, wheels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root enters another system"),
    pytest.mark.skipif(
        shutil.which("qemu-aarch64-static") is None, reason="QEMU is not here: apt install qemu-user-static"
    ),
]
ROW = """processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: {variant}
CPU part\t: {part}
CPU revision\t: {revision}

"""


class Board(NamedTuple):
    """What a Raspberry Pi says of its processor in /proc/cpuinfo; without it ONNX Runtime and XNNPACK know none."""

    model: str
    features: str
    variant: str
    part: str
    revision: int
    dotprod: bool

    def cpuinfo(self) -> str:
        rows = (ROW.format(number=number, **self._asdict()) for number in range(4))
        return "".join(rows) + f"Model\t\t: {self.model}\n"


BOARDS = {
    "cortex-a72": Board("Raspberry Pi 4 Model B Rev 1.4", "fp asimd evtstrm crc32 cpuid", "0x0", "0xd08", 3, False),
    "cortex-a76": Board(
        "Raspberry Pi 5 Model B Rev 1.0",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
        "0x4", "0xd0b", 1, True,
    ),
}  # fmt: skip
PYTHON = """#!/bin/sh
exec /usr/bin/qemu-aarch64-static -cpu {cpu} -0 {folder}/bin/python {base} "$@"
"""
"""an interpreter that is emulated as this processor, and so are all processes that it starts by its own name"""
SCORE, IOU = 0.1, 0.9
"""by which scores of two processors may differ, and how much of a box they share at least"""


class Pi(NamedTuple):
    """A system with the agent in it, as one of BOARDS."""

    suite: str
    cpu: str
    entered: Entered

    def __call__(self, *args: str, check: bool = True, given: str = "/dev/null", **env: str) -> str:
        """What the agent says there; `given`: a file of its own as standard input."""
        command = ["sh", "-c", f'exec "$@" < {given}', "sh", f"/opt/{self.cpu}/bin/python", "-m", "edge_agent", *args]
        return self.entered(*command, check=check, **{**self._told, **env}).stdout

    @property
    def _told(self) -> dict[str, str]:
        return {"EDGE_AGENT_HOME": f"/srv/{self.cpu}"}


@pytest.fixture(scope="module")
def proc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that stands as /proc/cpuinfo."""
    path = tmp_path_factory.mktemp("proc") / "cpuinfo"
    path.touch()
    return path


@pytest.fixture(scope="module", params=SUITES)
def system(
    request: pytest.FixtureRequest, proc: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Entered]]:
    """Debian with the agent installed from its wheel; nothing is fetched."""
    suite = str(request.param)
    binds = {"/proc/cpuinfo": proc, "/wheels": wheels(suite), "/ours": ROOT / "deploy", "/models": ROOT / "models"}
    entered = Entered(tmp_path_factory.mktemp(suite), root(f"{suite}-arm64"), binds)
    try:
        entered("python3", "-m", "venv", "/opt/agent")
        install = ["/opt/agent/bin/pip", "install", "-q", "--no-index", "--no-compile", "--find-links", "/wheels"]
        entered(*install, "edge-agent-runtime[speech]")
        entered(*install, "--no-deps", "--target", "/opt/dead", "--find-links", "/wheels/old", f"onnxruntime=={DEAD}")
        shutil.copy("/usr/bin/qemu-aarch64-static", entered.files / "usr/bin")
        # emulated, a trial takes ten to thirty times as long
        (limits,) = entered.files.glob("opt/agent/lib/python3*/site-packages/edge_agent/gate/trial.py")
        text = limits.read_text()
        assert "seconds: float = 60.0" in text
        limits.write_text(text.replace("seconds: float = 60.0", "seconds: float = 1200.0"))
        yield suite, entered
    finally:
        entered.end()


@pytest.fixture(scope="module", params=BOARDS)
def pi(request: pytest.FixtureRequest, system: tuple[str, Entered], proc: Path) -> Pi:
    suite, entered = system
    cpu = str(request.param)
    entered("sh", "-c", f"mkdir -p /opt/{cpu}/bin; cd /opt/{cpu}; cp ../agent/pyvenv.cfg .; ln -s ../agent/lib lib")
    python = entered.files / "opt" / cpu / "bin" / "python"
    python.write_text(PYTHON.format(cpu=cpu, folder=f"/opt/{cpu}", base=f"/usr/bin/python{SUITES[suite]}"))
    python.chmod(0o755)
    proc.write_text(BOARDS[cpu].cpuinfo())
    return Pi(suite, cpu, entered)


def here(*args: str, home: Path) -> str:
    """What the agent says on this processor."""
    told = {**os.environ, "EDGE_AGENT_HOME": str(home)}
    command = [sys.executable, "-m", "edge_agent", *args]
    done = subprocess.run(command, capture_output=True, text=True, env=told, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_doctor_says_what_board_it_is_and_that_all_works(pi: Pi) -> None:
    rows = {row["what"]: row for row in json.loads(pi("doctor", "--json", check=False))}
    assert "aarch64, 64 bit" in rows["machine"]["found"] and rows["python"]["found"].startswith(SUITES[pi.suite])
    board = BOARDS[pi.cpu]
    assert ("dotprod, fp16" in rows["processor"]["found"]) == board.dotprod
    assert rows["processor"]["level"] == ("ok" if board.dotprod else "warn")
    for what in ("numpy", "settings", "ONNX", "TFLite", "pictures", "cut JPEGs", "MQTT", "sound", "speech", "provider"):
        assert rows[what]["level"] == "ok", rows[what]
    assert "exact" in rows["int8 in ONNX"]["found"]


def test_doctor_names_the_runtime_that_dies_on_a_pi_4(pi: Pi) -> None:
    rows = {row["what"]: row for row in json.loads(pi("doctor", "--json", check=False, PYTHONPATH="/opt/dead"))}
    onnx = rows["ONNX"]
    if pi.cpu == "cortex-a72":
        assert onnx["level"] == "fix" and "an instruction that this processor does not have (SIGILL)" in onnx["found"]
        assert onnx["mend"] == 'pip install "onnxruntime>=1.24"' and "provider" not in rows
    else:
        assert f"onnxruntime {DEAD}" in onnx["found"] and "SIGILL" not in onnx["found"]


def found_in(pictures: str) -> list[tuple[str, dict[str, Any]]]:
    """Picture and box of what `detect --json` found."""
    rows = [json.loads(line) for line in pictures.splitlines()]
    return [(Path(row["image"]).name, one) for row in rows for one in row["detections"]]


@pytest.mark.parametrize("file", ["model.int8.onnx", "model.int8.tflite"])
def test_our_int8_detector_finds_the_same_as_here(pi: Pi, file: str, tmp_path: Path) -> None:
    ask = ["detect", "--json", f"models/edge-yolo/{file}"]
    pictures = ["astronaut.png", "chelsea.png", "coffee.png"]
    ours = found_in(here(*ask, *(f"deploy/demo/{name}" for name in pictures), home=tmp_path))
    theirs = found_in(pi(*ask[:2], f"/models/edge-yolo/{file}", *(f"/ours/demo/{name}" for name in pictures)))
    for one, other in ((ours, theirs), (theirs, ours)):
        sure = [(name, box) for name, box in one if box["score"] >= 0.3 + SCORE]
        assert len({box["label"] for _, box in sure}) >= 3, "person, dog, cup and table"
        for name, box in sure:
            assert any(name == n and alike(box, b) for n, b in other), (name, box, other)


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    near = abs(one["score"] - other["score"]) <= SCORE and one["label"] == other["label"]
    return near and bool(iou(np.array(one["box"]), np.array(other["box"])) >= IOU)


def test_the_gate_lets_the_same_files_serve_as_here(pi: Pi, tmp_path: Path) -> None:
    ours = here("models", "verify", "--prove", "edge-yolo", home=tmp_path)
    theirs = pi("models", "verify", "--prove", "edge-yolo")
    for said in (ours, theirs):
        held = {name: float(share) for name, share in re.findall(r"(\S+): mAP50 ([\d.]+) against model.onnx", said)}
        assert {"model.int8.onnx", "model.fp16.tflite", "model.int8.tflite"} <= set(held) and min(held.values()) > 0.97
    print(theirs)


def test_what_was_written_is_understood(pi: Pi) -> None:
    said = pi("understand", "encoder", "turn the lamp on", "will it rain tomorrow?")
    assert [line.split()[0] for line in said.splitlines()] == ["light", "weather"]


def test_a_second_of_speech_is_transcribed(pi: Pi, whisper: Path) -> None:
    shared = pi.entered.files / "shared"
    if not shared.is_dir():
        shutil.copytree(whisper, shared)
    said = pi("understand", "whisper-tiny", "/ours/demo/speech/light.wav", EDGE_AGENT_HOME="/shared")
    assert "turn the light on in the kitchen" in said.lower(), said


def test_events_wait_on_disk_and_reach_a_broker(pi: Pi, tmp_path: Path) -> None:
    config = f"/srv/{pi.cpu}.toml"
    text = """
[device]
id = "pi"
[store]
path = "/srv/{}-store"
[[pipeline]]
name = "photos"
source = "{}"
tasks = [{}]
"""
    seen = text.format(pi.cpu, "files:/ours/demo/*.png", '"detect:edge-yolo"')
    (pi.entered.files / config[1:]).write_text(seen)
    pi("run", "-c", config)
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url)) as consumer:
        later = text.format(pi.cpu, "lines:-", "")
        (pi.entered.files / config[1:]).write_text(f'[mqtt]\nurl = "{server.url}"\n{later}')
        pi("run", "-c", config, given="/ours/demo/lines.txt")
        until(lambda: len(consumer.events()) > 3, "all of them come")
    events = consumer.events()
    assert sorted(event["seq"] for event in events) == list(range(1, len(events) + 1))
    found = {one["label"] for event in events[:3] for one in event["detections"]}
    assert {"person", "cup"} <= found and events[-1]["kind"] == "text"
