"""Backends: a model file -> a Net, a function from named tensors to named tensors.

One row a format; the module behind it, and the heavy library behind that, are imported when the first file of
the format is opened.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

from edge_agent.errors import RefusedError
from edge_agent.held import held
from edge_agent.types import Net, Tensors

FORMATS = {
    "onnx": "edge_agent.backends.onnx:load",
    "ort": "edge_agent.backends.onnx:load_optimised",
    "tflite": "edge_agent.backends.tflite:load",
}
"""format -> "module:attr" of a function (path, threads, source) -> Net, the bytes of path read from source; "ort" is
what this device made of an ONNX file"""


def open_net(path: Path, format: str, threads: int = 0, sha256: str = "") -> Net:
    """Load the network in `path`, which is of `format` ("onnx" or "tflite").

    `sha256`: what is loaded is the file of that hash, or it is refused, whatever is done to the path meanwhile.
    `threads` is how many work on one run; 0 means as many as this process may use. The Net may be run from several
    threads at once. Its first run may be slower than the next ones: warming up is the caller's business.
    Raises RefusedError, one line, for a file that is missing, truncated, corrupt or beyond what the runtime can do.
    """
    if format not in FORMATS:
        import difflib

        near = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(FORMATS)}"
        raise RefusedError(f'{path}: unknown format "{format}"; {hint}')
    if not path.is_file():
        raise RefusedError(f"{path}: no such file; fetch it with `edge-agent models pull` or check the path")
    if not os.access(path, os.R_OK):
        raise RefusedError(f"{path}: may not be read by this user; check its owner and mode")
    module, _, attr = FORMATS[format].partition(":")
    load: Callable[[Path, int, Path], Net] = getattr(importlib.import_module(module), attr)
    count = threads or len(os.sched_getaffinity(0))
    if not sha256:
        return load(path, count, path)
    with held(path, sha256) as file:
        return load(path, count, file.path)


def bare(path: Path, format: str, threads: int = 0) -> Callable[[Tensors], object]:
    """A run of the file as its runtime does it by default: the yardstick of ``bench``, not for serving.

    `threads`: 0 leaves their number to the runtime. It takes tensors of the declared dtypes. Raises RefusedError as
    `open_net` does.
    """
    module = importlib.import_module(FORMATS[format].partition(":")[0])
    run: Callable[[Tensors], object] = module.bare(path, threads)
    return run


def providers(path: Path, format: str) -> dict[str, str]:
    """Ways to run a file beside the processor -> what became of trying it; empty when it works."""
    module = importlib.import_module(FORMATS[format].partition(":")[0])
    found: dict[str, str] = module.providers(path)
    return found
