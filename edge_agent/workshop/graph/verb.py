"""``graph MODEL --out DIR``: the same network, written down better: folded and simplified, its preparation taken in, as
ONNX Runtime's own format, as TFLite. Its weights stay what they are.

The tail of a detector is cut on the device that serves it (gate/derive.py), which also proves there that nothing is
lost.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import UsageError

if TYPE_CHECKING:
    from edge_agent.manifest import File, Input, Manifest, Served
    from edge_agent.registry.files import Located
    from edge_agent.workshop.data.calibration import Samples
    from edge_agent.workshop.report.report import MakingReport


Say = Callable[[str, int, int], None]
SECONDS = 8.0
"""for which the files are timed against each other"""
FASTER = 0.99
"""of the processor time without it: what taking the preparation in must come to, to be kept"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own arguments; --json, --pull and --threads are those of every verb on a model."""
    parser.add_argument("model", help="name, folder or .onnx")
    parser.add_argument("--out", type=Path, required=True, help="folder for the new model and its report")
    parser.add_argument("--data", type=Path, help="pictures or text to compare on (default: what the agent carries)")
    parser.add_argument(
        "--preprocess", action="store_true", help="uint8 pixels in, scale and colour order in the weights, if faster"
    )
    parser.add_argument("--ort", action="store_true", help="also write ONNX Runtime's own format, for other programs")
    parser.add_argument("--tflite", action="store_true", help="add TFLite files, made by onnx2tf")
    parser.add_argument("--onnx2tf", metavar="PROGRAM", help="where it is (default: $EDGE_AGENT_ONNX2TF, the PATH)")


def run(args: argparse.Namespace, say: Say) -> MakingReport:
    """Write the model folder `args.out`, let the gate try it.

    Raises UsageError for arguments, ModelError for what cannot be changed, RefusedError where the gate takes nothing.
    """
    from edge_agent.registry.files import parts_of
    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.graph import convert
    from edge_agent.workshop.making import find
    from edge_agent.workshop.report import folder

    if args.preprocess and args.tflite:
        raise UsageError("--preprocess changes what an ONNX file takes; make the TFLite files in a folder of their own")
    tool = convert.find(args.onnx2tf) if args.tflite else None
    folder.check(args.out)
    located, row, path = find(args.model, "onnx", args.pull)
    parts, threads = parts_of(located), max(1, args.threads)
    parent = score.open_given(located.manifest, row, path, parts, threads)
    samples = _samples(args, parent, say)
    with folder.work(args.out) as work:
        made = _made(args, row, path, parent, work, say)
        if tool is not None:
            converted = convert.to_tflite(tool, made.files[0][0], work, say)
            made.files += [(file, "tflite", precision) for file, precision in converted]
        served = {row.name: parent}
        for file, format, _ in made.files:
            served[file.name] = score.open_file(_read_as(located.manifest, made.input, format), file, format, parts)
        report = _report(args, located, row, path, served, made, samples)
        _write(args, located, row, made, samples, report)
    return report


class _Made:
    """The files so far, what they take where that is not what the parent does, and what was found on the way."""

    def __init__(self) -> None:
        self.files: list[tuple[Path, str, str]] = []
        self.input: Input | None = None
        self.notes: list[str] = []

    def of(self, format: str) -> list[Path]:
        """Its files of that format."""
        return [file for file, own, _ in self.files if own == format]


def _made(args: argparse.Namespace, row: File, path: Path, parent: Served, work: Path, say: Say) -> _Made:
    """The ONNX file, and its .ort."""
    import onnx

    from edge_agent.backends.onnx import optimise
    from edge_agent.workshop.graph import edit

    made, stem = _Made(), Path(row.name).stem  # a fetched file lies under its hash
    say("simplifying", 0, 1)
    old = edit.read(path)
    new = edit.simplified(old)
    made.notes.append(f"simplified: {edit.nodes(old)} operators became {edit.nodes(new)}")
    file = work / f"{stem}.simple.onnx"
    onnx.save(new, str(file))
    say("simplifying", 1, 1)
    if args.preprocess:
        if parent.input is None:
            raise UsageError(f"--preprocess: {parent.manifest.name} takes no pictures")
        fused, spec = edit.with_preparation(new, parent.input)
        whole = work / f"{stem}.pixels.onnx"
        onnx.save(fused, str(whole))
        before, after = _compared(parent, file, whole, spec)
        told = f"with the preparation taken in {after:.2f} ms of processor time a sample, without {before:.2f} ms"
        if after <= before * FASTER:
            made.notes.append(told)
            file, made.input = whole, spec
        else:
            made.notes.append(f"{told}: no gain, so it stays outside")
    made.files.append((file, "onnx", row.precision))
    if args.ort:
        say("optimising", 0, 1)
        optimise(file, file.with_suffix(".ort"))
        made.files.append((file.with_suffix(".ort"), "ort", row.precision))
        made.notes.append(
            f"{file.with_suffix('.ort').name}, for other programs: it loads faster, in this version of ONNX Runtime on "
            "this kind of processor; the agent makes such a form itself, and takes none from others"
        )
        say("optimising", 1, 1)
    return made


