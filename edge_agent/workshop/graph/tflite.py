"""A TFLite file as the quantizer needs it, and what stands in it: operators, weights, the tail behind the last of them.

Format: the TFLite schema (tensorflow/compiler/mlir/lite/schema/schema.fbs), through the classes of ai-edge-litert.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.backends.quiet import quiet
from edge_agent.errors import ModelError, RefusedError
from edge_agent.workshop.graph.layers import Operator

Array = npt.NDArray[Any]
FLOAT32, FLOAT16 = 0, 1
WEIGHTED = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "EMBEDDING_LOOKUP": 1,
    "GATHER": 0,
    "BATCH_MATMUL": 1,
}
"""operator -> which of its inputs is its weights, where that one is constant"""


@dataclass(frozen=True, slots=True)
class Model:
    """A float32 model, ready for the quantizer."""

    data: bytes
    layers: list[Operator]
    inputs: list[str]
    outputs: list[str]
    floats: frozenset[str]
    """float32 tensors that are given or computed"""


def read(path: Path) -> Model:
    """The model with float16 constants widened to float32, and every tensor under a name of its own.

    Raises RefusedError for what is no TFLite model, has more than one graph, or has no float weights to quantize.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = _unpacked(path, schema)
    graph = model.subgraphs[0]
    _widen(model, graph, schema)
    _name(graph)
    layers = _layers(model, graph, schema)
    _check_weights(path, layers)
    names = [tensor.name.decode() for tensor in graph.tensors]
    inputs, outputs = [names[i] for i in graph.inputs], [names[i] for i in graph.outputs]
    made = {*inputs, *(name for layer in layers for name in layer.outputs)}
    floats = {tensor.name.decode() for tensor in graph.tensors if tensor.type == FLOAT32}
    return Model(packed(model), layers, inputs, outputs, frozenset(made & floats))


def _check_weights(path: Path, layers: list[Operator]) -> None:
    """RefusedError where some are integers, or there are none."""
    whole = [layer for layer in layers if layer.integer]
    if whole:
        raise RefusedError(
            f"{path}: it is quantized already ({len(whole)} layers have integer weights, {_short(whole[0].name)} for "
            "one); give the float model that it was made from"
        )
    if not any(layer.weights for layer in layers):
        raise RefusedError(f"{path}: it has no layer with float weights; there is nothing to quantize")


def _unpacked(path: Path, schema: Any) -> Any:
    """The file as the schema's objects, all its codes of operators in the new field."""
    try:
        raw = path.read_bytes()
        if raw[4:8] != b"TFL3":
            raise RefusedError(f"{path}: is no TFLite model")
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(raw, 0))
        graphs = len(model.subgraphs)
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read ({error.strerror})") from None
    except (struct.error, TypeError, ValueError, IndexError, AttributeError, UnicodeDecodeError) as error:
        raise RefusedError(f"{path}: is no readable TFLite model ({error})") from None
    if graphs != 1:
        raise RefusedError(f"{path}: it has {graphs} graphs (loops or branches), which cannot be quantized; give one")
    for code in model.operatorCodes:
        # files from before 2021 have the number in the old field only
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    model.signatureDefs = model.signatureDefs or []
    return model


def _widen(model: Any, graph: Any, schema: Any) -> None:
    """A DEQUANTIZE of a float16 constant becomes the constant in float32."""
    kept = []
    for op in graph.operators:
        half = None
        if model.operatorCodes[op.opcodeIndex].builtinCode == schema.BuiltinOperator.DEQUANTIZE and len(op.inputs):
            given = graph.tensors[op.inputs[0]]
            half = model.buffers[given.buffer].data if given.type == FLOAT16 else None
        if half is None:
            kept.append(op)
            continue
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(bytes(half), np.float16).astype(np.float32).view(np.uint8)
        graph.tensors[op.outputs[0]].buffer = len(model.buffers)
        model.buffers.append(buffer)
    graph.operators = kept
    _drop_halves(model, graph)


