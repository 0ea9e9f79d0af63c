"""``prune MODEL``: take out weights or whole channels, step by step, and know after each step what it cost.

Structured: channels (and heads of an attention) are really taken out of the ONNX graph, so the file is smaller and
faster. Unstructured: single weights become 0; the file is as large and as slow as before, and the report says so.
After each step what is left is fitted to the parent by least squares on samples; neither labels nor PyTorch are needed.
The steps grow by the cubic schedule of Zhu & Gupta (2017, arXiv 1710.01878): s_t = s · (1 - (1 - t / N)³).
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.errors import ModelError, UsageError
from edge_agent.workshop.arguments import count, share

if TYPE_CHECKING:
    from edge_agent.manifest import File
    from edge_agent.registry.files import Located
    from edge_agent.workshop.data.calibration import Say
    from edge_agent.workshop.prune.steps import PrunePlan
    from edge_agent.workshop.report.report import MakingReport


FLOAT = ("fp32", "fp16", "unknown")
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
    from edge_agent.workshop.prune import report, steps
    from edge_agent.workshop.report import folder

    _check(args)
    folder.check(args.out)
    located, row, path = find(args.model, args.pull)
    parent = score.open_given(located.manifest, row, path, _parts(located), max(1, args.threads))
    graph = steps.read(path)
    samples = calibration.read(args.data, parent, args.most, say) if args.data else None
    fitted, held = samples.halves() if samples else (None, None)
    plan = _plan(args, fits=samples is not None)
    done = report.Pruning(args, located, row, parent, graph, plan, samples, held)
    with folder.work(args.out) as work:
        place = work / f"prune-{steps.key(row.sha256, samples.sha256 if samples else '', plan)}"
        for step in steps.steps(graph, plan, parent, fitted, place, say):
            done.measure(step)
            if done.is_too_dear(step):
                break
        made = report.report(done)
        report.write(done, made)
    return made


def _plan(args: argparse.Namespace, fits: bool) -> PrunePlan:
    """`fits`: whether there are samples to fit on."""
    from edge_agent.workshop.prune.steps import PrunePlan

    return PrunePlan(
        sparsity=args.sparsity,
        structured=not args.unstructured,
        of=args.of,
        by=args.by or ("reconstruction" if fits and not args.unstructured else "magnitude"),
        steps=args.steps,
        refit=fits and not args.no_refit,
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
        _check_torch(args)
    wants = {
        "--max-drop": args.max_drop is not None,
        "--finetune": args.finetune,
        f"--by {args.by}": args.by not in (None, "magnitude"),
    }
    option = next((name for name, given in wants.items() if given), "")
    if option and not args.data:
        raise UsageError(f"{option} needs samples: --data FOLDER, FILE or `recorded`")
    if args.unstructured:
        _check_unstructured(args)


def _check_unstructured(args: argparse.Namespace) -> None:
    """UsageError for options that are for channels."""
    if args.by == "reconstruction":
        raise UsageError("--by reconstruction is for channels; single weights go by magnitude or gradients")
    if args.of == "multiplications":
        raise UsageError("--of multiplications is for channels: a weight of 0 is multiplied like any other")


def _check_torch(args: argparse.Namespace) -> None:
    """UsageError where what was asked for needs PyTorch and it is not here."""
    if importlib.util.find_spec("torch") is None:
        option = "--finetune" if args.finetune else f"--by {args.by}"
        mend = "leave --finetune out" if args.finetune else "use --by magnitude"
        raise UsageError(f'{option} needs PyTorch: pip install "edge-agent-runtime[train]", or {mend}')


def _parts(located: Located) -> dict[str, Path]:
    from edge_agent.registry.files import parts_of

    return parts_of(located)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e5:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of minutes above 0')
    return value
