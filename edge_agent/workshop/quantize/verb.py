"""``quantize MODEL --data CALIBRATION --out DIR``: fewer bits, with what they cost measured and the gate asked.

One plan as the options say, or with --auto the plan that keeps the fewest layers in float within a budget of accuracy.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import InputError, ModelError, RefusedError, UsageError
from edge_agent.workshop import making, workers
from edge_agent.workshop.data import calibration
from edge_agent.workshop.data.calibration import Say
from edge_agent.workshop.making import Making
from edge_agent.workshop.quantize import auto, tools, without
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.quantize.search import SearchResult, Tool, distance, tried
from edge_agent.workshop.report import folder
from edge_agent.workshop.report.plot import Plot
from edge_agent.workshop.report.report import LayerRow, MakingReport


def run(args: argparse.Namespace, say: Say) -> MakingReport:
    """Quantize, write the model folder `args.out`, let the gate try it. What an interrupted search measured is kept.

    Raises UsageError for arguments, ModelError for what cannot be quantized, InputError for data, RefusedError where
    the gate does not take it.
    """
    settings, job = _settings(args), _started(args, say)
    if args.evaluate is not None:
        _evaluate_on(job, args.evaluate, say)
    with folder.work(args.out) as work, workers.crew(args.workers if args.auto else "1") as crew:
        tool = tools.tool_for(job.row.format, job.path, job.parent, job.part("calibrate"), work, job.serve, say)
        if crew is not None:
            job.others = functools.partial(workers.ask, crew, distances, argparse.Namespace(**vars(args)))
        # with a layer its group, as its Sigmoid in int8 may cost most
        inside = {part.name: part.keep for part in tool.parts}
        kept = dict.fromkeys(node for name in args.keep for node in inside.get(name, (name,)))
        args.keep = settings["keep"] = tuple(kept)
        best = auto.unmeasured if _made(args) else auto.best
        found = best(job, tool, settings, work, say) if args.auto else None
        plan = found.plan if found else tools.default(tool.parts, settings)
        return _written(job, tool, plan, found, work, say)


def _made(args: argparse.Namespace) -> bool:
    """Whether samples are made here."""
    return str(args.data) == without.NONE and not args.data.exists()


def _started(args: argparse.Namespace, say: Say) -> Making:
    """The parent, and its samples."""
    job = making.start(args, "quantize", args.target)
    if _made(args):
        # there are none to report on, unless --evaluate names some
        job.samples = job.calibrate = job.search = without.samples_without_data(job.parent, args.most)
    else:
        job.read(args.data, args.most, say)
    return job


def distances(args: argparse.Namespace) -> Callable[[QuantizePlan], float]:
    """In a worker: how far the outputs of a plan's file are from the parent's, as `tried` has it."""
    job, place = _started(args, lambda *_: None), tempfile.TemporaryDirectory()
    calibrate, work, far = job.part("calibrate"), Path(place.name), distance(job.parent, job.part("search"))
    tool = tools.tool_for(job.row.format, job.path, job.parent, calibrate, work, job.serve, lambda *_: None)
    return lambda plan, keep=place: tried(tool, plan, far)  # type: ignore[misc]


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options as fields of a plan; None for what was left open."""
    form = args.form or "static"
    _check(args, form)
    return {"form": form if args.method else args.form, "bits": args.bits, "keep": (), "method": args.method}


def _check(args: argparse.Namespace, form: str) -> None:
    """UsageError for what argparse cannot refuse."""
    integers = form in ("static", "dynamic")
    if args.bits == "7w" and not integers:
        raise UsageError(f"--bits 7w is for products of int8: not for --form {form}")
    if (args.bits, args.target) == ("7w", "tflite"):
        raise UsageError("--bits 7w is for ONNX files: products of TFLite do not saturate")
    if args.method and form != "static":
        raise UsageError(f"--method is for ranges from data: not for --form {form}")
    if args.auto and not integers:
        raise UsageError("--auto looks for layers that int8 activations hurt; weights and float16 leave them alone")


def _evaluate_on(job: Making, data: Path, say: Say) -> None:
    """Report on other samples. InputError where some of them were calibrated on."""

    test = calibration.read(data, job.parent, 10**6, say)
    assert job.samples is not None
    if both := calibration.shared_with(test, job.samples):
        raise InputError(
            f"--evaluate {data}: {len(both)} of its samples are calibration data too (or look the same), the first is "
            f"{both[0]}; a figure on them says nothing, so take them out of either"
        )
    job.report_on(test)


