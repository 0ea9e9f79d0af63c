"""What runs is what is installed: nothing of the folder that one stands in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edge_agent import programs
from edge_agent.errors import SourceError
from edge_agent.sources import open_source
from edge_agent.uri import parse_uri
from tests.nets import blob_finder_onnx
from tests.registry.heads import picture

MODULES = ("numpy", "resource", "msgspec", "json", "cv2", "pip", "onnxruntime", "edge_agent", "types", "importlib",
           "sitecustomize", "usercustomize", "encodings", "runpy")  # fmt: skip
PROGRAMS = ("pip", "pip3", "python3", "setpriv", "sh", "onnx2tf", "picture")
START = "import sys; sys.path.remove(''); from edge_agent.cli import main; sys.exit(main())"
"""the installed command, which does not import from the current folder either"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder that holds, beside a model, what would be run if anything were imported or started from there."""
    folder = tmp_path / "download"
    folder.mkdir()
    for module in MODULES:
        (folder / f"{module}.py").write_text(
            f"open({str(folder / 'RAN')!r}, 'a').write('{module}\\n')\nraise ImportError"
        )
    for program in PROGRAMS:
        (folder / program).write_text(f"#!/bin/sh\necho {program} >> '{folder}/RAN'\n")
        (folder / program).chmod(0o755)
    blob_finder_onnx(folder / "m.onnx")
    picture(folder / "p.png")
    (folder / "texts.txt").write_text("hello\n")
    write = f"import sys; sys.stdout.buffer.write(bytes(64 * 64 * 3)); open({str(folder / 'SEEN')!r}, 'w')"
    (tmp_path / "writer.py").write_text(write)
    source = f"pipe:{sys.executable} -I {tmp_path}/writer.py?width=64&height=64"
    (folder / "agent.toml").write_text(
        '[device]\nid = "d"\n[store]\npath = "store"\n'
        f'[[pipeline]]\nname = "p"\nsource = "{source}"\ntasks = ["detect:./m.onnx"]\n'
    )
    return folder


def run(hostile: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    home = {"EDGE_AGENT_HOME": str(hostile.parent / "home"), "PATH": f".:{os.environ['PATH']}:", "OMP_NUM_THREADS": "1"}
    environment = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **home, **more}
    return subprocess.run(
        [sys.executable, "-c", START, *words], cwd=hostile, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    "words",
    [
        "models inspect m.onnx",
        "models add m.onnx --name added",
        "detect m.onnx p.png",
        "bench m.onnx --seconds 0.1",
        "check -c agent.toml",
        "graph onnx2tf m.onnx --out out",
        "doctor",
    ],
)
def test_no_verb_runs_what_lies_where_one_stands(hostile: Path, words: str) -> None:
    done = run(hostile, *words.split())
    assert done.returncode in ((0, 1, 2) if words.split()[0] in ("graph", "doctor") else (0,)), done.stderr
    assert not (hostile / "RAN").exists(), (hostile / "RAN").read_text()


def test_the_agent_runs_a_program_by_its_whole_path(hostile: Path) -> None:
    config, seen = hostile / "agent.toml", hostile / "SEEN"
    home = {"EDGE_AGENT_HOME": str(hostile.parent / "home"), "PATH": f".:{os.environ['PATH']}"}
    environment = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **home}
    words = [sys.executable, "-c", START, "run", "-c", str(config)]
    agent = subprocess.Popen(words, cwd=hostile, env=environment, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            if seen.exists():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                agent.wait(0.1)
    finally:
        agent.terminate()
        agent.wait()
    assert seen.exists() and not (hostile / "RAN").exists()


def test_pip_is_the_installed_one(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info, body = "toyweights-1.0.dist-info", (hostile / "m.onnx").read_bytes()
    with zipfile.ZipFile(hostile / "toyweights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toyweights/net.onnx", body)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toyweights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    folder = hostile.parent / "home" / "models" / "toy"
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text(
        'name = "toy"\nversion = "1"\ntask = "detect"\nfamily = "yolox"\nlicence = "CC0-1.0"\ntrained_by = "nobody"\n'
        'labels = ["a", "b", "c"]\n[input]\nwidth = 64\nheight = 64\n[[file]]\nname = "net.onnx"\nformat = "onnx"\n'
        f'sha256 = "{hashlib.sha256(body).hexdigest()}"\nbytes = {len(body)}\n'
        'from = ["pypi:toyweights==1.0#toyweights/net.onnx"]\n'
    )
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(hostile), "PIP_CONFIG_FILE": os.devnull}
    done = run(hostile, "models", "pull", "toy", **pip)
    assert done.returncode == 0, done.stderr
    assert not (hostile / "RAN").exists(), (hostile / "RAN").read_text()


def test_a_program_is_not_looked_for_where_one_stands(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hostile)
    for path in (".", "", f":{hostile.parent}/none", "../download"):
        monkeypatch.setenv("PATH", path)
        assert programs.which("setpriv") is None
        with pytest.raises(SourceError, match="picture is not installed"):
            open_source(parse_uri("pipe:picture?width=8&height=8"))
    monkeypatch.setenv("PATH", str(hostile))
    assert programs.which("picture") == str(hostile / "picture")
    assert programs.which("./picture") == str(hostile / "picture"), "asked for by its path"


def test_another_python_imports_from_where_this_one_does(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hostile.parent / "of_the_user.py").write_text("def main(): print('here')")
    monkeypatch.chdir(hostile)
    monkeypatch.setattr(sys, "path", ["", str(hostile), "relative", str(hostile.parent), *sys.path])
    assert programs.import_path()[0] == str(hostile.parent) and str(hostile) not in programs.import_path()
    done = subprocess.run(programs.python("of_the_user"), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    code = programs.python("edge_agent.gate.child")[-1].replace("import_module('edge_agent.gate.child').main()", "")
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{code}\nimport edge_agent, types; print(edge_agent.__file__, types.__file__)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ours, standard = done.stdout.split()
    assert Path(ours).parent == programs.PACKAGE and Path(standard).parent == Path(os.__file__).parent
    # standing where Python is installed takes nothing away
    monkeypatch.chdir(Path(os.__file__).parent)
    assert str(Path(os.__file__).parent) in programs.import_path()
