"""The native libraries: each imported and used once, in a process of its own, since one may kill it.

With the standard library alone: what is looked for may be what is missing.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from edge_agent import programs

CHILD_S = 90.0
"""seconds that a library has to be imported and used"""
_ONNX = (
    "080712003a400a110a01610a016112016222064d61744d756c1201675a130a0161120e0a0c080112080a0208020a02080262130a0162120e0a0c"
    "080112080a0208020a02080242040a00100d"
)
"""hex of a network: b = MatMul(a, a), 2 by 2"""
_TFLITE = (
    "c-oU-U|<Mw^D$;%;A0SB5Mbb8-~fuS0C@~R9s`365Z?e|W*}w+Vu&mVLiivxJaC;XKoTNm1H=wM?1H3@fq@Gw4^qbkHH!x-55o*t"
    "_)I`-0=Acd;lcm^|B>}oLgg8uG!N7V3{bZqtF1s&i*P>=12>YMREV{y00UwQtN"
)
"""base85 of the zlib of a network: y = Abs(x), 1 by 2"""
_INTERPRET = (
    f"import base64, zlib\nInterpreter(model_content=zlib.decompress(base64.b85decode({_TFLITE!r}))).allocate_tensors()"
)
SAY = "import json; say = lambda **told: print('\\n#' + json.dumps(told))\n"
USE = {
    "numpy": "import numpy as m; assert (m.ones((9, 9), 'f4') @ m.ones((9, 9), 'f4')).sum() == 729",
    "msgspec": "import msgspec as m; assert m.json.decode(m.json.encode([1])) == [1]",
    "onnxruntime": f"""
import os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'
import numpy, onnxruntime as m
m.set_default_logger_severity(4)
runs = {{}}
here = ','.join(set(m.get_available_providers()) - {{'AzureExecutionProvider'}})
for name in (os.environ.get('EDGE_AGENT_PROVIDERS') or here).split(','):
    try:
        net = m.InferenceSession(bytes.fromhex('{_ONNX}'), providers=[name.strip()])
        net.run(None, {{'a': numpy.ones((2, 2), 'f4')}})
        runs[name.strip()] = net.get_providers()[0]
    except Exception as error:
        runs[name.strip()] = str(error).splitlines()[0][:200]
say(runs=runs)
""",
    "ai_edge_litert": "import ai_edge_litert as m; from ai_edge_litert.interpreter import Interpreter\n{tflite}",
    "tflite_runtime": "import tflite_runtime as m; from tflite_runtime.interpreter import Interpreter\n{tflite}",
    "cv2": "import numpy, cv2 as m; assert m.imdecode(m.imencode('.png', numpy.zeros((8, 8), 'u1'))[1], 0).size == 64",
    "simplejpeg": "import numpy, simplejpeg as m; m.decode_jpeg(m.encode_jpeg(numpy.zeros((8, 8, 3), 'u1')))",
    "paho": "import paho.mqtt as m; from paho.mqtt.client import CallbackAPIVersion as V, Client; Client(V.VERSION2)",
    "sounddevice": "import sounddevice as m; m.query_hostapis()",
    "iotcore": "import iotcore as m",
    "onnx": "import onnx as m",
    "cryptography": "import cryptography as m; from cryptography.hazmat.primitives.asymmetric.ed25519 import "
    "Ed25519PrivateKey as K; K.generate().sign(b'x')",
    "ctranslate2": "import ctranslate2 as m; m.get_supported_compute_types('cpu')",
    "pocketsphinx": "import pocketsphinx as m; m.Config()",
    "pymicro_wakeword": "import pymicro_wakeword as m; m.MicroWakeWordFeatures()",
    "tokenizers": "import tokenizers as m; m.Tokenizer(m.models.WordLevel({'a': 0}, unk_token='a')).encode('a')",
    "serial": "import serial as m",
}
"""module -> what imports it (as m) and uses it once"""
LIBRARIES = {
    "libportaudio.so.2": "sudo apt install libportaudio2",
    "libGL.so.1": "pip uninstall -y opencv-python && pip install --force-reinstall opencv-python-headless",
    "libgomp.so.1": "sudo apt install libgomp1",
    "libatomic.so.1": "sudo apt install libatomic1",
}
"""what a wheel may miss of the system -> the command that brings it"""


class Tried(NamedTuple):
    """What came of one try."""

    version: str = ""
    told: Mapping[str, Any] = MappingProxyType({})
    """what it says beside its version"""
    wrong: str = ""
    """one line; "" where it works"""
    missing: bool = False
    """it is not installed at all"""
    mend: str = ""
    """the command that helps, where the failure alone tells it"""


def tried(module: str) -> Tried:
    """Import a module and use it once."""
    code = USE[module].replace("{tflite}", _INTERPRET)
    head = f"import sys; sys.path[:] = {programs.import_path()!a}\n{SAY}"
    tail = "\nsay(version=str(getattr(m, '__version__', '')))"
    command = [sys.executable, "-I", "-c", head + code + tail]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=CHILD_S
        )
    except subprocess.TimeoutExpired:
        return Tried(wrong=f"does not come to an end within {CHILD_S:.0f} s")
    except OSError as error:
        return Tried(wrong=f"Python cannot be started ({error.strerror})")
    told = _told(done.stdout)
    if done.returncode == 0:
        return Tried(str(told.pop("version", "")), told)
    return _why(module, done.returncode, done.stderr)


def _told(out: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for line in out.splitlines():
        if line.startswith("#{"):
            told |= json.loads(line[1:])
    return told


def _why(module: str, code: int, err: str) -> Tried:
    """What a failure means, by exit code and last words."""
    last = _last_line(err)
    if code < 0:
        name = signal.Signals(-code).name
        what = "an instruction that this processor does not have" if name == "SIGILL" else "a crash"
        return Tried(wrong=f"dies of {what} ({name})")
    if re.search(rf"No module named '{module}['.]", last):
        return Tried(wrong="is not there", missing=True)
    if other := re.search(r"No module named '([\w-]+)'", last):
        return Tried(wrong=f"needs {other[1]}, which is not there", mend=f"pip install {other[1]}")
    if "_ARRAY_API" in err or "compiled using NumPy 1" in err:
        return Tried(wrong="was built for NumPy 1 and does not work beside NumPy 2")
    found = re.search(r"(lib[\w.+-]+\.so[.\d]*)", last)
    if found and "cannot open shared object" in last:
        return Tried(wrong=f"misses {found[1]}", mend=LIBRARIES.get(found[1], f"apt-file search {found[1]}"))
    if "PortAudio library not found" in last:
        return Tried(wrong="misses libportaudio.so.2", mend=LIBRARIES["libportaudio.so.2"])
    return Tried(wrong=f"fails: {last[:200]}")


def _last_line(err: str) -> str:
    """The last one that is not indented, as the lines of a traceback are."""
    return next((line for line in reversed(err.splitlines()) if line.strip() and not line.startswith(" ")), "")


def owners(module: str) -> Iterator[str]:
    """The installed distributions that hold a package of this name: one is right."""
    from importlib.metadata import distributions

    for found in distributions():
        files = found.files or ()
        if any(str(file) in (f"{module}/__init__.py", f"{module}/__init__.pyi") for file in files):
            yield found.metadata["Name"] or "?"
