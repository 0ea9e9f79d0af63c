"""``tune MODEL``: the input size, variant and score threshold that do best at a given time a sample here.

Sizes and variants are searched on one part of the samples and reported on another, all timed in turns on this device.
What does worse there than what serves now is not written.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import ModelError, RefusedError
from edge_agent.figures.interval import difference, interval
from edge_agent.gate.admit import prove
from edge_agent.gate.read import seen
from edge_agent.manifest import File, Input, Manifest
from edge_agent.registry import catalogue
from edge_agent.registry.files import Located, file_path, is_here, parts_of
from edge_agent.workshop import workers
from edge_agent.workshop.data import calibration
from edge_agent.workshop.data.calibration import Say
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.making import Making
from edge_agent.workshop.report import folder, plot
from edge_agent.workshop.report.plot import Plot
from edge_agent.workshop.report.report import MakingReport, TableRow
from edge_agent.workshop.tune import search
from edge_agent.workshop.tune.search import Candidate, TunedModel

SECONDS = 10.0
"""for which the candidates are timed against each other"""
SLACK = 0.1
"""how much worse than on the samples a tuned model may agree with its parent at the gate"""


def run(args: argparse.Namespace, say: Say) -> MakingReport:
    """Search, write, let the gate try it. What an interrupted search measured is kept.

    Raises UsageError for arguments, ModelError where nothing fits --max-ms, InputError for data, RefusedError where
    nothing better was found or the gate does not take it.
    """
    located, args.verb = catalogue.locate(args.model, pull=args.pull, read=seen), "tune"
    folder.check(args.out)
    model, refused = _sound(located, max(1, args.threads))
    original = located.manifest.original()
    first = original if original in model.rows else model.rows[0]
    parent = model.open(first, located.manifest.input, model.paths[first.name])
    job = Making(args, located, original, model.paths[first.name], parent)
    job.read(args.data, args.most, say)
    notes = [*refused, *job.part("samples").notes]
    with folder.work(args.out) as work, workers.crew(args.workers) as crew:
        found = search.candidates(model, args.sizes, work, notes, say)
        given = (model, first, args.data, args.most)
        others = functools.partial(workers.ask, crew, accuracies, given) if crew is not None else None
        search.measure(found, parent, job.part("search"), work, say, others)
        for name, took in score.times({c.name: c.served for c in found}, job.part("search"), SECONDS).items():
            next(c for c in found if c.name == name).median_ms = took
        now, chosen = search.choose(model, found, args.max_ms, parent, job.part("search"))
        said = [*_said(now, chosen, located.manifest), _proven(job, now, chosen), *notes]
        report = _report(job, found, now, chosen, said)
        files = [(chosen.path, chosen.row.format, chosen.row.precision)]
        job.write(files, f"{chosen.name} on {report.measure}", report, **_changes(job, chosen, report))
    return report


def accuracies(given: tuple[TunedModel, File, Path, int]) -> Callable[[tuple[File, Path, Input | None]], float]:
    """In a worker: the accuracy of a file on the samples that are searched on."""
    model, first, data, most = given
    parent = model.open(first, model.located.manifest.input, model.paths[first.name])
    value = score.against(parent, calibration.parts(calibration.read(data, parent, most, lambda *_: None))[1])

    def found(point: tuple[File, Path, Input | None]) -> float:
        row, path, input = point
        return float(value(model.open(row, input, path)))

    return found


def _sound(located: Located, threads: int) -> tuple[TunedModel, list[str]]:
    """The variants that prove themselves, in the sandbox, before this process opens them; and why others do not."""
    rows = [row for row in located.manifest.networks() if is_here(located, row)]
    if not rows:
        raise ModelError(f"{located.manifest.name}: none of its networks is here; add --pull")
    parts = parts_of(located)
    paths = {row.name: file_path(located, row) for row in rows}
    sound, refused = [], []
    for row in rows:
        try:
            prove(located.manifest, row, paths[row.name], parts)
        except RefusedError as error:
            refused.append(str(error))
        else:
            sound.append(row)
    if not sound:
        raise RefusedError("; ".join(refused))
    return TunedModel(located, sound, paths, parts, threads), refused


def _proven(job: Making, now: Candidate, chosen: Candidate) -> str:
    """What samples say that nothing was chosen by. RefusedError where what serves now is in time and does better."""
    judge, tuned_as = job.judge, chosen.served
    assert judge is not None
    if chosen.threshold is not None:
        changed = msgspec.structs.replace(tuned_as.manifest, score=chosen.threshold)
        tuned_as = msgspec.structs.replace(tuned_as, manifest=changed)
    tuned, serves = judge(tuned_as), judge(now.served)
    ends, change = interval(tuned), difference(tuned, serves)
    told = f"{tuned:.3f} ({ends.low:.3f} to {ends.high:.3f}), now {serves:.3f}"
    limit = now.median_ms if job.args.max_ms is None else job.args.max_ms
    if tuned < serves and now.median_ms <= limit:
        raise RefusedError(
            f"nothing better was found: on samples that nothing was chosen by, {told}; nothing is written"
        )
    return f"on other samples: {told}; the difference is {change.low:+.3f} to {change.high:+.3f}"


# ── what is left behind ──────────────────────────────────────────────────────────────────────────────────


def _said(now: Candidate, chosen: Candidate, manifest: Manifest) -> list[str]:
    """The result for people."""
    said = [f"chosen: {chosen.name}, {chosen.median_ms:.1f} ms; now {now.name}, {now.median_ms:.1f} ms"]
    if chosen.threshold is not None:
        said.append(f"score {manifest.score:g} -> {chosen.threshold:g}")
    return said


def _report(job: Making, found: list[Candidate], now: Candidate, chosen: Candidate, notes: list[str]) -> MakingReport:
    """All candidates, measured on the report's samples; what serves now comes first."""
    judge, rows = job.judge, []
    assert judge is not None
    serves = judge(now.served)
    for one in sorted(found, key=lambda c: (c is not now, c.median_ms)):
        note, size = "serves now" if one is now else "", one.path.stat().st_size
        row = TableRow(one.name, size, None, one.median_ms, note, chosen=one is chosen)
        rows.append(job.measured(row, serves if one is now else judge(one.served), serves))
    args, count = job.args, len(job.part("samples").items)
    settings = {"max_ms": args.max_ms, "sizes": args.sizes or "of its own", "samples": count}
    return job.told(rows, settings, plots=[_plot(found, chosen, args.max_ms)], notes=notes)


