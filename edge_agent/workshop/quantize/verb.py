"""``quantize MODEL --data CALIBRATION --out DIR``: fewer bits, with what they cost measured and the gate asked.

One plan as the options say, or with --auto the plan that keeps the fewest layers in float within a budget of accuracy.
Ranges come from one half of the samples, what is reported from the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import InputError, ModelError, RefusedError, UsageError
from edge_agent.workshop.arguments import share

if TYPE_CHECKING:
    from edge_agent.manifest import File, Served
    from edge_agent.registry.files import Located
    from edge_agent.workshop.data.calibration import Samples
    from edge_agent.workshop.quantize.build import QuantizePlan
    from edge_agent.workshop.quantize.contents import Contents
    from edge_agent.workshop.quantize.report import QuantizeJob
    from edge_agent.workshop.quantize.search import SearchResult, Tool
    from edge_agent.workshop.report.report import MakingReport


Say = Callable[[str, int, int], None]

METHODS = ("max", "mean", "full", "average", "percentile", "entropy", "mse")
FLOAT = ("fp32", "unknown", "fp16", "int8-weights")
"""precisions of what computes in float, the best parent first"""
SECONDS = 6.0
"""for which the files are timed against each other"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own arguments; --json, --pull and --threads are those of every verb on a model."""
    parser.add_argument("model", help="name, folder, float .onnx or .tflite")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of pictures, video, lines of text; `recorded`: HOME/samples"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the new model and its report")
    parser.add_argument("--target", choices=("onnx", "tflite"), help="format (that of the float file; onnx)")
    parser.add_argument("--method", choices=METHODS, help="how activations get their ranges (percentile)")
    parser.add_argument("--bits", choices=("8", "16", "4w"), default="8", help="16: activations; 4w: weights of text")
    parser.add_argument("--per", choices=("tensor", "channel"), default="channel", help="scales of weights (channel)")
    parser.add_argument(
        "--form",
        choices=("static", "dynamic", "weights", "float16"),
        help="ranges from data, from each run, only weights, half floats (static; text: dynamic)",
    )
    parser.add_argument("--auto", action="store_true", help="find what must stay float, within --max-drop")
    parser.add_argument("--max-drop", type=share, default=0.01, help="accuracy that --auto may lose (0.01)")
    parser.add_argument("--keep", nargs="+", default=[], metavar="NODE", help="nodes that stay float")
    parser.add_argument("--most", type=_count, default=96, help="samples of --data at most, spread evenly (96)")
    parser.add_argument("--evaluate", type=Path, metavar="DATA", help="report on this (labelled) data instead")


def run(args: argparse.Namespace, say: Say) -> MakingReport:
    """Quantize, write the model folder `args.out`, let the gate try it. What an interrupted search measured is kept.

    Raises UsageError for arguments, ModelError for what cannot be quantized, InputError for data, RefusedError where
    the gate does not take it.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise UsageError(f'quantize needs the workshop: pip install "edge-agent-runtime[workshop]" ({error})') from None
    from edge_agent.workshop.quantize import tools
    from edge_agent.workshop.report import folder

    _check(args)
    folder.check(args.out)
    job = _job(args, say)
    with folder.work(args.out) as work:
        tool = _tool(job, work, say)
        found = _searched(job, tool, work, say) if args.auto else None
        plan = found.plan if found else tools.default(tool.parts, _settings(args))[0][0]
        try:
            return _written(job, tool, plan, found, work, say)
        except RefusedError as error:
            if args.auto or plan.form not in ("static", "dynamic") or plan.bits == "4w" or "--auto" in str(error):
                raise
            raise RefusedError(f"{error}; --auto finds what has to stay in float") from None


def _job(args: argparse.Namespace, say: Say) -> QuantizeJob:
    """The model and the samples of the arguments."""
    from edge_agent.registry.files import parts_of
    from edge_agent.workshop.data import calibration
    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.quantize.report import QuantizeJob

    located, row, path = find(args.model, args.target, args.pull)
    parent = score.open_given(located.manifest, row, path, parts_of(located), max(1, args.threads))
    samples = calibration.read(args.data, parent, args.most, say)
    searched, reported = samples.halves()
    if args.evaluate is not None:
        reported = _apart(args.evaluate, calibration.read(args.evaluate, parent, 10**6, say), samples)
    judge = score.against(parent, reported)
    return QuantizeJob(args, located, row, path, parent, samples, searched, reported, judge)


def _tool(job: QuantizeJob, work: Path, say: Say) -> Tool:
    """What makes files of the job's model."""
    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.quantize import tools
    from edge_agent.workshop.quantize.ranges import HISTOGRAMS

    target, parts, threads = job.row.format, job.parent.parts, max(1, job.args.threads)

    def serve(file: Path) -> Served:
        return score.open_file(job.located.manifest, file, target, parts, threads)

    histograms = job.args.auto or job.args.method in (None, *HISTOGRAMS)
    opened = tools.opener(work, serve, target)
    return tools.TOOLS[target](job.path, job.parent, job.searched, histograms, opened, say)


