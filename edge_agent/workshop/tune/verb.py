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
    from edge_agent.workshop.report.plot import Plot
    from edge_agent.workshop.report.report import MakingReport
    from edge_agent.workshop.tune.search import Candidate, Choice, TunedModel


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
    from edge_agent.workshop.data import calibration
    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.report import folder
    from edge_agent.workshop.tune import search

    located, out = _located(args), folder_of(args)
    folder.check(out)
    model, refused = _sound(located, max(1, args.threads))
    original = parent_row(located)
    first = original if original in model.rows else model.rows[0]
    parent = model.open(first, located.manifest.input, model.paths[first.name])
    samples = calibration.read(args.data, parent, args.most, say)
    searched, reported = samples.halves()
    notes = [*refused, *samples.notes]
    with folder.work(out) as work:
        found = search.candidates(model, args.sizes, work, notes, say)
        search.measure(found, parent, searched, work, say)
        for name, took in score.times({c.name: c.served for c in found}, searched, SECONDS).items():
            next(c for c in found if c.name == name).median_ms = took
        choice = search.choose(model, found, args.max_ms, parent, searched, say)
        accuracy = score.against(parent, reported)
        tuned = search.with_defaults(choice.chosen.served, choice.iou, choice.threshold)
        notes = [*_said(choice, located.manifest, accuracy(choice.now.served), accuracy(tuned)), *notes]
        report = _report(args, located, score.name_of(parent, samples), found, choice, samples, notes)
        _write(args, located, choice, parent, searched, report)
    return report


def folder_of(args: argparse.Namespace) -> Path:
    """Where the model is made: --out, or a folder that --write takes it from."""
    from edge_agent import paths as edge_agent_paths

    return Path(args.out) if args.out else edge_agent_paths.home() / "tuned" / Path(args.model).name


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


def _sound(located: Located, threads: int) -> tuple[TunedModel, list[str]]:
    """The variants that prove themselves, in the sandbox, before this process opens them; and why others do not."""
    from edge_agent.gate.admit import prove
    from edge_agent.registry import files
    from edge_agent.workshop.tune.search import TunedModel

    rows = [row for row in located.manifest.networks() if files.is_here(located, row)]
    if not rows:
        raise ModelError(f"{located.manifest.name}: none of its networks is here; add --pull")
    parts = files.parts_of(located)
    paths = {row.name: files.file_path(located, row) for row in rows}
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


# ── what is left behind ──────────────────────────────────────────────────────────────────────────────────


def _said(choice: Choice, manifest: Manifest, before: float, after: float) -> list[str]:
    """The result for people; `before` and `after`: accuracy on the samples that were not searched on."""
    now, chosen = choice.now, choice.chosen
    said = [f"chosen: {chosen.name}, {chosen.median_ms:.1f} ms; now {now.name}, {now.median_ms:.1f} ms"]
    if choice.threshold is not None:
        overlap = "" if choice.iou is None else f", iou {manifest.iou:g} -> {choice.iou:g}"
        said.append(f"score {manifest.score:g} -> {choice.threshold:g}{overlap}")
    return [*said, f"on the other half of the samples: {after:.3f}, now {before:.3f}"]


def _report(
    args: argparse.Namespace,
    located: Located,
    measure: str,
    found: list[Candidate],
    choice: Choice,
    samples: Samples,
    notes: list[str],
) -> MakingReport:
    from edge_agent.workshop.report import report

    now, chosen = choice.now, choice.chosen
    ordered = sorted(found, key=lambda c: (c is not now, c.median_ms))
    rows = [
        report.TableRow(
            c.name, c.path.stat().st_size, c.accuracy, c.median_ms, "serves now" if c is now else "", chosen=c is chosen
        )
        for c in ordered
    ]
    limit = "" if args.max_ms is None else f" --max-ms {args.max_ms:g}"
    return report.MakingReport(
        verb="tune",
        model=located.manifest.name,
        measure=measure,
        settings={"max_ms": args.max_ms, "sizes": args.sizes or "of its own", "samples": len(samples.items)},
        rows=rows,
        plots=[_plot(found, chosen, args.max_ms)],
        notes=notes,
        parent_sha256=parent_row(located).sha256,
        data_sha256=samples.sha256,
        command=f"edge-agent tune {args.model} --data {args.data}{limit}",
    )


def _plot(found: list[Candidate], chosen: Candidate, max_ms: float | None) -> Plot:
    """Each candidate by time and accuracy, the best trades joined, the limit as a line."""
    from edge_agent.workshop.report import plot

    series = {"best trade": plot.front([(c.median_ms, c.accuracy, c.name) for c in found])}
    if max_ms is not None:
        series["--max-ms"] = [(max_ms, min(c.accuracy for c in found)), (max_ms, chosen.accuracy)]
    named = [(c.median_ms, c.accuracy, f"chosen: {c.name}" if c.name == chosen.name else c.name) for c in found]
    return plot.Plot("Accuracy over time", "milliseconds, median", "accuracy", series, named)


def parent_row(located: Located) -> File:
    """The network that all else is a variant of."""
    return located.manifest.original()


def _write(
    args: argparse.Namespace,
    located: Located,
    choice: Choice,
    parent: Served,
    searched: Samples,
    report: MakingReport,
) -> None:
    """A model folder; with --write the registry's entry then points at what the gate took."""
    from edge_agent.manifest import Made
    from edge_agent.workshop.report import folder

    manifest, chosen, out = located.manifest, choice.chosen, folder_of(args)
    made = Made(
        verb="tune",
        method=f"{chosen.name} on {report.measure}",
        parent=f"{manifest.name} {manifest.version}",
        parent_sha256=parent_row(located).sha256,
        data_sha256=searched.sha256,
        figures={"accuracy": chosen.accuracy, "median_ms": chosen.median_ms},
    )
    changes = _changes(manifest, choice, parent, searched, report)
    if args.write:
        # under the name it has: then it is no variant of the entry that it takes the place of
        changes["name"] = manifest.name
    written = folder.write(
        out, located, [(chosen.path, chosen.row.format, chosen.row.precision)], made, report, **changes
    )
    if args.write:
        _switch(written, out, report)


def _changes(
    manifest: Manifest, choice: Choice, parent: Served, searched: Samples, report: MakingReport
) -> dict[str, Any]:
    """What of the manifest is another in the tuned model. A change of size is noted in `report`."""
    from edge_agent.workshop.evaluate import score

    settings = {"iou": choice.iou, "score": choice.threshold}
    changes: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    size = choice.chosen.input
    if size is None or manifest.input is None:
        return changes
    changes["input"] = msgspec.structs.replace(size, layout=manifest.input.layout)
    if changes["input"] != manifest.input:
        # what another size costs was measured and wanted; the gate is to find what comes on top of it
        alike = score.against(parent, replace(searched, truth=None))(choice.chosen.served)
        changes["max_drop"] = min(1.0, max(manifest.max_drop, round(1 - alike + SLACK, 3)))
        report.notes.append(f"at this size it agrees by {alike:.3f} with {parent.manifest.name}, so the gate asks less")
    return changes


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