def _drop_halves(model: Any, graph: Any) -> None:
    """Empty the buffers of float16 that no operator reads any more."""
    read = {int(i) for op in graph.operators for i in op.inputs} | {int(i) for i in graph.outputs}
    used = {tensor.buffer for number, tensor in enumerate(graph.tensors) if number in read}
    for number, tensor in enumerate(graph.tensors):
        if tensor.type == FLOAT16 and number not in read and tensor.buffer not in used:
            model.buffers[tensor.buffer].data = None


def _name(graph: Any) -> None:
    """Each tensor a name of its own, as the quantizer goes by names. Those inside, which converters make by joining the
    names of all that was fused, keep the first of them.
    """
    seen: set[bytes] = set()
    ends = {*map(int, graph.inputs), *map(int, graph.outputs)}
    for number in sorted(range(len(graph.tensors)), key=lambda number: number not in ends):
        tensor = graph.tensors[number]
        name = tensor.name or b"tensor"
        name = name if number in ends else name.partition(b";")[0]
        tensor.name = name if name not in seen else name + b"#%d" % number
        seen.add(tensor.name)


def is_constant(model: Any, graph: Any, index: int) -> bool:
    """Whether the file holds the values of that tensor."""
    data = model.buffers[graph.tensors[index].buffer].data
    return data is not None and len(data) > 0


def numbered(names: type) -> dict[int, str]:
    """Of an enumeration of the schema, the name of each number."""
    return {value: name for name, value in vars(names).items() if isinstance(value, int)}


def _layers(model: Any, graph: Any, schema: Any) -> list[Operator]:
    kinds = numbered(schema.BuiltinOperator)
    found = []
    for op in graph.operators:
        kind = kinds.get(model.operatorCodes[op.opcodeIndex].builtinCode, "CUSTOM")
        names = [graph.tensors[i].name.decode() for i in op.outputs]
        given = [i for i in map(int, op.inputs) if i >= 0 and not is_constant(model, graph, i)]
        computed = tuple(graph.tensors[i].name.decode() for i in given)
        if names:
            found.append(Operator(names[0], kind, computed, tuple(names), *_weights(model, graph, op, kind)))
    return found


def _weights(model: Any, graph: Any, op: Any, kind: str) -> tuple[int, bool]:
    """As `_held`, of the constant that holds an operator's weights."""
    place = 0 if kind == "DEQUANTIZE" else WEIGHTED.get(kind, len(op.inputs))
    index = int(op.inputs[place]) if place < len(op.inputs) else -1
    return _held(graph.tensors[index]) if index >= 0 and is_constant(model, graph, index) else (0, False)


def _held(tensor: Any) -> tuple[int, bool]:
    """How many weights of float32 a constant has, and whether it is quantized."""
    scale = tensor.quantization.scale if tensor.quantization else None
    return int(np.prod(tensor.shape)) if tensor.type == FLOAT32 else 0, scale is not None and len(scale) > 0


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:57]}..."


def packed(model: Any) -> bytes:
    """The file of the schema's objects."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def watch(model: Model, feeds: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
    """For each feed (tensors by the names of the inputs), every float32 tensor that is computed, by its name.

    Raises ModelError where the model cannot be run on a feed.
    """
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # that it takes memory
        watched = Interpreter(model_content=model.data, num_threads=1, experimental_preserve_all_tensors=True)
    sources = watched.get_input_details()
    for feed in feeds:
        try:
            for detail in sources:
                given = feed[detail["name"]]
                if tuple(detail["shape"]) != given.shape:
                    watched.resize_tensor_input(detail["index"], given.shape)
            watched.allocate_tensors()
            for detail in sources:
                watched.set_tensor(detail["index"], feed[detail["name"]].astype(detail["dtype"]))
            watched.invoke()
        except (ValueError, RuntimeError, KeyError) as error:
            raise ModelError(f"the float model cannot be run on the calibration data: {error}") from None
        found = {}
        for detail in watched.get_tensor_details():
            if detail["name"] in model.floats:
                with contextlib.suppress(ValueError):  # no data: nothing computes it
                    found[detail["name"]] = watched.get_tensor(detail["index"])
        yield {name: value for name, value in found.items() if value.size}
