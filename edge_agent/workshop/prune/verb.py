"""``prune MODEL --data SAMPLES``: take out whole channels, step by step, and know after each step what it cost.

Channels (and heads of an attention) are really taken out of the ONNX graph, so the file is smaller and faster. After
each step what is left is fitted to the parent by least squares on samples; neither labels nor PyTorch are needed.
The steps grow by the cubic schedule of Zhu & Gupta (2017, arXiv 1710.01878): s_t = s · (1 - (1 - t / N)³).
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from edge_agent.errors import ModelError, RefusedError, UsageError
from edge_agent.families.candidates import HeadLayout
from edge_agent.families.table import FAMILIES
from edge_agent.manifest import Served
from edge_agent.workshop import making
from edge_agent.workshop.data.calibration import Samples, Say, feeds
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.graph import net
from edge_agent.workshop.graph.net import Array, numbers
from edge_agent.workshop.making import Making, sure
from edge_agent.workshop.prune import channels, choose, fit, trace
from edge_agent.workshop.report import folder
from edge_agent.workshop.report.plot import Plot
from edge_agent.workshop.report.report import LayerRow, MakingReport

VERSION = 3
"""of what a step does: another one begins anew"""
SEEN = 0.2
"""score of the parent's boxes that count as places where something is"""


@dataclass(slots=True)
class Step:
    """What became of one step."""

    name: str
    path: Path
    """its file, in the work folder"""
    sparsity: float
    """share of the layers' weights that are gone"""
    multiplications: float
    """share of the multiplications that are gone"""
    layers: list[tuple[str, str, float, bool, str]]
    """name, operator, variance that is not explained, untouched, note"""
    stays: dict[str, list[int]]
    """for a layer the numbers of the parent's output channels that it still has"""


def run(args: argparse.Namespace, say: Say) -> MakingReport:
    """Prune, write the model folder `args.out`, let the gate try it. What was done before an interruption is kept.

    Raises UsageError for arguments, ModelError for what cannot be pruned or stays in no budget, InputError for data,
    RefusedError where the gate takes it not.
    """
    if not 0 < args.sparsity < 1:
        raise UsageError(f"--sparsity {args.sparsity:g}: give a share above 0 and below 1")
    job = making.start(args, "prune", precisions=("fp32", "unknown", "fp16"))
    graph = channels.read(job.path)
    job.read(args.data, args.most, say)
    judge = score.against(job.parent, job.part("calibrate"))  # a fit takes more samples than a choice
    whole, done = judge(job.parent), list[tuple[Step, float]]()
    budget = math.inf if args.max_drop is None else args.max_drop
    with folder.work(args.out) as work:
        for step in steps(graph, args.sparsity, args.steps, job.parent, job.part("search"), work, say):
            done.append((step, -sure(judge(job.serve(step.path)), whole)))
            if done[-1][1] > budget:
                break
        report, good = _report(job, done, budget)
        _write(job, good, report)
    return report


def _report(job: Making, done: list[tuple[Step, float]], budget: float) -> tuple[MakingReport, Step]:
    """Rows a step, a plot, and what has to be said; and the last step within the budget. ModelError where none is.

    `done`: each step, and the accuracy that it costs.
    """
    args, every = job.args, [step for step, _ in done]
    good = [step for step, lost in done if lost <= budget]
    if not good:
        raise ModelError(
            f"{job.located.manifest.name}: the first step ({every[0].sparsity:.0%} of the weights) already costs "
            f"{done[0][1]:.3f}, more than --max-drop {args.max_drop:g}; take a lower --sparsity, or more --steps"
        )
    files = {"parent": (job.row.bytes, job.parent, "")}
    for step in every:
        note = f"{step.sparsity:.0%} of the weights gone, {step.multiplications:.0%} of the multiplications"
        files[step.name] = (step.path.stat().st_size, job.serve(step.path), note)
    rows = job.rows(files, good[-1].name)
    shares = [0.0, *(100 * step.sparsity for step in every)]
    curve = [(gone, row.accuracy) for gone, row in zip(shares, rows, strict=True) if row.accuracy is not None]
    count = len(job.part("samples").items)
    settings = {"sparsity": args.sparsity, "steps": args.steps, "max_drop": args.max_drop, "samples": count}
    plots = [Plot("Accuracy over sparsity", "% of the weights gone", "accuracy", {"steps": curve})]
    layers = [LayerRow(*layer) for layer in good[-1].layers]
    return job.told(rows, settings, layers=layers, plots=plots, notes=_notes(job, every, good[-1])), good[-1]


