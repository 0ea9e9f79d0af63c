"""Reads bare files in the process of the test, where the agent does so in a child (edge_agent/reading.py)."""

from __future__ import annotations

from pathlib import Path

from edge_agent.backends import open_net
from edge_agent.registry import SUFFIXES
from edge_agent.registry.inspect import inspect
from edge_agent.registry.seen import Look, Seen


def read(path: Path, look: Look | None = None) -> Seen:
    """What a .onnx or .tflite file is; `look` tries what it leaves open (trial.looker). Raises RefusedError."""
    return inspect(path, open_net(path, SUFFIXES[path.suffix.lower()]), look)