def _written(
    job: Making, tool: Tool, plan: QuantizePlan, found: SearchResult | None, work: Path, say: Say
) -> MakingReport:
    """Make the file of the plan, measure it, and write the model folder. RefusedError where it is not taken."""
    say("writing", 0, 1)
    data, auto = tool.make(plan), job.args.auto
    contents = tool.contents(data)
    if plan.form != "float16" and not contents.quantized:
        raise RefusedError(
            f"{plan.text()}: nothing in the file that came of it is quantized ({contents.text()}); try another --form"
        )
    try:
        result = work / f"model.{contents.precision}.{job.row.format}"
        result.write_bytes(data)
        report = _report(job, tool, plan, found, data)
        say("writing", 1, 1)
        # another budget than the gate's, where the user gave one
        drop = {"max_drop": max(job.located.manifest.max_drop, job.args.max_drop)} if auto else {}
        budget, files = job.args.max_drop if auto else None, [(result, job.row.format, contents.precision)]
        job.write(files, f"{plan.text()}; {report.measure}", report, budget=budget, **drop)
        return report
    except (RefusedError, ModelError, InputError) as error:  # InputError: what it gives are no numbers
        why = error if isinstance(error, RefusedError) else f"the quantized network is of no use: {error}"
        raise RefusedError(f"{why}; {tools.cause(tool, plan, job.parent, job.part('calibrate'), auto)}") from None


def _report(job: Making, tool: Tool, plan: QuantizePlan, found: SearchResult | None, data: bytes) -> MakingReport:
    """All that was measured, on the samples that nothing was searched on: the parent, the plan without kept layers
    where the search kept some, and the file of the plan, `data`.
    """
    args, contents = job.args, tool.contents(data)
    files = {job.row.name: (job.path.stat().st_size, job.parent, "the parent, float")}
    if found is not None and found.kept:
        plain = tool.make(msgspec.structs.replace(plan, keep=args.keep))
        files["nothing kept"] = (len(plain), tool.open(plain), "every layer quantized")
    kept = f"{floats} of {len(contents.layers)} layers in float" if (floats := contents.floats) else ""
    name = f"{contents.precision} {job.row.format}"
    files[name] = (len(data), tool.open(data), "; ".join(filter(None, [plan.text(), kept])))
    layers, plots = [], []
    if found is not None:
        layers = [LayerRow(part.name, part.op, found.costs[part.name], part.name in found.kept) for part in tool.parts]
    if found is not None and found.ladder:
        ladder = {"samples searched on": [(float(count), score) for count, score in found.ladder]}
        plots = [Plot("Accuracy over layers kept", "layers in float", "accuracy", ladder)]
    settings = {"plan": plan.text(), "target": job.row.format, "auto": args.auto, "max_drop": args.max_drop}
    settings |= {"for": args.cpu, "keep": list(plan.keep)}
    notes = [f"in the file: {contents.text()}", *_told(job, plan, found)]
    return job.told(job.rows(files, name), settings, layers=layers, plots=plots, notes=notes)


EXACT = (
    "x86 with VNNI and Arm: as measured; x86 without VNNI: the same answers by exact products, which are slower; "
    "weights of 7 bits (--bits 7w) are fast there, too"
)
NEVER = "no product of it can saturate: the same answers by the fast way on x86 with and without VNNI and on Arm"
UNMEASURED = "nothing is measured on them: give real ones with --evaluate DATA"


def _told(job: Making, plan: QuantizePlan, found: SearchResult | None) -> list[str]:
    """What a reader should know beside the table."""
    samples = job.part("samples")
    told = UNMEASURED if job.report is None else f"measured on {len(job.report.items)} others"
    notes = [f"calibrated on {len(job.part('calibrate').items)} samples: {samples.source}; {told}", *samples.notes]
    notes += _of_search(found, job.args.max_drop) if found else []
    if job.row.format == "onnx" and plan.form in ("static", "dynamic"):
        notes.append(NEVER if plan.bits == "7w" else EXACT)
    return notes


def _of_search(found: SearchResult, budget: float) -> list[str]:
    """What the search came to."""
    kept = ", ".join(found.kept)
    if not found.ladder:
        return [f"kept in float by what layers cost alone: {kept or 'none'}"]
    within = "within" if found.within else "not within"
    told = [f"search: {found.score:.4f} on its samples, {within} the budget of {budget:g}"]
    return [*told, f"kept in float: {kept}"] if kept else told
