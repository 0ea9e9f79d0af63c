"""A model file becomes a function from named tensors to named tensors.

One row a format; the module behind it, and the heavy library behind that, are imported when the first file of
the format is opened.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edge_agent.errors import ModelError, RefusedError
from edge_agent.held import held
from edge_agent.types import Net, Tensors, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt


FORMATS = {
    "onnx": "edge_agent.backends.onnx:load",
    "ort": "edge_agent.backends.onnx:load_optimised",
    "tflite": "edge_agent.backends.tflite:load",
    "ctranslate2": "edge_agent.backends.ctranslate2:load",
}
"""format -> "module:attr" of a function (path, threads, source) -> Net, the bytes of path read from source; "ort" is
what this device made of an ONNX file"""
WITH_PARTS = ("ctranslate2",)
"""formats of which such a function is given the parts beside the network, too"""
ONE_WAY = ("ctranslate2",)
"""formats of which nothing is raced: one file, run by one library, on one thread where the config says nothing"""

SIZES: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "orig_target_sizes": lambda high, wide: (wide, high),
    "target_sizes": lambda high, wide: (high, wide),
    "im_shape": lambda high, wide: (high, wide),
    "scale_factor": lambda high, wide: (1, 1),
}
"""a second input of a detector -> its two numbers, of the canvas's height and width: boxes come out in pixels of what
is said there (RT-DETR, D-FINE and RF-DETR with their post-processor; PaddleDetection)
"""


def open_net(
    path: Path, format: str, threads: int = 0, sha256: str = "", parts: Mapping[str, Path] | None = None
) -> Net:
    """Load the network in `path`, which is of `format` ("onnx", "tflite" or "ctranslate2").

    `sha256`: what is loaded is the file of that hash, or it is refused, whatever is done to the path meanwhile.
    `parts`: role -> file, for formats that cannot do without (WITH_PARTS).
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
    load: Callable[..., Net] = getattr(importlib.import_module(module), attr)
    more = [parts or {}] if format in WITH_PARTS else []
    count = threads or (1 if format in ONE_WAY else len(os.sched_getaffinity(0)))
    if not sha256:
        return _of_a_picture(load(path, count, path, *more))
    with held(path, sha256) as file:
        return _of_a_picture(load(path, count, file.path, *more))


def _of_a_picture(net: Net) -> Net:
    """The network without the inputs beside its picture that are in SIZES, which are filled in."""
    pictures = [spec for spec in net.inputs if len(spec.shape) == 4]
    others = [spec for spec in net.inputs if spec not in pictures]
    if len(pictures) != 1 or not others or any(_size(spec) is None for spec in others):
        return net
    run = net.run
    return msgspec.structs.replace(
        net,
        run=lambda tensors: run(with_sizes(tensors, net.inputs)),
        inputs=tuple(pictures),
        reasons=(*net.reasons, *(f"{spec.name} is filled with the size of the canvas" for spec in others)),
    )


def _size(spec: TensorSpec) -> Callable[[int, int], tuple[int, int]] | None:
    return SIZES.get(spec.name.lower()) if len(spec.shape) == 2 and spec.shape[1] in (2, None) else None


def with_sizes(tensors: Tensors, inputs: Sequence[TensorSpec]) -> dict[str, npt.NDArray[Any]]:
    """The tensors, and those of SIZES that the network takes beside its picture."""
    import numpy as np

    found = dict(tensors)
    shape = next((array.shape for array in tensors.values() if array.ndim == 4), ())
    high, wide = shape[1:3] if shape[-1:] == (3,) else shape[2:] or (0, 0)
    for spec in inputs:
        if spec.name not in found and (size := _size(spec)) is not None:
            found[spec.name] = np.array([size(high, wide)], spec.dtype)
    return found


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


def longest(net: Net, most: int) -> int:
    """The most pieces, up to `most`, that the network has been seen to take of one text; 0 for none."""

    def takes(length: int) -> bool:
        row = {spec.name: np.ones((1, length), spec.dtype) for spec in net.inputs}
        try:
            return all(np.isfinite(found).all() for found in net.run(row).values())
        except ModelError:
            return False

    if takes(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) else (low, middle)
    return low
