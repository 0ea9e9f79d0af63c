"""ONNX to TFLite by onnx2tf, a program of its own: it needs TensorFlow and older versions of what the agent uses, so it
lives in an environment of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_agent.errors import ModelError, RefusedError, UsageError
from edge_agent.programs import which

TOOL = "EDGE_AGENT_ONNX2TF"
"""Environment: where onnx2tf is, if not on the PATH"""
INSTALL = f"python3 -m venv tf && tf/bin/pip install onnx2tf, then --onnx2tf tf/bin/onnx2tf or {TOOL}"
SAMPLE = "calibration_image_sample_data_20x128x128x3_float32.npy"
"""what onnx2tf fetches from the net, unless it is there, to see which axis is which; any picture will do"""
PRECISIONS = {"float32": "fp32", "float16": "fp16"}


def find(given: str | None = None) -> Path:
    """The program: `given`, else $EDGE_AGENT_ONNX2TF, else the PATH's. UsageError, with how to install it, for none."""
    named = given or os.environ.get(TOOL)
    if named:
        found = which(named)
        if found is None:
            said = "--onnx2tf" if given else TOOL
            raise UsageError(f"{said} {named}: no program there; install it: {INSTALL}")
        return Path(found)
    found = which("onnx2tf")
    if found is None:
        raise UsageError(f"onnx2tf is not here, and it needs an environment of its own: {INSTALL}")
    return Path(found)


def command(tool: Path, source: Path, out: Path) -> list[str]:
    """The command line, to be run in a folder of its own."""
    return [str(tool), "-i", str(source.absolute()), "-o", str(out.absolute()), "-n"]


def to_tflite(tool: Path, source: Path, work: Path, say: Callable[[str, int, int], None]) -> list[tuple[Path, str]]:
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
            done = subprocess.run(
                command(tool, given, out), cwd=work, env=quiet, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
    except OSError as error:
        raise ModelError(f"{tool}: cannot be started ({error.strerror}); install it: {INSTALL}") from None
    say("onnx2tf", 1, 1)
    found = [(out / f"{source.stem}_{kind}.tflite", precision) for kind, precision in PRECISIONS.items()]
    made = [(path, precision) for path, precision in found if path.is_file()]
    if done.returncode or not made:
        said = _last_words(log) or f"it ended with {done.returncode} and said nothing"
        raise RefusedError(f"onnx2tf cannot convert {source.name}: {said}")
    return made


def _last_words(log: Path) -> str:
    """The last line that says something, shortened."""
    words = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return words[-1][:200] if words else ""
