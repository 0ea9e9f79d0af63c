"""ONNX models through ONNX Runtime; the only file of the agent that imports it.

The session is set for a machine that does other work too. A default one spins its worker threads for tens of
milliseconds after each run, slows down threefold beside one busy process, and ignores the process's CPU affinity.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.backends import with_sizes
from edge_agent.errors import ModelError, RefusedError
from edge_agent.graphs.onnx_proto import (
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    has_external_data,
    tensor_proto,
    value_info,
)
from edge_agent.graphs.protobuf import Message, block, integer, mapped, text
from edge_agent.types import Net, Tensors, TensorSpec

PROVIDERS = "EDGE_AGENT_PROVIDERS"
"""Environment: execution providers to try before the CPU, comma separated, e.g. CUDAExecutionProvider."""

CPU = "CPUExecutionProvider"
OTHERS = tuple(
    f"{name}ExecutionProvider" for name in ("CUDA", "Tensorrt", "OpenVINO", "Hailo", "ACL", "Xnnpack", "CoreML")
)
"""those that ``bench`` lists"""

MAPPED = {
    "session.load_model_format": "ORT",
    "session.use_memory_mapped_ort_model": "1",
    "session.use_ort_model_bytes_for_initializers": "1",
}
"""an optimised file is mapped into memory, its weights are used where they lie"""

EXACT = "session.x64quantprecision"
"""weights of S8 are turned into U8 as the session is made: products of two U8 do not saturate (see `saturates`)"""

EXACTLY = ", products of int8 exact: the fast ones of this processor saturate"
"""what is said where they are"""

SPIN_DURATION_SINCE = (1, 26)
"""ONNX Runtime that first knows session.intra_op.spin_duration_us; older ones accept any key and ignore it."""

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def load(path: Path, threads: int, source: Path) -> Net:
    """Open `path` with `threads` threads, its bytes read from `source`. RefusedError for what cannot be loaded.

    The CPU serves, unless $EDGE_AGENT_PROVIDERS names others: each is tried in turn with a real run, and what speaks
    against it stands in the Net's reasons. float16 outputs come as float32; inputs of another width are cast.
    """
    ort = _runtime(path)
    _refuse_external(path, source)
    reasons: list[str] = []
    for provider in [p.strip() for p in os.environ.get(PROVIDERS, "").split(",") if p.strip() not in ("", CPU)]:
        try:
            net = _net(ort, path, source, _options(ort, threads), provider, _without(source))
            _try_out(net)
        except ModelError as error:
            reasons.append(f"{provider}: {str(error).removeprefix(f'{path}: ')}")
            continue
        return msgspec.structs.replace(net, reasons=(*reasons, f"{provider}: asked for, and its run works"))
    here = f"{CPU}: threads={threads}{EXACTLY if saturates() else ''}"
    net = _net(ort, path, source, _options(ort, threads), CPU, _without(source))
    return msgspec.structs.replace(net, reasons=(*reasons, here))


def load_optimised(path: Path, threads: int, source: Path) -> Net:
    """Open what `optimise` wrote, as `load` does. RefusedError for what cannot be loaded."""
    ort = _runtime(path)
    options = _options(ort, threads, exact=False)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in MAPPED.items():
        options.add_session_config_entry(key, value)
    return msgspec.structs.replace(_net(ort, path, source, options, CPU), reasons=(f"{CPU}: threads={threads}",))


def optimise(path: Path, out: Path, *, exact: bool = True) -> None:
    """Write the network in `path` to `out` in ONNX Runtime's own format, its graph as this processor runs it best.

    `exact`: no product of int8 saturates, as with `load`; without it they may, where this processor `saturates`.

    It loads several times faster and gives the same numbers, but only in this version of ONNX Runtime and on this kind
    of processor: a cache has to keep it under both. RefusedError when it cannot be made.
    """
    ort = _runtime(path)
    _refuse_external(path, path)
    options = _options(ort, 1, exact)
    options.optimized_model_filepath = str(out)
    options.add_session_config_entry("session.save_model_format", "ORT")
    _session(ort, path, path, options, [CPU], _without(path))


@functools.cache
def saturates() -> bool:
    """Whether ONNX Runtime's products of U8 and S8 saturate on this processor.

    They do on x86 with AVX2 but no VNNI, where two of them are added in 16 bits (VPMADDUBSW).

    Found by doing one. /proc/cpuinfo would not do: of an emulated processor it tells the host's.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(_largest_product(), options, providers=[CPU])
    (sums,) = session.run(None, {"a": np.full((TERMS, TERMS), 255, np.uint8)})
    return bool((sums != TERMS * 255 * 127).any())


