"""Times the variants of a model end to end, in turns, in the child of prove.py.

Turns, because a box that gets busy or hot while one variant runs would make it look slow: each round runs every
variant once, in an order that rotates. End to end is what a pipeline pays for a sample: letterbox or word pieces,
network, decoding.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.backends import bare, providers
from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.proof import open_served
from edge_agent.prove import Result, Trial, Variant
from edge_agent.registry import home
from edge_agent.shown import some
from edge_agent.tasks import PLAIN, make_task
from edge_agent.types import Net, Tensors, Uri

LEAST, MOST = 3, 2000
"""rounds, however long they take, and however short"""


@dataclass(slots=True)
class _Runner:
    """One variant, ready to run, and what its runs took."""

    variant: Variant
    step: Callable[[], object]
    feed: dict[str, Any]
    """what the task last gave to the network"""
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Its figures, milliseconds a sample."""
        file = self.variant.file
        return {
            "file": file.name,
            "sha256": file.sha256,
            "format": file.format,
            "precision": file.precision,
            "bytes": file.bytes,
            "runs": len(self.wall),
            "median_ms": statistics.median(self.wall) * 1e3,
            "p95_ms": float(np.percentile(self.wall, 95)) * 1e3,
            "cpu_ms": statistics.fmean(self.cpu) * 1e3,
        }


def race(trial: Trial) -> Result:
    """Figures of each variant, the fastest first. RefusedError when none runs."""
    assert trial.manifest is not None
    runners, notes = [], []
    for variant in trial.variants:
        if variant.file.sha256 in trial.skip:
            continue
        try:
            runners.append(_runner(trial, variant))
        except EdgeAgentError as error:
            notes.append(f"{variant.file.name}: {error}")
    if not runners:
        raise RefusedError("; ".join(notes) or "no variant is left to race")
    until = time.monotonic() + trial.seconds
    for number in range(MOST):
        if number >= LEAST and time.monotonic() >= until:
            break
        turn = number % len(runners)
        for runner in runners[turn:] + runners[:turn]:
            wall, cpu = time.perf_counter(), time.process_time()
            runner.step()
            runner.wall.append(time.perf_counter() - wall)
            runner.cpu.append(time.process_time() - cpu)
    rows = sorted((runner.row() for runner in runners), key=lambda row: float(row["median_ms"]))
    figures: dict[str, Any] = {"rows": rows}
    if trial.bare:
        figures["bare"] = _bare(runners, trial)
        figures["providers"] = {
            name: why
            for format, path in {runner.variant.file.format: runner.variant.path for runner in runners}.items()
            for name, why in providers(Path(path), format).items()
        }
    return Result(True, notes=notes, figures=figures)


def _runner(trial: Trial, variant: Variant) -> _Runner:
    assert trial.manifest is not None
    model = open_served(trial.manifest, variant, trial.parts, trial.threads)
    feed: dict[str, Any] = {}
    samples = cycle(some(model))
    seen = replace(model, net=_fed(model.net, feed))
    task = make_task(Uri(PLAIN[trial.manifest.task], model.ref.name), lambda _: seen, home())

    def step() -> None:
        for _ in task(next(samples)):
            pass

    for _ in range(2):
        step()
    return _Runner(variant, step, feed)


def _fed(net: Net, feed: dict[str, Any]) -> Net:
    """The same network; what goes in is noted."""

    def run(tensors: Tensors) -> dict[str, Any]:
        feed.clear()
        feed.update(tensors)
        return net.run(tensors)

    return replace(net, run=run)


def _bare(runners: list[_Runner], trial: Trial) -> dict[str, Any] | None:
    """What the original costs in a default session, without anything around it; last, as such a session goes on
    spinning after its runs. None when the original is not among the variants.
    """
    assert trial.manifest is not None
    original = trial.manifest.original()
    found = [runner for runner in runners if runner.variant.file.sha256 == original.sha256]
    if not found:
        return None
    run = bare(Path(found[0].variant.path), original.format)
    run(found[0].feed)
    wall: list[float] = []
    until, used = time.monotonic() + trial.seconds / 2, time.process_time()
    while len(wall) < LEAST or time.monotonic() < until:
        began = time.perf_counter()
        run(found[0].feed)
        wall.append(time.perf_counter() - began)
    used = time.process_time() - used
    return {
        "file": original.name,
        "runs": len(wall),
        "median_ms": statistics.median(wall) * 1e3,
        "cpu_ms": used / len(wall) * 1e3,
    }
