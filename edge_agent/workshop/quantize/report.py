"""What quantization reports and writes down: its files next to the parent, what each layer costs, how it was made."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent.manifest import File, Made, Served
from edge_agent.registry.files import Located
from edge_agent.workshop.data.calibration import Samples
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.evaluate.score import Measure
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.quantize.search import SearchResult, Tool
from edge_agent.workshop.report import folder
from edge_agent.workshop.report.plot import Plot
from edge_agent.workshop.report.report import LayerRow, MakingReport, TableRow


@dataclass(frozen=True, slots=True)
class QuantizeJob:
    """What is quantized, and on what."""

    args: argparse.Namespace
    located: Located
    row: File
    """of the float file, which lies at `path`"""
    path: Path
    parent: Served
    samples: Samples
    searched: Samples
    """the half that ranges and plans come from"""
    reported: Samples
    """what is measured on in the end"""
    judge: Measure


def measured(
    job: QuantizeJob, tool: Tool, plan: QuantizePlan, found: SearchResult | None, data: bytes, seconds: float
) -> MakingReport:
    """All that was measured, on the half (or the data) that nothing was searched on. `data`: the file of the plan."""
    rows = _rows(job, tool, plan, found, data, seconds)
    settings = {"plan": plan.text(), "target": job.row.format, "auto": job.args.auto, "max_drop": job.args.max_drop}
    return MakingReport(
        verb="quantize",
        model=job.located.manifest.name,
        measure=score.name_of(job.parent, job.reported),
        settings={**settings, "keep": list(plan.keep)},
        rows=rows,
        layers=[] if found is None else _layers(tool, found),
        plots=[] if found is None else [_plot(found)],
        notes=[f"in the file: {tool.contents(data).text()}", *_told(job, found, rows)],
        parent_sha256=job.row.sha256,
        data_sha256=job.samples.sha256,
    )


def _rows(
    job: QuantizeJob, tool: Tool, plan: QuantizePlan, found: SearchResult | None, data: bytes, seconds: float
) -> list[TableRow]:
    """The parent, the plan without kept layers where the search kept some, and the chosen file."""
    files = {job.row.name: (job.path.stat().st_size, job.parent, "the parent, float")}
    if found is not None and found.kept:
        plain = tool.make(msgspec.structs.replace(plan, keep=tuple(job.args.keep)))
        files["nothing kept"] = (len(plain), tool.open(plain), "every layer quantized")
    contents = tool.contents(data)
    kept = f"{floats} of {len(contents.layers)} layers in float" if (floats := contents.floats) else ""
    name = f"{contents.precision} {job.row.format}"
    files[name] = (len(data), tool.open(data), "; ".join(filter(None, [plan.text(), kept])))
    took = score.times({key: model for key, (_, model, _) in files.items()}, job.reported, seconds)
    return [
        TableRow(key, size, job.judge(model), took[key], note, chosen=key == name)
        for key, (size, model, note) in files.items()
    ]


def _layers(tool: Tool, found: SearchResult) -> list[LayerRow]:
    return [LayerRow(part.name, part.op, found.costs[part.name], part.name in found.kept) for part in tool.parts]


def _plot(found: SearchResult) -> Plot:
    ladder = [(float(count), score) for count, score in found.ladder]
    return Plot("Accuracy over layers kept", "layers in float", "accuracy", {"searched half": ladder})


def _told(job: QuantizeJob, found: SearchResult | None, rows: list[TableRow]) -> list[str]:
    """What a reader should know beside the table."""
    samples, count = job.samples, len(job.searched.items)
    told = [f"calibrated on {count} samples of {samples.source}, measured on {len(job.reported.items)} others"]
    told += samples.notes
    if found is not None:
        lost = (rows[0].accuracy or 0.0) - (rows[-1].accuracy or 0.0)
        met = "within" if found.within else "the best found, but no plan stays within"
        told.append(
            f"search: {found.score:.4f} on its samples, {met} the budget of {job.args.max_drop:g}; on the others it "
            f"loses {lost:.4f}"
        )
        told += [f"kept in float: {', '.join(found.kept)}"] if found.kept else []
    return told


def write(job: QuantizeJob, result: Path, precision: str, plan: QuantizePlan, report: MakingReport) -> None:
    """The model folder with the file `result`, how it was made, and the report. RefusedError where the gate says no."""
    first, last = report.rows[0], report.rows[-1]
    figures = {
        "accuracy": last.accuracy,
        "parent_accuracy": first.accuracy,
        "median_ms": last.median_ms,
        "parent_ms": first.median_ms,
    }
    manifest, args = job.located.manifest, job.args
    made = Made(
        verb="quantize",
        method=f"{plan.text()}; {report.measure}",
        parent=f"{manifest.name} {manifest.version}",
        parent_sha256=job.row.sha256,
        data_sha256=job.samples.sha256,
        figures={key: value for key, value in figures.items() if value is not None},
    )
    changes = {"max_drop": max(manifest.max_drop, args.max_drop)} if args.auto else {}
    folder.write(args.out, job.located, [(result, job.row.format, precision)], made, report, **changes)
