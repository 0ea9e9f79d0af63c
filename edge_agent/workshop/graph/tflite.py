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


TABLES = ("GATHER", "EMBEDDING_LOOKUP")


@dataclass(frozen=True, slots=True)
class Model:
    """A float32 model, ready for the quantizer."""

    data: bytes
    layers: list[Operator]
    floats: frozenset[str]
    """float32 tensors that are given or computed"""


def read(path: Path) -> Model:
    """The model with float16 constants widened to float32, and every tensor under a name of its own.

    Raises RefusedError for what is no TFLite model, has more than one graph, or has no float weights to quantize.
    """
    try:
        model = unpacked(path.read_bytes())
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise RefusedError(f"{path}: {error}") from None
    _widen(model)
    layers = operators(model)
    if why := _why_not(model, layers):
        raise RefusedError(f"{path}: {why}")
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    made = {*(names[i] for i in graph.inputs), *(name for layer in layers for name in layer.outputs)}
    floats = {name for name, tensor in zip(names, graph.tensors, strict=True) if tensor.type == FLOAT32}
    return Model(packed(model), layers, frozenset(made & floats))


def _why_not(model: Any, layers: list[Operator]) -> str:
    """Why it cannot be quantized; empty where it can."""
    whole = [layer.name for layer in layers if "int" in layer.kind]
    if len(model.subgraphs) != 1:
        return f"it has {len(model.subgraphs)} graphs (loops or branches), which cannot be quantized; give one"
    if whole:
        told = f"{len(whole)} layers have integer weights, {whole[0][:60]} for one"
        return f"it is quantized already ({told}); give the float model that it was made from"
    some = any(layer.weights for layer in layers)
    return "" if some else "it has no layer with float weights; there is nothing to quantize"


def unpacked(raw: bytes) -> Any:
    """A file as the schema's objects: all its codes of operators in the new field, every tensor of its first graph
    under a name of its own. ValueError for what is none.
    """
    from ai_edge_litert import schema_py_generated as schema

    if raw[4:8] != b"TFL3":
        raise ValueError("is no TFLite model")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(raw, 0))
        _name(model.subgraphs[0])
        for code in model.operatorCodes:
            # files from before 2021 have the number in the old field only
            code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    except (struct.error, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"is no readable TFLite model ({error})") from None
    model.signatureDefs = model.signatureDefs or []
    return model


def _widen(model: Any) -> None:
    """A DEQUANTIZE of a float16 constant becomes the constant in float32."""
    from ai_edge_litert import schema_py_generated as schema

    graph, kept = model.subgraphs[0], []
    for kind, op in _kinds(model):
        given = graph.tensors[op.inputs[0]] if kind == "DEQUANTIZE" and len(op.inputs) else None
        half = model.buffers[given.buffer].data if given is not None and given.type == FLOAT16 else None
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
    used = {graph.tensors[number].buffer for number in read if number >= 0}
    for tensor in graph.tensors:
        if tensor.type == FLOAT16 and tensor.buffer not in used:
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


def operators(model: Any) -> list[Operator]:
    """Those of the first graph of `unpacked`."""
    tensors, ops, found = model.subgraphs[0].tensors, _kinds(model), []
    widened = {int(op.outputs[0]): int(op.inputs[0]) for kind, op in ops if kind == "DEQUANTIZE"}
    for kind, op in ops:
        made = tuple(tensors[i].name.decode() for i in op.outputs)
        given = [int(i) for i in op.inputs if i >= 0 and not _is_constant(model, i)]
        if made:
            computed = tuple(tensors[i].name.decode() for i in given)
            found.append(Operator(made[0], kind, computed, made, *_held(model, kind, op, widened)))
    return found


def _kinds(model: Any) -> list[tuple[str, Any]]:
    """The operators of the first graph, each behind what it is called."""
    from ai_edge_litert import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    codes = [names.get(code.builtinCode, "CUSTOM") for code in model.operatorCodes]
    return [(codes[op.opcodeIndex], op) for op in model.subgraphs[0].operators]


def _held(model: Any, kind: str, op: Any, widened: dict[int, int]) -> tuple[int, str]:
    """How many weights of float32 an operator has, and what it computes with: fp32, fp16 (stored so), int8,
    dynamic-int8, int8-weights; "" for one of no or other weights. `widened`: tensors that are made of smaller ones.
    """
    tensors, place = model.subgraphs[0].tensors, dict(enumerate(op.inputs)).get(WEIGHTED.get(kind, -1), -1)
    index = widened.get(place, place)
    if not _is_constant(model, index):
        return 0, ""
    scale = tensors[index].quantization.scale if tensors[index].quantization else None
    if scale is None or not len(scale):
        told = {FLOAT32: "fp32", FLOAT16: "fp16"}.get(tensors[index].type, "")
        return int(np.prod(tensors[index].shape)) if told == "fp32" else 0, told
    float_ = "dynamic-int8" if tensors[op.outputs[0]].type == FLOAT32 else "int8"
    return 0, "int8-weights" if place in widened or kind in TABLES else float_


def _is_constant(model: Any, index: int) -> bool:
    """Whether the file holds the values of that tensor; -1: none."""
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data if index >= 0 else None
    return data is not None and len(data) > 0


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
                watched.resize_tensor_input(detail["index"], feed[detail["name"]].shape)
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
