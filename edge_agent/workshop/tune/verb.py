"""``tune MODEL``: the input size, variant, NMS overlap and score threshold that do best at a given time a sample here.

Sizes and variants are searched on one half of the samples and reported on the other, all timed in turns on this
device. The result is a model folder, or (--write) the registry's own entry, whose previous version can be rolled back.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent.errors import ModelError, RefusedError, UsageError
from edge_agent.workshop.arguments import count

if TYPE_CHECKING:
    from edge_agent.manifest import File, Manifest, Served
    from edge_agent.registry.files import Located
    from edge_agent.workshop.data.calibration import Samples, Say
    from edge_agent.workshop.report.report import MakingReport
    from edge_agent.workshop.tune.search import Candidate


SECONDS = 10.0
"""for which the candidates are timed against each other"""
SLACK = 0.1
"""how much worse than on the samples a tuned model may agree with its parent at the gate"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own arguments; --json, --pull and --threads are those of every verb on a model."""
    parser.add_argument("model", help="name, folder, .onnx or .tflite")
    parser.add_argument("--data", type=Path, required=True, help="COCO JSON, pictures, lines of text; `recorded`")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="folder for the tuned model and its report")
    where.add_argument("--write", action="store_true", help="change the registry's entry of a model that was added")
    parser.add_argument("--max-ms", type=_above_0, help="milliseconds a sample may take (default: what it takes now)")
    parser.add_argument("--sizes", type=_sizes, help="sides of the input to try, e.g. 256,320,416 (default: 8 sizes)")
    parser.add_argument("--most", type=count, default=96, help="samples of --data at most, spread evenly (96)")


def run(args: argparse.Namespace, say: Say) -> MakingReport:
    """Search, write, let the gate try it. What an interrupted search measured is kept.

    Raises UsageError for arguments, ModelError where nothing fits --max-ms, InputError for data, RefusedError where
    the gate does not take it.
    """
    if importlib.util.find_spec("onnx") is None:
        raise UsageError('tune needs the workshop: pip install "edge-agent-runtime[workshop]"')
    from edge_agent.gate import opened
    from edge_agent.registry import files
    from edge_agent.registry.files import parts_of
    from edge_agent.workshop.data import calibration
    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.report import folder
    from edge_agent.workshop.tune import search

    located = _located(args)
    out = folder_of(args)
    folder.check(out)
    parts, threads = parts_of(located), max(1, args.threads)
    rows = [row for row in located.manifest.networks() if files.is_here(located, row)]
    if not rows:
        raise ModelError(f"{located.manifest.name}: none of its networks is here; add --pull")
    paths = {row.name: files.file_path(located, row) for row in rows}
    rows, refused = _sound(located, rows, paths, parts)
    first = located.manifest.original() if located.manifest.original() in rows else rows[0]
    parent = score.open_file(located.manifest, paths[first.name], first.format, parts, threads)
    samples = calibration.read(args.data, parent, args.most, say)
    searched, reported = samples.halves()
    notes = [*refused, *samples.notes]
    with folder.work(out) as work:
        found = search.candidates(args.sizes, located, rows, paths, parts, threads, work, notes, say)
        search.measure(found, parent, searched, work, say)
        for name, took in score.times({c.name: c.served for c in found}, searched, SECONDS).items():
            next(c for c in found if c.name == name).median_ms = took
        now = next(c for c in found if c.row == rows[0] and c.input == opened.input_of(located.manifest, rows[0]))
        chosen = search.best(found, now, args.max_ms, located.manifest.name)
        iou, threshold = search.nms(chosen, parent, searched, say) if parent.manifest.task == "detect" else (None, None)
        last = score.against(parent, reported)
        told = {"now": last(now.served), "chosen": last(search.with_defaults(chosen.served, iou, threshold))}
        report = _report(args, located, parent, found, now, chosen, samples, told, (iou, threshold), notes)
        _write(args, located, chosen, parent, searched, out, report, (iou, threshold))
    return report


def folder_of(args: argparse.Namespace) -> Path:
    """Where the model is made: --out, or a folder that --write takes it from."""
    from edge_agent import paths as edge_agent_paths

    return Path(args.out) if args.out else edge_agent_paths.home() / "tuned" / Path(args.model).name


def lines(report: MakingReport) -> list[str]:
    """The report for a terminal."""
    from edge_agent.workshop.report import report as report_report

    return report_report.lines(report)


def _located(args: argparse.Namespace) -> Located:
    """The model; --write wants one whose entry may change."""
    from edge_agent import paths as edge_agent_paths
    from edge_agent.gate.read import seen
    from edge_agent.registry import catalogue

    located = catalogue.locate(args.model, pull=args.pull, read=seen)
    if args.write and located.folder.parent != edge_agent_paths.home() / "models":
        raise UsageError(
            f"--write: {args.model} was not added here (`edge-agent models add`), so its entry cannot change; use --out"
        )
    return located


def _sound(
    located: Located, rows: list[File], paths: dict[str, Path], parts: dict[str, Path]
) -> tuple[list[File], list[str]]:
    """The variants that prove themselves, in the sandbox, before this process opens them; and why others do not."""
    from edge_agent.gate.admit import prove

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
    return sound, refused


# ── what is left behind ──────────────────────────────────────────────────────────────────────────────────


