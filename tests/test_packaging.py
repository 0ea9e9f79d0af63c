"""What is installed, and under which name: ``edge-agent`` on PyPI is somebody else's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from edge_agent import __version__
from edge_agent.cli import doctor, libraries
from edge_agent.cli.doctor import DISTRIBUTION
from edge_agent.cli.libraries import SAFE
from tests.conftest import ROOT

BARE = re.compile(r"edge-agent\[|(?<!which )\binstall\b[^\n`]*[ \"']edge-agent(?![\w.-]*[a-z/])", re.IGNORECASE)
"""text that would install the stranger's package"""


def name_row() -> tuple[bool, str]:
    (row,) = doctor._name()
    return row.level == "ok", f"{row.found} {row.mend}"


@pytest.mark.parametrize(
    "text", ['pip install "edge-agent[demo]"', "pipx install edge-agent", "uv pip install edge-agent"]
)
def test_the_bare_name_is_known(text: str) -> None:
    assert BARE.search(text) and not BARE.search(text.replace("edge-agent", DISTRIBUTION))


def test_no_text_installs_the_bare_name() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    own = Path(__file__).name
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.name != own and b"\0" not in path.read_bytes()[:4096]:
            found = BARE.search(path.read_text(errors="replace"))
            assert not found, f"{name}: {found and found[0]}"


def test_doctor_names_a_foreign_edge_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_row()[0], name_row()
    for name, files in (("edge-agent", "edge_agent/core.py"), ("watcher", "edge_agent/__init__.py")):
        folder = tmp_path / name
        info = folder / f"{name.replace('-', '_')}-3.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.1\n")
        (info / "RECORD").write_text(f"{files},,\n")
        # from Python 3.12 on a file that is not there is not listed
        (folder / "edge_agent").mkdir()
        (folder / files).touch()
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            good, found = name_row()
        assert not good and f"{name} 3.1" in found and f"pip uninstall -y {name}" in found


def test_the_bounds_of_what_is_installed_are_above_known_holes() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    named = {"onnxruntime": "onnxruntime", "cv2": "opencv-python-headless", "onnx": "onnx"}
    for module, least in SAFE.items():
        bounds = re.findall(rf'"{named[module]}>=([\d.]+)[^";]*(; [^"]*)?"', text)
        assert bounds, module
        for bound, marker in bounds:
            old = marker == "; python_version < '3.11'"
            assert old or tuple(map(int, bound.split("."))) >= least, (module, bound, marker)


def test_doctor_warns_of_a_version_with_known_holes() -> None:
    for module, version in (("onnxruntime", "1.23.2"), ("cv2", "4.12.0"), ("cv2", "4.9.0-dev"), ("onnx", "1.20")):
        assert "WARNING: holes are known below" in libraries._hole(module, version)
    for module, version in (("onnxruntime", "1.24.0"), ("onnxruntime", "1.100"), ("cv2", "5.0.0"), ("numpy", "1.0")):
        assert libraries._hole(module, version) == ""
    assert libraries._hole("cv2", "") == "", "of unknown version"


@pytest.mark.slow
def test_the_wheel_installs_by_its_path_and_works(tmp_path: Path) -> None:
    """Built and installed as a user's pip does it; what it needs is taken from the environment of the tests."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = subprocess.run(
        [*pip, "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)], capture_output=True, text=True
    )
    if built.returncode:
        pytest.skip(f"no wheel can be built here: {built.stderr.strip().splitlines()[-1:]}")
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("edge_agent_runtime-")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # below, not instead of, what was installed: an editable checkout of ours stands there too
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    environment = {**os.environ, "EDGE_AGENT_HOME": str(tmp_path / "home")}
    environment.pop("PYTHONPATH", None)

    def ask(*args: str) -> str:
        command = [str(tmp_path / "venv" / "bin" / "edge-agent"), *args]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert ask("--version").strip() == __version__
    assert "carried" in ask("models", "list")
    assert "cup" in ask(
        "detect", "edge-yolo", str(packages / "edge_agent" / "carried" / "deploy" / "demo" / "coffee.png")
    )
