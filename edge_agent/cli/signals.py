"""What ends a verb: a signal, or the time that it was given."""

from __future__ import annotations

import signal
import threading
from typing import Any


def stop_on_signals(stop: threading.Event | None = None) -> threading.Event:
    """An event (`stop`, where it is given) that Ctrl-C and SIGTERM set; a second Ctrl-C ends at once."""
    stop = stop or threading.Event()

    def on_signal(number: int, _: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop


def stop_after(seconds: float | None, stop: threading.Event) -> None:
    """Set `stop` after so long; never for None."""
    if seconds is not None:
        timer = threading.Timer(seconds, stop.set)
        timer.daemon = True
        timer.start()
