"""``python -m tests.bench.quantize [CASE…]``: model × method → size, accuracy, median time, in one run, as Markdown.

Accuracy is mAP50-95 on people's labels for detectors (94 pictures of COCO val2017, none of them calibrated on), else
how well the answers are the float model's, on the samples that were not calibrated on. The times of one model are taken
in turns, so that a busy box is the same to all. What was measured is kept in --work: an interrupted run goes on where
it was. ``--quick`` takes fewer pictures and leaves out the searches; ``--docs`` refreshes docs/quantize.md.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.events import rfc3339
from edge_agent.figures.interval import Interval, interval
from edge_agent.gate.verdicts import cpu
from edge_agent.manifest import Served
from edge_agent.registry.files import parts_of
from edge_agent.workshop import making
from edge_agent.workshop.data import calibration
from edge_agent.workshop.data.calibration import Samples
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.quantize.ranges import METHODS
from edge_agent.workshop.quantize.search import Memory, Tool, distance, search
from edge_agent.workshop.quantize.tools import bases, default, tool_for
from tests.bench.measure import load
from tests.conftest import ROOT
from tests.registry.here import visual_wake_words

BEGIN, END = "<!-- bench-quantize -->", "<!-- /bench-quantize -->"
CALIBRATED, BUDGET, SECONDS = 48, 0.01, 10.0
FEW, FEW_SHOWN = 16, 24
"""with --quick: samples to calibrate on, pictures to measure on"""
HEAD = ("| model | method | MB | accuracy | ms |", "|---|---|--:|--:|--:|")


@dataclass(frozen=True, slots=True)
class Case:
    """A float model and what it is measured on; paths that begin with data/ lie in the folder of test data."""

    name: str
    model: str
    format: str
    calibrate: str
    evaluate: str = ""
    """"" for the other half of `calibrate`"""
    published: str = ""
    """a quantized file of the same network by its authors"""
    static: bool = True
    """ranges by each method; False where there is nothing but matrices, which are quantized as they come"""


TEXTS = "data/text/sst2/dev.tsv"
CASES = (
    Case("yolox-nano", "data/models/yolox_nano.onnx", "onnx", "data/coco_calib96", "data/coco_val94"),
    Case(
        "yolox-nano tflite",
        "data/models/yolox_nano_float16.tflite",
        "tflite",
        "data/coco_calib96",
        "data/coco_val94",
        published="data/models/yolox_nano_dynamic_int8.tflite",
    ),
    Case("edge-yolo", "models/edge-yolo", "onnx", "data/coco_calib96", "data/coco_val94"),
    Case("edge-yolo tflite", "models/edge-yolo", "tflite", "data/coco_calib96", "data/coco_val94"),
    Case("edge-bert", "models/edge-bert", "onnx", TEXTS, static=False),
    Case(
        "vww",
        "data/models/vww_96_float.tflite",
        "tflite",
        "data/coco_calib96",
        "data/coco_val94/images",
        published="data/models/vww_96_int8.tflite",
    ),
    Case(
        "ad01",
        "data/models/ad01_fp32.tflite",
        "tflite",
        "data/models/normal_id_01_00000000_hist_librosa.bin",
        published="data/models/ad01_int8.tflite",
    ),
)


@dataclass(slots=True)
class Line:
    """One row of the table."""

    case: str
    method: str
    bytes: int
    accuracy: float
    between: Interval
    ms: float = float("nan")

    def text(self) -> str:
        low, high = self.between
        right = f"{self.accuracy:.3f} ({low:.3f} to {high:.3f})"
        return f"| {self.case} | {self.method} | {self.bytes / 1e6:.2f} | {right} | {self.ms:.2f} |"


def plans(case: Case, tool: Tool) -> dict[str, QuantizePlan]:
    """Method -> plan."""
    found = {}
    if case.static:
        ops = default(tool.parts, {}).ops
        found = {f"static int8, {method}": QuantizePlan(method=method, ops=ops) for method in METHODS}
    found["dynamic int8"] = QuantizePlan("dynamic")
    found["int8 weights"] = QuantizePlan("weights")
    found["float16"] = QuantizePlan("float16")
    return found


def measure(case: Case, data: Path, work: Path, quick: bool, say: Callable[[str], None]) -> Iterator[Line]:
    """The lines of one model, the float one first."""
    most = FEW if quick else CALIBRATED

    def place(name: str) -> Path:
        return data / name[5:] if name.startswith("data/") else ROOT / name

    def quiet(what: str, done: int, total: int) -> None:
        say(f"{case.name}: {what} {done}/{total}")

    # what the file leaves open is said when it is added
    named = visual_wake_words(data) if case.name == "vww" else str(place(case.model))
    located, row, path = making.find(named, case.format, False)
    parts = parts_of(located)

    def serve(file: Path) -> Served:
        return score.open_file(located.manifest, file, case.format, parts, 1)

    parent = serve(path)
    samples = calibration.read(place(case.calibrate), parent, most * (1 if case.evaluate else 2), quiet)
    searched, reported = (samples, samples) if case.evaluate else calibration.parts(samples)[1:]
    if case.evaluate:
        reported = calibration.read(place(case.evaluate), parent, FEW_SHOWN if quick else 10**6, quiet)
    work.mkdir(parents=True, exist_ok=True)
    tool = tool_for(case.format, path, parent, searched, work, serve, quiet)
    source = f"{row.sha256} {searched.sha256} {code()}"
    known = Memory(work, [source, reported.sha256, case.format])
    judge = score.against(parent, reported)

    def rated(plan: object, model: Served) -> tuple[float, Interval]:
        """Its accuracy, and how far that could be off."""
        figure = functools.cache(lambda: judge(model))
        low = known("low", plan, lambda: interval(figure()).low)
        high = known("high", plan, lambda: interval(figure()).high)
        return known("score", plan, figure), Interval(low, high)

    float_ = "float" if row.precision == "unknown" else f"float ({row.precision})"
    lines = [Line(case.name, float_, path.stat().st_size, *rated(QuantizePlan(keep=("parent",)), parent))]
    served = {lines[0].method: parent}
    wanted = plans(case, tool)
    if not quick:
        wanted["auto"] = found(case, tool, parent, searched, known, quiet)
    for method, plan in wanted.items():
        say(f"{case.name}: {method}")
        try:
            model, size = made(tool, plan, work, source, case.format, serve)
            accuracy = rated(plan, model)
        except RefusedError as error:
            print(f"<!-- {case.name}, {method}: {error} -->", file=sys.stderr)
            continue
        kept = f", {sum(set(part.keep) <= set(plan.keep) for part in tool.parts)} of {len(tool.parts)} layers in float"
        name = f"auto: {msgspec.structs.replace(plan, keep=()).text()}{kept}" if method == "auto" else method
        lines.append(Line(case.name, name, size, *accuracy))
        served[name] = model
    if case.published:
        theirs = place(case.published)
        other = serve(theirs)
        lines.append(Line(case.name, "as published", theirs.stat().st_size, *rated("published", other)))
        served["as published"] = other
    say(f"{case.name}: times")
    took = score.times(served, reported, SECONDS / 3 if quick else SECONDS)
    yield from (replace(line, ms=took[line.method]) for line in lines)


def found(case: Case, tool: Tool, parent: Served, searched: Samples, known: Memory, say: Any) -> QuantizePlan:
    """What --auto finds within BUDGET."""
    judge = score.against(parent, searched)
    budget = known("search", QuantizePlan(keep=("parent",)), lambda: judge(parent)) - BUDGET
    return search(tool, bases(tool.parts, {}), judge, budget, distance(parent, searched), known, say).plan


def made(
    tool: Tool, plan: QuantizePlan, work: Path, source: str, format: str, serve: Callable[[Path], Served]
) -> tuple[Served, int]:
    """The file of a plan, kept by what it was made from: `source` has hashes of the model, the samples and our code."""
    key = hashlib.sha256(source.encode() + msgspec.json.encode(plan)).hexdigest()[:20]
    path = work / f"{key}.{format}"
    if not path.is_file():
        part = path.with_suffix(".part")
        part.write_bytes(tool.make(plan))
        part.replace(path)
    return serve(path), path.stat().st_size


def code() -> str:
    """SHA-256 of what quantizes, so that no figure of another version comes back."""
    files = sorted((ROOT / "edge_agent" / "workshop").rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def table(lines: list[Line], said: str) -> str:
    """Markdown."""
    return "\n".join([said, "", *HEAD, *(line.text() for line in lines)])


def refresh(document: Path, text: str) -> None:
    """Put the table between the markers of `document`; it gets them at its end where it has none."""
    old = document.read_text("utf-8") if document.is_file() else ""
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n".lstrip()
    before, rest = old.split(BEGIN, 1)
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quantize", description=__doc__)
    parser.add_argument("case", nargs="*", help=", ".join(case.name for case in CASES))
    parser.add_argument("--quick", action="store_true", help="fewer samples, no searches")
    parser.add_argument("--docs", action="store_true", help="refresh docs/quantize.md")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench" / "quantize")
    args = parser.parse_args()
    names = [case.name for case in CASES]
    if unknown := [name for name in args.case if name not in names]:
        parser.error(f"no case {unknown[0]}; there are {', '.join(names)}")
    data = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir():
        parser.error(f"no test data at {data}; set EDGE_AGENT_DATA")
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("EDGE_AGENT_HOME", str(args.work / "home"))
    shown = sys.stderr.isatty()
    began = load()
    lines: list[Line] = []
    print(*HEAD, sep="\n", flush=True)
    for case in [case for case in CASES if not args.case or case.name in args.case]:

        def say(what: str) -> None:
            if shown:
                print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)

        try:
            for line in measure(case, data, args.work, args.quick, say):
                lines.append(line)
                print(line.text(), flush=True)
        except EdgeAgentError as error:
            print(f"{case.name}: {error}", file=sys.stderr)
    at = rfc3339(time.time())[:10]
    few = f" (quick: {FEW} samples to calibrate on, {FEW_SHOWN} pictures to measure on)" if args.quick else ""
    said = (
        f"Measured on {at} on one core of {cpu().rsplit(' ', 1)[0]}, load {began:.1f} to {load():.1f}{few}: the "
        "milliseconds tell which is faster than which, not what an idle box takes."
    )
    if args.docs:
        refresh(ROOT / "docs" / "quantize.md", table(lines, said))
    print(f"\n{said}")
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
