"""Points of a search, and parts of a measurement, on several processes or on the machines of a Ray cluster.

A worker gets ready once, from the same files as the verb itself, and is asked for one point after the other. It runs
the same code on the same bytes with the same number of threads, so what it finds is what would have been found here.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from edge_agent import __version__
from edge_agent.errors import EdgeAgentError, RefusedError, UsageError

PR_SET_PDEATHSIG = 1
Begin = Callable[[Any], Callable[[Any], Any]]
"""what a worker is given -> what it does with a point; a function of a module, as it is sent by its name"""


@contextmanager
def crew(workers: str) -> Iterator[Executor | None]:
    """Those that are asked for with --workers; None: this process alone. UsageError, RefusedError."""
    if workers == "1":
        yield None
        return
    # forked, a worker would have the sessions of ONNX Runtime without their threads
    made = _Ray(workers) if "://" in workers else ProcessPoolExecutor(
        int(workers), multiprocessing.get_context("spawn"), _alone
    )  # fmt: skip
    try:
        yield made
    except BrokenExecutor:
        raise RefusedError(
            "a worker ended before it answered, perhaps for want of memory; give fewer --workers"
        ) from None
    finally:
        made.shutdown(cancel_futures=True)


def _alone() -> None:
    """In a process: Ctrl-C is for the one that started it, without which it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def ask(crew: Executor, begin: Begin, given: Any, point: Any) -> Future[Any]:
    """What `begin(given)(point)` gives, by one of them."""
    return crew.submit(_answer, __version__, begin, pickle.dumps(given), point)


_ready: dict[tuple[Begin, bytes], Callable[[Any], Any]] = {}


def _answer(version: str, begin: Begin, given: bytes, point: Any) -> Any:
    """In a worker: get ready, unless it is, and do it."""
    if version != __version__:
        raise UsageError(f"--workers: edge-agent {version} here, {__version__} there; install the same")
    if (begin, given) not in _ready:
        _ready.clear()
        _ready[begin, given] = begin(pickle.loads(given))
    return _ready[begin, given](point)


class _Ray(Executor):
    """A Ray cluster."""

    def __init__(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise UsageError('--workers ray://…: pip install "edge-agent-runtime[ray]"') from None
        self._ray, self._address = ray, address
        try:
            ray.init(address, logging_level="ERROR", log_to_driver=False)
        except Exception as error:  # of its own kinds, some of them documented
            raise UsageError(f"--workers {address}: {' '.join(str(error).split())[:200]}") from None
        self._do = ray.remote(_answer)

    def submit(self, do: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Of `_answer` alone."""
        told: Future[Any] = Future()
        self._do.remote(*args).future().add_done_callback(lambda done: self._tell(done, told))
        return told

    def _tell(self, done: Future[Any], told: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            told.set_result(done.result())
            return
        cause = getattr(error, "cause", None) or error
        if not isinstance(cause, EdgeAgentError):
            why = " ".join(str(cause).split())[-200:]
            cause = UsageError(f"--workers {self._address}: {why}; edge-agent {__version__} has to be installed there")
        told.set_exception(cause)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; what is still asked for ends with that."""
        self._ray.shutdown()
