"""`edge-agent doctor` in environments that are broken in the ways that users meet."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli import doctor, libraries
from edge_agent.cli.row import Row
from edge_agent.device import board, media, wheels
from tests.broker import Mosquitto, broker
from tests.conftest import ROOT

MISSING = "raise ModuleNotFoundError(\"No module named '{0}'\", name='{0}')\n"
KILLS = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"


def rows(folder: Path, modules: dict[str, str], *args: str, **env: str) -> dict[str, list[dict[str, Any]]]:
    """What doctor says where these modules stand before the installed ones."""
    broken = folder / "broken"
    for name, text in modules.items():
        path = broken / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    told = {
        "PYTHONPATH": f"{broken}:{ROOT}",
        "EDGE_AGENT_HOME": str(folder / "home"),
        "EDGE_AGENT_CONFIG": "/none",
        **env,
    }
    command = [sys.executable, "-m", "edge_agent", "doctor", "--json", *args]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **told}, cwd=folder)
    assert "Traceback" not in done.stderr, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(done.stdout):
        found.setdefault(row["what"], []).append(row)
    assert done.returncode == any(not row["ok"] for each in found.values() for row in each)
    return found


def test_it_runs_where_nothing_is_installed_and_names_each_command(tmp_path: Path) -> None:
    names = [row[1] for row in libraries.LIBRARIES]
    found = rows(tmp_path, {name: MISSING.format(name) for name in names})
    for what, _, package, needed in libraries.LIBRARIES:
        if what != "TFLite, old":
            (row,) = found[what]
            # some need others of them
            assert row["level"] == ("fix" if needed else "ok") or "needs numpy" in row["found"], row
            assert not needed or row["mend"] in (f"pip install --force-reinstall {package}", "pip install numpy")
    assert found["python"][0]["level"] in ("ok", "warn") and found["machine"][0]["ok"] and "provider" not in found
    assert "could not be looked at" in found["sandbox"][0]["found"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What is said of libraries each of which is broken in a way of its own."""
    tflite = "def Interpreter(**_):\n    raise AttributeError('_ARRAY_API not found')\n"
    modules = {
        "onnxruntime": KILLS,
        "simplejpeg": "import time; raise SystemExit(3)",
        "tflite_runtime/__init__": "__version__ = '2.14.0'\n",
        "tflite_runtime/interpreter": tflite,
        "cv2": "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')\n",
        "sounddevice": "raise OSError('PortAudio library not found')\n",
    }
    return rows(tmp_path_factory.mktemp("doctor"), modules)


def test_it_outlives_a_runtime_that_kills_who_imports_it(broken: dict[str, list[dict[str, Any]]]) -> None:
    (onnx,) = broken["ONNX"]
    assert "an instruction that this processor does not have (SIGILL)" in onnx["found"] and onnx["level"] == "fix"
    assert onnx["mend"] == 'pip install "onnxruntime>=1.24"' and broken["cut JPEGs"][0]["level"] == "warn"


def test_libraries_that_were_built_for_others_are_told_apart(broken: dict[str, list[dict[str, Any]]]) -> None:
    (old,) = broken["TFLite, old"]
    assert "built for NumPy 1" in old["found"] and old["mend"].startswith("pip uninstall -y tflite-runtime && ")
    assert "misses libGL.so.1" in broken["pictures"][0]["found"] and "headless" in broken["pictures"][0]["mend"]
    assert broken["sound"][0]["mend"] == "sudo apt install libportaudio2" and broken["sound"][0]["level"] == "warn"
    odd = wheels._why("numpy", 1, "Traceback (most recent call last):\n  File x\nRuntimeError: odd")
    assert odd.wrong == "fails: RuntimeError: odd" and not odd.missing


