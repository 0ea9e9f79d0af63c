"""TFLite models through LiteRT, or the older tflite-runtime; the only file of the agent that imports either."""

from __future__ import annotations

import ctypes
import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.errors import ModelError, RefusedError
from edge_agent.types import Net, Tensors, TensorSpec

ENGINES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter"),
)
"""distribution and module with an Interpreter class, in the order in which they are tried"""

FAILURES = (ValueError, RuntimeError, SystemError, TypeError, OSError)
"""what an Interpreter raises; SystemError is tflite-runtime 2.14 beside NumPy 2, which only dies when it is built"""


def load(path: Path, threads: int, source: Path) -> Net:
    """Open `path` with `threads` threads, its bytes read from `source`. RefusedError for what cannot be loaded.

    The first engine that can build an interpreter of this file serves: one that can be imported may still be unable
    to. A quantized input takes its own integers, or float32 which is then quantized here; quantized outputs come as
    float32. Inputs of a declared dynamic axis are resized to what is given. An Interpreter is one set of buffers: runs
    that come at once each take one, and a further one is built where all are at work. The file is read once: what lies
    under its name later on is another model.
    """
    content = _content(path, source)
    reasons: list[str] = []
    model_faults: list[str] = []
    for distribution, module in ENGINES:
        try:
            build = importlib.import_module(module).Interpreter
        except (ImportError, AttributeError) as error:
            reasons.append(f"{distribution}: cannot be imported ({_first_sentence(error)})")
            continue
        make = partial(_ready, build, content, threads)
        try:
            interpreter = make()
            # names that are no UTF-8 show here
            interpreter.get_input_details(), interpreter.get_output_details()
        except FAILURES as error:
            model_faults.append(f"{distribution}: {_first_sentence(error)}")
            reasons.append(model_faults[-1])
            continue
        version = getattr(importlib.import_module(module.partition(".")[0]), "__version__", "of unknown version")
        return _net(
            path, interpreter, make, f"{distribution} {version}", (*reasons, f"{distribution}: threads={threads}")
        )
    if model_faults:
        raise RefusedError(f"{path}: not a readable TFLite model ({'; '.join(model_faults)})")
    raise RefusedError(f"{path}: no TFLite runtime ({'; '.join(reasons)}); pip install ai-edge-litert")


def bare(path: Path, threads: int = 0) -> Callable[[Tensors], object]:
    """A run in a default interpreter of the first engine that can build one. RefusedError when none can."""
    interpreter = _default(path, threads)
    details = interpreter.get_input_details()
    inputs = [(spec, d["index"]) for spec, d in zip(_specs(path, details), details, strict=True)]
    outputs = [detail["index"] for detail in interpreter.get_output_details()]

    def run(tensors: Tensors) -> object:
        for spec, index in inputs:
            interpreter.set_tensor(index, _quantize(path, spec, tensors[spec.name]))
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return run


