"""The steps of a pruning: choose, take out, fit, keep on disk; an interrupted run goes on with the step it was at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import ModelError
from edge_agent.families.candidates import HeadLayout
from edge_agent.families.table import FAMILIES
from edge_agent.manifest import Served
from edge_agent.workshop.data import calibration
from edge_agent.workshop.data.calibration import Samples, Say
from edge_agent.workshop.prune import axes, channels, choose, fit, graph, reconstruction, single
from edge_agent.workshop.prune.graph import Array, PruneGraph

VERSION = 1
"""of what a step does: another one begins anew"""
SEEN = 0.2
"""score of the parent's boxes that count as places where something is"""
read = graph.read


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What is asked for."""

    sparsity: float
    structured: bool
    of: str
    """weights or multiplications: what `sparsity` is a share of"""
    by: str
    steps: int
    refit: bool
    minutes: float
    """of fine-tuning after each step"""


@dataclass(slots=True)
class Step:
    """What became of one step."""

    name: str
    path: Path
    """its file, in the work folder"""
    sparsity: float
    """share of the layers' weights that are gone, or 0"""
    share: float
    """as the plan counts it"""
    multiplications: float
    """millions a sample"""
    layers: list[tuple[str, str, float, bool, str]]
    """name, operator, variance that is not explained, untouched, note"""
    stays: dict[int, list[int]]
    """for a layer the numbers of the parent's output channels that it still has"""
    notes: list[str] = field(default_factory=list)
    accuracy: float | None = None


def key(model: str, data: str, plan: PrunePlan) -> str:
    """Another text as soon as anything changes that a step depends on."""
    told = msgspec.json.encode([VERSION, model, data, plan], order="deterministic")
    return hashlib.sha256(told).hexdigest()[:16]


def share(plan: PrunePlan, number: int) -> float:
    """Sparsity after step `number`, 1 … steps (Zhu & Gupta 2017, equation 1)."""
    return plan.sparsity * (1 - (1 - number / plan.steps) ** 3)


