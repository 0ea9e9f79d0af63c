"""Times the variants of a model end to end, in turns, in the child of gate/ask.py.

Turns, because a box that gets busy or hot while one variant runs would make it look slow: each round runs every
variant once with each number of threads, in an order that rotates. End to end is what a pipeline pays for a sample:
letterbox or word pieces, network, decoding. Then samples are answered abreast, one thread each, on one network: where
they come faster than one at a time can be answered, that may do more in all.
"""

from __future__ import annotations

import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.backends import bare, providers
from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.gate.opened import open_served, peak_rss
from edge_agent.gate.shown import some
from edge_agent.gate.trial import GAIN, Race, Result, Variant
from edge_agent.manifest import PRECISIONS, Served
from edge_agent.paths import home
from edge_agent.tasks import make_task, plain
from edge_agent.types import Net, Tensors
from edge_agent.uri import Uri

LEAST, MOST = 3, 2000
"""rounds, however long they take, and however short"""
WINDOWS = 3
"""in which one at a time and abreast are counted, in turns"""


@dataclass(slots=True)
class _Runner:
    """One variant, ready to run, and what its runs took."""

    variant: Variant
    threads: int
    model: Served
    step: Callable[[], object]
    feed: dict[str, Any]
    """what the task last gave to the network"""
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """A sample on the clock."""
        return statistics.median(self.wall) * 1e3

    @property
    def cpu_ms(self) -> float:
        """A sample's processor time."""
        return statistics.fmean(self.cpu) * 1e3

    def row(self) -> dict[str, Any]:
        """Its figures, milliseconds a sample."""
        file = self.variant.file
        return {
            "file": file.title(),
            "key": file.key(),
            "sha256": file.sha256,
            "format": file.format,
            "precision": file.precision,
            "bytes": file.bytes,
            "threads": self.threads,
            "runs": len(self.wall),
            "median_ms": self.median_ms,
            "p95_ms": float(np.percentile(self.wall, 95)) * 1e3,
            "cpu_ms": self.cpu_ms,
        }


def race(question: Race) -> Result:
    """Figures of each variant, the one that is to serve first (see `_ranked`). RefusedError when none runs."""
    budget = question.threads or len(os.sched_getaffinity(0))
    before = peak_rss()
    runners, notes = _started(question, budget)
    each = (peak_rss() - before) // len(runners)
    plain = _plain(runners, question)
    _in_turns([*runners, *plain], question.seconds)
    runners = _ranked(runners)
    notes += _overtaken(runners)
    figures: dict[str, Any] = {"rows": [runner.row() for runner in runners]}
    formats = {runner.variant.file.format: runner.variant.path for runner in runners}
    one = next((runner for runner in runners if runner.threads == 1), None)
    runners = _run_again(runners, one, question)
    if budget > 1 and one is not None:
        figures["abreast"], note = _abreast(runners[0], one, question, budget, each)
        notes += filter(None, [note])
    if question.bare:
        alone = plain[0].row() if plain else None
        figures |= {"one_thread": alone, "bare": _bare(runners, question), "providers": _providers(formats)}
    return Result(True, notes=notes, figures=figures)


