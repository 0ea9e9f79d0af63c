"""As many workers as there is work: more of them while messages wait, fewer once none do.

Each worker is a process of its own, whose death by whatever cause costs nothing but time: what it did not acknowledge
goes to another one.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

LAG = 5_000
"""messages that wait, a worker, above which there are too few"""
CALM_S = 60.0
"""seconds without such a lag after which one of them goes"""
LOOK_S = 5.0
"""between two looks"""


@dataclass(slots=True)
class Scale:
    """How many workers there are to be, between `low` and `high`."""

    low: int
    high: int
    now: int = 0
    busy: float = field(default=float("-inf"))
    """when there were last more than LAG a worker, or one was sent away"""

    def __call__(self, pending: int, at: float) -> int:
        """One more at once while too many wait, one less after CALM_S without. `at`: seconds of one clock."""
        self.now = max(self.low, self.now)
        if pending > LAG * self.now:
            self.now, self.busy = min(self.high, self.now + 1), at
        elif pending > LAG * max(1, self.now - 1):
            self.busy = at
        elif at - self.busy > CALM_S and self.now > self.low:
            self.now, self.busy = self.now - 1, at
        return self.now


def lead(
    command: Callable[[int], Sequence[str]],
    scale: Scale,
    pending: Callable[[], int],
    stop: threading.Event,
    say: Callable[[str], None],
    look_s: float = LOOK_S,
) -> None:
    """Keep so many workers running as `scale` says of `pending`, until `stop`; one that died is started anew.

    `command`: of the worker with that number. OSError of `pending` changes nothing: the servers are away.
    """
    workers: dict[int, subprocess.Popen[bytes]] = {}
    scale(0, time.monotonic())
    while not stop.is_set():
        wanted = _look(scale, pending, say)
        for number in [number for number, worker in workers.items() if worker.poll() is not None]:
            say(f"worker {number} ended with {workers.pop(number).returncode}")
        for number in set(range(1, wanted + 1)) - set(workers):
            workers[number] = subprocess.Popen(command(number))
        _end([workers.pop(number) for number in sorted(workers) if number > wanted])
        stop.wait(look_s)
    _end(list(workers.values()))


def _look(scale: Scale, pending: Callable[[], int], say: Callable[[str], None]) -> int:
    """How many workers there are to be."""
    before = scale.now
    try:
        waiting = pending()
    except OSError as error:
        say(str(error))
        return before
    if (wanted := scale(waiting, time.monotonic())) != before:
        say(f"{waiting} messages wait: {wanted} workers")
    return wanted


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    """Ask them to end, and wait until they have; each finishes its batch."""
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(90)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
