"""Tells the service manager that the agent is alive: as long as every pipeline gets on.

What waits gets on: an idle camera, a silent microphone, a broker that is away. What does not is a call into a driver, a
network or a runtime that never returns. Without a service manager nobody is told, and nothing ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from edge_agent.agent.line import Line
from edge_agent.device.notify import notify, watchdog_s

log = logging.getLogger("edge_agent")

SHARE = 2
"""what does not get on for the watchdog's time by this hangs: the rest of it is for an end in order"""


class Watchdog:
    """Of one thread, which calls `look` every second or so."""

    def __init__(self) -> None:
        self.seconds = watchdog_s()
        """within which the service manager wants to hear of us; 0: it does not"""
        self._fed = 0.0

    def look(self, lines: Sequence[Line]) -> str:
        """Tell the service manager, unless a pipeline hangs: which, and where, is returned then."""
        if not self.seconds:
            return ""
        for line in lines:
            if where := _hangs(line, self.seconds / SHARE):
                return f"pipeline {line.config.name} hangs: {where}"
        if time.monotonic() - self._fed > self.seconds / 8:
            self._fed = time.monotonic()
            notify("WATCHDOG=1")
        return ""


def _hangs(line: Line, patience: float) -> str:
    """Where a pipeline has not got on for so many seconds, or never will; "" where it does."""
    if line.stream.condition == "hung":
        return f"its source: {line.stream.why}"
    if line.threads and line.threads[0].is_alive() and line.stop.unseen > patience:
        return f"its source has not come back from a call for {line.stop.unseen:.0f} s"
    began = min(list(line.stats.under_way.values()), default=None)
    if began is not None and time.monotonic() - began > patience:
        return f"a sample is worked on for {time.monotonic() - began:.0f} s"
    return ""
