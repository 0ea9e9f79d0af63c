"""The steps of a pruning: choose, take out, fit, keep on disk; an interrupted run goes on with the step it was at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from edge_agent.errors import ModelError
from edge_agent.families.candidates import HeadLayout
from edge_agent.families.table import FAMILIES
from edge_agent.manifest import Served
from edge_agent.workshop.data.calibration import Samples, Say, feeds
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, numbers
from edge_agent.workshop.prune import channels, choose, fit, reconstruction, trace

VERSION = 2
"""of what a step does: another one begins anew"""
SEEN = 0.2
"""score of the parent's boxes that count as places where something is"""


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
    """share of the multiplications that are gone"""
    layers: list[tuple[str, str, float, bool, str]]
    """name, operator, variance that is not explained, untouched, note"""
    stays: dict[str, list[int]]
    """for a layer the numbers of the parent's output channels that it still has"""


def key(model: str, data: str, plan: PrunePlan) -> str:
    """Another text as soon as anything changes that a step depends on."""
    told = msgspec.json.encode([VERSION, model, data, plan], order="deterministic")
    return hashlib.sha256(told).hexdigest()[:16]


def share(plan: PrunePlan, number: int) -> float:
    """Sparsity after step `number`, 1 … steps (Zhu & Gupta 2017, equation 1)."""
    return plan.sparsity * (1 - (1 - number / plan.steps) ** 3)


def steps(
    parent: ir.Model, plan: PrunePlan, served: Served, samples: Samples | None, folder: Path, say: Say
) -> Iterator[Step]:
    """Each step as it is done, or as it was found in `folder`. `samples` are those to fit on.

    Raises ModelError where nothing can be taken out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = list(feeds(served, samples)) if samples else []
    if plan.structured and not channels.families(trace.trace(parent)):
        raise ModelError(
            f"{served.manifest.name}: no channel of it can go, as all reach an output or an operator that cannot "
            "shrink; --unstructured takes single weights"
        )
    boxes = places(served, given)
    student, stays = parent.clone(), dict[str, Array]()
    for number in range(1, plan.steps + 1):
        path = folder / f"step-{number}.onnx"
        step = _found(path)
        if step is None:
            head = f"step {number} of {plan.steps}: "
            step = _done(
                parent, student, stays, plan, number, given, boxes, path, lambda what, *at, h=head: say(h + what, *at)
            )
        student = channels.read(step.path)
        stays = {layer: np.array(kept) for layer, kept in step.stays.items()}
        yield step


def _done(
    parent: ir.Model,
    student: ir.Model,
    stays: Mapping[str, Array],
    plan: PrunePlan,
    number: int,
    given: list[dict[str, Array]],
    boxes: list[Array] | None,
    path: Path,
    say: Say,
) -> Step:
    """One step further than `student`, written to `path`."""
    target, masks, now = share(plan, number), None, dict(stays)
    if plan.structured:
        traced = trace.trace(student)
        groups = channels.families(traced)
        if plan.by == "reconstruction":
            ranked = reconstruction.by_reconstruction(student, traced, groups, given, say, boxes)
        else:
            ranked = choose.by_magnitude(traced, groups)
        by_work = plan.of == "multiplications"
        left = (1 - target) * (channels.multiplications(parent) if by_work else channels.weights(parent))
        student, kept = channels.removed(student, traced, choose.to_remove(student, traced, ranked, left, by_work))
        now |= {layer: now[layer][numbers] if layer in now else numbers for layer, numbers in kept.items()}
    else:
        masks = choose.masks(student, target)
        for node in net.layers(student):
            if node.name in masks:
                net.put(node.inputs[1], np.where(masks[node.name], numbers(node.inputs[1]), 0).astype(np.float32))
    fitted = fit.refit(parent, student, now, given, say, masks, boxes) if plan.refit else {}
    path.write_bytes(net.data(student))
    step = _told(parent, student, plan, fitted, now, path)
    # the text comes last: a step that has none was not finished
    path.with_suffix(".part").write_bytes(msgspec.json.encode(step, enc_hook=str))
    path.with_suffix(".part").replace(path.with_suffix(".json"))
    return step


def _told(
    parent: ir.Model,
    student: ir.Model,
    plan: PrunePlan,
    fitted: Mapping[str, fit.Fitted],
    stays: Mapping[str, Array],
    path: Path,
) -> Step:
    """What is known of a step."""
    new, rows, stay = {node.name: numbers(node.inputs[1]) for node in net.layers(student)}, [], 0
    for node in net.layers(parent):
        old, left = numbers(node.inputs[1]).size, int(np.count_nonzero(new[node.name]))
        left = new[node.name].size if plan.structured else left
        stay += left
        before, after = fitted.get(node.name, (0.0, 0.0))
        told = f"; variance not explained {before:.3f}, {after:.3f} once fitted" if node.name in fitted else ""
        note = f"{left} of {old} weights stay{told}"
        rows.append((channels.layer_name(node), str(node.op_type), after, left == old, note))
    sparsity = 1 - stay / channels.weights(parent)
    work = 1 - channels.multiplications(student) / channels.multiplications(parent)
    share = work if plan.of == "multiplications" else sparsity
    kept = {layer: numbers.tolist() for layer, numbers in stays.items()}
    return Step(path.stem.replace("-", " "), path, sparsity, share, work, rows, kept)


def _found(path: Path) -> Step | None:
    """A step that an earlier run finished."""
    try:
        told = path.with_suffix(".json").read_bytes()
        step = msgspec.json.decode(told, type=Step, dec_hook=lambda _, value: Path(value))
    except (OSError, msgspec.MsgspecError):
        return None
    step.path = path
    return step if path.is_file() else None


def places(served: Served, given: list[dict[str, Array]]) -> list[Array] | None:
    """For each sample where the parent sees something: (n, 4) left, top, right, bottom in 0..1; None: no detector.

    Layers are fitted more closely there: most cells of a picture are background.
    """
    family = FAMILIES.get(served.manifest.family)
    if served.manifest.task != "detect" or served.input is None or family is None:
        return None
    head = HeadLayout(served.input.width, served.input.height, len(served.manifest.labels))
    found = [family.decode(served.net.run(feed), head, SEEN).xyxy for feed in given]
    size = np.array([head.width, head.height] * 2, np.float64)
    return [xyxy / size for xyxy in found] if any(len(xyxy) for xyxy in found) else None
