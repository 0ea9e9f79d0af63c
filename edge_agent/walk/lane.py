"""Whose turn on the processor it is.

Two networks that run at once on the same cores slow each other down more than taking turns does. So each run takes as
many of the lane's slots as it has threads: networks of one thread run side by side, one that uses every core runs
alone. Who goes first is said in fair.py; here are the threads that wait.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edge_agent.errors import LateError
from edge_agent.walk.fair import LONG_S, Client, Queue, Turn

ANYBODY = Client()
"""the owner of a run that no pipeline asked for"""
LATELY = 0.3
"""weight of the last run among those of its kind that tell how long the next one takes"""
OWN = 0.05
"""share of a run that its thread works at least, unless the engine works on threads of its own"""


class _AtWork(threading.local):
    """What the thread works on: its owner, and when that was captured (monotonic seconds; None: now)."""

    client: Client = ANYBODY
    mono: float | None = None


_at_work = _AtWork()


@contextmanager
def work_for(client: Client, mono: float) -> Iterator[None]:
    """While it lasts, this thread's turns are this client's, for a sample that was captured at `mono`."""
    before = _at_work.client, _at_work.mono
    _at_work.client, _at_work.mono = client, mono
    try:
        yield
    finally:
        _at_work.client, _at_work.mono = before


def _busy(wall: float, used: float) -> float:
    """Seconds for which a run kept its cores busy: those of processor time of the thread that ran it, which counts
    right where others want the cores, too; where an engine works on threads of its own, all that time.
    """
    return used if used > OWN * wall else wall


class Lane:
    """`cores` to share."""

    def __init__(self, cores: int = 1) -> None:
        if cores < 1:
            raise ValueError("a lane needs a core")
        self.cores = cores
        self.queue = Queue(cores)
        self._lock = threading.Lock()
        self._waiting: dict[int, threading.Condition] = {}
        """number of a turn -> what its thread waits for"""
        self._takes: dict[str, float] = {}
        """kind of run -> seconds"""

    @contextmanager
    def turn(self, threads: int = 1, kind: str = "") -> Iterator[None]:
        """Wait for a turn of the pipeline that this thread works for (`work_for`), and hold it.

        `threads`: that the run keeps busy. `kind`: the same for runs that take about as long, such as a file's name;
        the first one of a kind counts as a long one.
        LateError where the sample is too old by then, and its pipeline gives such ones up.
        """
        with self._lock:
            mine = self._wait(threads, kind)
        began, used = time.monotonic(), time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                now = time.monotonic()
                took = _busy(now - began, time.thread_time() - used)
                self.queue.end(mine, now, took)
                if kind:
                    before = self._takes.get(kind, took)
                    self._takes[kind] = before + LATELY * (took - before)
                self._hand_out()

    def _wait(self, threads: int, kind: str) -> Turn:
        """Ask for a turn, until it begins; the lock is held. LateError."""
        client, now = _at_work.client, time.monotonic()
        mono = now if _at_work.mono is None else _at_work.mono
        mine = self.queue.ask(
            client, threads, self._takes.get(kind, LONG_S if kind else 0.0), mono + client.deadline, now
        )
        self._hand_out()
        if mine.slots:
            return mine
        self._waiting[mine.number] = begun = threading.Condition(self._lock)
        try:
            while not mine.slots:
                left = mine.due - time.monotonic() if client.gives_up and client.deadline < math.inf else None
                if left is not None and left <= 0:
                    raise LateError(f"its turn came more than {client.deadline * 1e3:.0f} ms after it was captured")
                begun.wait(left)
        finally:
            del self._waiting[mine.number]
            if not mine.slots:
                self.queue.drop(mine)
                self._hand_out()
        return mine

    def _hand_out(self) -> None:
        """Let those begin that may; the lock is held."""
        while (turn := self.queue.next(time.monotonic())) is not None:
            if turn.number in self._waiting:
                self._waiting[turn.number].notify()
