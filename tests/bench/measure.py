"""Two sides in turns, and what a benchmark says: one Row a figure."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(slots=True)
class Took:
    """What one side took in each round, seconds a unit of work."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def in_turns(sides: Mapping[str, Callable[[], int]], rounds: int, pause: float = 0.0, warm: int = 1) -> dict[str, Took]:
    """Let each side do its work once a round, in an order that turns round: A B, B A, A B …

    A side returns how many units it did. `pause`: seconds after each, for threads that go on spinning; what they burn
    meanwhile belongs to the side that started them, so processor time is taken behind the pause.
    """
    took = {name: Took() for name in sides}
    for _ in range(warm):
        for step in sides.values():
            step()
    names = list(sides)
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            units = sides[name]()
            took[name].wall.append((time.perf_counter() - wall) / units)
            if pause:
                time.sleep(pause)
            took[name].cpu.append((time.process_time() - cpu) / units)
    return took


def ratio(a: list[float], b: list[float]) -> float:
    """Median over the rounds of a / b, each pair taken side by side."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside what it is held against."""

    aim: int
    """number of the aim"""
    what: str
    value: float
    unit: str = ""
    """"" for a ratio"""
    target: float | None = None
    better: Literal["<=", ">=", "<"] = "<="
    ours: str = ""
    """the figures behind the value, for people"""
    theirs: str = ""
    note: str = ""
    part: str = ""
    """of the benchmarks, that measured it"""

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        if self.target is None:
            return None
        if self.better == ">=":
            return self.value >= self.target
        return self.value <= self.target if self.better == "<=" else self.value < self.target

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"reached": self.reached}


def load() -> float:
    """Processes that wanted to run in the last minute, on average."""
    return os.getloadavg()[0]


def ms(seconds: list[float]) -> str:
    """The median as text."""
    return f"{statistics.median(seconds) * 1e3:.1f} ms"


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process and its threads have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int, peak: bool = False) -> int:
    """Bytes resident, now or at the most."""
    key = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