def _started(question: Race, budget: int) -> tuple[list[_Runner], list[str]]:
    """Each variant with each number of threads, ready to run, and why others are not. RefusedError when none is."""
    counts = sorted({1, min(2, budget), budget // 2 or 1, budget})
    runners: list[_Runner] = []
    notes: list[str] = []
    for variant in question.variants:
        if variant.path:
            try:
                runners += [_runner(question, variant, count) for count in counts]
            except EdgeAgentError as error:
                notes.append(f"{variant.file.title()}: {error}")
    if not runners:
        raise RefusedError("; ".join(notes) or "no variant is left to race")
    return runners, notes


def _providers(formats: Mapping[Any, str]) -> dict[str, str]:
    """What else could run the model here, and why it does not; `formats`: a file of each."""
    found: dict[str, str] = {}
    for format, path in formats.items():
        if format != "ort":
            found |= providers(Path(path), format)
    return found


def _in_turns(runners: list[_Runner], seconds: float) -> None:
    until = time.monotonic() + seconds
    for number in range(MOST):
        if number >= LEAST and time.monotonic() >= until:
            break
        turn = number % len(runners)
        for runner in runners[turn:] + runners[:turn]:
            wall, cpu = time.perf_counter(), time.process_time()
            runner.step()
            runner.wall.append(time.perf_counter() - wall)
            runner.cpu.append(time.process_time() - cpu)


def _ranked(runners: list[_Runner]) -> list[_Runner]:
    """The fastest first, but one that is not of the most precise ones goes behind these unless it is clearly faster.

    Clearly is than each of them on the clock, and than they are on as many threads in processor time.
    """
    ranked = sorted(runners, key=lambda runner: runner.median_ms)
    precise = [runner for runner in ranked if runner.variant.file.precision in PRECISIONS]

    def is_ahead(runner: _Runner) -> bool:
        least = min((one.cpu_ms for one in precise if one.threads == runner.threads), default=math.inf)
        return runner.median_ms < GAIN * precise[0].median_ms and runner.cpu_ms < least

    return sorted(ranked, key=lambda runner: bool(precise) and runner not in precise and not is_ahead(runner))


def _run_again(runners: list[_Runner], one: _Runner | None, question: Race) -> list[_Runner]:
    """The first, `one` and the original; the others give their memory back."""
    original = question.manifest.original().key()
    return [runners[0], *(r for r in runners[1:] if r is one or r.variant.file.key() == original)]


def _overtaken(ranked: list[_Runner]) -> list[str]:
    """Says so where the first one is not the fastest."""
    first, fastest = ranked[0].variant.file, min(ranked, key=lambda runner: runner.median_ms).variant.file
    said = f"{fastest.title()} is not clearly faster than {first.title()}, which is more precise and goes before it"
    return [said] if first is not fastest else []


def _runner(question: Race, variant: Variant, threads: int) -> _Runner:
    model = open_served(question.manifest, variant, question.parts, threads)
    feed: dict[str, Any] = {}
    step = stepper(msgspec.structs.replace(model, net=_fed(model.net, feed)))
    for _ in range(2):
        step()
    return _Runner(variant, threads, model, step, feed)


def stepper(model: Served) -> Callable[[], object]:
    """One sample after another through the task that needs nothing but the model, its buffers its own."""
    task = make_task(Uri(plain(model), model.ref.name), lambda _: model, home())
    samples = cycle(some(model))

    def step() -> None:
        for _ in task(next(samples)):
            pass

    return step


def _abreast(
    fastest: _Runner, one: _Runner, question: Race, workers: int, each: int
) -> tuple[dict[str, Any] | None, str]:
    """Samples a second: of the fastest runner, one at a time, and of `workers` at once on the fastest of one thread.

    `each`: bytes that a runner took. None, and why, where that may take more memory than is left for it, or fails.
    """
    needed, there = each * (workers - 1), _available()
    if needed > there / 2:
        return None, f"not tried {workers} at once: it may take {needed >> 20} MiB, and {there >> 20} MiB are free"
    seconds = question.seconds / (4 * WINDOWS)
    alone, many = [], []
    try:
        steps = [stepper(one.model) for _ in range(workers)]
        for _ in range(WINDOWS):
            alone.append(_a_second([fastest.step], seconds))
            many.append(_a_second(steps, seconds))
    except (EdgeAgentError, MemoryError, RuntimeError, OSError) as error:
        return None, f"{workers} at once failed: {str(error) or 'out of memory'}"
    return {
        "file": one.variant.file.title(),
        "key": one.variant.file.key(),
        "sha256": one.variant.file.sha256,
        "workers": workers,
        "per_second": statistics.median(many),
        "alone_per_second": statistics.median(alone),
    }, ""


def _available() -> int:
    """Bytes that can be had without swapping (proc(5), MemAvailable)."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else sys.maxsize


def _a_second(steps: list[Callable[[], object]], seconds: float) -> float:
    """How often a second the steps are done, each on a thread of its own."""
    began = time.perf_counter()

    def again(step: Callable[[], object]) -> int:
        done = 0
        while done == 0 or time.perf_counter() - began < seconds:
            step()
            done += 1
        return done

    with ThreadPoolExecutor(len(steps)) as pool:
        done = sum(pool.map(again, steps))
    return done / (time.perf_counter() - began)


def _fed(net: Net, feed: dict[str, Any]) -> Net:
    """The same network; what goes in is noted."""

    def run(tensors: Tensors) -> dict[str, Any]:
        feed.clear()
        feed.update(tensors)
        return net.run(tensors)

    return msgspec.structs.replace(net, run=run)


def _plain(runners: list[_Runner], question: Race) -> list[_Runner]:
    """The original in a session of one thread with nothing around it, if asked for, to take its turns; or nobody."""
    original = question.manifest.original()
    found = next((runner for runner in runners if runner.variant.file.key() == original.key()), None)
    if found is None or not question.bare:
        return []
    run, feed = bare(Path(found.variant.path), original.format, 1), dict(found.feed)
    return [_Runner(found.variant, 1, found.model, lambda: run(feed), feed)]


def _bare(runners: list[_Runner], question: Race) -> dict[str, Any] | None:
    """What the original costs in a default session, without anything around it; last, as such a session goes on
    spinning after its runs. None when the original is not among the variants.
    """
    original = question.manifest.original()
    found = [runner for runner in runners if runner.variant.file.key() == original.key()]
    if not found:
        return None
    run = bare(Path(found[0].variant.path), original.format)
    run(found[0].feed)
    wall: list[float] = []
    until, used = time.monotonic() + question.seconds / 2, time.process_time()
    while len(wall) < LEAST or time.monotonic() < until:
        began = time.perf_counter()
        run(found[0].feed)
        wall.append(time.perf_counter() - began)
    used = time.process_time() - used
    return {
        "file": original.title(),
        "runs": len(wall),
        "median_ms": statistics.median(wall) * 1e3,
        "cpu_ms": used / len(wall) * 1e3,
    }
