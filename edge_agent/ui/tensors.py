"""Tensors as the Open Inference Protocol v2 has them over HTTP: as JSON, or as bytes behind the JSON.

The binary form is the extension "binary_tensor_data" of KServe and Triton: the header Inference-Header-Content-Length
says how long the JSON is, `binary_data_size` of a tensor how many of the bytes behind it are its own. Texts and files
(BYTES) are four bytes of their length, little-endian, and then they themselves.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, nearest
from edge_agent.types import TensorSpec

HEADER = "Inference-Header-Content-Length"
DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
"""the protocol's name -> numpy's"""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MOST_TENSORS, MOST_AXES = 64, 16

Array = npt.NDArray[Any]
Value = Array | list[bytes]
"""of numbers, or the elements of one of BYTES in order"""


class Given(msgspec.Struct, frozen=True):
    """A tensor of a request."""

    name: str
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=2**40)]], msgspec.Meta(max_length=MOST_AXES)]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw()


class Wanted(msgspec.Struct, frozen=True):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class Request(msgspec.Struct, frozen=True):
    """An inference request, without the bytes behind it."""

    inputs: Annotated[list[Given], msgspec.Meta(min_length=1, max_length=MOST_TENSORS)]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: Annotated[list[Wanted], msgspec.Meta(max_length=MOST_TENSORS)] = []

    def binary(self, output: str) -> bool:
        """Whether an output is to come as bytes."""
        found = [one.parameters for one in self.outputs if one.name == output]
        every = self.parameters.get("binary_data_output") is True
        return every if not found else found[0].get("binary_data", every) is True


def read(body: bytes, head: str | None, most: int) -> tuple[Request, dict[str, Value]]:
    """A request and its tensors; `head`: what the header HEADER says, None where there is none; `most`: bytes of JSON.

    InputError or msgspec's for what is wrong.
    """
    size = len(body) if head is None else _length(head, len(body))
    if size > most:
        raise InputError(f"more than {most >> 20} MB of JSON; send tensors as binary_data")
    request = msgspec.json.decode(memoryview(body)[:size], type=Request)
    rest, values = memoryview(body)[size:], dict[str, Value]()
    for one in request.inputs:
        if one.name in values:
            raise InputError(f'input "{one.name}" stands twice')
        own = one.parameters.get("binary_data_size")
        if own is None:
            values[one.name] = _of_json(one)
            continue
        if type(own) is not int or not 0 <= own <= len(rest):
            raise InputError(f'input "{one.name}": binary_data_size: {len(rest)} bytes are there')
        values[one.name], rest = _of_bytes(one, rest[:own]), rest[own:]
    if rest:
        raise InputError(f"{len(rest)} bytes behind the last tensor belong to none")
    return request, values


def _length(head: str, most: int) -> int:
    if not (head.isascii() and head.isdigit()) or int(head[:20]) > most:
        raise InputError(f"{HEADER}: the body has {most} bytes")
    return int(head)


def _dtype(one: Given) -> np.dtype[Any]:
    if one.datatype not in DTYPES:
        raise InputError(f'input "{one.name}": no datatype {one.datatype[:20]}; there are {", ".join(DTYPES)}, BYTES')
    return np.dtype(DTYPES[one.datatype])


def _of_json(one: Given) -> Value:
    if not bytes(one.data):
        raise InputError(f'input "{one.name}": neither data nor binary_data_size')
    data = msgspec.json.decode(one.data)
    if one.datatype == "BYTES":
        return _elements(one, data)
    dtype = _dtype(one)
    try:
        found = np.asarray(data)
    except ValueError:
        raise InputError(f'input "{one.name}": rows of different lengths') from None
    allowed = {"b": "b", "u": "biu", "i": "biu", "f": "biuf"}[dtype.kind]
    if found.size and found.dtype.kind not in allowed:
        raise InputError(f'input "{one.name}": data are no numbers of {one.datatype}')
    if dtype.kind in "iu" and found.size:
        span = np.iinfo(dtype)
        if int(found.min()) < span.min or int(found.max()) > span.max:
            raise InputError(f'input "{one.name}": a number is out of the range of {one.datatype}')
    return _shaped(one, found.astype(dtype))


def _elements(one: Given, data: object) -> list[bytes]:
    """Texts, or files as base64 where the parameter content_type says so."""
    flat: list[bytes] = []
    coded = one.parameters.get("content_type") == "base64"
    left: list[object] = [data]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += reversed(item)
        elif not isinstance(item, str):
            raise InputError(f'input "{one.name}": BYTES as JSON are texts')
        else:
            try:
                flat.append(base64.b64decode(item, validate=True) if coded else item.encode())
            except (binascii.Error, ValueError):
                raise InputError(f'input "{one.name}": no base64') from None
    return _counted(one, flat)


def _of_bytes(one: Given, data: memoryview) -> Value:
    if one.datatype != "BYTES":
        dtype = _dtype(one).newbyteorder("<")
        if len(data) != dtype.itemsize * math.prod(one.shape):
            raise InputError(f'input "{one.name}": {len(data)} bytes are no {one.datatype} of {one.shape}')
        # a copy: some engines take no array that they may not write to
        return np.frombuffer(data, dtype).reshape(one.shape).astype(dtype.newbyteorder("="))
    flat, at = list[bytes](), 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data) or at + 4 > len(data):
            raise InputError(f'input "{one.name}": BYTES are cut off')
        flat.append(bytes(data[at + 4 : end]))
        at = end
    return _counted(one, flat)


def _counted(one: Given, flat: list[bytes]) -> list[bytes]:
    if len(flat) != math.prod(one.shape):
        raise InputError(f'input "{one.name}": {len(flat)} elements are no tensor of {one.shape}')
    return flat


def _shaped(one: Given, array: Array) -> Array:
    if array.size != math.prod(one.shape):
        raise InputError(f'input "{one.name}": {array.size} numbers are no tensor of {one.shape}')
    return array.reshape(one.shape)


def written(answer: Mapping[str, Any], values: Mapping[str, Value], asked: Request) -> tuple[bytes, dict[str, str]]:
    """The body of an answer and its headers; `answer`: what stands beside the outputs.

    InputError for numbers that JSON cannot hold.
    """
    outputs, behind = list[dict[str, Any]](), list[bytes]()
    for name, value in values.items():
        datatype = NAMES[value.dtype.name] if isinstance(value, np.ndarray) else "BYTES"
        row: dict[str, Any] = {"name": name, "datatype": datatype, "shape": _shape(value)}
        if asked.binary(name):
            behind.append(_as_bytes(value))
            row["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            row["data"] = _as_json(name, value)
        outputs.append(row)
    head = msgspec.json.encode({**answer, "outputs": outputs})
    if not behind:
        return head, {"Content-Type": "application/json"}
    return head + b"".join(behind), {HEADER: str(len(head)), "Content-Type": "application/octet-stream"}


def _shape(value: Value) -> list[int]:
    return list(value.shape) if isinstance(value, np.ndarray) else [len(value)]


def _as_bytes(value: Value) -> bytes:
    if isinstance(value, list):
        return b"".join(struct.pack("<I", len(one)) + one for one in value)
    return value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()


def _as_json(name: str, value: Value) -> list[Any]:
    if isinstance(value, list):
        return [one.decode(errors="replace") for one in value]
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise InputError(f'output "{name}" holds numbers that are not finite; ask for it as binary_data')
    numbers: list[Any] = value.ravel().tolist()
    return numbers


def described(spec: TensorSpec, wide: bool = False) -> dict[str, Any]:
    """A tensor; `wide`: as an output, which is float32 where it is quantized or float16 in the file."""
    dtype = "float32" if wide and (spec.scale or spec.dtype == "float16") else spec.dtype
    shape = [-1 if axis is None else axis for axis in spec.shape]
    return {"name": spec.name, "datatype": NAMES.get(dtype, dtype.upper()), "shape": shape}


def check(specs: tuple[TensorSpec, ...], given: Mapping[str, Value]) -> None:
    """InputError unless these are the tensors that a network takes."""
    known = {spec.name: spec for spec in specs}
    for name, value in given.items():
        if name not in known:
            raise InputError(f'no input "{name[:80]}"{nearest(name[:80], known)}')
        if not _fits(known[name], value):
            told = described(known[name])
            raise InputError(f'input "{name}" takes {told["datatype"]} of {told["shape"]}')
    if missing := known.keys() - given.keys():
        raise InputError(f'input "{sorted(missing)[0]}" is missing')


def _fits(spec: TensorSpec, value: Value) -> bool:
    if not isinstance(value, np.ndarray) or value.dtype.name != spec.dtype or value.ndim != len(spec.shape):
        return False
    return value.size > 0 and all(a in (None, b) for a, b in zip(spec.shape, value.shape, strict=True))
