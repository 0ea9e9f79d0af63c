"""What a pruning did and what it cost: its steps, its report and the model folder that comes out."""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.errors import ModelError, RefusedError
from edge_agent.manifest import File, Made, Served
from edge_agent.registry import files
from edge_agent.registry.files import Located
from edge_agent.workshop.data.calibration import Samples
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.prune import steps
from edge_agent.workshop.prune.graph import PruneGraph, multiplications
from edge_agent.workshop.prune.steps import PrunePlan, Step
from edge_agent.workshop.report import folder
from edge_agent.workshop.report.plot import Plot
from edge_agent.workshop.report.report import LayerRow, MakingReport, TableRow

SECONDS = 8.0
"""for which the parent and the steps are timed against each other"""


@dataclass(slots=True)
class Pruning:
    """One run of the verb: what it is about, and what has been done so far."""

    args: argparse.Namespace
    located: Located
    row: File
    """of the parent's file"""
    parent: Served
    graph: PruneGraph
    """of the parent"""
    plan: PrunePlan
    samples: Samples | None
    held: Samples | None
    """those that nothing is fitted on"""
    steps: list[Step] = field(default_factory=list)
    accuracy_of: Callable[[Served], float] | None = None
    """on the samples that are held; None: nothing is measured"""
    whole: float | None = None
    """accuracy of the parent"""

    def __post_init__(self) -> None:
        if self.held:
            self.accuracy_of = score.against(self.parent, self.held)
            self.whole = self.accuracy_of(self.parent)

    def open(self, step: Step) -> Served:
        """The model after a step."""
        return score.open_file(self.located.manifest, step.path, "onnx", self.parent.parts, max(1, self.args.threads))

    def measure(self, step: Step) -> None:
        """Add a step that was done, with its accuracy."""
        if self.accuracy_of and step.accuracy is None:
            step.accuracy = self.accuracy_of(self.open(step))
            steps.remember(step)
        self.steps.append(step)

    def is_too_dear(self, step: Step) -> bool:
        """Whether a step costs more accuracy than --max-drop allows."""
        most = self.args.max_drop
        return most is not None and self.whole is not None and self.whole - (step.accuracy or 0.0) > most

    def good(self) -> Step:
        """The last step that is not too dear. ModelError where the first one is."""
        found = [step for step in self.steps if not self.is_too_dear(step)]
        if found:
            return found[-1]
        first = self.steps[0]
        lost = (self.whole or 0.0) - (first.accuracy or 0.0)
        raise ModelError(
            f"{self.located.manifest.name}: the first step ({first.share:.0%} of the {self.plan.of}) already costs "
            f"{lost:.3f}, more than --max-drop {self.args.max_drop:g}; take a lower --sparsity, more --steps or --data"
        )


def report(done: Pruning) -> MakingReport:
    """Rows a step, plots, and what has to be said about zeroes."""
    args, plan, good = done.args, done.plan, done.good()
    return MakingReport(
        verb="prune",
        model=done.located.manifest.name,
        measure=score.name_of(done.parent, done.held) if done.held else "not measured",
        settings={
            "sparsity": args.sparsity,
            "of": plan.of,
            "structured": plan.structured,
            "by": plan.by,
            "steps": args.steps,
            "refit": plan.refit,
            "finetune_minutes": plan.minutes,
            "max_drop": args.max_drop,
            "samples": len(done.samples.items) if done.samples else 0,
        },
        rows=_rows(done, good),
        layers=[LayerRow(*layer) for layer in good.layers],
        plots=_plots(done),
        notes=_notes(done, good),
        parent_sha256=done.row.sha256,
        data_sha256=done.samples.sha256 if done.samples else "",
        command=f"edge-agent prune {args.model} --sparsity {args.sparsity:g} --of {plan.of} --by {plan.by} "
        f"--steps {args.steps} {'--structured' if plan.structured else '--unstructured'} --out {args.out}"
        + (f" --data {args.data}" if args.data else ""),
    )


