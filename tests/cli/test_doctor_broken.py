"""The rest of what `edge-agent doctor` looks for, each broken: the system, the home, devices, the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edge_agent import files, programs
from edge_agent.cli import doctor
from edge_agent.cli.row import Row
from edge_agent.device import board, media
from tests.conftest import ROOT


class Version(NamedTuple):
    major: int
    minor: int
    micro: int


def test_a_system_of_32_bit_or_without_glibc_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("struct.calcsize", lambda format: 4)
    row, _ = doctor._machine()
    assert row.level == "fix" and "32 bit" in row.found and "install a 64-bit system" in row.found
    monkeypatch.undo()
    monkeypatch.setattr(board, "libc", lambda: "")
    row, _ = doctor._machine()
    assert row.level == "fix" and "musl" in row.found and "take Debian" in row.found


@pytest.mark.parametrize(("version", "level"), [((3, 10, 12), "warn"), ((3, 11, 2), "ok"), ((3, 13, 5), "ok")])
def test_a_python_that_holds_back_a_runtime_is_told(
    version: tuple[int, int, int], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", Version(*version))
    (row,) = doctor._python()
    assert row.level == level and row.found.startswith(".".join(map(str, version)))
    assert ("stays at 1.23.2" in row.found) == (level == "warn")


def test_another_program_of_the_same_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "edge_agent-3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edge-agent\nVersion: 3.0\n")
    (info / "RECORD").write_text("edge_agent/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (row,) = doctor._name()
    assert row.level == "fix" and "edge-agent 3.0 is another program that is imported as edge_agent" in row.found
    assert row.mend == "pip uninstall -y edge-agent && pip install --force-reinstall edge-agent-runtime"


def test_telemetry_that_is_on_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (row,) = doctor._telemetry()
    assert row.level == "ok"
    left = tmp_path / "Microsoft/DeveloperTools/.onnxruntime"
    left.mkdir(parents=True)
    (row,) = doctor._telemetry()
    assert row.level == "warn" and row.mend == f"rm -r {left}"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    (row,) = doctor._telemetry()
    assert row.level == "fix" and "is on" in row.found


def test_a_kernel_that_cannot_lock_in_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.device.sandbox.missing", lambda: ["Landlock", "seccomp"])
    (row,) = doctor._sandbox()
    assert row.level == "warn" and "no Landlock, no seccomp" in row.found
    monkeypatch.setattr("edge_agent.device.sandbox.missing", list)
    (row,) = doctor._sandbox()
    assert row.level == "ok"


# ── the home ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_home_that_is_full_or_belongs_to_others_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    (row,) = doctor._home()
    assert row.level == "ok"
    monkeypatch.setattr(doctor, "FREE", 1 << 62)
    (row,) = doctor._home()
    assert row.level == "fix" and "GB free" in row.found
    monkeypatch.undo()
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    if os.geteuid() == 0:
        # what a model that root added without the service's modes looks like
        strange = tmp_path / "home" / "models" / "mine"
        files.folder(strange)
        (strange / "model.onnx").touch()
        (strange / "model.onnx").chmod(0o600)
        os.chown(tmp_path / "home", 12345, 12345)
        (row,) = doctor._home()
        assert row.level == "fix" and row.mend.startswith("sudo chown -R --reference=")


# ── devices ──────────────────────────────────────────────────────────────────────────────────────────────

SOUND = """
from types import SimpleNamespace
default = SimpleNamespace(device=(0, 1))
def query_devices():
    return [dict(name="USB mic", max_input_channels=1, default_samplerate=8000.0),
            dict(name="speaker", max_input_channels=0, default_samplerate=48000.0),
            dict(name="line in", max_input_channels=2, default_samplerate=48000.0)]