def _plot(found: list[Candidate], chosen: Candidate, max_ms: float | None) -> Plot:
    """Each candidate by time and accuracy, the best trades joined, the limit as a line."""
    series = {"best trade": plot.front([(c.median_ms, c.accuracy, c.name) for c in found])}
    if max_ms is not None:
        series["--max-ms"] = [(max_ms, min(c.accuracy for c in found)), (max_ms, chosen.accuracy)]
    named = [(c.median_ms, c.accuracy, f"chosen: {c.name}" if c.name == chosen.name else c.name) for c in found]
    return plot.Plot("Accuracy over time, samples searched on", "milliseconds, median", "accuracy", series, named)


def _changes(job: Making, chosen: Candidate, report: MakingReport) -> dict[str, Any]:
    """What of the manifest is another in the tuned model. A change of size is noted in `report`."""
    manifest, size = job.located.manifest, chosen.input
    changes: dict[str, Any] = {} if chosen.threshold is None else {"score": chosen.threshold}
    if size is None or manifest.input is None:
        return changes
    changes["input"] = msgspec.structs.replace(size, layout=manifest.input.layout)
    if changes["input"] != manifest.input:
        # what another size costs was measured and wanted; the gate is to find what comes on top of it
        alike = score.against(job.parent, replace(job.part("search"), truth=None))(chosen.served)
        changes["max_drop"] = min(1.0, max(manifest.max_drop, round(1 - alike + SLACK, 3)))
        report.notes.append(f"at this size it agrees by {alike:.3f} with {manifest.name}, so the gate asks less")
    return changes
