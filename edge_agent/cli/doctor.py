"""What of this machine fits, and what is missing: one row each, with what to do."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import stat
import struct
import sys
import tempfile
from pathlib import Path

from edge_agent import __version__, files, paths
from edge_agent.device import sandbox

Check = tuple[str, bool, str]
"""what, whether it is good, what was found and the mend"""

DISTRIBUTION, OWN = "edge-agent-runtime", "edge_agent/__init__.py"
"""what is ours on a package index (edge-agent is somebody else's there), and the file that makes it importable"""
FREE = 500_000_000
"""bytes that should be free where models and events are kept"""


def examine() -> list[Check]:
    """Look at everything the agent needs; nothing raises."""
    return [
        _python(),
        _machine(),
        _name(),
        *(_library(*row) for row in LIBRARIES),
        _products(),
        _home(),
        _telemetry(),
        _sandbox(),
        _clock(),
    ]


LIBRARIES = (
    ("numpy", "numpy", "pip install numpy"),
    ("ONNX", "onnxruntime", "pip install onnxruntime"),
    ("TFLite", "ai_edge_litert.interpreter", "pip install ai-edge-litert"),
    ("pictures", "cv2", "pip install opencv-python-headless"),
    ("cut JPEGs", "simplejpeg", "pip install simplejpeg"),
    ("workshop", "onnx", 'pip install "edge-agent-runtime[workshop]"'),
    ("MQTT", "paho.mqtt.client", "pip install paho-mqtt"),
    ("sound", "sounddevice", "apt install libportaudio2"),
    ("demo broker", "iotcore", 'pip install "edge-agent-runtime[demo]"'),
)
SAFE = {"onnxruntime": (1, 24), "cv2": (5, 0), "onnx": (1, 21)}
"""module -> version below which holes are known, by which a model or a picture may take over what reads it"""
OPTIONAL = {"sounddevice", "iotcore", "onnx", "simplejpeg"}


def _python() -> Check:
    version = platform.python_version()
    return "python", sys.version_info >= (3, 10), f"{version} (3.10 or later is needed)"


def _machine() -> Check:
    bits = struct.calcsize("P") * 8
    cores = len(os.sched_getaffinity(0))
    good = bits == 64
    mend = "" if good else "; there are no 32-bit wheels of the runtimes: install a 64-bit system"
    return "machine", good, f"{platform.machine()}, {bits} bit, {cores} cores{mend}"


def _name() -> Check:
    """Another distribution may hold an ``edge_agent`` too: which of the two is imported is chance."""
    import json
    from importlib.metadata import distributions

    here = paths.PACKAGE.parent.as_uri()
    for found in distributions():
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"] or "").lower()
        if name == DISTRIBUTION or not (name == "edge-agent" or any(str(f) == OWN for f in found.files or ())):
            continue
        if json.loads(found.read_text("direct_url.json") or "{}").get("url") == here:
            continue  # this checkout, from when it bore that name
        mend = f"pip uninstall {name}, then pip install --force-reinstall {DISTRIBUTION}"
        return "name", False, f"{name} {found.version} is another program that is imported as edge_agent: {mend}"
    return "name", True, f"edge_agent {__version__} from {paths.PACKAGE}"


def _library(what: str, module: str, mend: str) -> Check:
    try:
        found = importlib.import_module(module)
    except (ImportError, OSError) as error:
        optional = module in OPTIONAL
        reason = str(error).splitlines()[0][:80]
        return what, optional, f"{'optional, ' if optional else ''}not there ({reason}); {mend}"
    package = importlib.import_module(module.split(".")[0])
    version = str(getattr(found, "__version__", None) or getattr(package, "__version__", ""))
    return what, True, f"{module.split('.')[0]} {version}".strip() + _hole(module, version)


def _hole(module: str, version: str) -> str:
    """A warning for a version with known holes: what Python 3.10, NumPy 1 or a maker's own wheel may hold one to."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if module not in SAFE or not numbers or numbers >= SAFE[module]:
        return ""
    least = ".".join(map(str, SAFE[module]))
    mend = "" if sys.version_info >= (3, 11) else ", which needs Python 3.11"
    return f"; WARNING: holes are known below {least}: update it{mend}, or serve only what you trust"


def _products() -> Check:
    """How ONNX files of int8 are multiplied here (see backends/onnx.py)."""
    from edge_agent.backends.onnx import saturates

    try:
        wrong = saturates()
    except (ImportError, OSError):
        return "int8 in ONNX", True, "not known without ONNX Runtime"
    if not wrong:
        return "int8 in ONNX", True, "products are exact on this processor"
    found = (
        "this processor has no VNNI: its fast products saturate. Files get exact ones, which are slower; a form with"
    )
    return "int8 in ONNX", True, f"{found} fast ones serves where it agrees with its parent and wins the race"


def _home() -> Check:
    home = paths.home()
    try:
        files.folder(home)
        with tempfile.NamedTemporaryFile(dir=home):
            pass
        free = shutil.disk_usage(home).free
        owner = home.stat().st_uid
        for path in (home, *home.rglob("*")):
            at = path.lstat()
            if at.st_uid != owner and not at.st_mode & stat.S_IROTH:
                mend = f"sudo chown -R --reference={home} {home}/"
                return "store", False, f"{path} cannot be read by the owner of {home}, such as the service: {mend}"
    except OSError as error:
        return "store", False, f"{home}: {error.strerror}; set EDGE_AGENT_HOME or --home to a writable folder"
    return "store", free > FREE, f"{home}, {free / 1e9:.1f} GB free"


def _telemetry() -> Check:
    """ONNX Runtime from 1.32 on reports to its maker, unless it is told not to (see edge_agent/__init__.py)."""
    if os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        return "telemetry", False, "ONNX Runtime's is on: something took ORT_DISABLE_TELEMETRY=1 out of the environment"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111, which raises
    left = cache / "Microsoft" / "DeveloperTools" / ".onnxruntime"
    rest = f"; another program's use of it left an id of this device: delete {left}" if left.exists() else ""
    return "telemetry", True, f"off, also that of ONNX Runtime{rest}"


def _sandbox() -> Check:
    """What stands around the process that tries a model; the agent works without."""
    lacks = sandbox.missing()
    if not lacks:
        return "sandbox", True, "a model is tried where it can read no other file, write none and reach nobody"
    mend = "take a kernel from 5.13 (TCP: 6.7) on, with landlock in its lsm= parameter"
    return "sandbox", True, f"WARNING: this kernel has no {', no '.join(lacks)}: a model is tried under limits; {mend}"


def _clock() -> Check:
    """A board without a battery starts in 1970 or at its last shutdown; certificates and times are wrong until NTP."""
    import time

    built = Path(__file__).stat().st_mtime
    good = time.time() >= built - 86400
    return "clock", good, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()) + ("" if good else "; wait for NTP")