def _written(
    job: QuantizeJob, tool: Tool, plan: QuantizePlan, found: SearchResult | None, work: Path, say: Say
) -> MakingReport:
    """Make the file of the plan, measure it, and write the model folder. RefusedError where it is not taken."""
    from edge_agent.workshop.quantize import report, tools

    say("writing", 0, 1)
    data = tool.make(plan)
    tools.refuse_unsound(tool.open(data), job.parent, job.searched)
    precision = _held(tool.contents(data), plan)
    result = work / f"model.{precision}.{job.row.format}"
    result.write_bytes(data)
    made = report.measured(job, tool, plan, found, data, SECONDS)
    say("writing", 1, 1)
    report.write(job, result, precision, plan, made)
    return made


def _held(contents: Contents, plan: QuantizePlan) -> str:
    """The precision of the file, as the manifest names it. RefusedError where nothing in it is as the plan meant."""
    found = contents.precision
    if plan.form != "float16" and not contents.quantized:
        raise RefusedError(
            f"{plan.text()}: nothing in the file that came of it is quantized ({contents.text()}); try another --form"
        )
    return found


def lines(report: MakingReport) -> list[str]:
    """The report for a terminal."""
    from edge_agent.workshop.report import report as report_report

    return report_report.lines(report)


def find(name: str, format: str | None, pull: bool) -> tuple[Located, File, Path]:
    """The model, the row of its float file of that format (None: ONNX, else TFLite), and that file.

    ModelError where it has none.
    """
    from edge_agent.gate.read import seen
    from edge_agent.registry import catalogue
    from edge_agent.registry.files import file_path

    located = catalogue.locate(name, pull=pull, read=seen)
    rows = [row for row in located.manifest.networks() if row.format in (format or row.format)]
    rows = [row for row in rows if row.precision in FLOAT]
    if not rows:
        has = ", ".join(f"{row.name} ({row.precision})" for row in located.manifest.networks())
        hint = (
            "make one with `edge-agent graph --tflite`"
            if format == "tflite"
            else "give the model that it was made from"
        )
        raise ModelError(
            f"{located.manifest.name}: no float .{format or 'onnx'} file to start from, it has {has}; {hint}"
        )
    row = min(rows, key=lambda row: (row.format != "onnx", FLOAT.index(row.precision)))
    return located, row, file_path(located, row, pull=pull)


def _check(args: argparse.Namespace) -> None:
    """What argparse cannot say."""
    if args.bits == "16" and args.form not in (None, "static"):
        raise UsageError(f"--bits 16 is for activations with ranges from data: not for --form {args.form}")
    if args.bits == "4w" and args.form not in (None, "weights"):
        raise UsageError(f"--bits 4w is for weights alone: not for --form {args.form}")
    if args.method and args.form not in (None, "static"):
        raise UsageError(f"--method is for ranges from data: not for --form {args.form}")
    if args.auto and (args.bits == "4w" or args.form in ("weights", "float16")):
        raise UsageError("--auto looks for layers that int8 activations hurt; 4w, weights and float16 leave them alone")


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options as fields of a plan; None for what was left open."""
    form = args.form or ("weights" if args.bits == "4w" else "static" if args.method else None)
    return {"form": form, "bits": args.bits, "per": args.per, "keep": tuple(args.keep), "method": args.method}


def _apart(data: Path, test: Samples, samples: Samples) -> Samples:
    """InputError where the samples to be tested on were calibrated on."""
    from edge_agent.workshop.data.calibration import shared_with

    both = shared_with(test, samples)
    if both:
        raise InputError(
            f"--evaluate {data}: {len(both)} of its samples are calibration data too (or look the same), the first is "
            f"{both[0]}; a figure on them says nothing, so take them out of either"
        )
    return test


def _searched(job: QuantizeJob, tool: Tool, work: Path, say: Say) -> SearchResult:
    """The best plan of --auto. Of forms that meet the budget, the fastest."""
    import msgspec

    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.quantize import search, tools

    args, parent, searched = job.args, job.parent, job.searched
    measure = score.against(parent, searched)
    whole = measure(parent)
    far = search.distance(parent, searched)
    memory = search.Memory(work, [job.row.sha256, searched.sha256, job.row.format, str(args.threads)])
    found = []
    for bases in tools.default(tool.parts, _settings(args)):
        if bases[0].form == "static" and tool.balances():
            bases = [*bases, *(msgspec.structs.replace(plan, balanced=True) for plan in bases)]
        found.append(search.search(tool, bases, measure, whole - args.max_drop, far, memory, say))
    good = [one for one in found if one.within]
    if len(good) < 2:
        return good[0] if good else max(found, key=lambda one: one.score)
    candidates = {str(place): tool.open(tool.make(one.plan)) for place, one in enumerate(good)}
    took = score.times(candidates, searched, SECONDS / 2)
    return good[int(min(took, key=lambda place: took[place]))]


def _count(text: str) -> int:
    if not text.isdigit() or not 4 <= int(text) < 10**6:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of samples from 4 on')
    return int(text)