def multiply_exactly(options: Any) -> None:
    """Let a session that is made with these options multiply int8 exactly on every processor."""
    if saturates():
        # only there: elsewhere it costs time and changes no number
        options.add_session_config_entry(EXACT, "1")


TERMS = 64
"""of the sum that shows it"""
S8_TO_U8 = "QDQS8ToU8Transformer"
"""the step of ONNX Runtime's optimisation that turns weights into U8, and their zero points, while they stand behind a
DequantizeLinear of their own; what multiplies integers has another step"""


def _without(path: Path) -> list[str]:
    """Steps that have to be left out for exact products: ONNX Runtime 1.32 makes a network that cannot run of one whose
    weights have a scale for each channel and no zero points, as weights that are widened have.
    """
    if not saturates():
        return []
    try:
        with mapped(path) as file:
            graphs = list(file.message().messages(ModelProto.GRAPH))
            scales = {name for graph in graphs for name in _widening_scales(graph)}
            many = {name for graph in graphs for name in _tensors_of_many(graph)}
    except (IndexError, ValueError):
        return []
    return [S8_TO_U8] if many & scales else []


def _tensors_of_many(graph: Message) -> Iterator[str]:
    """The names of those constants that are longer than 1 in some direction."""
    for tensor in graph.messages(GraphProto.INITIALIZER):
        if any(n > 1 for n in tensor.numbers(TensorProto.DIMS)):
            yield tensor.text(TensorProto.NAME)


def _widening_scales(graph: Message) -> list[str]:
    """The scales by which a graph widens without zero points."""
    nodes = graph.messages(GraphProto.NODE)
    widened = [n.texts(NodeProto.INPUT) for n in nodes if n.text(NodeProto.OP_TYPE) == "DequantizeLinear"]
    return [names[1] for names in widened if len(names) == 2]


def _largest_product() -> bytes:
    """An ONNX network of one operator: a, U8 [TERMS, TERMS], times S8 that are all 127."""
    shape = [TERMS, TERMS]
    names = text(NodeProto.INPUT, "a") + text(NodeProto.INPUT, "b") + text(NodeProto.OUTPUT, "sums")
    graph = [
        block(GraphProto.NODE, names + text(NodeProto.OP_TYPE, "MatMulInteger")),
        text(GraphProto.NAME, "product"),
        block(GraphProto.INITIALIZER, tensor_proto("b", np.full(shape, 127, np.int8))),
        block(GraphProto.INPUT, value_info("a", TensorProto.UINT8, shape)),
        block(GraphProto.OUTPUT, value_info("sums", TensorProto.INT32, shape)),
    ]
    operators = integer(OperatorSetIdProto.VERSION, 17)
    made = integer(ModelProto.IR_VERSION, 8) + block(ModelProto.GRAPH, b"".join(graph))
    return made + block(ModelProto.OPSET_IMPORT, operators)


