"""A source for benchmarks: frames that lie in memory, shown as a camera of a given rate does while the gate is open.

Named in a config as ``tests.bench.memory:memory:?fps=60``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from edge_agent.sources import Here, Opened
from edge_agent.types import Frame, StreamState
from edge_agent.uri import Uri

frames: list[Frame] = []
"""what is shown"""
gate = threading.Event()
"""open: frames come"""


def memory(uri: Uri, here: Here) -> Opened:
    every = 1 / float(uri.options["fps"])

    def show(stop: threading.Event) -> Iterator[Frame | StreamState]:
        due = time.monotonic()
        number = 0
        yield StreamState("ok", "")
        while not stop.is_set():
            if not gate.wait(0.1):
                continue
            now = time.monotonic()
            due = max(due, now - every) + every
            if due > now and stop.wait(due - now):
                return
            yield Frame(frames[number % len(frames)].image, time.time(), time.monotonic())
            number += 1

    return Opened(run=show, yields=Frame, live=True)
