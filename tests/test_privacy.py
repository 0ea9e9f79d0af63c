"""Nothing leaves the device, and nothing is written beside its own folders, that nobody asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from edge_agent.cli import doctor
from tests.tiny import tiny_detector

TRACED = "connect,sendto,sendmsg,sendmmsg"
OURS = (".local/share/edge-agent", ".local/state/edge-agent")
"""below a person's home"""


def alone(tmp_path: Path, *args: str, seconds: float | None = None, home: str = "") -> tuple[Path, str, list[str]]:
    """Run a verb in an empty home, its system calls watched where strace is here.

    Returns the home, what was said on stderr, and the calls that reached for another machine.
    """
    folder = tmp_path / "person"
    folder.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "EDGE_AGENT_", "STATE_"))}
    # what somebody set for other programs does not switch it on again
    environment = {**kept, "HOME": home or str(folder), "ORT_DISABLE_TELEMETRY": "0"}
    if home:
        environment |= {"EDGE_AGENT_HOME": str(folder / "own")}
    strace, log = shutil.which("strace"), tmp_path / "calls"
    watched = [strace, "-f", "--seccomp-bpf", "-qq", "-e", f"trace={TRACED}", "-o", str(log)] if strace else []
    until = ["timeout", "--foreground", "-s", "TERM", str(seconds)] if seconds else []
    command = [*watched, *until, sys.executable, "-m", "edge_agent", *args]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert "Traceback" not in done.stderr, done.stderr
    lines = log.read_text().splitlines() if log.exists() else []
    outside = [line for line in lines if re.search(r"AF_INET|sin_port|sin6_port", line) and "127.0.0.1" not in line]
    return folder, done.stderr, outside


def foreign(home: Path) -> list[str]:
    """Files below a home that are not the agent's own."""
    names = [path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir()]
    return [name for name in names if not name.startswith(OURS)]


def config(tmp_path: Path, model: Path, pictures: Path, options: str = "") -> Path:
    file = tmp_path / "agent.toml"
    pipe = f'[[pipeline]]\nname = "a"\nsource = "files:{pictures}{options}"\ntasks = ["detect:{model}"]\n'
    file.write_text(f'[device]\nid = "porch"\n{pipe}')
    return file


@pytest.mark.parametrize("verb", ["models list", "detect", "bench", "run", "models inspect"])
def test_a_verb_asks_no_host_and_leaves_no_file(tmp_path: Path, demo_pictures: Path, verb: str) -> None:
    model = tiny_detector(tmp_path / "model")
    more = {
        "detect": [str(model), str(demo_pictures / "coffee.png")],
        "bench": [str(model), "--seconds", "0.1"],
        "run": ["-c", str(config(tmp_path, model, demo_pictures))],
        "models inspect": [str(model / "model.onnx")],
    }
    home, _, outside = alone(tmp_path, *verb.split(), *more.get(verb, []))
    assert foreign(home) == [] and outside == []


@pytest.mark.slow
def test_an_agent_that_works_for_half_a_minute_asks_no_host(tmp_path: Path, demo_pictures: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt install strace")
    model = tiny_detector(tmp_path / "model")
    file = config(tmp_path, model, demo_pictures, "?fps=5&loop=true")
    home, said, outside = alone(tmp_path, "run", "-c", str(file), seconds=30)
    assert "events kept" in said and foreign(home) == [] and outside == []


@pytest.mark.slow
def test_the_workshop_asks_no_host_and_leaves_no_file(tmp_path: Path, demo_pictures: Path) -> None:
    picture = cv2.imread(str(demo_pictures / "coffee.png"))
    assert picture is not None
    (tmp_path / "data").mkdir()
    for at in range(8):
        cv2.imwrite(str(tmp_path / "data" / f"{at}.png"), picture[20 * at :, 30 * at :])
    home, said, outside = alone(
        tmp_path, "quantize", "edge-yolo", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")
    )
    assert "samples:" not in said and foreign(home) == [] and outside == []
    assert (tmp_path / "out").is_dir() or "gate" in said, said


def test_a_home_that_cannot_be_written_to_is_nobody_s_concern(tmp_path: Path, demo_pictures: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    _, said, outside = alone(
        tmp_path, "detect", str(model), str(demo_pictures / "coffee.png"), home="/proc/self/nowhere"
    )
    assert said == "" and outside == []


def test_doctor_says_what_is_off_and_what_an_earlier_run_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    (row,) = doctor._telemetry()
    assert row.level == "ok" and "off" in row.found and "delete" not in row.found
    left = tmp_path / "Microsoft" / "DeveloperTools" / ".onnxruntime"
    left.mkdir(parents=True)
    (left / "deviceid").write_text("x")
    (row,) = doctor._telemetry()
    assert row.level == "warn" and f"delete {left}" in row.found and row.mend == f"rm -r {left}"
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    (row,) = doctor._telemetry()
    assert row.level == "fix", row
