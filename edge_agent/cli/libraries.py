"""The doctor's rows on libraries: what is there, and whether it works on this processor."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from edge_agent import programs
from edge_agent.cli.row import Row, fix, ok, warn
from edge_agent.device import wheels
from edge_agent.device.wheels import Tried

LIBRARIES = (
    ("numpy", "numpy", "numpy", True),
    ("settings", "msgspec", "msgspec", True),
    ("ONNX", "onnxruntime", "onnxruntime", True),
    ("TFLite", "ai_edge_litert", "ai-edge-litert", True),
    ("TFLite, old", "tflite_runtime", "ai-edge-litert", False),
    ("pictures", "cv2", "opencv-python-headless", True),
    ("cut JPEGs", "simplejpeg", "simplejpeg", False),
    ("MQTT", "paho", "paho-mqtt", True),
    ("sound", "sounddevice", "sounddevice", False),
    ("speech", "ctranslate2", '"edge-agent-runtime[speech]"', False),
    ("grammars", "pocketsphinx", '"edge-agent-runtime[sphinx]"', False),
    ("wake words", "pymicro_wakeword", '"edge-agent-runtime[wake]"', False),
    ("tokenizers", "tokenizers", '"edge-agent-runtime[tokenizers]"', False),
    ("serial", "serial", '"edge-agent-runtime[serial]"', False),
    ("signatures", "cryptography", '"edge-agent-runtime[signed]"', False),
    ("workshop", "onnx", '"edge-agent-runtime[workshop]"', False),
    ("demo broker", "iotcore", '"edge-agent-runtime[demo]"', False),
)
"""what it is for, module, what pip calls it, whether the agent needs it"""
SAFE = {"onnxruntime": (1, 24), "cv2": (5, 0), "onnx": (1, 21)}
"""module -> version below which holes are known, by which a model or a picture may take over what reads it"""
ONE_OWNER = {"cv2": "opencv-python-headless", "onnxruntime": "onnxruntime", "numpy": "numpy"}
"""module -> which of those that own it is to stay"""


def libraries() -> Iterator[Row]:
    """A row for each, and one for each that several packages own; the provider and products of ONNX Runtime."""
    with ThreadPoolExecutor(2) as pool:
        found = dict(
            zip((row[1] for row in LIBRARIES), pool.map(wheels.tried, (row[1] for row in LIBRARIES)), strict=True)
        )
    for what, module, package, needed in LIBRARIES:
        if module != "tflite_runtime" or not found[module].missing:
            yield _library(what, module, package, needed, found[module])
    yield from _owners()
    yield from _providers(found["onnxruntime"])
    if not found["onnxruntime"].wrong:
        yield _products()


def _library(what: str, module: str, package: str, needed: bool, tried: Tried) -> Row:
    if not tried.wrong:
        hole = _hole(module, tried.version)
        return (warn if hole else ok)(what, f"{module} {tried.version}".strip() + hole)
    if tried.missing and not needed:
        return ok(what, f"optional, {module} is not there; pip install {package}")
    mend = tried.mend or f"pip install --force-reinstall {package}"
    if "SIGILL" in tried.wrong and module == "onnxruntime":
        mend = 'pip install "onnxruntime>=1.24"'  # 1.21.0 is known for it, on a Raspberry Pi 4
    elif "NumPy 1" in tried.wrong:
        mend = f"pip uninstall -y {module.replace('_', '-')} && pip install ai-edge-litert"
    return (fix if needed else warn)(what, f"{module} {tried.wrong}", mend)


def _hole(module: str, version: str) -> str:
    """A warning for a version with known holes: what Python 3.10, NumPy 1 or a maker's own wheel may hold one to."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if module not in SAFE or not numbers or numbers >= SAFE[module]:
        return ""
    least = ".".join(map(str, SAFE[module]))
    mend = "" if sys.version_info >= (3, 11) else ", which needs Python 3.11"
    return f"; WARNING: holes are known below {least}: update it{mend}, or serve only what you trust"


def _owners() -> Iterator[Row]:
    """Two packages that own one module overwrite each other's files: which one is imported is chance."""
    for module, stays in ONE_OWNER.items():
        names = sorted(set(wheels.owners(module)))
        if len(names) > 1:
            maker = [name for name in names if module == "onnxruntime" and name != stays]
            stay = maker[0] if maker else stays  # of a board's maker, or for its GPU: somebody chose it
            # its own wheel is on no index: it has to be given again
            again = f"--no-deps {stay.replace('-', '_')}-*.whl" if maker else stay
            go = " ".join(name for name in names if name != stay)
            yield warn(
                "owners",
                f"{' and '.join(names)} both own {module}",
                f"pip uninstall -y {go} && pip install --force-reinstall {again}",
            )


def _providers(tried: Tried) -> Iterator[Row]:
    """Whether each way to run ONNX files does run one."""
    for name, said in tried.told.get("runs", {}).items():
        if said == name:
            yield ok("provider", f"{name} runs")
        else:
            yield warn("provider", f"{name} does not run: {said}")


def _products() -> Row:
    """How ONNX files of int8 are multiplied here (see backends/onnx.py)."""
    done = subprocess.run(
        programs.python("edge_agent.cli.products"), capture_output=True, text=True, timeout=wheels.CHILD_S
    )
    said = done.stdout.strip().rpartition("\n")[2]
    if said == "False":
        return ok("int8 in ONNX", "products are exact on this processor")
    if said != "True":
        return warn("int8 in ONNX", f"could not be found out: {done.stderr.strip().rpartition(chr(10))[2][:200]}")
    found = (
        "this processor has no VNNI: its fast products saturate. Files get exact ones, which are slower; a form with"
    )
    return ok("int8 in ONNX", f"{found} fast ones serves where it agrees with its parent and wins the race")
