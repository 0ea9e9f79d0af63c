"""How the device and its pipelines are now."""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from edge_agent.config import tracks
from edge_agent.types import StreamCondition
from edge_agent.ui.calls import Call

if TYPE_CHECKING:
    from edge_agent.ui.device import Line
    from edge_agent.ui.server import Page

RATE_S = 0.9
"""seconds at least over which a rate is taken"""


class Place(msgspec.Struct, frozen=True):
    """A zone, line or mask, in fractions of the picture."""

    name: str
    points: list[tuple[float, float]]
    line: bool
    mask: bool


class Pipe(msgspec.Struct, frozen=True):
    """A pipeline."""

    name: str
    stream: StreamCondition
    why: str
    since: Annotated[str, msgspec.Meta(description="of the stream's condition, RFC 3339 UTC")]
    takes: Annotated[str, msgspec.Meta(description="pictures, text or sound")]
    tasks: list[str]
    tracks: bool
    samples: int
    dropped: int
    answered: int
    bad: int
    events: int
    trouble: str
    models: list[str]
    refused: str
    saves: Annotated[str, msgspec.Meta(description="how it does less, to keep [limits]; empty where it does not")]
    rate: Annotated[float, msgspec.Meta(description="samples that came, a second")]
    answers: Annotated[float, msgspec.Meta(description="of them answered, a second")]
    age_ms: Annotated[float | None, msgspec.Meta(description="of the last answer when it was ready")]
    stages: Annotated[dict[str, float], msgspec.Meta(description="stage -> median milliseconds")]
    zones: list[Place]


class Now(msgspec.Struct, frozen=True):
    """The device."""

    mono: Annotated[float, msgspec.Meta(description="seconds of the device's clock that never jumps")]
    device: str
    health: Annotated[dict[str, Any], msgspec.Meta(description="as MQTT's health topic has it")]
    pipelines: list[Pipe]


class Rates:
    """How many samples come and are answered a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, int, int, float, float]] = {}
        """pipeline -> when it was looked at (monotonic), what had come and was answered then, and the rates"""

    def of(self, line: Line) -> tuple[float, float]:
        """Those of a pipeline, over the time since they were last asked for."""
        name, now, came, answered = line.config.name, time.monotonic(), line.taken, line.stats.samples
        with self._lock:
            at, before, told, *rates = self._seen.get(name, (0.0, 0, 0, 0.0, 0.0))
            if now - at >= RATE_S:
                # after a long while it is the rate of that while; a line that was made anew counts from 0 again
                rates = [max(0, came - before) / (now - at), max(0, answered - told) / (now - at)] if at else [0.0, 0.0]
                self._seen[name] = (now, came, answered, rates[0], rates[1])
        return rates[0], rates[1]


def pipe_now(line: Line, told: dict[str, Any], rates: Rates) -> Pipe:
    """One pipeline; `told`: its state as MQTT has it."""
    rate, answers = rates.of(line)
    ages = line.stats.stages.get("age")
    places = [Place(zone.name, zone.points, zone.line, zone.mask) for zone in line.zones]
    same = {key: told[key] for key in ("stream", "why", "since", "samples", "dropped", "answered", "bad", "events",
                                       "trouble", "models", "refused", "saves")}  # fmt: skip
    return Pipe(
        name=line.config.name,
        takes=line.opened.yields.words,
        tasks=line.config.tasks,
        tracks=tracks(line.config),
        rate=round(rate, 2),
        answers=round(answers, 2),
        age_ms=ages[-1] if ages else None,
        stages={stage: round(statistics.median(list(times)), 2) for stage, times in list(line.stats.stages.items())},
        zones=places,
        **same,
    )


def calls(page: Page) -> list[Call]:
    """Those of the state."""
    rates = Rates()

    def now() -> Now:
        agent = page.now
        states = agent.state.states()
        pipes = [pipe_now(line, states[line.config.name], rates) for line in list(agent.lines)
                 if line.config.name in states]  # fmt: skip
        return Now(time.monotonic(), agent.config.device.id, agent.state.health(), pipes)

    page.state = now
    return [
        Call("GET", "/api/v1/health", "viewer", "Whether the agent works, as MQTT's health topic says it.",
             lambda ask: page.now.state.health(), dict[str, Any]),
        Call("GET", "/api/v1/state", "viewer", "How the device and its pipelines are now.", lambda ask: now(), Now),
    ]  # fmt: skip
