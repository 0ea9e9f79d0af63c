"""``python -m tests.bench.counted WHICH N FILE…``: the process whose instructions are counted (see instructions.py).

It imports nothing that a frame does not need: valgrind takes fifty times as long for all of it.
"""

from __future__ import annotations

import itertools
import pickle
import sys
from pathlib import Path

from edge_agent.manifest import Served
from edge_agent.tasks import make_task
from edge_agent.types import Frame, Net, Task
from edge_agent.uri import Uri


def main(which: int, number: int, files: list[Path]) -> None:
    made = [_task(file) for file in files]
    task, frames = made[which]
    for step in range(number):
        list(task(frames[step % len(frames)]))


def _task(file: Path) -> tuple[Task, list[Frame]]:
    """The task on what was recorded, settled, and its frames."""
    kept, specs, frames, given = pickle.loads(file.read_bytes())
    outputs = itertools.cycle(given)
    model = Served(net=Net(run=lambda _: next(outputs), **specs), **kept)
    task = make_task(Uri("detect", "recorded"), lambda _: model, Path())
    for frame in frames:
        list(task(frame))
    return task, frames


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [Path(arg) for arg in sys.argv[3:]])