def steps(
    parent: PruneGraph, plan: PrunePlan, served: Served, samples: Samples | None, folder: Path, say: Say
) -> Iterator[Step]:
    """Each step as it is done, or as it was found in `folder`. `samples` are those to fit on.

    Raises ModelError where nothing can be taken out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    feeds = list(calibration.feeds(served, samples)) if samples else []
    if plan.structured and not channels.families(parent, channels.trace(parent)):
        raise ModelError(
            f"{served.manifest.name}: no channel of it can go, as all reach an output or an operator that cannot "
            "shrink; --unstructured takes single weights"
        )
    boxes = places(served, feeds) if feeds else None
    student, stays = graph.copy(parent), dict[int, Array]()
    for number in range(1, plan.steps + 1):
        step = _found(folder, number)
        if step is None:
            told = _named(say, f"step {number} of {plan.steps}")
            student, stays, step = _done(parent, student, stays, plan, number, feeds, boxes, folder, told)
            remember(step)
        else:
            student = graph.read(step.path)
            stays = {layer: np.array(kept) for layer, kept in step.stays.items()}
        yield step


def _done(
    parent: PruneGraph,
    student: PruneGraph,
    stays: dict[int, Array],
    plan: PrunePlan,
    number: int,
    feeds: list[dict[str, Array]],
    boxes: list[Array] | None,
    folder: Path,
    say: Say,
) -> tuple[PruneGraph, dict[int, Array], Step]:
    """One step further than `student`."""
    target, masks = share(plan, number), None
    gradients = _gradients(student, plan, feeds, boxes, say)
    if plan.structured:
        traced = channels.trace(student)
        ranked = _ranked(student, traced, plan, feeds, boxes, gradients, say)
        by_work = plan.of == "multiplications"
        left = (1 - target) * (graph.multiplications(parent) if by_work else graph.weights(parent))
        student, kept = channels.removed(student, traced, choose.to_remove(student, traced, ranked, left, by_work))
        stays |= {layer: stays[layer][numbers] if layer in stays else numbers for layer, numbers in kept.items()}
    else:
        student = graph.copy(student)
        masks = single.masks(student, target, gradients, plan.by == "gradient-weight")
        single.zeroed(student, masks)
    fitted = fit.refit(parent, student, stays, feeds, say, masks, boxes) if plan.refit else []
    notes = []
    if plan.minutes:
        from edge_agent.workshop.prune.finetune import follow

        notes.append(follow(parent, student, stays, feeds, masks, boxes, plan.minutes, say))
    path = folder / f"step-{number}.onnx"
    path.with_suffix(".part").write_bytes(graph.checked(student))
    path.with_suffix(".part").replace(path)
    sparsity, work = _sparsity(parent, student, plan), graph.multiplications(student)
    step = Step(
        name=f"step {number}",
        path=path,
        sparsity=sparsity,
        share=1 - work / graph.multiplications(parent) if plan.of == "multiplications" else sparsity,
        multiplications=work,
        layers=_layers(parent, student, fitted, masks),
        stays={layer: numbers.tolist() for layer, numbers in stays.items()},
        notes=notes,
    )
    return student, stays, step


def _sparsity(parent: PruneGraph, student: PruneGraph, plan: PrunePlan) -> float:
    """Share of the weights that are gone, or 0."""
    stay = sum(int(np.count_nonzero(student.weight(number))) for number in student.layers())
    return 1 - (graph.weights(student) if plan.structured else stay) / graph.weights(parent)


def _ranked(
    student: PruneGraph,
    traced: axes.Traced,
    plan: PrunePlan,
    feeds: list[dict[str, Array]],
    boxes: list[Array] | None,
    gradients: Iterable[Mapping[str, Array]] | None,
    say: Say,
) -> list[choose.Ranked]:
    found = channels.families(student, traced)
    if gradients is not None:
        return choose.by_gradient(student, traced, found, gradients, plan.by == "gradient-weight")
    if plan.by == "reconstruction":
        return reconstruction.by_reconstruction(student, traced, found, feeds, say, boxes)
    return choose.by_magnitude(student, traced, found)


def _gradients(
    student: PruneGraph, plan: PrunePlan, feeds: list[dict[str, Array]], boxes: list[Array] | None, say: Say
) -> Iterable[Mapping[str, Array]] | None:
    """By automatic differentiation, where the plan asks for it."""
    if not plan.by.startswith("gradient"):
        return None
    from edge_agent.workshop.prune.torch import gradients

    return gradients(student, feeds, boxes, say)


def places(served: Served, feeds: list[dict[str, Array]]) -> list[Array] | None:
    """For each sample where the parent sees something: (n, 4) left, top, right, bottom in 0..1; None: no detector.

    Layers are fitted more closely there: most cells of a picture are background.
    """
    family = FAMILIES.get(served.manifest.family)
    if served.manifest.task != "detect" or served.input is None or family is None:
        return None
    head = HeadLayout(served.input.width, served.input.height, len(served.manifest.labels))
    found = [family.decode(served.net.run(feed), head, SEEN).xyxy for feed in feeds]
    size = np.array([head.width, head.height] * 2, np.float64)
    return [xyxy / size for xyxy in found] if any(len(xyxy) for xyxy in found) else None


def _layers(
    parent: PruneGraph, student: PruneGraph, fitted: list[fit.Fitted], masks: Mapping[int, Array] | None
) -> list[tuple[str, str, float, bool, str]]:
    """A row a layer for the report."""
    left = {one.name: one for one in fitted}
    rows = []
    for number in parent.layers():
        name, old, new = channels.layer_name(parent, number), parent.weight(number), student.weight(number)
        count = int(np.count_nonzero(new)) if masks is not None else new.size
        one = left.get(name)
        told = f"{count} of {old.size} weights stay"
        if one is not None:
            told += f"; variance not explained {one.before:.3f}, {one.after:.3f} once fitted"
        rows.append((name, parent.nodes[number].op_type, one.after if one else 0.0, count == old.size, told))
    return rows


def _named(say: Say, step: str) -> Say:
    return lambda what, done, total: say(f"{step}: {what}", done, total)


# ── on disk ──────────────────────────────────────────────────────────────────────────────────────────────


def remember(step: Step) -> None:
    """Write what is known of a step beside its file."""
    place = step.path.with_suffix(".json")
    part = place.with_suffix(".json.part")
    part.write_bytes(msgspec.json.encode(step, enc_hook=str))
    part.replace(place)


def _found(folder: Path, number: int) -> Step | None:
    """A step that an earlier run finished."""
    place = folder / f"step-{number}.json"
    try:
        step = msgspec.json.decode(place.read_bytes(), type=Step, dec_hook=lambda _, value: Path(value))
    except (OSError, msgspec.MsgspecError):
        return None
    step.path = folder / f"step-{number}.onnx"
    return step if step.path.is_file() else None