class RawInputStream:
    def __init__(self, **_):
        if {wrong!r}:
            raise OSError({wrong!r})
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def read(self, count): return {sample!r} * count, False
"""


@pytest.mark.parametrize(
    ("sample", "wrong", "level", "says"),
    [
        (b"\0\x40", "", "ok", "USB mic, 8000 Hz, -6 dB"),
        (b"\0\0", "", "ok", "USB mic, 8000 Hz, -99 dB (silence)"),
        (b"", "Device unavailable", "warn", "USB mic, 8000 Hz: Device unavailable"),
    ],
)
def test_microphones_tell_their_level(
    sample: bytes, wrong: str, level: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sounddevice.py").write_text(SOUND.format(sample=sample, wrong=wrong))
    real = programs.import_path()
    monkeypatch.setattr(programs, "import_path", lambda: [str(tmp_path), *real])
    first, second = doctor._microphones()
    assert (first.level, first.found) == (level, says)
    assert second == Row("microphone", "ok", "line in, 48000 Hz", ""), "only the default one is listened to"
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    (row,) = doctor._microphones()
    assert row.found == "not known without sounddevice"
    (tmp_path / "sounddevice.py").write_text("import time; time.sleep(60)\n")
    monkeypatch.setattr(media, "HEAR_S", 0.2)
    assert media.microphones() is None, "one that does not answer"


@pytest.fixture
def forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Devices that are here and not for this user, whoever that is."""
    (tmp_path / "snd").mkdir()
    for name in ("video0", "snd/pcmC0D0c", "ttyUSB0"):
        (tmp_path / name).touch()
    monkeypatch.setattr(board, "DEV", tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(tmp_path)))
    yield tmp_path


def test_devices_that_this_user_may_not_use_are_told(forbidden: Path) -> None:
    import getpass
    import grp

    (row,) = doctor._rights()
    group = grp.getgrgid((forbidden / "video0").stat().st_gid).gr_name
    assert row.level == "warn" and all(name in row.found for name in ("video0", "pcmC0D0c", "ttyUSB0"))
    assert row.mend == (f"sudo usermod -aG {group} {getpass.getuser()}" if group != "root" else "")


# ── the service ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "level", "words"),
    [
        ("LoadState=not-found\nActiveState=inactive\nNRestarts=0", "ok", "sudo edge-agent install makes it one"),
        ("LoadState=loaded\nActiveState=failed\nNRestarts=3", "fix", "it is failed"),
        ("LoadState=loaded\nActiveState=active\nNRestarts=2", "ok", "started anew 2 times"),
    ],
)
def test_the_service_is_asked_of_its_manager(
    said: str, level: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "systemctl"
    told.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    told.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(doctor, "SYSTEMD", tmp_path)
    (row,) = doctor._service()
    assert row.level == level and words in row.found
    assert row.mend == ("journalctl -u edge-agent -n 50" if level == "fix" else "")
    monkeypatch.setattr(doctor, "SYSTEMD", tmp_path / "none")
    (row,) = doctor._service()
    assert row.found == "systemd does not run here"


def test_a_config_that_this_user_may_not_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "agent.toml"
    config.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != config)
    (row,) = doctor._config(str(config))
    assert row.level == "warn" and row.mend == f"sudo {sys.executable} -m edge_agent doctor"


def test_a_password_that_the_broker_does_not_take_is_told(tmp_path: Path) -> None:
    from tests.broker import broker, password_file

    users = password_file(tmp_path / "users", porch="right")
    (tmp_path / "word").write_text("wrong\n")
    (tmp_path / "word").chmod(0o600)
    with broker(tmp_path, config=f"allow_anonymous false\npassword_file {users}") as server:
        config = tmp_path / "agent.toml"
        config.write_text(
            f'[device]\nid = "porch"\n[mqtt]\nurl = "{server.url}"\nusername = "porch"\npassword_file = "word"\n'
            '[[pipeline]]\nname = "a"\nsource = "lines:/srv/x"\n'
        )
        found = list(doctor._config(str(config)))
    assert any(row.level == "fix" and "refuse" in row.found.lower() for row in found), found


def test_it_says_all_of_it_as_json_and_dies_of_none(tmp_path: Path) -> None:
    told = {"PYTHONPATH": str(ROOT), "EDGE_AGENT_HOME": str(tmp_path), "EDGE_AGENT_CONFIG": "/none"}
    command = [sys.executable, "-S", "-m", "edge_agent", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **told}, cwd=tmp_path)
    rows = {row["what"] for row in json.loads(done.stdout)}
    wanted = {"python", "machine", "processor", "name", "numpy", "ONNX", "TFLite", "pictures", "MQTT", "store", "disk"}
    wanted |= {"telemetry", "clock", "power, heat", "camera", "microphone", "rights", "service", "config"}
    assert wanted <= rows and "Traceback" not in done.stderr