def _report(
    args: argparse.Namespace,
    located: Located,
    parent: Served,
    found: list[Candidate],
    now: Candidate,
    chosen: Candidate,
    samples: Samples,
    told: dict[str, float],
    nms: tuple[float | None, float | None],
    notes: list[str],
) -> MakingReport:
    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.report import plot, report

    ordered = sorted(found, key=lambda c: (c is not now, c.median_ms))
    rows = [
        report.TableRow(
            c.name, c.path.stat().st_size, c.accuracy, c.median_ms, "serves now" if c is now else "", chosen=c is chosen
        )
        for c in ordered
    ]
    points = [(c.median_ms, c.accuracy, c.name) for c in found]
    series = {"best trade": plot.front(points)}
    if args.max_ms is not None:
        series["--max-ms"] = [(args.max_ms, min(c.accuracy for c in found)), (args.max_ms, chosen.accuracy)]
    named = [(x, y, f"chosen: {n}" if n == chosen.name else n) for x, y, n in points]
    manifest, (iou, threshold) = located.manifest, nms
    said = [f"chosen: {chosen.name}, {chosen.median_ms:.1f} ms; now {now.name}, {now.median_ms:.1f} ms"]
    if threshold is not None:
        overlap = "" if iou is None else f", iou {manifest.iou:g} -> {iou:g}"
        said.append(f"score {manifest.score:g} -> {threshold:g}{overlap}")
    said.append(f"on the other half of the samples: {told['chosen']:.3f}, now {told['now']:.3f}")
    return report.MakingReport(
        verb="tune",
        model=manifest.name,
        measure=score.name_of(parent, samples),
        settings={"max_ms": args.max_ms, "sizes": args.sizes or "of its own", "samples": len(samples.items)},
        rows=rows,
        plots=[plot.Plot("Accuracy over time", "milliseconds, median", "accuracy", series, named)],
        notes=[*said, *notes],
        parent_sha256=parent_row(located).sha256,
        data_sha256=samples.sha256,
        command=f"edge-agent tune {args.model} --data {args.data}"
        + (f" --max-ms {args.max_ms:g}" if args.max_ms is not None else ""),
    )


def parent_row(located: Located) -> File:
    """The network that all else is a variant of."""
    return located.manifest.original()


def _write(
    args: argparse.Namespace,
    located: Located,
    chosen: Candidate,
    parent: Served,
    searched: Samples,
    out: Path,
    report: MakingReport,
    nms: tuple[float | None, float | None],
) -> None:
    """A model folder; with --write the registry's entry then points at what the gate took."""
    from edge_agent.manifest import Made
    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.report import folder

    manifest = located.manifest
    figures = {"accuracy": chosen.accuracy, "median_ms": chosen.median_ms}
    made = Made(
        verb="tune",
        method=f"{chosen.name} on {report.measure}",
        parent=f"{manifest.name} {manifest.version}",
        parent_sha256=parent_row(located).sha256,
        data_sha256=searched.sha256,
        figures=figures,
    )
    changes: dict[str, Any] = {}
    if manifest.input is not None and chosen.input is not None:
        changes["input"] = msgspec.structs.replace(chosen.input, layout=manifest.input.layout)
    changes |= {key: value for key, value in (("iou", nms[0]), ("score", nms[1])) if value is not None}
    if chosen.input is not None and changes["input"] != manifest.input:
        # what another size costs was measured and wanted; the gate is to find what comes on top of it
        alike = score.against(parent, replace(searched, truth=None))(chosen.served)
        changes["max_drop"] = min(1.0, max(manifest.max_drop, round(1 - alike + SLACK, 3)))
        report.notes.append(f"at this size it agrees by {alike:.3f} with {parent.manifest.name}, so the gate asks less")
    path = chosen.path
    if not args.write:
        folder.write(out, located, [(path, chosen.row.format, chosen.row.precision)], made, report, **changes)
        return
    # under the name it has: then it is no variant of the entry that it takes the place of
    written = folder.write(
        out, located, [(path, chosen.row.format, chosen.row.precision)], made, report, **changes, name=manifest.name
    )
    _switch(written, out, report)


def _switch(written: Manifest, out: Path, report: MakingReport) -> None:
    """Make the folder's model the current version of its name; the version before can be rolled back to."""
    import shutil

    from edge_agent import paths as edge_agent_paths
    from edge_agent.registry import store, versions
    from edge_agent.toml import toml
    from edge_agent.workshop.report import folder

    home = edge_agent_paths.home()
    try:
        with store.alone(home, "models"):
            for row in written.file:
                store.put(home, out / row.name, row.sha256, row.bytes)
            entry = msgspec.structs.replace(written, parent=None, card=None)
            versions.switch(home, written.name, toml(folder.plain(entry)))
    except OSError as error:
        raise RefusedError(f"{written.name}: cannot be stored in {home}: {error.strerror}; nothing changed") from None
    kept = home / "reports" / f"tune-{written.name}.html"
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(out / "report.html", kept)
    shutil.rmtree(out)
    report.notes.append(
        f"{written.name}: this serves from now on; `edge-agent models rollback {written.name}` undoes it"
    )


def _above_0(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f'"{text}" is no number above 0')
    return value


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and 32 <= int(part) <= 4096 for part in parts):
        raise argparse.ArgumentTypeError(f'"{text}" is no list of sides from 32 to 4096, as 256,320,416')
    return tuple(int(part) for part in parts)
