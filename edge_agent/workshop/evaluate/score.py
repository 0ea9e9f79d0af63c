"""How good a candidate is, next to the model that it is made from: its answers, and its time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edge_agent.backends.quiet import quiet
from edge_agent.errors import InputError, ModelError, UsageError
from edge_agent.figures.coco_map import average_precision
from edge_agent.figures.scores import Doubles, accuracy, pearson, ranks, similarities
from edge_agent.gate.ask import prove
from edge_agent.gate.opened import open_served
from edge_agent.gate.trial import Variant
from edge_agent.manifest import File, Manifest, Served
from edge_agent.tasks.detect.proof import boxes, truth_of
from edge_agent.tasks.text.encoder import encoder
from edge_agent.types import Frame, Scores, Text
from edge_agent.workshop.data.calibration import Samples, served_by
from edge_agent.workshop.data.coco_data import match_classes

Measure = Callable[[Served], float]
FAINT, LOW = 0.001, 0.05
"""scores of boxes that are held against labels (as in ``evaluate``), and against the parent's (as in gate/agree.py)"""


def against(parent: Served, samples: Samples) -> Measure:
    """A function that says how well a candidate does on `samples`: higher is better, 1 the most.

    Where people labelled the samples, it is mAP50-95 on their boxes. Else it is what the gate looks at (gate/agree.py):
    how well the answers are the parent's. `parent` itself may be measured too: what a candidate loses is the
    difference. Raises InputError where nothing can be told from these samples.
    """
    if parent.manifest.task not in _MEASURES:
        raise UsageError(f"{parent.manifest.name}: no measure is known for the task {parent.manifest.task}")
    return _MEASURES[parent.manifest.task][1](parent, samples)


def name_of(parent: Served, samples: Samples) -> str:
    """What `against` measures, for people."""
    return "mAP50-95 on labels" if samples.truth is not None else _MEASURES[parent.manifest.task][0]


def open_given(manifest: Manifest, row: File, path: Path, parts: Mapping[str, Path], threads: int = 1) -> Served:
    """A file of the model that a verb was given, warm. It proves itself, in the sandbox, before it is opened here:
    RefusedError where it does not.
    """
    prove(manifest, row, path, parts)
    return open_file(manifest, path, row.format, parts, threads)


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
    wall: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    began, turn = time.monotonic(), -1  # the first turn warms up
    while turn < 3 or time.monotonic() - began < seconds:
        item = samples.items[turn % len(samples.items)]
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            for _ in tasks[name](item):
                pass
            if turn >= 0:
                wall[name].append(time.perf_counter() - start)
        turn += 1
    return {name: statistics.median(took) * 1e3 for name, took in wall.items()}


# ── detectors ────────────────────────────────────────────────────────────────────────────────────────────


def _detector(parent: Served, samples: Samples) -> Measure:
    frames = [item for item in samples.items if isinstance(item, Frame)]
    if samples.truth is not None:
        truth, names, figure, lowest = samples.truth, samples.names, "map", FAINT
    else:
        names, figure, lowest = parent.manifest.names(), "map50", LOW
        least = parent.manifest.score
        truth = truth_of(boxes(parent, frames, least / 2, {key: key for key in names}), least)
    if not (np.isfinite(truth.area) & ~truth.crowd).any():
        raise InputError(
            f"{samples.source}: {parent.manifest.name} finds nothing in {len(frames)} pictures, so no change of it "
            "would show; give pictures of what it detects"
        )

    def measure(candidate: Served) -> float:
        ids = match_classes(names, candidate.manifest.names())
        try:
            found = boxes(candidate, frames, lowest, ids)
        except (InputError, ModelError):
            # numbers that are none: a broken quantization
            return 0.0
        return average_precision(truth, found, sorted(set(ids.values()))).figures()[figure]

    return measure


# ── encoders ─────────────────────────────────────────────────────────────────────────────────────────────


def _encoder(parent: Served, samples: Samples) -> Measure:
    texts = [item.text for item in samples.items if isinstance(item, Text)]
    theirs = _cosines(parent, texts)

    def measure(candidate: Served) -> float:
        try:
            mine = _cosines(candidate, texts)
        except ModelError:
            return 0.0
        agreement = pearson(theirs, mine)
        return 0.0 if np.isnan(agreement) else agreement

    return measure


def _cosines(model: Served, texts: list[str]) -> Doubles:
    vectors = encoder(model).embed_many(texts)
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return similarities(vectors / length)


# ── pictures with one label, and autoencoders ────────────────────────────────────────────────────────────


def _recogniser(parent: Served, samples: Samples) -> Measure:
    theirs = [_label(one) for one in _answers(parent, samples)]

    def measure(candidate: Served) -> float:
        return accuracy(theirs, [_label(one) for one in _answers(candidate, samples)])

    return measure


def _label(answer: object) -> str:
    """The likeliest label, surely enough or not; nothing for a result that was refused."""
    scores = answer.scores if isinstance(answer, Scores) else {}
    return max(scores, key=lambda name: scores[name], default="")


def _rebuilder(parent: Served, samples: Samples) -> Measure:
    theirs = np.array([_error(one) for one in _answers(parent, samples)])

    def measure(candidate: Served) -> float:
        mine = np.array([_error(one) for one in _answers(candidate, samples)])
        known = np.isfinite(theirs) & np.isfinite(mine)
        agreement = pearson(ranks(theirs[known]), ranks(mine[known])) if known.sum() > 2 else float("nan")
        return 0.0 if np.isnan(agreement) else agreement * float(known.mean())

    return measure


def _error(answer: object) -> float:
    return float(getattr(answer, "error", "nan"))


def _answers(model: Served, samples: Samples) -> list[object]:
    """What the model's task says of each sample; None where its result was refused."""
    task = served_by(model)
    found: list[object] = []
    for item in samples.items:
        try:
            (finding,) = task(item)
            found.append(getattr(finding, "what", None))
        except (InputError, ModelError):
            found.append(None)
    return found


_MEASURES: dict[str, tuple[str, Callable[[Served, Samples], Measure]]] = {
    "detect": ("mAP50 against the parent", _detector),
    "encode": ("correlation of similarities with the parent's", _encoder),
    "classify": ("share of texts with the parent's label", _recogniser),
    "recognise": ("share of pictures with the parent's label", _recogniser),
    "anomaly": ("rank correlation of the errors with the parent's", _rebuilder),
}