def _content(path: Path, source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read ({error.strerror})") from None


def _default(path: Path, threads: int) -> Any:
    content = _content(path, path)
    for _, module in ENGINES:
        try:
            return _ready(importlib.import_module(module).Interpreter, content, threads or None)
        except (ImportError, AttributeError, *FAILURES):
            continue
    raise RefusedError(f"{path}: no TFLite runtime can load it; pip install ai-edge-litert")


DELEGATES = {"Coral": "libedgetpu.so.1", "Hailo": "libhailo_tflite_delegate.so"}
"""delegate -> its library; XNNPACK is built in and runs already"""


def providers(path: Path) -> dict[str, str]:
    """Delegate -> why it does not run this file; empty when it does."""
    found = {}
    for name, library in DELEGATES.items():
        try:
            litert = importlib.import_module(ENGINES[0][1])
            ctypes.CDLL(library)  # asked first, as a delegate that fails to load complains when it is collected
            delegate = litert.load_delegate(library)
            litert.Interpreter(model_path=str(path), experimental_delegates=[delegate]).allocate_tensors()
            found[name] = ""
        except (ImportError, AttributeError, *FAILURES) as error:
            found[name] = _first_sentence(error) or library
    return found


def _ready(build: Callable[..., Any], content: bytes, threads: int | None) -> Any:
    """An interpreter of a file's bytes, which it reads where they lie; buffers allocated. `threads` None: as many as it
    likes.
    """
    interpreter = build(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def _net(path: Path, interpreter: Any, make: Callable[[], Any], engine: str, reasons: tuple[str, ...]) -> Net:
    inputs = _specs(path, interpreter.get_input_details())
    outputs = _specs(path, interpreter.get_output_details())
    idle: LifoQueue[Callable[[Arrays], Arrays]] = LifoQueue()
    idle.put(_runner(path, interpreter, inputs))

    def run(tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
        missing = [spec.name for spec in inputs if spec.name not in tensors]
        if missing:
            raise ModelError(f'{path}: input "{missing[0]}" is missing')
        feed = [_quantize(path, spec, tensors[spec.name]) for spec in inputs]
        try:
            with _one_of(idle, lambda: _runner(path, make(), inputs)) as one:
                results = one(feed)
        except FAILURES as error:
            raise ModelError(f"{path}: the run failed ({_first_sentence(error)})") from None
        return {spec.name: _dequantize(spec, r) for spec, r in zip(outputs, results, strict=True)}

    return Net(run, inputs, outputs, engine, reasons)


Arrays = list[npt.NDArray[Any]]


@contextmanager
def _one_of(idle: LifoQueue[Any], make: Callable[[], Any]) -> Iterator[Any]:
    """One of those that are idle, else a new one; idle behind it. Where none can be made, the next that becomes idle:
    there was one to begin with.
    """
    try:
        one = idle.get_nowait()
    except Empty:
        try:
            one = make()
        except (*FAILURES, MemoryError):
            one = idle.get()
    try:
        yield one
    finally:
        idle.put(one)


def _runner(path: Path, interpreter: Any, inputs: tuple[TensorSpec, ...]) -> Callable[[Arrays], Arrays]:
    """One interpreter as a function of its inputs, in their order; one thread at a time may call."""
    sources, sinks = interpreter.get_input_details(), interpreter.get_output_details()
    shapes = [tuple(int(n) for n in detail["shape"]) for detail in sources]

    def resize(feed: Arrays) -> None:
        for i, (spec, array) in enumerate(zip(inputs, feed, strict=True)):
            shape = array.shape
            if shapes[i] == shape:
                continue
            if len(shape) != len(spec.shape) or any(a not in (None, b) for a, b in zip(spec.shape, shape, strict=True)):
                raise ModelError(f'{path}: input "{spec.name}" takes {list(spec.shape)}, not {list(shape)}')
            shapes[i] = ()
            interpreter.resize_tensor_input(sources[i]["index"], shape)
        interpreter.allocate_tensors()
        shapes[:] = [array.shape for array in feed]

    def run(feed: Arrays) -> Arrays:
        if [array.shape for array in feed] != shapes:
            resize(feed)
        for detail, array in zip(sources, feed, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in sinks]

    return run


def _specs(path: Path, details: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    """What the file declares; a name that stands twice gets #2, #3, ... behind it."""
    specs: list[TensorSpec] = []
    for detail in details:
        name = str(detail["name"])
        twins = sum(1 for spec in specs if spec.name.partition("#")[0] == name)
        quantization = detail["quantization_parameters"]
        if len(quantization["scales"]) > 1:
            raise RefusedError(f'{path}: "{name}" is quantized per channel; inputs and outputs need one scale each')
        # shape_signature has -1 where shape has the 1 that stands in for a dynamic axis
        signature = detail.get("shape_signature", detail["shape"])
        specs.append(
            TensorSpec(
                name=f"{name}#{twins + 1}" if twins else name,
                shape=tuple(None if n < 0 else int(n) for n in signature),
                dtype=np.dtype(detail["dtype"]).name,
                scale=float(quantization["scales"][0]) if len(quantization["scales"]) else 0.0,
                zero_point=int(quantization["zero_points"][0]) if len(quantization["scales"]) else 0,
            )
        )
    return tuple(specs)


def _quantize(path: Path, spec: TensorSpec, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`array` in the tensor's own dtype: q = round(real / scale) + zero_point, saturated (TFLite quantization spec)."""
    dtype = np.dtype(spec.dtype)
    if array.dtype == dtype:
        return array
    if spec.scale and array.dtype.kind == "f":
        span = np.iinfo(dtype)
        q = np.rint(array / np.float32(spec.scale)) + spec.zero_point
        quantized: npt.NDArray[Any] = np.clip(q, span.min, span.max).astype(dtype)
        return quantized
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ModelError(f'{path}: input "{spec.name}" takes {dtype}, not {array.dtype}')
    return array.astype(dtype)


def _dequantize(spec: TensorSpec, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """real = (q - zero_point) * scale as float32; other tensors as they are, float16 widened."""
    if spec.scale and array.dtype.kind in "iu":
        real: npt.NDArray[np.float32] = (array.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(
            spec.scale
        )
        return real
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _first_sentence(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip().rstrip(".")
    return text if len(text) <= 200 else text[:197] + "..."
