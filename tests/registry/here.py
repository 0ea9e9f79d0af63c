"""Reads bare files in the process of the test, where the agent does so in a child (edge_agent/gate/read.py)."""

from __future__ import annotations

from pathlib import Path

from edge_agent.backends import open_net
from edge_agent.gate import read as gate_read
from edge_agent.inspect.inspect import inspect
from edge_agent.inspect.worth import TryReading
from edge_agent.manifest import Seen
from edge_agent.registry.add import add
from edge_agent.registry.catalogue import SUFFIXES


def visual_wake_words(data: Path) -> str:
    """The float model of that name, added to the test's own home: what it does not say itself, how pictures go in."""
    said = {"scale": "0..1", "channels": "RGB"}
    path = data / "models" / "vww_96_float.tflite"
    return add(path, "vww_96_float", lambda path: gate_read.read(path, (), said).seen).manifest.name


def read(path: Path, look: TryReading | None = None) -> Seen:
    """What a .onnx or .tflite file is; `look` tries what it leaves open (trial.looker). Raises RefusedError."""
    return inspect(path, open_net(path, SUFFIXES[path.suffix.lower()]), look)
