"""What a config will cost before it runs: processor, memory, bytes and messages a day, of figures measured here.

Each pipeline is opened as `check` opens it, and what it does is done to a carried picture, text or sound a few times.
What nobody can know before (how much happens, how fast a camera is that does not say) is a number that is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from edge_agent.agent.line import Line
from edge_agent.agent.state import HEALTH_S, METERED_S, STATE_S, device_health, line_state
from edge_agent.config import Config, tracks
from edge_agent.device.health import rss_bytes
from edge_agent.link import topics
from edge_agent.outbox.outbox import Outbox
from edge_agent.types import Audio, Frame, Sample, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from edge_agent.walk.pipeline import walk

DAY_S = 86_400
RUNS = 6
"""of a chain, of which the median counts"""
PICTURE = 1280, 720
"""pixels of a frame, where a camera does not say"""
THREADS_MB, LINE_MB, PAGE_MB = 25.0, 8.0, 25.0
"""what running takes beside what is open: threads, buffers and the link; a pipeline's frames; the page"""
EVENT_BYTES, SNAPSHOT_BYTES = 830, 30_000
"""of an event of an object and its way, and of a picture beside it: these are not measured"""
COOL, WARM = 0.10, 0.35
"""share of all cores up to which a board stays cool, and gets warm"""
HEAT = ("cool: no heat sink", "warm: a heat sink", "hot: a fan, or [limits] celsius")


class Cost(NamedTuple):
    """Of one pipeline."""

    name: str
    per_second: float
    """samples"""
    ms: float
    """of processor time for one of them, from the picture to the event"""
    events_a_day: float
    event_bytes: int
    """with its topic and the protocol's share"""


class Described(msgspec.Struct, frozen=True):
    """A config, as `edge-agent describe --json` prints it."""

    pipelines: list[dict[str, Any]]
    cores: float
    """busy, on average"""
    cores_here: int
    memory_mb: float
    messages_a_day: int
    bytes_a_day: int
    bytes_by: dict[str, int]
    disk_bytes_a_day: int
    """written by the store"""
    heat: str
    assumed: list[str]


def describe(config: Config, lines: Sequence[Line], cores: int, *, events_an_hour: float, fps: float) -> Described:
    """`events_an_hour`: of each pipeline that tells changes; `fps`: of a camera that does not say."""
    costs = [_cost(line, events_an_hour, fps) for line in lines]
    busy = sum(cost.per_second * cost.ms / 1000 for cost in costs)
    by = dict(_bytes(config, lines, costs)) if config.mqtt.url else {}
    limit, total = config.store.bytes_per_day, sum(size for size, _ in by.values())
    own = rss_bytes() / (1 << 20) + THREADS_MB + LINE_MB * len(lines) + PAGE_MB * (config.page is not None)
    share = busy / max(1, cores)
    kept = sum(cost.events_a_day * cost.event_bytes for cost in costs)
    assumed = [
        f"{events_an_hour:g} events an hour of a pipeline that tells changes (--events)",
        f"{fps:g} frames a second of a camera that does not say (--fps), {PICTURE[0]}x{PICTURE[1]}",
        "decoding of H.264 and sound in other processes is not in it; nobody looks at the page",
        f"heat by the share of {cores} cores: up to {COOL:.0%} cool, up to {WARM:.0%} warm",
    ]
    return Described(
        pipelines=[_row(cost) for cost in costs],
        cores=round(busy, 3),
        cores_here=cores,
        memory_mb=round(own),
        messages_a_day=round(sum(count for _, count in by.values())),
        bytes_a_day=round(total if limit is None else min(limit, total)),
        bytes_by={what: round(size) for what, (size, _) in by.items()},
        disk_bytes_a_day=round(kept),
        heat=HEAT[(share > COOL) + (share > WARM)],
        assumed=assumed,
    )


def _row(cost: Cost) -> dict[str, Any]:
    """One pipeline's, with the cores that it keeps busy."""
    return {**cost._asdict(), "ms": round(cost.ms, 1), "cores": round(cost.per_second * cost.ms / 1000, 3)}


