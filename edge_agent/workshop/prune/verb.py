"""``prune MODEL``: take out weights or whole channels, step by step, and know after each step what it cost.

Structured: channels (and heads of an attention) are really taken out of the ONNX graph, so the file is smaller and
faster. Unstructured: single weights become 0; the file is as large and as slow as before, and the report says so.
After each step what is left is fitted to the parent by least squares on samples; neither labels nor PyTorch are needed.
The steps grow by the cubic schedule of Zhu & Gupta (2017, arXiv 1710.01878): s_t = s · (1 - (1 - t / N)³).
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import ModelError, RefusedError, UsageError
from edge_agent.workshop.arguments import count, share

if TYPE_CHECKING:
    from edge_agent.manifest import File, Served
    from edge_agent.registry.files import Located
    from edge_agent.workshop.data.calibration import Samples, Say
    from edge_agent.workshop.prune.steps import PrunePlan, Step
    from edge_agent.workshop.report.report import MakingReport


FLOAT = ("fp32", "fp16", "unknown")
SECONDS = 8.0
"""for which the parent and the steps are timed against each other"""
CRITERIA = ("magnitude", "reconstruction", "gradient", "gradient-weight")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own arguments; --json, --pull and --threads are those of every verb on a model."""
    parser.add_argument("model", help="name, folder or float .onnx")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pruned model and its report")
    parser.add_argument("--data", type=Path, help="pictures or lines of text to fit and to measure on; `recorded`")
    parser.add_argument("--sparsity", type=share, default=0.3, help="share that goes, 0..1: of what --of says (0.3)")
    parser.add_argument(
        "--of",
        choices=("weights", "multiplications"),
        default="weights",
        help="what --sparsity is a share of: size (default) or work",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--structured", action="store_true", help="whole channels: smaller and faster (default)")
    kind.add_argument("--unstructured", action="store_true", help="single weights: zeroes, no faster here")
    parser.add_argument(
        "--by",
        choices=CRITERIA,
        help="what goes first (channels: reconstruction where there is data; else magnitude); gradients need [train]",
    )
    parser.add_argument("--steps", type=count, default=3, help="in which it is done (3)")
    parser.add_argument("--max-drop", type=share, help="accuracy that may be lost; the last step within it is kept")
    parser.add_argument("--no-refit", action="store_true", help="leave the remaining weights as they are")
    parser.add_argument(
        "--finetune", type=_minutes, metavar="MINUTES", help="after each step, of following the parent (needs [train])"
    )
    parser.add_argument("--most", type=count, default=64, help="samples of --data at most; half are fitted on (64)")


def run(args: argparse.Namespace, say: Say) -> MakingReport:
    """Prune, write the model folder `args.out`, let the gate try it. What was done before an interruption is kept.

    Raises UsageError for arguments, ModelError for what cannot be pruned or stays in no budget, InputError for data,
    RefusedError where the gate takes it not.
    """
    if importlib.util.find_spec("onnx") is None:
        raise UsageError('prune needs the workshop: pip install "edge-agent-runtime[workshop]"')
    from edge_agent.workshop.data import calibration
    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.prune import steps
    from edge_agent.workshop.report import folder

    _check(args)
    folder.check(args.out)
    located, row, path = find(args.model, args.pull)
    parent = score.open_given(located.manifest, row, path, _parts(located), max(1, args.threads))
    graph = steps.read(path)
    samples = calibration.read(args.data, parent, args.most, say) if args.data else None
    plan = _plan(args, samples is not None)
    fitted, held = samples.halves() if samples else (None, None)
    measure = score.against(parent, held) if held else None
    whole = measure(parent) if measure else None
    most = math.inf if args.max_drop is None else args.max_drop
    with folder.work(args.out) as work:
        key = steps.key(row.sha256, samples.sha256 if samples else "", plan)
        done: list[Step] = []
        for step in steps.steps(graph, plan, parent, fitted, work / f"prune-{key}", say):
            if measure and step.accuracy is None:
                step.accuracy = measure(_open(parent, located, step, args.threads))
                steps.remember(step)
            done.append(step)
            if _lost(step, whole) > most:
                break
        good = done if args.max_drop is None else [step for step in done if _lost(step, whole) <= most]
        if not good:
            raise ModelError(
                f"{located.manifest.name}: the first step ({done[0].share:.0%} of the {plan.of}) already costs "
                f"{_lost(done[0], whole):.3f}, more than --max-drop {most:g}; take a lower --sparsity, more --steps or "
                "--data"
            )
        report = _report(args, located, row, parent, graph, samples, held, plan, done, good[-1], whole)
        _write(args, located, row, good[-1], samples, report)
    return report


def _plan(args: argparse.Namespace, sampled: bool) -> PrunePlan:
    from edge_agent.workshop.prune.steps import PrunePlan

    return PrunePlan(
        sparsity=args.sparsity,
        structured=not args.unstructured,
        of=args.of,
        by=args.by or ("reconstruction" if sampled and not args.unstructured else "magnitude"),
        steps=args.steps,
        refit=sampled and not args.no_refit,
        minutes=args.finetune or 0.0,
    )


def find(name: str, pull: bool) -> tuple[Located, File, Path]:
    """The model, its float ONNX file's row, and that file. ModelError where it has none."""
    from edge_agent.gate.read import seen
    from edge_agent.registry import catalogue, files

    located = catalogue.locate(name, pull=pull, read=seen)
    rows = [f for f in located.manifest.networks() if f.format == "onnx" and f.precision in FLOAT]
    if not rows:
        has = ", ".join(f"{f.name} ({f.precision})" for f in located.manifest.networks())
        raise ModelError(f"{located.manifest.name}: has only {has}; this needs a float .onnx, which it was made from")
    row = min(rows, key=lambda f: FLOAT.index(f.precision))
    return located, row, files.file_path(located, row, pull=pull)


def lines(report: MakingReport) -> list[str]:
    """The report for a terminal."""
    from edge_agent.workshop.report import report as report_report

    return report_report.lines(report)


def _check(args: argparse.Namespace) -> None:
    """What argparse cannot say."""
    if not 0 < args.sparsity < 1:
        raise UsageError(f"--sparsity {args.sparsity:g}: give a share above 0 and below 1")
    if args.by in ("gradient", "gradient-weight") or args.finetune:
        option = "--finetune" if args.finetune else f"--by {args.by}"
        if importlib.util.find_spec("torch") is None:
            mend = "leave --finetune out" if args.finetune else "use --by magnitude"
            raise UsageError(f'{option} needs PyTorch: pip install "edge-agent-runtime[train]", or {mend}')
    needing = {
        "--max-drop": args.max_drop is not None,
        "--finetune": args.finetune,
        f"--by {args.by}": args.by not in (None, "magnitude"),
    }
    if not args.data and (wants := [name for name, given in needing.items() if given]):
        raise UsageError(f"{wants[0]} needs samples: --data FOLDER, FILE or `recorded`")
    if args.unstructured and args.by == "reconstruction":
        raise UsageError("--by reconstruction is for channels; single weights go by magnitude or gradients")
    if args.unstructured and args.of == "multiplications":
        raise UsageError("--of multiplications is for channels: a weight of 0 is multiplied like any other")


def _parts(located: Located) -> dict[str, Path]:
    from edge_agent.registry.files import parts_of

    return parts_of(located)


def _open(parent: Served, located: Located, step: Step, threads: int) -> Served:
    from edge_agent.workshop.evaluate import score

    return score.open_file(located.manifest, step.path, "onnx", parent.parts, max(1, threads))


def _lost(step: Step, whole: float | None) -> float:
    """How much accuracy a step costs; 0 where the parent's was not measured."""
    return 0.0 if whole is None else whole - (step.accuracy or 0.0)


def _report(
    args: argparse.Namespace,
    located: Located,
    row: File,
    parent: Served,
    graph: Any,
    samples: Samples | None,
    held: Samples | None,
    plan: PrunePlan,
    done: list[Step],
    good: Step,
    whole: float | None,
) -> MakingReport:
    """Rows a step, plots, and what has to be said about zeroes."""
    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.prune.graph import multiplications
    from edge_agent.workshop.report import plot, report

    times: dict[str, float] = {}
    if held is not None:
        candidates = {"parent": parent} | {step.name: _open(parent, located, step, args.threads) for step in done}
        times = score.times(candidates, held, SECONDS)
    before = multiplications(graph)
    rows = [report.TableRow("parent", row.bytes, whole, times.get("parent"))]
    for step in done:
        size, what = step.path.stat().st_size, f"{step.sparsity:.0%} of the weights gone"
        if plan.structured:
            what += f", {1 - step.multiplications / before:.0%} of the multiplications"
        rows.append(report.TableRow(step.name, size, step.accuracy, times.get(step.name), what, step is good))
    plots = []
    if whole is not None:
        curve = [(0.0, whole), *((100 * step.sparsity, step.accuracy or 0.0) for step in done)]
        plots.append(plot.Plot("Accuracy over sparsity", "% of the weights gone", "accuracy", {plan.by: curve}))
    return report.MakingReport(
        verb="prune",
        model=located.manifest.name,
        measure=score.name_of(parent, held) if held else "not measured",
        settings={
            "sparsity": args.sparsity,
            "of": plan.of,
            "structured": plan.structured,
            "by": plan.by,
            "steps": args.steps,
            "refit": plan.refit,
            "finetune_minutes": plan.minutes,
            "max_drop": args.max_drop,
            "samples": len(samples.items) if samples else 0,
        },
        rows=rows,
        layers=[report.LayerRow(*layer) for layer in good.layers],
        plots=plots,
        notes=_notes(args, located, row, samples, plan, done, good),
        parent_sha256=row.sha256,
        data_sha256=samples.sha256 if samples else "",
        command=_command(args, plan),
    )


def _notes(
    args: argparse.Namespace,
    located: Located,
    row: File,
    samples: Samples | None,
    plan: PrunePlan,
    done: list[Step],
    good: Step,
) -> list[str]:
    from edge_agent.workshop.prune import steps

    notes = [*(samples.notes if samples else []), *(f"{step.name}: {note}" for step in done for note in step.notes)]
    if not plan.structured:
        notes.append(_zeroes(located, row, good))
    if done[-1].share < 0.9 * steps.share(plan, len(done)):
        notes.append(f"{done[-1].share:.0%} of the {plan.of} could go: of each group of channels some have to stay")
    if good is not done[-1]:
        notes.append(f"{done[-1].name} costs more than --max-drop {args.max_drop:g}, so {good.name} is kept")
    if samples is None:
        notes.append("no --data: nothing was fitted or measured; what the gate says is all that is known of it")
    return notes


def _command(args: argparse.Namespace, plan: PrunePlan) -> str:
    how = "--structured" if plan.structured else "--unstructured"
    settings = f"--sparsity {args.sparsity:g} --of {plan.of} --by {plan.by} --steps {args.steps} {how}"
    data = f" --data {args.data}" if args.data else ""
    return f"edge-agent prune {args.model} {settings} --out {args.out}{data}"


def _zeroes(located: Located, row: File, good: Step) -> str:
    """What zeroes are worth, said plainly."""
    from edge_agent.registry import files

    old, new = files.file_path(located, row).read_bytes(), good.path.read_bytes()
    packed = [len(gzip.compress(data, 6)) / 1e6 for data in (old, new)]
    return (
        f"zeroes save nothing here: the file is as large ({len(new) / 1e6:.2f} MB) and as slow as before, since the "
        f"runtime multiplies by 0 too; packed with gzip it is {packed[1]:.2f} MB instead of {packed[0]:.2f} MB"
    )


def _write(
    args: argparse.Namespace, located: Located, row: File, good: Step, samples: Samples | None, report: MakingReport
) -> None:
    from edge_agent.manifest import Made
    from edge_agent.workshop.report import folder

    known = {
        "sparsity": good.sparsity,
        f"share_of_{report.settings['of']}": good.share,
        "accuracy": good.accuracy,
        "parent_accuracy": report.rows[0].accuracy,
    }
    chosen = next(r for r in report.rows if r.chosen)
    known |= {"median_ms": chosen.median_ms, "parent_median_ms": report.rows[0].median_ms}
    made = Made(
        verb="prune",
        method=f"{'structured' if report.settings['structured'] else 'unstructured'} by {report.settings['by']}, "
        f"{good.sparsity:.0%} of the weights gone"
        + (", refitted by least squares" if report.settings["refit"] else "")
        + (f", {args.finetune:g} min of fine-tuning a step" if args.finetune else ""),
        parent=f"{located.manifest.name} {located.manifest.version}",
        parent_sha256=row.sha256,
        data_sha256=samples.sha256 if samples else "",
        figures={name: value for name, value in known.items() if value is not None},
    )
    final = good.path.with_name(row.name)
    if final != good.path:
        final.write_bytes(good.path.read_bytes())
    changes = {}
    if args.max_drop is not None and args.max_drop > located.manifest.max_drop:
        changes["max_drop"] = args.max_drop
    try:
        folder.write(args.out, located, [(final, "onnx", row.precision)], made, report, **changes)
    except RefusedError as error:
        raise RefusedError(f"{error}; --max-drop says how much you accept") from None


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e5:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of minutes above 0')
    return value
