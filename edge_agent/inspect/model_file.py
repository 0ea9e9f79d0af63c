"""A bare model file while it is inspected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.graphs.graph import THROUGH, FileGraph, behind
from edge_agent.inspect.worth import TryReading
from edge_agent.types import Net


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What is known of one file before anything is concluded."""

    path: Path
    net: Net
    graph: FileGraph
    look: TryReading | None
    """tries a reading on proof pictures or sentences; None: nothing is tried"""

    @property
    def tflite(self) -> bool:
        """Whether it is a TFLite file; ONNX otherwise."""
        return self.path.suffix.lower() == ".tflite"

    @property
    def last(self) -> str:
        """The last operator that computes the first output; "" where the graph does not tell."""
        chain = behind(self.graph, self.net.outputs[0].name)
        return next((node.op for node in chain if node.op not in THROUGH), "")
