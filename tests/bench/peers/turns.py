"""A peer in its own process and its own environment, which does one turn of its work on a word from this side.

The child prints a line of JSON when it is ready and one after each turn: wall and processor seconds a unit of work.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def environment(folder: Path) -> dict[str, str]:
    """Nothing is looked for on the net, nothing is written outside `folder`, and our package is not on the path."""
    offline = {"YOLO_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "YOLO_AUTOINSTALL": "0"}
    own = {"YOLO_CONFIG_DIR": str(folder), "HF_HOME": str(folder), "PYTHONPATH": ""}
    return {**os.environ, **offline, **own}


class Peer:
    """One child, from `peers/SCRIPT.py`."""

    def __init__(self, python: Path, script: str, arguments: list[str]) -> None:
        self.name = " ".join([script, *arguments[:1]])
        command = [str(python), str(HERE / f"{script}.py"), *arguments]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(python.parent.parent)
        )
        self._read()

    def turn(self) -> tuple[float, float]:
        """Let it work once; wall and processor seconds a unit."""
        assert self.child.stdin is not None
        self.child.stdin.write("go\n")
        self.child.stdin.flush()
        told = self._read()
        return told["wall"], told["cpu"]

    def _read(self) -> Any:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"the peer {self.name} ended with {self.child.wait()}")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()