def bare(path: Path, threads: int = 0) -> Callable[[Tensors], object]:
    """A run in a default session; `threads` 0: as many as it likes."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=[CPU])
    wanted = [TensorSpec(arg.name, tuple(arg.shape), DTYPES[arg.type]) for arg in session.get_inputs()]

    def run(tensors: Tensors) -> object:
        given = with_sizes(tensors, wanted) if len(wanted) > len(tensors) else tensors
        return session.run(None, {spec.name: given[spec.name].astype(spec.dtype, copy=False) for spec in wanted})

    return run


def providers(path: Path) -> dict[str, str]:
    """Execution provider -> why it does not run this file; empty when it does."""
    import onnxruntime as ort

    found = {}
    for provider in OTHERS:
        try:
            _try_out(_net(ort, path, path, _options(ort, 1), provider))
            found[provider] = ""
        except ModelError as error:
            found[provider] = str(error).removeprefix(f"{path}: ")
    return found


def _net(ort: ModuleType, path: Path, source: Path, options: Any, provider: str, without: Sequence[str] = ()) -> Net:
    """One session on one provider (the CPU takes what that cannot do). RefusedError when it cannot be built."""
    if provider not in ort.get_available_providers():
        raise RefusedError(f"{path}: this ONNX Runtime was built without it")
    failures = _failures(ort)
    session = _session(ort, path, source, options, [provider] if provider == CPU else [provider, CPU], without)
    if session.get_providers()[0] != provider:
        raise RefusedError(f"{path}: the session fell back to {session.get_providers()[0]} by itself")
    inputs = tuple(_spec(path, arg) for arg in session.get_inputs())
    outputs = tuple(_spec(path, arg) for arg in session.get_outputs())
    names = [spec.name for spec in outputs]
    wanted = {spec.name: np.dtype(spec.dtype) for spec in inputs}

    def run(tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
        feed = {name: _cast(path, name, array, wanted[name]) for name, array in tensors.items() if name in wanted}
        try:
            results = session.run(names, feed)
        except failures as error:
            raise ModelError(f"{path}: the run failed ({_first_sentence(error, path)})") from None
        wide = [r.astype(np.float32) if r.dtype == np.float16 else r for r in results]
        return dict(zip(names, wide, strict=True))

    about = session.get_modelmeta().custom_metadata_map
    return Net(run, inputs, outputs, f"onnxruntime {ort.__version__} {provider}", about=about)


def _runtime(path: Path) -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise RefusedError(f"{path}: ONNX Runtime cannot be imported ({error}); pip install onnxruntime") from None
    module: ModuleType = onnxruntime
    return module


def _session(
    ort: ModuleType, path: Path, source: Path, options: Any, providers: list[str], without: Sequence[str] = ()
) -> Any:
    failures = _failures(ort)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            left_out = {"disabled_optimizers": list(without)} if without else {}
            return ort.InferenceSession(str(source), options, providers=providers, **left_out)
    except failures as error:
        raise RefusedError(f"{path}: not a readable ONNX model ({_first_sentence(error, source)})") from None


def _options(ort: ModuleType, threads: int, exact: bool = True) -> Any:
    options = ort.SessionOptions()
    if exact:
        multiply_exactly(options)
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = True
    version = tuple(int(n) for n in re.findall(r"\d+", ort.__version__)[:2])
    if version >= SPIN_DURATION_SINCE:
        options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _spec(path: Path, arg: Any) -> TensorSpec:
    if arg.type not in DTYPES:
        raise RefusedError(f'{path}: "{arg.name}" is a {arg.type}, not a plain tensor of numbers; export it without')
    shape = tuple(axis if isinstance(axis, int) else None for axis in arg.shape)
    return TensorSpec(arg.name, shape, DTYPES[arg.type])


def _cast(path: Path, name: str, array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """`array` as `dtype`; itself when it is one. Only the width may change; ModelError for another kind of number."""
    if array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ModelError(f'{path}: input "{name}" takes {dtype}, not {array.dtype}')
    return array.astype(dtype)


def _try_out(net: Net) -> None:
    """One run on zeros: a provider that is listed may still be unable to run.

    A dynamic first axis is taken as 1 and others as 64, which suits a batch of tokens and of pictures alike.
    """
    shapes = {spec: [axis or (64 if i else 1) for i, axis in enumerate(spec.shape)] for spec in net.inputs}
    net.run({spec.name: np.zeros(shape, spec.dtype) for spec, shape in shapes.items()})


def _failures(ort: ModuleType) -> tuple[type[Exception], ...]:
    """All that ONNX Runtime raises: its own exceptions have no common base but Exception."""
    state = ort.capi.onnxruntime_pybind11_state
    own = [e for e in vars(state).values() if isinstance(e, type) and issubclass(e, Exception)]
    return (*own, RuntimeError, ValueError)


def _first_sentence(error: Exception, path: Path) -> str:
    """The first line of an ONNX Runtime message without its code, the path and the source file it arose in."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    text = re.sub(rf"^Load model from {re.escape(str(path))} failed:\s*", "", text)
    text = re.sub(r"\S+\.(cc|h):\d+ \S+ ", "", text)
    text = re.sub(r"\s+", " ", text.partition("\n\n")[0]).strip().rstrip(".")
    return text if len(text) <= 200 else text[:197] + "..."


def _refuse_external(path: Path, source: Path) -> None:
    """RefusedError if `path`, read from `source`, has weights in another file, wherever it lies; or is no protobuf.

    Such files have no hash, so that nobody would notice when they are no longer what was proved, they do not come along
    when a model is added, and older ONNX Runtimes read whatever path is named.
    """
    try:
        with mapped(source) as file:
            # the key of the entry that names the other file: most files hold none, and are not walked through
            outside = file.mentions(b"location") and has_external_data(file.message())
    except ValueError as error:
        raise RefusedError(f"{path}: not a readable ONNX model ({error})") from None
    if outside:
        raise RefusedError(
            f"{path}: its weights lie in another file; save it in one: "
            f'onnx.save(onnx.load("{path.name}"), "one-file.onnx")'
        )