def _cost(line: Line, events_an_hour: float, fps: float) -> Cost:
    pipe, options = line.config, parse_uri(line.config.source).options
    live = line.opened.yields is Frame and line.opened.live
    stated = float(options.get("rate" if line.opened.yields is Text else "fps") or 0)
    per_second = stated or (fps if live else events_an_hour / 3600)
    ms, size = _measured(line)
    how = pipe.report or ("changes" if line.opened.live else "every")
    if how == "every":
        events = per_second * DAY_S
    elif how.startswith("summary:"):
        events = DAY_S / float(how.removeprefix("summary:").removesuffix("s"))
    else:
        events = events_an_hour * 24
    return Cost(pipe.name, per_second, ms, events, size)


def _measured(line: Line) -> tuple[float, int]:
    """Milliseconds of processor time for a sample, and the bytes of an event with what the protocol adds."""
    from edge_agent.link.budget import OVERHEAD

    made = _maker(line.opened.yields)
    times, size = list[float](), EVENT_BYTES
    for number in range(RUNS):
        began = time.process_time()
        now = made(number)
        found = list(walk(now, tuple(line.teams[0])))
        times.append(1000 * (time.process_time() - began))
        if found and not tracks(line.config):
            size = len(msgspec.json.encode(to_event(found[0], line.config.name))) + 120
    return sorted(times[1:])[len(times[1:]) // 2], size + OVERHEAD + len(topics.events(line.config.name))


def _maker(kind: type) -> Callable[[int], Sample]:
    """What a source of this kind gives, made anew each time, decoding included."""
    from edge_agent.samples import carried

    if kind is Text:
        return lambda number: carried.text(carried.sentences()[number])
    if kind is Audio:
        import numpy as np

        return lambda number: Audio(np.zeros(8000, np.float32), time.time(), number / 2)
    from edge_agent.pictures.draw import jpeg
    from edge_agent.pictures.read import STREAM, decode

    picture = jpeg(_enlarged(next(iter(carried.pictures())).image), 80)
    return lambda number: Frame(decode(picture, STREAM), time.time(), number / 10)


def _enlarged(image: Any) -> Any:
    import numpy as np

    from edge_agent.manifest import Input
    from edge_agent.pictures.boxes import letterbox

    canvas = np.empty((PICTURE[1], PICTURE[0], 3), np.uint8)
    letterbox(image, Input(PICTURE[0], PICTURE[1], letterbox="stretch"), canvas)
    return canvas


def _bytes(config: Config, lines: Sequence[Line], costs: Sequence[Cost]) -> Iterator[tuple[str, tuple[float, float]]]:
    """What is sent -> bytes and messages a day."""
    from edge_agent.link.budget import OVERHEAD

    head = len(topics.base_of(config.mqtt.prefix, config.device.id)) + 1
    events = sum(cost.events_a_day for cost in costs)
    yield "events", (sum(cost.events_a_day * (cost.event_bytes + head) for cost in costs), events)
    metered = config.store.bytes_per_day is not None
    states = [len(msgspec.json.encode(line_state(line))) + head + len(topics.state(line.config.name)) for line in lines]
    often = DAY_S / (METERED_S if metered else STATE_S)
    # one that is as it was is not said again
    said = [min(often, cost.per_second * DAY_S) for cost in costs]
    yield "states", (sum((size + OVERHEAD) * times for size, times in zip(states, said, strict=True)), sum(said))
    often = DAY_S / (METERED_S if metered else HEALTH_S)
    yield "health", ((len(msgspec.json.encode(_health())) + head + 200 + OVERHEAD) * often, often)
    counted = _counted(lines, costs)
    if counted:
        yield "counts", (counted * (100 + head + OVERHEAD), counted)
    if config.samples.snapshots:
        yield "snapshots", (events * (SNAPSHOT_BYTES + head + OVERHEAD), events)


def _counted(lines: Sequence[Line], costs: Sequence[Cost]) -> float:
    """How often what is in view is said: as things come and go, each of which is an event, too."""
    return sum(cost.events_a_day for cost, line in zip(costs, lines, strict=True) if tracks(line.config))


def _health() -> dict[str, object]:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder) / "store", "device")
        try:
            return device_health(outbox, None, time.monotonic())
        finally:
            outbox.close()
