"""``graph MODEL --out DIR``: the same network, written down better: folded and simplified, as TFLite. Its weights stay
what they are.

The tail of a detector is cut on the device that serves it (gate/derive.py), which also proves there that nothing is
lost.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import onnx

from edge_agent.errors import ModelError, RefusedError, UsageError
from edge_agent.gate.shown import some
from edge_agent.manifest import Manifest, Served
from edge_agent.programs import which
from edge_agent.samples import carried
from edge_agent.types import Frame, Text
from edge_agent.workshop import making
from edge_agent.workshop.data import calibration
from edge_agent.workshop.data.calibration import Samples, Say
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.graph import net
from edge_agent.workshop.report import folder
from edge_agent.workshop.report.folder import LAYOUTS
from edge_agent.workshop.report.report import MakingReport

INSTALL = "python3 -m venv tf && tf/bin/pip install onnx2tf, then --onnx2tf tf/bin/onnx2tf"
SAMPLE = "calibration_image_sample_data_20x128x128x3_float32.npy"
"""what onnx2tf fetches from the net, unless it is there, to see which axis is which; any picture will do"""
PRECISIONS = {"float32": "fp32", "float16": "fp16"}
SMALL, GROWN = 4096, 1.1
"""bytes of a constant that may be folded where folding all would make the file so much larger"""


def run(args: argparse.Namespace, say: Say) -> MakingReport:
    """Write the model folder `args.out`, let the gate try it.

    Raises UsageError for arguments, ModelError for what cannot be changed, RefusedError where the gate takes nothing.
    """
    tool = onnx2tf(args.onnx2tf) if args.tflite else None
    job = making.start(args, "graph")
    job.samples = calibration.read(args.data, job.parent, 48, say) if args.data else _carried(job.parent)
    job.report_on(job.samples)
    with folder.work(args.out) as work:
        say("simplifying", 0, 1)
        old = net.load(job.path)
        new = simplified(old)
        file = work / f"{Path(job.row.name).stem}.simple.onnx"  # a fetched file lies under its hash
        onnx.save(new, str(file))
        say("simplifying", 1, 1)
        made = [(file, "onnx", job.row.precision)]
        if tool is not None:
            made += [(other, "tflite", precision) for other, precision in to_tflite(tool, file, work, say)]
        files = {job.row.name: (job.path.stat().st_size, job.parent, "")}
        for path, format, _ in made:
            served = score.open_file(_read_as(job.located.manifest, format), path, format, job.parent.parts)
            files[path.name] = (path.stat().st_size, served, "")
        notes = [
            f"simplified: {len(old.graph.node)} operators became {len(new.graph.node)}",
            f"compared on {len(job.samples.items)} samples: {job.samples.source}",
        ]
        report = job.told(job.rows(files, ""), {"tflite": args.tflite}, notes=notes)
        pictures = job.located.manifest.input is not None
        layouts = {path.name: LAYOUTS["tflite"] for path, format, _ in made if pictures and format == "tflite"}
        job.write(made, "simplified, tflite" if args.tflite else "simplified", report, layouts=layouts)
    return report


def _read_as(manifest: Manifest, format: str) -> Manifest:
    """The manifest with the [input] of a file: the parent's, its axes as TFLite has them."""
    if format != "tflite" or manifest.input is None:
        return manifest
    rows = [row for row in manifest.file if row.format != "tflite"]
    turned = msgspec.structs.replace(manifest.input, layout=LAYOUTS["tflite"])
    return msgspec.structs.replace(manifest, input=turned, file=rows)


def _carried(parent: Served) -> Samples:
    """What the agent carries and recorded, of the kind that the model takes."""
    found = list(carried.pictures()) if parent.input is not None else some(parent)
    return Samples([one for one in found if isinstance(one, (Frame, Text))], "what the agent carries", [])


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants folded, nodes that do nothing gone, patterns fused, by onnxslim; checked by ONNX.

    Where folding would make the file larger, as it widens weights that are kept in half floats, only small constants
    are folded. Raises ModelError where onnxslim is missing, RefusedError where it fails.
    """
    made = _slim(model, None)
    return _slim(model, SMALL) if made.ByteSize() > model.ByteSize() * GROWN else made


def _slim(model: onnx.ModelProto, most: int | None) -> onnx.ModelProto:
    """`most`: bytes of a constant that is folded; None: any."""
    try:
        from onnxslim import slim
    except ImportError as error:
        raise ModelError(f'onnxslim simplifies graphs: pip install "edge-agent-runtime[workshop]" ({error})') from None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            made = slim(copy, size_threshold=most)
        if not isinstance(made, onnx.ModelProto):
            raise ValueError("it gave no model back")
        onnx.checker.check_model(made)
    except Exception as error:  # of a library that looks for patterns: whatever it stumbles over
        raise RefusedError(f"onnxslim cannot simplify it ({net.line(error)})") from None
    return made


# ── onnx2tf: a program of its own, as it needs TensorFlow and older versions of what the agent uses ─────────


def onnx2tf(given: str | None) -> Path:
    """The program: `given`, else the PATH's. UsageError, with how to install it, for none."""
    found = which(given or "onnx2tf")
    if found is None:
        why = f"--onnx2tf {given}: no program there" if given else "onnx2tf is not here"
        raise UsageError(f"{why}; it needs an environment of its own: {INSTALL}")
    return Path(found)


def to_tflite(tool: Path, source: Path, work: Path, say: Say) -> list[tuple[Path, str]]:
    """Convert; [(file, precision)], float32 first. `work`: for all that onnx2tf writes; `source` is only read.

    Raises RefusedError with its last words where it fails or gives nothing.
    """
    out = work / "tflite"
    shutil.rmtree(out, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    # onnx2tf writes what it simplified over the file that it was given
    given = work / "onnx2tf" / source.name
    given.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, given)
    np.save(work / SAMPLE, np.random.default_rng(0).random((20, 128, 128, 3), np.float32))
    quiet = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    log = work / "onnx2tf.log"
    say("onnx2tf, which takes minutes", 0, 1)
    try:
        with log.open("wb") as file:
            words = [str(tool), "-i", str(given.absolute()), "-o", str(out.absolute()), "-n"]
            done = subprocess.run(words, cwd=work, env=quiet, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    except OSError as error:
        raise ModelError(f"{tool}: cannot be started ({error.strerror}); install it: {INSTALL}") from None
    say("onnx2tf", 1, 1)
    found = [(out / f"{source.stem}_{kind}.tflite", precision) for kind, precision in PRECISIONS.items()]
    made = [(path, precision) for path, precision in found if path.is_file()]
    if done.returncode or not made:
        words = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        said = words[-1][:200] if words else f"it ended with {done.returncode} and said nothing"
        raise RefusedError(f"onnx2tf cannot convert {source.name}: {said}")
    return made