def _rows(done: Pruning, good: Step) -> list[TableRow]:
    """The parent and each step: size, accuracy, time."""
    times: dict[str, float] = {}
    if done.held is not None:
        candidates = {"parent": done.parent} | {step.name: done.open(step) for step in done.steps}
        times = score.times(candidates, done.held, SECONDS)
    before = multiplications(done.graph)
    rows = [TableRow("parent", done.row.bytes, done.whole, times.get("parent"))]
    for step in done.steps:
        what = f"{step.sparsity:.0%} of the weights gone"
        if done.plan.structured:
            what += f", {1 - step.multiplications / before:.0%} of the multiplications"
        size = step.path.stat().st_size
        rows.append(TableRow(step.name, size, step.accuracy, times.get(step.name), what, chosen=step is good))
    return rows


def _plots(done: Pruning) -> list[Plot]:
    if done.whole is None:
        return []
    curve = [(0.0, done.whole), *((100 * step.sparsity, step.accuracy or 0.0) for step in done.steps)]
    return [Plot("Accuracy over sparsity", "% of the weights gone", "accuracy", {done.plan.by: curve})]


def _notes(done: Pruning, good: Step) -> list[str]:
    plan, last = done.plan, done.steps[-1]
    notes = [*(done.samples.notes if done.samples else [])]
    notes += [f"{step.name}: {note}" for step in done.steps for note in step.notes]
    if not plan.structured:
        notes.append(_zeroes(done.located, done.row, good))
    if last.share < 0.9 * steps.share(plan, len(done.steps)):
        notes.append(f"{last.share:.0%} of the {plan.of} could go: of each group of channels some have to stay")
    if good is not last:
        notes.append(f"{last.name} costs more than --max-drop {done.args.max_drop:g}, so {good.name} is kept")
    if done.samples is None:
        notes.append("no --data: nothing was fitted or measured; what the gate says is all that is known of it")
    return notes


def _zeroes(located: Located, row: File, good: Step) -> str:
    """What zeroes are worth, said plainly."""
    old, new = files.file_path(located, row).read_bytes(), good.path.read_bytes()
    packed = [len(gzip.compress(data, 6)) / 1e6 for data in (old, new)]
    return (
        f"zeroes save nothing here: the file is as large ({len(new) / 1e6:.2f} MB) and as slow as before, since the "
        f"runtime multiplies by 0 too; packed with gzip it is {packed[1]:.2f} MB instead of {packed[0]:.2f} MB"
    )


def write(done: Pruning, report: MakingReport) -> None:
    """The model folder of the good step, which the gate has to take."""
    good = done.good()
    final = good.path.with_name(done.row.name)
    if final != good.path:
        final.write_bytes(good.path.read_bytes())
    changes = {}
    if done.args.max_drop is not None and done.args.max_drop > done.located.manifest.max_drop:
        changes["max_drop"] = done.args.max_drop
    try:
        networks = [(final, "onnx", done.row.precision)]
        folder.write(done.args.out, done.located, networks, _made(done, good, report), report, **changes)
    except RefusedError as error:
        raise RefusedError(f"{error}; --max-drop says how much you accept") from None


def _made(done: Pruning, good: Step, report: MakingReport) -> Made:
    """What the manifest says of how the model was made."""
    chosen, manifest, plan = next(row for row in report.rows if row.chosen), done.located.manifest, done.plan
    figures = {
        "sparsity": good.sparsity,
        f"share_of_{plan.of}": good.share,
        "accuracy": good.accuracy,
        "parent_accuracy": report.rows[0].accuracy,
        "median_ms": chosen.median_ms,
        "parent_median_ms": report.rows[0].median_ms,
    }
    return Made(
        verb="prune",
        method=f"{'structured' if plan.structured else 'unstructured'} by {plan.by}, "
        f"{good.sparsity:.0%} of the weights gone"
        + (", refitted by least squares" if plan.refit else "")
        + (f", {done.args.finetune:g} min of fine-tuning a step" if done.args.finetune else ""),
        parent=f"{manifest.name} {manifest.version}",
        parent_sha256=done.row.sha256,
        data_sha256=done.samples.sha256 if done.samples else "",
        figures={name: value for name, value in figures.items() if value is not None},
    )