def _notes(job: Making, done: list[Step], good: Step) -> list[str]:
    args = job.args
    notes, last = [*job.part("samples").notes], done[-1]
    if last.sparsity < 0.95 * share(args.sparsity, len(done), args.steps):
        notes.append(f"{last.sparsity:.0%} of the weights could go: of each group of channels some have to stay")
    if good is not last:
        notes.append(f"{last.name} costs more than --max-drop {args.max_drop:g}, so {good.name} is kept")
    return notes


def _write(job: Making, good: Step, report: MakingReport) -> None:
    """The model folder of the good step, which the gate has to take."""
    final = good.path.with_name(job.row.name)
    if final != good.path:
        shutil.copyfile(good.path, final)
    most, has = job.args.max_drop, job.located.manifest.max_drop
    try:
        job.write(
            [(final, "onnx", job.row.precision)],
            f"channels by reconstruction, {good.sparsity:.0%} of the weights gone, refitted by least squares",
            report,
            {"sparsity": good.sparsity},
            budget=most,
            **({"max_drop": most} if most is not None and most > has else {}),
        )
    except RefusedError as error:
        raise RefusedError(f"{error}; --max-drop says how much you accept") from None


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────


def share(sparsity: float, number: int, count: int) -> float:
    """Sparsity after step `number`, 1 … count (Zhu & Gupta 2017, equation 1)."""
    return sparsity * (1 - (1 - number / count) ** 3)


def steps(
    parent: ir.Model, sparsity: float, count: int, served: Served, samples: Samples, work: Path, say: Say
) -> Iterator[Step]:
    """Each of `count` steps as it is done, or as it was found in `work`. `samples` are those to fit on.

    Raises ModelError where nothing can be taken out.
    """
    about = [VERSION, served.manifest.original().sha256, samples.sha256, sparsity, count]
    folder = work / f"prune-{hashlib.sha256(msgspec.json.encode(about)).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    given = list(feeds(served, samples))
    if not channels.families(trace.trace(parent)):
        raise ModelError(
            f"{served.manifest.name}: no channel of it can go, as all reach an output or an operator that cannot shrink"
        )
    boxes = places(served, given)
    student, stays = parent.clone(), dict[str, Array]()
    for number in range(1, count + 1):
        path = folder / f"step-{number}.onnx"
        step = _found(path)
        if step is None:
            target, head = share(sparsity, number, count), f"step {number} of {count}: "
            step = _done(
                parent, student, stays, target, given, boxes, path, lambda what, *at, head=head: say(head + what, *at)
            )
        student = channels.read(step.path)
        stays = {layer: np.array(kept) for layer, kept in step.stays.items()}
        yield step


def _done(
    parent: ir.Model,
    student: ir.Model,
    stays: Mapping[str, Array],
    target: float,
    given: list[dict[str, Array]],
    boxes: list[Array] | None,
    path: Path,
    say: Say,
) -> Step:
    """One step further than `student`, until `target` of the parent's weights are gone, written to `path`."""
    traced = trace.trace(student)
    ranked = choose.ranked(student, traced, channels.families(traced), given, say, boxes)
    left = (1 - target) * channels.weights(parent)
    student, kept = channels.removed(student, traced, choose.to_remove(student, traced, ranked, left))
    now = {**stays, **{layer: stays[layer][some] if layer in stays else some for layer, some in kept.items()}}
    fitted = fit.refit(parent, student, now, given, say, boxes)
    path.write_bytes(net.data(student))
    step = _told(parent, student, fitted, now, path)
    # the text comes last: a step that has none was not finished
    path.with_suffix(".part").write_bytes(msgspec.json.encode(step, enc_hook=str))
    path.with_suffix(".part").replace(path.with_suffix(".json"))
    return step


def _told(
    parent: ir.Model, student: ir.Model, fitted: Mapping[str, fit.Fitted], stays: Mapping[str, Array], path: Path
) -> Step:
    """What is known of a step."""
    new, rows = {node.name: numbers(node.inputs[1]).size for node in net.layers(student)}, []
    for node in net.layers(parent):
        old, left = numbers(node.inputs[1]).size, new[node.name]
        before, after = fitted.get(node.name, (0.0, 0.0))
        told = f"; variance not explained {before:.3f}, {after:.3f} once fitted" if node.name in fitted else ""
        note = f"{left} of {old} weights stay{told}"
        rows.append((channels.layer_name(node), str(node.op_type), after, left == old, note))
    sparsity = 1 - channels.weights(student) / channels.weights(parent)
    work = 1 - channels.multiplications(student) / channels.multiplications(parent)
    kept = {layer: numbers.tolist() for layer, numbers in stays.items()}
    return Step(path.stem.replace("-", " "), path, sparsity, work, rows, kept)


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
