"""Whether there is processor enough for a config: what its models were measured to take, times how often they run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.agent.line import Line, pace_of
from edge_agent.types import Audio, Text
from edge_agent.uri import parse_uri

if TYPE_CHECKING:
    from edge_agent.manifest import Served
    from edge_agent.serving.models import Models

TRIED = 3
"""runs of a model that nobody has raced; the quickest counts"""


class Load(NamedTuple):
    """What one pipeline asks for."""

    name: str
    per_second: float
    """samples; 0: its source does not say how many come"""
    ms: float
    """that the models take for one of them, where nothing else runs"""
    cpu_ms: float
    """of processor time"""
    share: float = 1.0
    deadline_ms: float | None = None
    sound: bool = False

    @property
    def cores(self) -> float:
        """That it keeps busy."""
        return self.per_second * self.cpu_ms / 1000


def loads_of(lines: Sequence[Line], models: Models, find_out: bool = True) -> list[Load]:
    """The loads of pipelines that run models. `find_out`: a model that nobody has raced is run TRIED times; else its
    pipeline is left out.
    """
    return [load for line in lines if (load := _load(line, models, find_out)).cpu_ms]


def _load(line: Line, models: Models, find_out: bool) -> Load:
    pipe, options = line.config, parse_uri(line.config.source).options
    per_second = options.get("rate" if line.opened.yields is Text else "fps") or 0
    ms, cpu_ms = (sum(column) for column in zip((0.0, 0.0), *_costs(line, models, find_out), strict=True))
    return Load(
        pipe.name, float(per_second), ms, cpu_ms, pipe.share, pipe.deadline_ms, sound=line.opened.yields is Audio
    )


def _costs(line: Line, models: Models, find_out: bool) -> list[tuple[float, float]]:
    """Of each model of a pipeline; none where one of them is not known and is not to be found out."""
    names = dict.fromkeys(name for uses in line.uses for name in uses)
    served = [models.serve(name, pace_of(line.config, line.opened)) for name in names]
    return [_cost(one) for one in served] if find_out or all(one.cpu_ms for one in served) else []


def _cost(served: Served) -> tuple[float, float]:
    """Milliseconds, and those of processor time, of a run: as raced, else on zeros, on a text of 8 tokens."""
    from edge_agent.gate.opened import warm

    if served.cpu_ms:
        return served.ms, served.cpu_ms
    took = []
    for _ in range(TRIED):
        wall, cpu = time.perf_counter(), time.process_time()
        warm(served.net, served.input)
        took.append(((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3))
    return min(took)


def weighed(loads: Sequence[Load], cores: int) -> tuple[list[str], bool]:
    """What there is to say about them, a line each, and whether each deadline can be met."""
    told = (
        [f"needs {_cores(sum(load.cores for load in loads), cores)}: {', '.join(map(_said, loads))}"] if loads else []
    )
    if sum(load.cores for load in loads) > cores:
        told.append(
            "so samples of cameras are dropped and texts wait: let fewer come (fps=, rate=), take a smaller model "
            "(edge-agent bench), or say whose answers matter (share, priority, deadline_ms)"
        )
    missed = list(_missed(loads, cores))
    behind = list(_behind(loads)) if cores == 1 else []
    return [*told, *missed, *behind], not missed


def _cores(needed: float, there: int) -> str:
    return f"{needed:.{1 if needed >= 0.1 else 2}f} cores, {there} {'is' if there == 1 else 'are'} there"


def _said(load: Load) -> str:
    if load.per_second:
        return f"{load.name} {load.cores:.2f} ({load.per_second:g}/s of {load.cpu_ms:.1f} ms)"
    rate = "as much as is said" if load.sound else "what is left"
    return f"{load.name} {rate} ({load.cpu_ms:.1f} ms each)"


def _missed(loads: Sequence[Load], cores: int) -> Iterator[str]:
    """Deadlines that cannot be met."""
    short = sum(load.cores for load in loads) > cores
    for load in loads:
        part = cores * load.share / sum(other.share for other in loads)
        if load.deadline_ms is None:
            continue
        if load.ms > load.deadline_ms:
            told = f"deadline_ms = {load.deadline_ms:g}, but an answer takes {load.ms:.3g} ms here: none is in time"
            yield f"{load.name}: {told}"
        elif short and load.cores > part:
            mend = "let fewer come, or give it a larger share"
            told = f"needs {load.cores:.2f} cores, and its share is {part:.2f}: deadlines will be missed"
            yield f"{load.name}: {told}; {mend}"


def _behind(loads: Sequence[Load]) -> Iterator[str]:
    """Deadlines that are missed behind a run of somebody else, on one core."""
    for load in loads:
        longest = max((other for other in loads if other is not load), key=lambda other: other.ms, default=None)
        if longest and load.deadline_ms and load.ms <= load.deadline_ms < load.ms + longest.ms:
            run = f"a run of {longest.name} ({longest.ms:.0f} ms)"
            yield f"{load.name}: may miss its deadline behind {run}, on one core"
