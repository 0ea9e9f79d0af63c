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
from edge_agent.gate.opened import input_of
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
from edge_agent.workshop.tune.search import Candidate

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
    rows, refused = _sound(located)
    manifest, original = located.manifest, located.manifest.original()
    first = original if original in rows else rows[0]
    open = functools.partial(search.opened, located, max(1, args.threads))
    parent = open(first, manifest.input, file_path(located, first))
    job = Making(args, located, original, file_path(located, first), parent)
    job.read(args.data, args.most, say)
    notes, searched = [*refused, *job.part("samples").notes], job.part("search")
    with folder.work(args.out) as work, workers.crew(args.workers) as crew:
        found = search.candidates(located, rows, open, args.sizes, work, notes, say)
        given = (located, first, args.threads, args.data, args.most)
        others = functools.partial(workers.ask, crew, accuracies, given) if crew is not None else None
        search.measure(found, parent, searched, work, say, others)
        for name, took in score.times({c.name: c.served for c in found}, searched, SECONDS).items():
            next(c for c in found if c.name == name).median_ms = took
        now = next(c for c in found if c.row == rows[0] and c.input == input_of(manifest, c.row))
        chosen = search.best(found, now, args.max_ms, manifest.name)
        chosen.threshold = search.threshold(chosen.served, parent, searched)
        said = [*_said(now, chosen, manifest), _proven(job, now, chosen), *notes]
        report = _report(job, found, now, chosen, said)
        files = [(chosen.path, chosen.row.format, chosen.row.precision)]
        job.write(files, f"{chosen.name} on {report.measure}", report, **_changes(job, chosen, report))
    return report


def accuracies(given: tuple[Located, File, int, Path, int]) -> Callable[[tuple[File, Input | None, Path]], float]:
    """In a worker: the accuracy of a file on the samples that are searched on."""
    located, first, threads, data, most = given
    open = functools.partial(search.opened, located, max(1, threads))
    parent = open(first, located.manifest.input, file_path(located, first))
    value = score.against(parent, calibration.parts(calibration.read(data, parent, most, lambda *_: None))[1])
    return lambda point: float(value(open(*point)))


def _sound(located: Located) -> tuple[list[File], list[str]]:
    """The variants that prove themselves, in the sandbox, before this process opens them, that first which serves now;
    and why others do not.
    """
    rows = [row for row in located.manifest.networks() if is_here(located, row)]
    if not rows:
        raise ModelError(f"{located.manifest.name}: none of its networks is here; add --pull")
    sound, refused = [], []
    for row in rows:
        try:
            prove(located.manifest, row, file_path(located, row), parts_of(located))
        except RefusedError as error:
            refused.append(str(error))
        else:
            sound.append(row)
    if not sound:
        raise RefusedError("; ".join(refused))
    return sound, refused


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
