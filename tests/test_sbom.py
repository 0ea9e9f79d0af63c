"""What `make sbom` writes, and what SECURITY.md promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def bom() -> dict[str, Any]:
    try:
        distribution("edge-agent-runtime")
    except PackageNotFoundError:
        pytest.skip("edge-agent-runtime is not installed")
    done = subprocess.run([sys.executable, str(ROOT / "deploy/sbom.py"), "signed"], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_each_dependency_stands_in_it_as_it_is_installed(bom: dict[str, Any]) -> None:
    assert bom["bomFormat"] == "CycloneDX" and bom["metadata"]["component"]["name"] == "edge-agent-runtime"
    found = {part["name"]: part for part in bom["components"] if part["type"] == "library"}
    wanted = {"numpy", "onnxruntime", "ai-edge-litert", "opencv-python-headless", "paho-mqtt", "msgspec", "sounddevice"}
    # what these need, and an extra that was asked for; not the tools of the tests
    assert wanted | {"cffi", "cryptography"} <= set(found) and not {"pytest", "iotcore", "mypy"} & set(found)
    for name in wanted:
        assert found[name]["version"] == distribution(name).version and found[name]["licenses"], name
        assert found[name]["purl"] == f"pkg:pypi/{name}@{found[name]['version']}"
    assert len({part["bom-ref"] for part in bom["components"]}) == len(bom["components"])


def test_each_carried_model_stands_in_it_with_its_files(bom: dict[str, Any]) -> None:
    models = {part["name"]: part for part in bom["components"] if part["type"] == "machine-learning-model"}
    carried = {path.parent.name for path in (ROOT / "models").glob("*/*.onnx")}
    assert set(models) == carried
    for name, part in models.items():
        told = (ROOT / "models" / name / "manifest.toml").read_text()
        assert part["licenses"] and all(file["hashes"][0]["content"] in told for file in part["components"]), name


def test_security_names_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 8 and all(Path(ROOT, name).exists() for name in named), named
