"""ONNX to TFLite by onnx2tf, a program of its own: it needs TensorFlow and older versions of what the agent uses, so it
lives in an environment of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from edge_agent.errors import ModelError, RefusedError, UsageError
from edge_agent.programs import which
from edge_agent.workshop.data.calibration import Say

INSTALL = "python3 -m venv tf && tf/bin/pip install onnx2tf, then --onnx2tf tf/bin/onnx2tf"
SAMPLE = "calibration_image_sample_data_20x128x128x3_float32.npy"
"""what onnx2tf fetches from the net, unless it is there, to see which axis is which; any picture will do"""
PRECISIONS = {"float32": "fp32", "float16": "fp16"}


def find(given: str | None) -> Path:
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