def test_two_packages_that_own_one_module_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # from Python 3.12 on a file that is not there is not listed
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").touch()
    for name in ("opencv-python", "opencv-python-headless"):
        info = tmp_path / f"{name.replace('-', '_')}-9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9\n")
        (info / "RECORD").write_text("cv2/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (row,) = libraries._owners()
    assert row.found == "opencv-python and opencv-python-headless both own cv2"
    assert row.mend == "pip uninstall -y opencv-python && pip install --force-reinstall opencv-python-headless"


def test_a_provider_that_does_not_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("EDGE_AGENT_PROVIDERS", "CUDAExecutionProvider, CPUExecutionProvider")
    told = {row.level: row.found for row in libraries._providers(wheels.tried("onnxruntime"))}
    assert told["ok"] == "CPUExecutionProvider runs" and told["warn"].startswith("CUDAExecutionProvider does not run: ")


def test_a_look_that_fails_or_hangs_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> list[Row]:
        raise OSError(5, "Input/output error")

    def hangs() -> list[Row]:
        threading.Event().wait(60)
        return []

    monkeypatch.setattr(doctor, "LOOK_S", 0.2)
    (failed,), (hung,) = doctor._looked(fails), doctor._looked(hangs)
    assert failed.level == "warn" and "Input/output error" in failed.found
    assert hung.level == "fix" and "no answer within" in hung.found


# ── the board ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("machine", "flags", "good", "says"),
    [
        ("x86_64", "avx2 avx512_vnni", True, "VNNI"),
        ("x86_64", "avx2", False, "no VNNI: int8 gains less"),
        ("x86_64", "sse4_2", False, "no AVX2"),
        ("aarch64", "fp asimd evtstrm crc32 cpuid", False, "no dotprod, no fp16, no i8mm (as on a Raspberry Pi 4)"),
        ("aarch64", "fp asimd fphp asimdhp asimddp", True, "dotprod, fp16, no i8mm: int8 is fast"),
        ("riscv64", "", False, "nobody has tried"),
    ],
)
def test_what_a_processor_can_do_is_said_in_words(machine: str, flags: str, good: bool, says: str) -> None:
    found, words = board.means(machine, set(flags.split()))
    assert found == good and says in words


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/proc and /sys of a Raspberry Pi 4."""
    monkeypatch.setattr(board, "PROC", tmp_path / "proc")
    monkeypatch.setattr(board, "SYS", tmp_path / "sys")
    monkeypatch.setattr(board, "_vcgencmd", lambda: "")
    put(tmp_path / "proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\n")
    put(tmp_path / "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    put(tmp_path / "proc/uptime", "172800.00 300000.00\n")
    put(tmp_path / "proc/mounts", f"/dev/mmcblk0p2 / ext4 rw,noatime 0 0\ntmpfs {tmp_path}/run tmpfs rw 0 0\n")
    put(tmp_path / "sys/devices/mmc/block/mmcblk0/stat", "1 1 1 1 1 1 20000000 1 1 1 1\n")
    put(tmp_path / "sys/devices/mmc/block/mmcblk0/mmcblk0p2/partition", "2\n")
    put(tmp_path / "sys/class/thermal/thermal_zone0/temp", "61200\n")
    (tmp_path / "sys/class/block").mkdir(parents=True)
    (tmp_path / "sys/class/block/mmcblk0p2").symlink_to("../../devices/mmc/block/mmcblk0/mmcblk0p2")
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_board_tells_what_it_is_its_heat_and_its_power(kernel: Path) -> None:
    assert board.model() == "Raspberry Pi 4 Model B Rev 1.4" and "crc32" in board.flags()
    (row,) = doctor._board()
    assert row == Row("power, heat", "ok", "61 °C at most", "")
    throttled = kernel / "sys/devices/platform/soc/soc:firmware/get_throttled"
    put(throttled, "50000\n")
    (row,) = doctor._board()
    assert row.level == "warn" and "under-voltage since the start" in row.found and "power supply" in row.found
    put(throttled, "50005\n")
    put(kernel / "sys/class/thermal/thermal_zone0/temp", "84000\n")
    (row,) = doctor._board()
    assert row.level == "fix" and "under-voltage now, throttled now, 84 °C" in row.found


def test_a_disk_tells_what_it_is_and_how_long_it_lives(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(kernel / "home"))
    (row,) = doctor._disk()
    assert row.level == "ok" and row.found == "ext4 on /dev/mmcblk0p2, 5.1 GB a day written since the start"
    life = kernel / "sys/devices/mmc/block/mmcblk0/device/life_time"
    for said, level, words in (
        ("0x02 0x01", "ok", "10 to 20 %"),
        ("0x03 0x09", "warn", "80 to 90 %"),
        ("0x0b 0x01", "fix", "over"),
    ):
        put(life, f"{said}\n")
        (row,) = doctor._disk()
        assert row.level == level and words in row.found, row
    life.unlink()
    for mount, level, words in (
        (f"/dev/mmcblk0p2 {kernel} ext4 ro,noatime 0 0", "fix", "read-only"),
        (f"/dev/sda1 {kernel} vfat rw 0 0", "warn", "keep it on ext4"),
        (f"tmpfs {kernel} tmpfs rw 0 0", "warn", "gone at the next start"),
    ):
        put(kernel / "proc/mounts", f"/dev/mmcblk0p2 / ext4 rw 0 0\n{mount}\n")
        (row,) = doctor._disk()
        assert row.level == level and words in row.found, row


def test_the_clock_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert board.synced() in (True, False, None)
    for synced, level in ((True, "ok"), (None, "ok"), (False, "warn")):
        monkeypatch.setattr(board, "synced", lambda synced=synced: synced)
        (row,) = doctor._clock()
        assert row.level == level
    monkeypatch.setattr("time.time", lambda: 1000.0)
    (row,) = doctor._clock()
    assert row.level == "fix" and row.mend == "sudo timedatectl set-ntp true"


# ── cameras ──────────────────────────────────────────────────────────────────────────────────────────────


def test_cameras_tell_their_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's side of linux/videodev2.h is a stand-in: no camera is here."""
    for name in ("video0", "video1", "video2", "video10"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(media, "DEV", tmp_path)
    formats = [b"MJPG", b"YUYV"]

    def ioctl(handle: int, request: int, answer: bytearray) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        if request == media._QUERYCAP:
            if name == "video10":
                raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
            able = {"video0": 0x1, "video1": 0x00800000, "video2": 0x2}[name]
            struct.pack_into("16s32s32sIII", answer, 0, b"uvc", b"Cam\x1bera\0junk", b"usb", 1, 0x84A00001, able)
        elif request == media._ENUM_FMT:
            index = struct.unpack_from("I", answer)[0]
            if index >= len(formats):
                raise OSError(errno.EINVAL, "Invalid argument")
            struct.pack_into("4s", answer, 44, formats[index])
        else:
            index, code = struct.unpack_from("II", answer)
            if struct.pack("I", code) == b"YUYV":
                struct.pack_into("IIIIIII", answer, 8, 2, 16, 640, 16, 16, 480, 16)
                return
            if index > 1:
                raise OSError(errno.EINVAL, "Invalid argument")
            struct.pack_into("III", answer, 8, 1, *((640, 480), (1920, 1080))[index])

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    (found,) = media.cameras()
    assert (found.path.name, found.name, found.formats) == ("video0", "Cam?era", ["MJPG 1920x1080", "YUYV 640x480"])
    (row,) = doctor._cameras()
    assert row.found == "camera:0  Cam?era: MJPG 1920x1080, YUYV 640x480"
    if os.geteuid() != 0:
        (tmp_path / "video0").chmod(0)
        assert next(media.cameras()).wrong == "Permission denied"


# ── the config ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_config_and_its_broker_s_rights_are_tried(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite edge/v1/porch/#\n")
    file = tmp_path / "agent.toml"
    with broker(tmp_path, config=f"allow_anonymous true\nacl_file {acl}") as server:
        assert isinstance(server, Mosquitto)
        text = f'[mqtt]\nurl = "{server.url}"\n[[pipeline]]\nname = "a"\nsource = "lines:/srv/x"\n'
        for device, level in (("porch", {"ok"}), ("other", {"ok", "fix"})):
            file.write_text(f'[device]\nid = "{device}"\n{text}')
            found = list(doctor._config(str(file)))
            assert {row.level for row in found} == level, found
        assert any("may not publish" in row.found for row in found)
    file.write_text("[what]\n")
    (row,) = doctor._config(str(file))
    assert row.level == "fix" and "what" in row.found
    (row,) = doctor._config(str(tmp_path / "none"))
    assert row.level == "warn"


def test_people_get_a_line_and_the_command_below_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_agent", "doctor"]
    (tmp_path / "broken").mkdir()
    for name in (row[1] for row in libraries.LIBRARIES):  # one that is there takes long to load
        (tmp_path / "broken" / f"{name}.py").write_text(MISSING.format(name))
    told = {"PYTHONPATH": f"{tmp_path}/broken:{ROOT}", "EDGE_AGENT_HOME": "/proc/nowhere", "EDGE_AGENT_CONFIG": "/none"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **told})
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("fix  MQTT"))
    assert done.returncode == 1 and lines[at + 1].strip() == "-> pip install --force-reinstall paho-mqtt"
    assert "set EDGE_AGENT_HOME or --home" in done.stdout, "a home that cannot be written"
