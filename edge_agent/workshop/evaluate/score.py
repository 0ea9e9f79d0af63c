"""How good a candidate is, next to the model that it is made from: its answers, and its time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_agent.backends.quiet import quiet
from edge_agent.errors import InputError, ModelError
from edge_agent.figures.coco_map import Truth, match
from edge_agent.figures.interval import Figure, share
from edge_agent.gate.opened import open_served
from edge_agent.gate.trial import Variant
from edge_agent.manifest import File, Manifest, Served
from edge_agent.tasks import found_at, row_of
from edge_agent.tasks.detect.compare import boxes
from edge_agent.tasks.proofs import Measure
from edge_agent.types import Frame
from edge_agent.workshop.data.calibration import Samples
from edge_agent.workshop.data.feed import served_by
from edge_agent.workshop.data.pictures import match_classes

FAINT = 0.001
"""score of boxes that are held against labels, as in ``evaluate``"""


def against(parent: Served, samples: Samples) -> Measure:
    """A function that says how well a candidate does on `samples`: higher is better, 1 the most. Its figure knows how
    far it could be off (figures/interval.py).

    Where people labelled the samples, it is mAP50-95 on their boxes. Else it is what the gate looks at (gate/agree.py):
    how well the answers are the parent's. `parent` itself may be measured too: what a candidate loses is the
    difference. Raises InputError where nothing can be told from these samples.
    """
    if samples.truth is not None:
        return _on_labels(samples, samples.truth)
    try:
        measure: Measure = found_at(row_of(parent).measure)(parent, samples.items)
    except InputError as error:
        raise InputError(f"{samples.source}: {error}") from None
    return measure


def name_of(parent: Served, samples: Samples) -> str:
    """What `against` measures, for people."""
    return "mAP50-95 on labels" if samples.truth is not None else row_of(parent).measured


def open_file(manifest: Manifest, path: Path, format: str, parts: Mapping[str, Path], threads: int = 1) -> Served:
    """A candidate that is no model folder yet, warm. Raises RefusedError for a file that cannot be run."""
    layout = next((row.layout for row in manifest.networks() if row.format == format), None)
    row = File(path.name, format, "0" * 64, path.stat().st_size, layout=layout)  # type: ignore[arg-type]
    given = {role: str(part) for role, part in parts.items()}
    with quiet():
        return open_served(manifest, Variant(row, str(path)), given, threads)


def times(candidates: Mapping[str, Served], samples: Samples, seconds: float) -> dict[str, float]:
    """Median milliseconds a sample, end to end, by the names of the candidates.

    They run in turns, a sample each, so that a busy or hot machine is the same to all.
    """
    tasks = {name: served_by(model) for name, model in candidates.items()}
    took: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    began, turn = time.monotonic(), -1  # the first turn warms up
    while turn < 3 or time.monotonic() - began < seconds:
        item = samples.items[turn % len(samples.items)]
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            for _ in tasks[name](item):
                pass
            if turn >= 0:
                took[name].append(time.perf_counter() - start)
        turn += 1
    return {name: statistics.median(all_) * 1e3 for name, all_ in took.items()}


def _on_labels(samples: Samples, truth: Truth) -> Measure:
    """mAP50-95 on the boxes that people drew."""
    frames = [item for item in samples.items if isinstance(item, Frame)]
    if not (np.isfinite(truth.area) & ~truth.crowd).any():
        raise InputError(
            f"{samples.source}: people drew no box in these {len(frames)} pictures, so no change would show; give "
            "pictures of what the model detects"
        )

    def measure(candidate: Served) -> Figure:
        ids = match_classes(samples.names, candidate.manifest.names())
        try:
            found = boxes(candidate, frames, FAINT, ids)
        except (InputError, ModelError):
            # numbers that are none: a broken quantization
            return share([False] * len(frames))
        return match(truth, found, sorted(set(ids.values()))).figure(len(frames), "map")

    return measure