def _compared(parent: Served, plain: Path, whole: Path, spec: Input) -> tuple[float, float]:
    """Median milliseconds of processor time a sample without and with the preparation taken in, end to end, in turns.

    Processor time, as the difference is small, and a busy box hides it in the other.
    """
    import statistics
    import time

    from edge_agent.workshop.data.feed import served_by
    from edge_agent.workshop.evaluate import score

    candidates = {
        "plain": score.open_file(parent.manifest, plain, "onnx", parent.parts),
        "whole": score.open_file(_read_as(parent.manifest, spec, "onnx"), whole, "onnx", parent.parts),
    }
    tasks = {name: served_by(model) for name, model in candidates.items()}
    items = _carried(parent).items
    took: dict[str, list[float]] = {name: [] for name in tasks}
    began, turn = time.monotonic(), -1  # the first turn warms up
    while turn < 5 or time.monotonic() - began < SECONDS:
        for name in sorted(tasks, reverse=turn % 2 == 0):
            start = time.process_time()
            for _ in tasks[name](items[turn % len(items)]):
                pass
            if turn >= 0:
                took[name].append(time.process_time() - start)
        turn += 1
    return statistics.median(took["plain"]) * 1e3, statistics.median(took["whole"]) * 1e3


def _read_as(manifest: Manifest, spec: Input | None, format: str) -> Manifest:
    """The manifest with the [input] of a file: `spec`, or the parent's with the axes as TFLite has them."""
    import msgspec

    from edge_agent.workshop.report.folder import LAYOUTS

    if spec is not None:
        rows = [msgspec.structs.replace(row, layout=None) for row in manifest.file]
        return msgspec.structs.replace(manifest, input=spec, file=rows)
    if format == "tflite" and manifest.input is not None:
        rows = [row for row in manifest.file if row.format != "tflite"]
        return msgspec.structs.replace(
            manifest, input=msgspec.structs.replace(manifest.input, layout=LAYOUTS["tflite"]), file=rows
        )
    return manifest


def _samples(args: argparse.Namespace, parent: Served, say: Say) -> Samples:
    from edge_agent.workshop.data import calibration

    return calibration.read(args.data, parent, 48, say) if args.data else _carried(parent)


def _carried(parent: Served) -> Samples:
    """What the agent carries and recorded, of the kind that the model takes."""
    from edge_agent.gate.shown import some
    from edge_agent.samples import carried
    from edge_agent.types import Frame, Text
    from edge_agent.workshop.data.calibration import Samples

    found = list(carried.pictures()) if parent.input is not None else some(parent)
    return Samples([one for one in found if isinstance(one, (Frame, Text))], "what the agent carries", [])


def _report(
    args: argparse.Namespace,
    located: Located,
    row: File,
    path: Path,
    served: dict[str, Served],
    made: _Made,
    samples: Samples,
) -> MakingReport:
    from edge_agent.workshop.evaluate import score
    from edge_agent.workshop.report.report import MakingReport, TableRow

    parent = served[row.name]
    judge, took = score.against(parent, samples), score.times(served, samples, SECONDS)
    size = {row.name: path.stat().st_size, **{file.name: file.stat().st_size for file, _, _ in made.files}}
    rows = [TableRow(name, size[name], judge(model), took[name]) for name, model in served.items()]
    return MakingReport(
        verb="graph",
        model=located.manifest.name,
        measure=score.name_of(parent, samples),
        settings={"preprocess": args.preprocess, "ort": args.ort, "tflite": args.tflite},
        rows=rows,
        notes=[*made.notes, f"compared on {len(samples.items)} samples: {samples.source}"],
        parent_sha256=row.sha256,
        data_sha256=samples.sha256,
    )


def lines(report: MakingReport) -> list[str]:
    """The report for a terminal."""
    from edge_agent.workshop.report import report as report_report

    return report_report.lines(report)


def _write(
    args: argparse.Namespace, located: Located, row: File, made: _Made, samples: Samples, report: MakingReport
) -> None:
    from edge_agent.manifest import Made
    from edge_agent.workshop.report import folder

    steps = ["simplified", *(name for name in ("preprocess", "ort", "tflite") if getattr(args, name))]
    record = Made(
        verb="graph",
        method=", ".join(steps),
        parent=f"{located.manifest.name} {located.manifest.version}",
        parent_sha256=row.sha256,
        data_sha256=samples.sha256,
    )
    changes: dict[str, Any] = {} if made.input is None else {"input": made.input}
    pictures = made.of("tflite") if located.manifest.input is not None else []
    layouts = {file.name: folder.LAYOUTS["tflite"] for file in pictures}
    # no variant of the model: a manifest's .ort is refused, as its reader trusts what it reads
    beside = {file.name: file.read_bytes() for file in made.of("ort")}
    files = [one for one in made.files if one[0].name not in beside]
    folder.write(args.out, located, files, record, report, layouts, **changes)
    for name, content in beside.items():
        (args.out / name).write_bytes(content)
