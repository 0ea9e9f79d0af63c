"""``prune MODEL``: take out weights or whole channels, step by step, and know after each step what it cost.

Structured: channels (and heads of an attention) are really taken out of the ONNX graph, so the file is smaller and
faster. Unstructured: single weights become 0; the file is as large and as slow as before, and the report says so.
After each step what is left is fitted to the parent by least squares on samples; neither labels nor PyTorch are needed.
The steps grow by the cubic schedule of Zhu & Gupta (2017, arXiv 1710.01878): s_t = s · (1 - (1 - t / N)³).
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Callable

from edge_agent.errors import ModelError, RefusedError, UsageError
from edge_agent.workshop import making
from edge_agent.workshop.data.calibration import Say
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.making import Making, sure
from edge_agent.workshop.prune import channels, steps
from edge_agent.workshop.prune.steps import PrunePlan, Step
from edge_agent.workshop.report import folder
from edge_agent.workshop.report.plot import Plot
from edge_agent.workshop.report.report import LayerRow, MakingReport, TableRow


def run(args: argparse.Namespace, say: Say) -> MakingReport:
    """Prune, write the model folder `args.out`, let the gate try it. What was done before an interruption is kept.

    Raises UsageError for arguments, ModelError for what cannot be pruned or stays in no budget, InputError for data,
    RefusedError where the gate takes it not.
    """

    _check(args)
    job = making.start(args, "prune", precisions=("fp32", "unknown", "fp16"))

    graph = channels.read(job.path)
    job.read(args.data, args.most, say)
    plan = steps.PrunePlan(
        sparsity=args.sparsity,
        structured=not args.unstructured,
        of=args.of,
        by=args.by or ("reconstruction" if args.data and not args.unstructured else "magnitude"),
        steps=args.steps,
        refit=args.data is not None and not args.no_refit,
    )
    done: list[tuple[Step, float]] = []
    lost = _losses(job)
    with folder.work(args.out) as work:
        place = work / f"prune-{steps.key(job.row.sha256, job.samples.sha256 if job.samples else '', plan)}"
        for step in steps.steps(graph, plan, job.parent, job.search, place, say):
            done.append((step, lost(step)))
            if done[-1][1] > _budget(args):
                break
        report, good = _report(job, plan, done)
        _write(job, plan, good, report)
    return report


def _check(args: argparse.Namespace) -> None:
    """What argparse cannot say."""
    if not 0 < args.sparsity < 1:
        raise UsageError(f"--sparsity {args.sparsity:g}: give a share above 0 and below 1")
    wants = {"--max-drop": args.max_drop is not None, "--by reconstruction": args.by == "reconstruction"}
    option = next((name for name, given in wants.items() if given), "")
    if option and not args.data:
        raise UsageError(f"{option} needs samples: --data FOLDER, FILE or `recorded`")
    if args.unstructured and args.by == "reconstruction":
        raise UsageError("--by reconstruction is for channels; single weights go by magnitude")
    if args.unstructured and args.of == "multiplications":
        raise UsageError("--of multiplications is for channels: a weight of 0 is multiplied like any other")


def _budget(args: argparse.Namespace) -> float:
    return float("inf") if args.max_drop is None else args.max_drop


def _losses(job: Making) -> Callable[[Step], float]:
    """What a step costs at most on the samples that steps are chosen by; 0 without samples."""

    if job.calibrate is None:
        return lambda step: 0.0
    judge = score.against(job.parent, job.calibrate)  # a fit takes more samples than a choice
    whole = judge(job.parent)
    return lambda step: -sure(judge(job.serve(step.path)), whole)


def _report(job: Making, plan: PrunePlan, done: list[tuple[Step, float]]) -> tuple[MakingReport, Step]:
    """Rows a step, a plot, and what has to be said; and the last step within the budget. ModelError where none is.

    `done`: each step, and the accuracy that it costs.
    """
    args, steps = job.args, [step for step, _ in done]
    good = [step for step, lost in done if lost <= _budget(args)]
    if not good:
        raise ModelError(
            f"{job.located.manifest.name}: the first step ({steps[0].share:.0%} of the {plan.of}) already costs "
            f"{done[0][1]:.3f}, more than --max-drop {args.max_drop:g}; take a lower --sparsity, more --steps or --data"
        )
    files = {"parent": (job.row.bytes, job.parent, "")}
    for step in steps:
        work = f", {step.multiplications:.0%} of the multiplications" if plan.structured else ""
        note = f"{step.sparsity:.0%} of the weights gone{work}"
        files[step.name] = (step.path.stat().st_size, job.serve(step.path), note)
    rows = job.rows(files, good[-1].name)

    return job.told(
        rows,
        {
            **{key: getattr(plan, key) for key in ("sparsity", "of", "structured", "by", "steps", "refit")},
            "max_drop": args.max_drop,
            "samples": len(job.samples.items) if job.samples else 0,
        },
        layers=[LayerRow(*layer) for layer in good[-1].layers],
        plots=_plots(plan, steps, rows),
        notes=_notes(job, plan, steps, good[-1]),
    ), good[-1]


def _plots(plan: PrunePlan, done: list[Step], rows: list[TableRow]) -> list[Plot]:

    shares = [0.0, *(100 * step.sparsity for step in done)]
    curve = [(share, row.accuracy) for share, row in zip(shares, rows, strict=True) if row.accuracy is not None]
    return [Plot("Accuracy over sparsity", "% of the weights gone", "accuracy", {plan.by: curve})] if curve else []


def _notes(job: Making, plan: PrunePlan, done: list[Step], good: Step) -> list[str]:

    notes, last = [*(job.samples.notes if job.samples else [])], done[-1]
    if not plan.structured:
        old, new = job.path.read_bytes(), good.path.read_bytes()
        packed = [len(gzip.compress(data, 6)) / 1e6 for data in (old, new)]
        notes.append(
            f"zeroes save nothing here: the file is as large ({len(new) / 1e6:.2f} MB) and as slow as before, as the "
            f"runtime multiplies by 0 too; packed with gzip it is {packed[1]:.2f} MB instead of {packed[0]:.2f} MB"
        )
    if last.share < 0.95 * steps.share(plan, len(done)):
        notes.append(f"{last.share:.0%} of the {plan.of} could go: of each group of channels some have to stay")
    if good is not last:
        notes.append(f"{last.name} costs more than --max-drop {job.args.max_drop:g}, so {good.name} is kept")
    if job.samples is None:
        notes.append("no --data: nothing was fitted or measured; what the gate says is all that is known of it")
    return notes


def _write(job: Making, plan: PrunePlan, good: Step, report: MakingReport) -> None:
    """The model folder of the good step, which the gate has to take."""
    final = good.path.with_name(job.row.name)
    if final != good.path:
        final.write_bytes(good.path.read_bytes())
    fitted = ", refitted by least squares" if plan.refit else ""
    kind = f"{'structured' if plan.structured else 'unstructured'} by {plan.by}"
    most, has = job.args.max_drop, job.located.manifest.max_drop
    try:
        job.write(
            [(final, "onnx", job.row.precision)],
            f"{kind}, {good.sparsity:.0%} of the weights gone{fitted}",
            report,
            {"sparsity": good.sparsity, f"share_of_{plan.of}": good.share},
            budget=most,
            **({"max_drop": most} if most is not None and most > has else {}),
        )
    except RefusedError as error:
        raise RefusedError(f"{error}; --max-drop says how much you accept") from None
