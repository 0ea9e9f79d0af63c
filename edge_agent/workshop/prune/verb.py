"""``prune MODEL --data SAMPLES``: take out whole channels, step by step, and know after each step what it cost.

Channels (and heads of an attention) are really taken out of the ONNX graph, so the file is smaller and faster. After
each step what is left is fitted to the parent by least squares on samples; neither labels nor PyTorch are needed.
The steps grow by the cubic schedule of Zhu & Gupta (2017, arXiv 1710.01878): s_t = s · (1 - (1 - t / N)³).
"""

from __future__ import annotations

import argparse
import math
import shutil

from edge_agent.errors import ModelError, RefusedError, UsageError
from edge_agent.workshop import making
from edge_agent.workshop.data.calibration import Say
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.making import Making, sure
from edge_agent.workshop.prune import channels, steps
from edge_agent.workshop.prune.steps import Step
from edge_agent.workshop.report import folder
from edge_agent.workshop.report.plot import Plot
from edge_agent.workshop.report.report import LayerRow, MakingReport


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
        for step in steps.steps(graph, args.sparsity, args.steps, job.parent, job.part("search"), work, say):
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
    args, steps = job.args, [step for step, _ in done]
    good = [step for step, lost in done if lost <= budget]
    if not good:
        raise ModelError(
            f"{job.located.manifest.name}: the first step ({steps[0].sparsity:.0%} of the weights) already costs "
            f"{done[0][1]:.3f}, more than --max-drop {args.max_drop:g}; take a lower --sparsity, or more --steps"
        )
    files = {"parent": (job.row.bytes, job.parent, "")}
    for step in steps:
        note = f"{step.sparsity:.0%} of the weights gone, {step.multiplications:.0%} of the multiplications"
        files[step.name] = (step.path.stat().st_size, job.serve(step.path), note)
    rows = job.rows(files, good[-1].name)
    shares = [0.0, *(100 * step.sparsity for step in steps)]
    curve = [(share, row.accuracy) for share, row in zip(shares, rows, strict=True) if row.accuracy is not None]
    return job.told(
        rows,
        {
            "sparsity": args.sparsity,
            "steps": args.steps,
            "max_drop": args.max_drop,
            "samples": len(job.part("samples").items),
        },
        layers=[LayerRow(*layer) for layer in good[-1].layers],
        plots=[Plot("Accuracy over sparsity", "% of the weights gone", "accuracy", {"steps": curve})],
        notes=_notes(job, steps, good[-1]),
    ), good[-1]


def _notes(job: Making, done: list[Step], good: Step) -> list[str]:
    args = job.args
    notes, last = [*job.part("samples").notes], done[-1]
    if last.sparsity < 0.95 * steps.share(args.sparsity, len(done), args.steps):
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
