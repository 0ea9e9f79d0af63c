"""Boards that bring a runtime of their own, and those that the agent does not run on: deploy/install.sh, with wheels
that stand in for the real ones."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pip
import pytest

from edge_agent import __version__
from edge_agent.cli import libraries
from edge_agent.cli.verbs import VERBS
from tests.conftest import ROOT

SCRIPT = str(ROOT / "deploy" / "install.sh")
OTHERS = ("numpy", "ai-edge-litert", "opencv-python-headless", "simplejpeg", "paho-mqtt", "msgspec", "sounddevice",
          "tomli", "iotcore", "pyserial")  # fmt: skip
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may lay a service")


def wheel(folder: Path, name: str, version: str, files: dict[str, str], needs: list[str] | None = None) -> Path:
    """A wheel of these files, as pip takes it."""
    stem = f"{name.replace('-', '_')}-{version}"
    info, rows = f"{stem}.dist-info", []
    extras = sorted(set(re.findall(r"extra == '(\w+)'", str(needs))))
    head = [f"Requires-Dist: {need}" for need in needs or ()] + [f"Provides-Extra: {extra}" for extra in extras]
    files = {
        **files,
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *head, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        for at, text in files.items():
            out.writestr(at, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{at},sha256={digest},{len(text.encode())}")
        out.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,", ""]))
    return path


def needs_of_ours() -> list[str]:
    """The core dependencies and two extras of pyproject, as a wheel's metadata says them."""
    text = (ROOT / "pyproject.toml").read_text()
    (core,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.S | re.M)
    needs = [need.replace("; ", " ; ") for need in re.findall(r'^    "(.*?)",', core, re.M)]
    assert len([need for need in needs if need.startswith("onnxruntime>")]) == 2
    more = ["pyserial>=3.5 ; extra == 'serial'", "iotcore>=0.4 ; extra == 'demo'"]
    return [*needs, *more, "edge-agent-runtime[serial] ; extra == 'all'"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins of ours, of all that it needs, and of onnxruntime as the index has it."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in OTHERS:
        wheel(folder, name, "99.0", {f"{name.replace('-', '_')}.py": ""})
    wheel(folder, "onnxruntime", "99.0", {"onnxruntime/__init__.py": "MADE_BY = 'index'\n"})
    main = {"edge_agent/__init__.py": "", "edge_agent/__main__.py": "print('laid')\n"}
    wheel(folder, "edge-agent-runtime", "1.0", main, needs_of_ours())
    return folder


def nvidia(folder: Path) -> Path:
    return wheel(folder, "onnxruntime-gpu", "1.23.0", {"onnxruntime/__init__.py": "MADE_BY = 'NVIDIA'\n"}, ["numpy"])


QUICK = """#!/bin/sh
[ "$1 $2" != "-m venv" ] || {{ {0} -m venv --without-pip "$3" && ln -s {1} "$3"/lib/python*/site-packages/; exit; }}
exec {0} "$@"
"""
"""a Python whose environments get our pip by a link, which takes no seconds"""


def install(wheels: Path, prefix: Path, *more: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    python = wheels / "python"
    python.write_text(QUICK.format(sys.executable, Path(pip.__file__).parent))
    python.chmod(0o755)
    command = ["sh", SCRIPT, "--wheels", str(wheels), "--prefix", str(prefix), "--python", str(python), *more]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    return done.returncode, done.stdout + done.stderr


def in_it(environment: Path, code: str) -> str:
    command = [str(environment / "bin" / "python"), "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@root
def test_the_wheel_of_the_board_s_maker_stays_the_one_owner(wheels: Path, tmp_path: Path) -> None:
    code, said = install(wheels, tmp_path, "--runtime", str(nvidia(tmp_path)), "--extras", "all")
    assert code == 0 and "laid" in said and "conflict" not in said, said
    assert in_it(tmp_path / "1.0", "import onnxruntime; print(onnxruntime.MADE_BY)") == "NVIDIA"
    every = "from importlib.metadata import distributions as d; print(*sorted(x.metadata['Name'] for x in d()))"
    there = set(in_it(tmp_path / "1.0", every).split())
    assert {"onnxruntime-gpu", "edge-agent-runtime", "msgspec", "pyserial"} <= there
    assert not there & {"onnxruntime", "iotcore"}
    again, said = install(wheels, tmp_path, "--runtime", "none")
    assert again == 1 and "is there with another runtime" in said
    (tmp_path / "current").symlink_to("1.0")
    later, said = install(wheels, tmp_path)
    assert later == 1 and "was laid with --runtime onnxruntime_gpu-1.23.0-py3-none-any.whl; give it again" in said


@root
def test_a_runtime_that_is_no_wheel_is_refused(wheels: Path, tmp_path: Path) -> None:
    for wrong, word in (("gpu", "give a wheel"), (str(tmp_path / "none.whl"), "is no file")):
        code, said = install(wheels, tmp_path, "--runtime", wrong)
        assert code == 2 and word in said and not (tmp_path / ".edge-agent-versions").exists()


@pytest.mark.parametrize(
    ("bits", "libc", "word"), [("32", "echo glibc 2.36", "is 32-bit"), ("64", "exit 1", "is not glibc (musl?)")]
)
def test_what_there_are_no_wheels_for_is_said_before_pip_fails(bits: str, libc: str, word: str, tmp_path: Path) -> None:
    told = tmp_path / "getconf"
    told.write_text(f"#!/bin/sh\ncase $1 in LONG_BIT) echo {bits} ;; *) {libc} ;; esac\n")
    told.chmod(0o755)
    code, said = install(tmp_path, tmp_path / "opt", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert code == 1 and word in said and not (tmp_path / "opt").exists()


def test_doctor_keeps_the_maker_s_runtime_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": ["onnxruntime-gpu", "onnxruntime"]}
    monkeypatch.setattr("edge_agent.device.wheels.owners", lambda module: both.get(module, []))
    (row,) = libraries._owners()
    assert row.found == "onnxruntime and onnxruntime-gpu both own onnxruntime"
    assert row.mend.startswith("pip uninstall -y onnxruntime &&") and "--no-deps onnxruntime_gpu-*.whl" in row.mend


def test_what_the_page_says_to_pip_leaves_the_maker_s_runtime(wheels: Path, tmp_path: Path) -> None:
    """The three commands of docs/boards.md, in an environment of their own."""
    (block,) = re.findall(
        r"```sh\n(pip install edge-agent-runtime\n.*?)```", (ROOT / "docs/boards.md").read_text(), re.S
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    nvidia(tmp_path)
    command = f'{sys.executable} -m pip --disable-pip-version-check --python "{tmp_path}/env/bin/python"'
    script = f'set -e\npip() {{ {command} "$@"; }}\n{block}'
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **index}
    )
    assert done.returncode == 0, done.stderr
    assert in_it(tmp_path / "env", "import onnxruntime; print(onnxruntime.MADE_BY)") == "NVIDIA"


def test_the_image_copies_what_there_is_and_does_not_run_as_root() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    copied = [part for what, rest in steps if what == "COPY" and "--from" not in rest for part in rest.split()[:-1]]
    assert len(copied) > 5 and all((ROOT / part).exists() for part in copied), copied
    seen = {line[1:] for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert set(copied) == seen, "what is copied is sent to the builder"
    assert [rest for what, rest in steps if what == "USER"] == ["10001:10001"] and "--uid 10001" in text
    assert {"HEALTHCHECK", "VOLUME", "ENTRYPOINT"} <= {what for what, _ in steps}
    verbs = [json.loads(rest[rest.index("[") :]) for what, rest in steps if what in ("CMD", "HEALTHCHECK")]
    assert {verb for words in verbs for verb in words if verb in VERBS} == {"check", "run"}
    forced = re.findall(r'^(\w+) = "edge_agent/carried', (ROOT / "pyproject.toml").read_text(), re.M)
    assert len(forced) == 3 and set(forced) <= set(copied), "the wheel is built with what it carries"


@pytest.mark.slow
def test_the_image_is_built_where_docker_runs() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("Docker does not run here")
    build = ["docker", "build", "-q", "-f", "deploy/Dockerfile", "-t", "edge-agent-test", "."]
    subprocess.run(build, cwd=ROOT, check=True)
    said = subprocess.run(["docker", "run", "--rm", "edge-agent-test", "--version"], capture_output=True, text=True)
    assert said.stdout.strip() == __version__, said.stderr
