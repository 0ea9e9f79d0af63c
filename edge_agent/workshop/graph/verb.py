"""``graph MODEL --out DIR``: the same network, written down better: folded and simplified, its preparation taken in, as
ONNX Runtime's own format, as TFLite. Its weights stay what they are.

The tail of a detector is cut on the device that serves it (gate/derive.py), which also proves there that nothing is
lost.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import onnx

from edge_agent.backends.onnx import optimise
from edge_agent.errors import UsageError
from edge_agent.gate.shown import some
from edge_agent.manifest import Input, Manifest, Served
from edge_agent.samples import carried
from edge_agent.types import Frame, Text
from edge_agent.workshop import making
from edge_agent.workshop.data import calibration
from edge_agent.workshop.data.calibration import Samples
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.graph import convert, edit
from edge_agent.workshop.making import Making
from edge_agent.workshop.report import folder
from edge_agent.workshop.report.folder import LAYOUTS
from edge_agent.workshop.report.report import MakingReport

Say = Callable[[str, int, int], None]
SECONDS = 8.0
"""for which the files are timed against each other"""
FASTER = 0.99
"""of the processor time without it: what taking the preparation in must come to, to be kept"""


def run(args: argparse.Namespace, say: Say) -> MakingReport:
    """Write the model folder `args.out`, let the gate try it.

    Raises UsageError for arguments, ModelError for what cannot be changed, RefusedError where the gate takes nothing.
    """

    if args.preprocess and args.tflite:
        raise UsageError("--preprocess changes what an ONNX file takes; make the TFLite files in a folder of their own")
    tool = convert.find(args.onnx2tf) if args.tflite else None
    job = making.start(args, "graph")
    job.samples = calibration.read(args.data, job.parent, 48, say) if args.data else _carried(job.parent)
    job.report_on(job.samples)
    with folder.work(args.out) as work:
        made = _made(job, work, say)
        if tool is not None:
            converted = convert.to_tflite(tool, made.files[0][0], work, say)
            made.files += [(file, "tflite", precision) for file, precision in converted]
        report = _report(job, made)
        _write(job, made, report)
    return report


def _report(job: Making, made: _Made) -> MakingReport:

    files = {job.row.name: (job.path.stat().st_size, job.parent, "")}
    for file, format, _ in made.files:
        manifest = _read_as(job.located.manifest, made.input, format)
        served = score.open_file(manifest, file, format, job.parent.parts)
        files[file.name] = (file.stat().st_size, served, "")
    samples = job.part("samples")
    return job.told(
        job.rows(files, "", SECONDS),
        {name: getattr(job.args, name) for name in OPTIONS},
        notes=[*made.notes, f"compared on {len(samples.items)} samples: {samples.source}"],
    )


def _write(job: Making, made: _Made, report: MakingReport) -> None:

    pictures = made.of("tflite") if job.located.manifest.input is not None else []
    # no variant of the model: a manifest's .ort is refused, as its reader trusts what it reads
    beside = {file.name: file.read_bytes() for file in made.of("ort")}
    kept = [one for one in made.files if one[0].name not in beside]
    changes: dict[str, Any] = {} if made.input is None else {"input": made.input}
    steps = ["simplified", *(name for name in OPTIONS if getattr(job.args, name))]
    job.write(kept, ", ".join(steps), report, {}, {file.name: LAYOUTS["tflite"] for file in pictures}, **changes)
    for name, content in beside.items():
        (job.args.out / name).write_bytes(content)


OPTIONS = ("preprocess", "ort", "tflite")


class _Made:
    """The files so far, what they take where that is not what the parent does, and what was found on the way."""

    def __init__(self) -> None:
        self.files: list[tuple[Path, str, str]] = []
        self.input: Input | None = None
        self.notes: list[str] = []

    def of(self, format: str) -> list[Path]:
        """Its files of that format."""
        return [file for file, own, _ in self.files if own == format]


def _made(job: Making, work: Path, say: Say) -> _Made:
    """The ONNX file, and its .ort."""

    args, parent, made = job.args, job.parent, _Made()
    stem = Path(job.row.name).stem  # a fetched file lies under its hash
    say("simplifying", 0, 1)
    old = edit.read(job.path)
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
    made.files.append((file, "onnx", job.row.precision))
    if args.ort:
        say("optimising", 0, 1)
        optimise(file, file.with_suffix(".ort"))
        made.files.append((file.with_suffix(".ort"), "ort", job.row.precision))
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

    candidates = {
        "plain": score.open_file(parent.manifest, plain, "onnx", parent.parts),
        "whole": score.open_file(_read_as(parent.manifest, spec, "onnx"), whole, "onnx", parent.parts),
    }
    took = score.times(candidates, _carried(parent), SECONDS, time.process_time)
    return took["plain"], took["whole"]


def _read_as(manifest: Manifest, spec: Input | None, format: str) -> Manifest:
    """The manifest with the [input] of a file: `spec`, or the parent's with the axes as TFLite has them."""

    if spec is not None:
        rows = [msgspec.structs.replace(row, layout=None) for row in manifest.file]
        return msgspec.structs.replace(manifest, input=spec, file=rows)
    if format == "tflite" and manifest.input is not None:
        rows = [row for row in manifest.file if row.format != "tflite"]
        return msgspec.structs.replace(
            manifest, input=msgspec.structs.replace(manifest.input, layout=LAYOUTS["tflite"]), file=rows
        )
    return manifest


def _carried(parent: Served) -> Samples:
    """What the agent carries and recorded, of the kind that the model takes."""

    found = list(carried.pictures()) if parent.input is not None else some(parent)
    return Samples([one for one in found if isinstance(one, (Frame, Text))], "what the agent carries", [])
