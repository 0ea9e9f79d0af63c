"""What the verbs that make a model have in common: the model, its parent opened, samples in parts, rows, a folder."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import ModelError, RefusedError
from edge_agent.figures.interval import Figure, difference, interval
from edge_agent.gate.admit import prove
from edge_agent.gate.read import seen
from edge_agent.manifest import File, Made, Manifest, Served
from edge_agent.registry import catalogue
from edge_agent.registry.files import Located, file_path, parts_of
from edge_agent.tasks.proofs import Measure
from edge_agent.workshop.data import calibration
from edge_agent.workshop.data.calibration import Samples, Say
from edge_agent.workshop.data.look import groups, look
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.report import folder
from edge_agent.workshop.report.report import MakingReport, TableRow, save

FLOAT = ("fp32", "unknown", "fp16", "int8-weights")
"""precisions of what computes in float, the best parent first"""
SECONDS = 6.0
"""for which files are timed against each other"""


@dataclass(slots=True)
class Making:
    """One run of a verb."""

    args: argparse.Namespace
    located: Located
    row: File
    """of the parent's file, which lies at `path`"""
    path: Path
    parent: Served
    samples: Samples | None = None
    """all of --data; None: nothing is measured"""
    calibrate: Samples | None = None
    """those that weights and ranges come from"""
    search: Samples | None = None
    """those that a plan is chosen by"""
    report: Samples | None = None
    """those that nothing came from: what is told is measured on them"""
    judge: Measure | None = None
    """on those of the report"""
    others: Callable[[Any], Future[Any]] | None = None
    """workers that are asked for points of the search; None: there are none"""

    def read(self, data: Path, most: int, say: Say) -> None:
        """Take the samples of --data, in parts."""
        self.samples = calibration.read(data, self.parent, most, say)
        self.calibrate, self.search, self.report = calibration.parts(self.samples)
        self.report_on(self.report)

    def report_on(self, samples: Samples) -> None:
        """Measure what is told on these."""
        self.report, self.judge = samples, score.against(self.parent, samples)

    def part(self, name: str) -> Samples:
        """One of the parts, where there is --data."""
        found = getattr(self, name)
        assert isinstance(found, Samples)
        return found

    def serve(self, file: Path) -> Served:
        """A candidate of the parent's format."""
        threads = max(1, self.args.threads)
        return score.open_file(self.located.manifest, file, self.row.format, self.parent.parts, threads)

    def rows(self, files: Mapping[str, tuple[int, Served, str]], chosen: str) -> list[TableRow]:
        """A row a file (name -> bytes, model, note): accuracy on the report's samples, time in turns."""
        models = {name: model for name, (_, model, _) in files.items()}
        took = score.times(models, self.report, SECONDS) if self.report else {}
        figures = [self.judge(model) for model in models.values()] if self.judge else []
        rows = [TableRow(n, size, None, took.get(n), note, chosen=n == chosen) for n, (size, _, note) in files.items()]
        if not figures:
            return rows
        return [self.measured(row, one, figures[0]) for row, one in zip(rows, figures, strict=True)]

    def measured(self, row: TableRow, mine: Figure, first: Figure) -> TableRow:
        """With the figure of the report's samples, how far it may be off, and so the difference to the first."""
        drawn = groups([look(item) for item in self.part("report").items])
        change = None if mine is first else difference(mine, first, drawn)
        return replace(row, accuracy=float(mine), interval=interval(mine, drawn), change=change)

    def told(self, rows: list[TableRow], settings: dict[str, Any], **more: Any) -> MakingReport:
        """The report, with what is the same for all verbs filled in."""
        measured = self.report
        return MakingReport(
            verb=self.args.verb,
            model=self.located.manifest.name,
            measure=score.name_of(self.parent, measured) if measured else "not measured",
            settings=settings,
            rows=rows,
            parent_sha256=self.row.sha256,
            data_sha256=self.samples.sha256 if self.samples else "",
            **more,
        )

    def write(
        self,
        files: Sequence[tuple[Path, str, str]],
        method: str,
        report: MakingReport,
        figures: Mapping[str, float] = {},
        layouts: Mapping[str, Any] = {},
        budget: float | None = None,
        **changes: Any,
    ) -> Manifest:
        """The model folder --out of these (path, format, precision), the first one preferred, how they were made, and
        the report.

        `budget`: accuracy that may be lost on the report's samples; `layouts`: file name -> how it takes its picture,
        where that is not as the parent's file of that format does it. The manifest is the parent's but for `changes`
        (as score, input); vocabulary and tokenizer are copied. RefusedError where the budget is not kept, or the gate
        says no.
        """
        first, last = report.rows[0], next((row for row in report.rows if row.chosen), report.rows[-1])
        self._check(first, last, report, budget)
        found = {
            **figures,
            "accuracy": last.accuracy,
            "parent_accuracy": first.accuracy,
            "median_ms": last.median_ms,
            "parent_ms": first.median_ms,
        }
        manifest = self.located.manifest
        made = Made(
            verb=report.verb,
            method=method,
            parent=f"{manifest.name} {manifest.version}",
            parent_sha256=self.row.sha256,
            data_sha256=report.data_sha256,
            figures={key: round(one, 6) for key, one in found.items() if one is not None and math.isfinite(one)},
        )

        def build(new: Path) -> Manifest:
            given: dict[str, Any] = {"name": f"{manifest.name}-made"[:64], "made": made}
            given |= {
                "file": folder.copied(files, self.located, new, layouts),
                "parent": folder.reference(self.located),
            }
            return msgspec.structs.replace(manifest, **given, **changes)

        return folder.write(self.args.out, build, report)

    def _check(self, first: TableRow, last: TableRow, report: MakingReport, budget: float | None) -> None:
        """RefusedError where the last row loses more of the first one's accuracy than the budget; the report stays."""
        lost = (first.accuracy or 0.0) - (last.accuracy or 0.0)
        if budget is not None and lost > budget + 1e-9:
            told = f"{last.name} loses {lost:.3f} on the report's samples, more than the budget of {budget:g}"
            report.notes.append(f"not taken: {told}")
            save(report, self.args.out / folder.WORK)
            raise RefusedError(f"{told}; no model was written, see {self.args.out / folder.WORK / 'report.html'}")


