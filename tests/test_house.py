"""The house itself: which way imports run, what is light, and that published things match the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edge_agent import schema
from edge_agent.types import AnyEvent
from tests.conftest import ROOT

PACKAGE = ROOT / "edge_agent"
FLOOR = {"types", "errors", "config", "manifest", "held", "programs", "redact", "sandbox", "toml", "files"}
WALK = {
    "pipeline",
    "mailbox",
    "lane",
    "outbox",
    "segments",
    "journal",
    "entries",
    "link",
    "blame",
    "clock",
    "signing",
    "acks",
    "wire",
    "rights",
    "budget",
    "listen",
    "audit",
    "marks",
    "numbering",
    "recovery",
    "quota",
}
ROOMS = {"sources", "backends", "tasks", "registry"}
ENTRY = {
    "cv2": {"sources", "tasks/boxes.py", "workshop"},
    "onnxruntime": {"backends/onnx.py", "workshop"},
    "ai_edge_litert": {"backends/tflite.py", "workshop"},
    "tflite_runtime": {"backends/tflite.py"},
    "simplejpeg": {"sources/pictures.py"},
    "paho": {"wire.py"},
    "sounddevice": {"sources/microphone.py"},
    "torch": {"workshop/train"},
    "onnx": {"workshop"},
}


def imports(path: Path) -> set[str]:
    """Dotted names of every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    """The parts of our package (its first level) that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("edge_agent.") and name.count(".")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    parts = {name for name in ours(path) if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()}
    if room in FLOOR:
        assert parts <= FLOOR
    elif room in WALK:
        assert parts <= FLOOR | WALK
    elif room in ROOMS:
        assert parts <= FLOOR | WALK | {room}, "rooms are siblings: they never import each other"
    elif room == "workshop":
        assert not parts & {"cli", "agent", "demo"}
    elif room == "figures":
        assert parts <= {"figures"}
    elif room not in ("cli", "__main__"):
        assert not parts & {"cli", "workshop"}, "what runs on a device never loads the workshop"


@pytest.mark.parametrize("library", sorted(ENTRY))
def test_a_heavy_library_enters_through_one_door(library: str) -> None:
    for path in PACKAGE.rglob("*.py"):
        if any(name.split(".")[0] == library for name in imports(path)):
            where = path.relative_to(PACKAGE).as_posix()
            assert any(where == door or where.startswith(f"{door}/") for door in ENTRY[library]), where


def test_help_and_package_load_nothing_heavy() -> None:
    code = (
        "import sys, edge_agent.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(set(sys.modules) & {'numpy', 'cv2', 'onnxruntime', 'ai_edge_litert', 'paho', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_published_schema_is_the_code_s() -> None:
    published = (ROOT / "deploy" / "event.schema.json").read_text()
    assert published == schema.text(), "run: python -m edge_agent.schema > deploy/event.schema.json"


def test_every_kind_of_event_survives_its_json() -> None:
    common = {"pipeline": "p", "at": "2026-01-01T00:00:00Z", "id": "d/1/2", "epoch": 1, "seq": 2, "device": "d"}
    for body in (
        {
            "kind": "detections",
            "width": 1,
            "height": 2,
            "detections": [{"label": "a", "class_id": 1, "score": 0.5, "box": [0, 1, 2, 3]}],
        },
        {"kind": "text", "text": "a"},
        {"kind": "scores", "text": "a", "label": "x", "score": 0.5, "scores": {"x": 0.5, "y": 0.5}},
        {"kind": "spans", "text": "a b", "spans": [{"label": "x", "text": "b", "start": 2, "end": 3, "score": 0.5}]},
        {"kind": "anomaly", "error": 9.5, "limit": 12.0, "unusual": False},
        {"kind": "gap", "first": 1, "last": 2, "count": 2, "why": "w"},
    ):
        event = msgspec.json.decode(msgspec.json.encode({**common, **body}), type=AnyEvent)
        again = msgspec.json.decode(msgspec.json.encode(event))
        assert {key: again[key] for key in {**common, **body}} == {**common, **body}


def test_no_file_names_this_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(re.escape(str(ROOT)) + "|/" + "root/")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".sh", ".service", "") and path.is_file():
            assert not pattern.search(path.read_text(errors="replace")), name
