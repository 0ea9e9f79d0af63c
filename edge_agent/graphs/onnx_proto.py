# ruff: noqa: D101
"""The messages of an ONNX file: the numbers of their fields, and what a tensor holds (onnx.proto of the ONNX project).

Only fields that are read or written here are named.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.graphs.protobuf import Message, block, integer, text

Array = npt.NDArray[Any]


class ModelProto:
    IR_VERSION, PRODUCER_NAME, GRAPH, OPSET_IMPORT, METADATA_PROPS, FUNCTIONS = 1, 2, 7, 8, 14, 25


class OperatorSetIdProto:
    DOMAIN, VERSION = 1, 2


class StringStringEntryProto:
    KEY, VALUE = 1, 2


class GraphProto:
    NODE, NAME, INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 1, 2, 5, 11, 12, 13
    QUANTIZATION_ANNOTATION, SPARSE_INITIALIZER = 14, 15


class FunctionProto:
    NODE, ATTRIBUTE_PROTO = 7, 11


class NodeProto:
    INPUT, OUTPUT, NAME, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 3, 4, 5, 7


class AttributeProto:
    NAME, INT, T, G, INTS, TENSORS, GRAPHS, TYPE, SPARSE_TENSOR, SPARSE_TENSORS = 1, 3, 5, 6, 8, 10, 11, 20, 22, 23
    TYPE_INT, TYPE_INTS = 2, 7


class ValueInfoProto:
    NAME, TYPE = 1, 2


class TypeProto:
    TENSOR_TYPE = 1
    ELEM_TYPE, SHAPE = 1, 2
    """of TypeProto.Tensor"""


class TensorShapeProto:
    DIM = 1
    DIM_VALUE = 1
    """of TensorShapeProto.Dimension"""


class SparseTensorProto:
    VALUES, INDICES = 1, 2


class TensorProto:
    DIMS, DATA_TYPE, FLOAT_DATA, INT32_DATA, INT64_DATA, NAME, RAW_DATA = 1, 2, 4, 5, 7, 8, 9
    DOUBLE_DATA, UINT64_DATA, EXTERNAL_DATA = 10, 11, 13
    FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
    """TensorProto.DataType"""


DTYPES = {
    1: "<f4", 2: "|u1", 3: "|i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8", 12: "<u4", 13: "<u8",
}  # fmt: skip
"""TensorProto.DataType -> numpy's"""
DATA_TYPES = {dtype: kind for kind, dtype in DTYPES.items()}
TYPED = {
    **dict.fromkeys((2, 3, 4, 5, 6), TensorProto.INT32_DATA),
    7: TensorProto.INT64_DATA,
    12: TensorProto.UINT64_DATA,
    13: TensorProto.UINT64_DATA,
}
"""TensorProto.DataType -> the field that holds its whole numbers, where they are not raw"""
REAL = {1: TensorProto.FLOAT_DATA, 11: TensorProto.DOUBLE_DATA}
"""the same of those that are packed as they lie in memory"""


def values(tensor: Message, most: int | None = None) -> Array | None:
    """The numbers of a TensorProto in one row, as a view where they lie as they are, or the first `most` of them.

    None where its type is another, or they do not lie in the file, or not as whole numbers of bytes.
    """
    kind = tensor.number(TensorProto.DATA_TYPE)
    if kind not in DTYPES:
        return None
    dtype = np.dtype(DTYPES[kind])
    if tensor.has(TensorProto.RAW_DATA):
        packed = tensor.payloads(TensorProto.RAW_DATA)[-1]
    elif kind in REAL and tensor.has(REAL[kind]):
        packed = memoryview(b"".join(tensor.payloads(REAL[kind])))
    elif kind in TYPED and tensor.has(TYPED[kind]):
        return np.array(tensor.numbers(TYPED[kind], most), np.int64).astype(dtype)
    else:
        return None
    return None if len(packed) % dtype.itemsize else np.frombuffer(packed, dtype)[:most]


def tensor_proto(name: str, value: Array) -> bytes:
    """A TensorProto that holds `value`."""
    dims = b"".join(integer(TensorProto.DIMS, axis) for axis in value.shape)
    kind = integer(TensorProto.DATA_TYPE, DATA_TYPES[value.dtype.str])
    return dims + kind + text(TensorProto.NAME, name) + block(TensorProto.RAW_DATA, value.tobytes())


def value_info(name: str, kind: int, shape: list[int] | None = None) -> bytes:
    """A ValueInfoProto of a tensor whose numbers are of this TensorProto.DataType; `shape` None: it does not say."""
    tensor = integer(TypeProto.ELEM_TYPE, kind)
    if shape is not None:
        axes = [block(TensorShapeProto.DIM, integer(TensorShapeProto.DIM_VALUE, axis)) for axis in shape]
        tensor += block(TypeProto.SHAPE, b"".join(axes))
    return text(ValueInfoProto.NAME, name) + block(ValueInfoProto.TYPE, block(TypeProto.TENSOR_TYPE, tensor))


TENSOR_HOLDERS: dict[str, dict[int, str]] = {
    "model": {ModelProto.GRAPH: "graph", ModelProto.FUNCTIONS: "function"},
    "graph": {
        GraphProto.NODE: "node",
        GraphProto.INITIALIZER: "tensor",
        GraphProto.SPARSE_INITIALIZER: "sparse",
    },
    "function": {FunctionProto.NODE: "node", FunctionProto.ATTRIBUTE_PROTO: "attribute"},
    "node": {NodeProto.ATTRIBUTE: "attribute"},
    "attribute": {
        AttributeProto.T: "tensor",
        AttributeProto.G: "graph",
        AttributeProto.TENSORS: "tensor",
        AttributeProto.GRAPHS: "graph",
        AttributeProto.SPARSE_TENSOR: "sparse",
        AttributeProto.SPARSE_TENSORS: "sparse",
    },
    "sparse": {SparseTensorProto.VALUES: "tensor", SparseTensorProto.INDICES: "tensor"},
}
"""Where a file can hold tensors (IR version 4 and later): message -> field -> message"""


def has_external_data(model: Message) -> bool:
    """Whether the weights of a tensor, wherever it stands, lie in another file. ValueError for a broken model."""
    todo = [("model", model)]
    while todo:
        kind, message = todo.pop()
        if kind == "tensor":
            if message.has(TensorProto.EXTERNAL_DATA):
                return True
            continue
        holders = TENSOR_HOLDERS[kind]
        todo += [(holders[field[0]], message.inside(field)) for field in message.fields if field[0] in holders]
    return False
