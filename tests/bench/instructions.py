"""Aim 8: instructions of pre- and postprocessing a frame, counted by callgrind: ten frames minus none.

The child makes the detectors' tasks as the agent does, with networks that give what the real ones gave before, runs
two frames through each to settle, and then N more through one. Counts do not depend on how busy the box is; they do
depend on the code that numpy and OpenCV choose for the processor that valgrind shows them (AVX2 at the most), so the
baseline in instructions.json names what was seen, and a run elsewhere says when it differs. ``--keep`` writes a new
baseline.

counted.py is the child.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from edge_agent.errors import EdgeAgentError
from edge_agent.paths import home
from edge_agent.tasks import make_task
from edge_agent.types import Tensors
from edge_agent.uri import Uri
from tests.bench.measure import Row
from tests.bench.setup import Place, served
from tests.conftest import ROOT

BASELINE = Path(__file__).with_name("instructions.json")
CASES = (("yolov8n", 768, 576), ("yolov8n", 640, 480), ("yolox-nano", 768, 576), ("edge-yolo", 768, 576))
"""model, width and height of the frames; 640 pixels wide, they go into a canvas of 640 as they are"""
AIM = 5.0
"""million instructions a frame"""
WORSE = 1.2
"""times the baseline: that is a regression"""
COUNT = 10


def rows(place: Place, quick: bool) -> Iterator[Row]:
    if shutil.which("valgrind") is None:
        return
    baseline = json.loads(BASELINE.read_text()) if BASELINE.is_file() else {}
    same = "" if baseline.get("seen") == seen() else "baseline of other libraries or another processor; "
    cases = [case for case in CASES if place.here((case[0],))]
    files = [record(place, *case) for case in cases]
    none = count(files, 0, 0)
    for number, (model, width, height) in enumerate(cases):
        name = f"{model} on {width}x{height}"
        value = (count(files, number, COUNT) - none) / COUNT / 1e6
        known = baseline.get("millions", {}).get(name)
        worse = known is not None and value > WORSE * known
        yield Row(
            8,
            f"{name}: instructions of pre- and postprocessing a frame",
            round(value, 3),
            unit="M",
            target=AIM,
            theirs=f"baseline {known} M" if known else "no baseline",
            note=same + (f"REGRESSION: {value / known:.2f} times the baseline" if worse else "no regression"),
        )


def keep(rows: list[Row]) -> None:
    """Make what was measured the baseline."""
    found = {row.what.partition(":")[0]: row.value for row in rows if row.aim == 8}
    BASELINE.write_text(json.dumps({"seen": seen(), "millions": found}, indent=1) + "\n")


def seen() -> dict[str, str]:
    """What a count depends on besides our own code."""
    names = ("numpy", "opencv-python-headless")
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    return {
        "python": ".".join(map(str, sys.version_info[:2])),
        **{name: metadata.version(name) for name in names},
        "avx2": str("avx2" in flags.split()),
    }


def record(place: Place, name: str, width: int, height: int) -> Path:
    """What the child needs of a model: everything but the network, two frames, and what the network gave for them."""
    model = served(place, name, threads=1)
    frames = [
        msgspec.structs.replace(frame, image=np.asarray(cv2.resize(frame.image, (width, height)), np.uint8))
        for frame in place.frames(2)
    ]
    given: list[dict[str, Any]] = []

    def run(tensors: Tensors) -> dict[str, Any]:
        given.append({key: array.copy() for key, array in model.net.run(tensors).items()})
        return given[-1]

    task = make_task(
        Uri("detect", name),
        lambda _: msgspec.structs.replace(model, net=msgspec.structs.replace(model.net, run=run)),
        home(),
    )
    for frame in frames:
        list(task(frame))
    path = place.folder / f"{name}-{width}.frames"
    kept = {name: getattr(model, name) for name in model.__struct_fields__ if name != "net"}
    specs = {name: getattr(model.net, name) for name in model.net.__struct_fields__ if name != "run"}
    path.write_bytes(pickle.dumps((kept, specs, frames, given)))
    return path


def count(files: list[Path], which: int, frames: int) -> int:
    """Instructions of the child with so many frames through one of the models."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}", sys.executable]
    still = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "tests.bench.counted", str(which), str(frames), *map(str, files)],
        cwd=ROOT,
        env={**os.environ, **still},
        capture_output=True,
        text=True,
    )
    told = [line for line in done.stderr.splitlines() if "Collected :" in line]
    if done.returncode or not told:
        raise EdgeAgentError(f"valgrind: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return int(told[0].split()[-1])
