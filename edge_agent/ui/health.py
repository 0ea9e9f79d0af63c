"""Health: the board, the process, the store and the link; the log; the doctor; and a bundle for a bug report."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import threading
import time
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from edge_agent import __version__, paths, programs
from edge_agent.device import board
from edge_agent.device.health import rss_bytes
from edge_agent.redact import redact
from edge_agent.ui import bundle
from edge_agent.ui.calls import Ask, Call, Refused

if TYPE_CHECKING:
    from edge_agent.ui.server import Page

LINES = 500
"""of the log that are kept"""
DOCTOR_S = 180.0
RATE_S = 0.9
"""seconds at least over which the processor's load is taken"""


class Machine(msgspec.Struct, frozen=True):
    """The board and the process."""

    board: str
    cores: int
    cpu_percent: Annotated[float, msgspec.Meta(description="of one core, of the agent")]
    load: Annotated[float, msgspec.Meta(description="of the whole machine, processes that run or wait")]
    rss_bytes: int
    memory_bytes: int
    memory_free_bytes: int
    celsius: Annotated[float | None, msgspec.Meta(description="of the warmest sensor; null: the board has none")]
    trouble: Annotated[list[str], msgspec.Meta(description="what slows the board down now, or did since its start")]
    disk_free_bytes: Annotated[int, msgspec.Meta(description="where the events wait")]
    disk_bytes: int
    store_bytes: int
    waiting: Annotated[int, msgspec.Meta(description="events that nobody has acknowledged")]
    oldest_s: Annotated[float | None, msgspec.Meta(description="age of the oldest of them; null: none waits")]
    connected: Annotated[bool | None, msgspec.Meta(description="to the broker; null: the config names none")]
    link: Annotated[str, msgspec.Meta(description="what is spoken there, or why it is not connected")]
    left_today: Annotated[float | None, msgspec.Meta(description="bytes that may still be sent; null: no bound")]
    version: str
    uptime_s: float


class Row(msgspec.Struct, frozen=True):
    """What the doctor found."""

    what: str
    level: str
    found: str
    mend: str


class Line(msgspec.Struct, frozen=True):
    """Of the log."""

    at: float
    level: str
    text: str


class Tail(logging.Handler):
    """Keeps the last lines of the log, without secrets."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[Line] = deque(maxlen=LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(Line(record.created, record.levelname.lower(), redact(self.format(record))[:2000]))

    def told(self) -> list[str]:
        """The lines as text."""
        return [f"{line.at:.3f} {line.level} {line.text}" for line in list(self.lines)]


class Health:
    """What the calls of health do."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.tail = Tail()
        self._started = time.monotonic()
        self._cpu = (time.monotonic(), time.process_time(), 0.0)
        self._one = threading.Lock()

    def machine(self, ask: Ask | None = None) -> Machine:
        """The board and the process now."""
        agent = self._page.now
        now_, before = board.troubles()
        disk, memory, link = shutil.disk_usage(agent.outbox.path), _memory(), agent.link
        return Machine(
            board=board.model(),
            cores=len(os.sched_getaffinity(0)),
            cpu_percent=round(self._percent(), 1),
            load=os.getloadavg()[0],
            rss_bytes=rss_bytes(),
            memory_bytes=memory.get("MemTotal", 0),
            memory_free_bytes=memory.get("MemAvailable", 0),
            celsius=board.warmest() or None,
            trouble=now_ + before,
            disk_free_bytes=disk.free,
            disk_bytes=disk.total,
            store_bytes=agent.outbox.size,
            waiting=agent.outbox.waiting,
            oldest_s=_age(agent.outbox.oldest()),
            connected=None if link is None else link.connected,
            link="" if link is None else link.speaks if link.connected else link.why,
            left_today=None if link is None or link.budget.per_day is None else link.budget.left,
            version=__version__,
            uptime_s=round(time.monotonic() - self._started, 1),
        )

    def _percent(self) -> float:
        at, spent, percent = self._cpu
        if (now := time.monotonic()) - at >= RATE_S:
            used = time.process_time()
            percent = 100 * (used - spent) / (now - at)
            self._cpu = now, used, percent
        return percent

    def log(self, ask: Ask) -> list[Line]:
        """The last lines."""
        after = float(ask.query("after") or 0)
        return [line for line in list(self.tail.lines) if line.at > after]

    def doctor(self, ask: Ask) -> list[Row]:
        """Have the doctor look, in a process of its own."""
        if not self._one.acquire(blocking=False):
            raise Refused(409, "the doctor is looking already")
        try:
            config = ["-c", str(self._page.config_file)] if self._page.config_file else []
            command = [*programs.python("edge_agent"), "--home", str(paths.home()), "doctor", "--json", *config]
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOCTOR_S)
            return msgspec.convert(json.loads(done.stdout.splitlines()[-1]), list[Row])
        except (subprocess.TimeoutExpired, IndexError, ValueError):
            raise Refused(504, "the doctor did not come back; type: edge-agent doctor") from None
        finally:
            self._one.release()


def _age(waiting: list[bytes]) -> float | None:
    """Seconds since the oldest of these events was captured, by this device's clock; None without any."""
    times = [msgspec.json.decode(one, type=_Captured).at for one in waiting]
    return max(0.0, round(time.time() - min(times).timestamp(), 1)) if times else None


class _Captured(msgspec.Struct):
    """Of an event."""

    at: datetime


def _memory() -> dict[str, int]:
    """Of the machine, by the kernel's names, in bytes."""
    rows = (line.split() for line in board.read(Path("/proc/meminfo")).splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) > 1}


def calls(page: Page) -> list[Call]:
    """Those of health."""
    health = Health(page)
    logging.getLogger().addHandler(health.tail)
    page.closing.append(lambda: logging.getLogger().removeHandler(health.tail))
    return [
        Call("GET", "/api/v1/machine", "viewer", "The board, the process, the store and the link.", health.machine,
             Machine),
        Call("GET", "/api/v1/log", "operator", "The last lines of the log, without secrets.", health.log, list[Line],
             query={"after": "only those after this time, seconds since 1970"}),
        Call("POST", "/api/v1/doctor", "operator", "Have this machine looked at; takes a while.", health.doctor,
             list[Row]),
        *bundle.calls(page, health.machine, health.tail.told),
    ]  # fmt: skip