FEW = 20
"""samples below which an interval says too little to choose by"""


def sure(mine: Figure, theirs: Figure) -> float:
    """How much `mine` is more than `theirs` at least: half way to the lower end of the difference's interval, which is
    about a standard error below it (the rule of Breiman et al. 1984, section 3.4.3), and of what is the same on each
    sample nothing. The plain difference of fewer than FEW samples.
    """
    plain = float(mine) - float(theirs)
    low, even = difference(mine, theirs).low, difference(theirs, theirs).low
    known = mine.count >= FEW and math.isfinite(low - even)
    return min(plain, (plain + low - even) / 2) if known else plain


def start(
    args: argparse.Namespace, verb: str, format: str | None = "onnx", precisions: Sequence[str] = FLOAT
) -> Making:
    """The model that a verb was given, opened. UsageError for --out, ModelError for no such file, RefusedError for one
    that does not prove itself.
    """
    args.verb = verb
    folder.check(args.out)
    located, row, path = find(args.model, format, args.pull, precisions)
    parts = parts_of(located)
    prove(located.manifest, row, path, parts)
    parent = score.open_file(located.manifest, path, row.format, parts, max(1, args.threads))
    return Making(args, located, row, path, parent)


def find(name: str, format: str | None, pull: bool, precisions: Sequence[str] = FLOAT) -> tuple[Located, File, Path]:
    """The model, the row of its float file of that format (None: ONNX, else TFLite), and that file.

    ModelError where it has none.
    """
    located = catalogue.locate(name, pull=pull, read=seen)
    networks = located.manifest.networks()
    rows = [row for row in networks if row.format in (format or row.format) and row.precision in precisions]
    if not rows:
        has = ", ".join(f"{row.name} ({row.precision})" for row in networks)
        other = (
            "make one with `edge-agent graph --tflite`"
            if format == "tflite"
            else "give the model that it was made from"
        )
        raise ModelError(
            f"{located.manifest.name}: no float .{format or 'onnx'} file to start from, it has {has}; {other}"
        )
    row = min(rows, key=lambda row: (row.format != "onnx", precisions.index(row.precision)))
    return located, row, file_path(located, row, pull=pull)
