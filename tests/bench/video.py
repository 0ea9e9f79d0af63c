"""Aims 3 and 9: a video through the agent and through Ultralytics, to the same broker, in processes that take turns.

3: every frame of a file, from the first answer at the subscriber to the last (start-up is left out on both sides), and
the processor time of each frame at 5 frames a second. 9: a camera of 30 frames a second, the newest wins, from the
capture of a frame to its event at the subscriber.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np

from tests.bench import stream
from tests.bench.measure import Row
from tests.bench.setup import Place
from tests.bench.stream import Arrived

NAME = "yolov8n"


def rows(place: Place, quick: bool) -> Iterator[Row]:
    if place.peers is None or not stream.possible():
        return
    frames, rounds = (40, 1) if quick else (150, 3)
    clip = str(place.clip(frames))
    files = {name: place.model(name) for name in (NAME, f"{NAME}-int8")}
    took: dict[tuple[str, str], list[float]] = {}
    boxes: list[float] = []
    for number in range(rounds):
        sides = [(side, name) for name in files for side in ("ours", "theirs")]
        for side, name in sides if number % 2 == 0 else sides[::-1]:
            path = files[name]
            assert path is not None
            if side == "ours":
                arrived, _ = stream.agent(place, place.registered(name), clip)
            else:
                arrived, _ = stream.peer(place, path, ["file", clip])
            took.setdefault((side, name), []).append(_rate(arrived))
            boxes.append(sum(one.boxes for one in arrived) / len(arrived))
    for ours, theirs, aim in ((NAME, NAME, 1.35), (f"{NAME}-int8",) * 2 + (1.35,), (f"{NAME}-int8", NAME, 2.3)):
        beside = "the same file" if ours == theirs else "the float file"
        a, b = took["ours", ours], took["theirs", theirs]
        yield Row(
            3,
            f"{ours}: video to acknowledged events, frames a second / Ultralytics on {beside}",
            statistics.median(x / y for x, y in zip(a, b, strict=True)),
            target=aim,
            better=">=",
            ours=f"{statistics.median(a):.1f}/s",
            theirs=f"{statistics.median(b):.1f}/s",
            note=f"{min(boxes):.1f} to {max(boxes):.1f} boxes a frame",
        )
    yield from _slow(place, clip, 6.0 if quick else 20.0)


def _slow(place: Place, clip: str, seconds: float) -> Iterator[Row]:
    """A camera of 5 frames a second, and what memory both sides took for it."""
    path = place.model(NAME)
    assert path is not None
    ours, rss = stream.agent(place, place.registered(NAME), f"{clip}?fps=5&loop=true", seconds=seconds)
    theirs, peer_rss = stream.peer(place, path, ["camera", clip, "5"], seconds=seconds)
    yield Row(
        3,
        f"{NAME}: CPU a frame at 5 frames a second / Ultralytics",
        _spent(ours) / _spent(theirs),
        target=0.55,
        ours=f"{_spent(ours) * 1e3:.0f} ms",
        theirs=f"{_spent(theirs) * 1e3:.0f} ms",
        note=f"{_rate(ours):.1f} and {_rate(theirs):.1f} frames answered a second",
    )
    yield Row(
        4,
        f"{NAME}: peak RSS / Ultralytics",
        rss / peer_rss,
        ours=f"{rss / 1e6:.0f} MB",
        theirs=f"{peer_rss / 1e6:.0f} MB",
    )


def latency_rows(place: Place, quick: bool) -> Iterator[Row]:
    if place.peers is None or not stream.possible():
        return
    # a camera does not begin anew: long enough that hardly a frame follows another round
    clip = str(place.clip(300))
    model, path = place.registered(NAME), place.model(NAME)
    assert path is not None
    seconds = 8.0 if quick else 30.0
    ours: dict[int, list[float]] = {1: [], 0: []}
    theirs: list[float] = []
    for _ in range(1 if quick else 2):
        for workers, ages in ours.items():
            ages += _ages(stream.agent(place, model, f"{clip}?fps=30&loop=true", seconds=seconds, workers=workers)[0])
        theirs += _ages(stream.peer(place, path, ["camera", clip, "30"], seconds=seconds)[0])
    p50 = float(np.percentile(theirs, 50))
    for workers, how in ((1, "set for it (workers = 1)"), (0, "set for the most frames")):
        p99 = float(np.percentile(ours[workers], 99))
        yield Row(
            9,
            f"{NAME}: frame to publish at 30 frames a second, our p99 / Ultralytics' p50, {how}",
            p99 / p50,
            target=1.0 if workers else None,
            better="<",
            ours=f"{p99 * 1e3:.0f} ms (p50 {np.percentile(ours[workers], 50) * 1e3:.0f})",
            theirs=f"{p50 * 1e3:.0f} ms (p99 {np.percentile(theirs, 99) * 1e3:.0f})",
            note=f"{len(ours[workers])} and {len(theirs)} frames answered",
        )


def _rate(arrived: list[Arrived]) -> float:
    return (len(arrived) - 1) / (arrived[-1].at - arrived[0].at)


def _spent(arrived: list[Arrived]) -> float:
    """Processor time a frame, the first answers left out."""
    known = [one for one in arrived[2:] if one.memory]
    return (known[-1].cpu - known[0].cpu) / (len(known) - 1)


def _ages(arrived: list[Arrived]) -> list[float]:
    """Seconds from capture to arrival, the first answers left out."""
    return [one.at - one.captured for one in arrived[5:]]
