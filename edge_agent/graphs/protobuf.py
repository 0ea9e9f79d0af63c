"""What of the protobuf encoding it takes to read an ONNX file and to write parts of it anew, without the onnx package.

https://protobuf.dev/programming-guides/encoding; groups, which ONNX does not have, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, int, int, int]
"""number, begin of the field with its tag, begin and end of its payload (of a varint: end of the field)"""


def fields(data: memoryview, at: int, end: int) -> Iterator[Field]:
    """The fields of the message at `at`..`end`. ValueError or IndexError where it is broken."""
    while at < end:
        begin = at
        key, at = varint(data, at)
        number, wire, start = key >> 3, key & 7, at
        if wire == 0:
            _, at = varint(data, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, start = varint(data, at)
            at = start + size
        else:
            raise ValueError(f"protobuf wire type {wire} at byte {begin}")
        if at > end:
            raise ValueError(f"a protobuf field at byte {begin} ends beyond its message")
        yield number, begin, start, at


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next thing begins."""
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError(f"protobuf integer too long at byte {at}")


def numbers(data: memoryview, field: Field) -> list[int]:
    """The signed 64-bit numbers of a repeated field: one, or as many as are packed in it."""
    _, begin, at, end = field
    found = []
    if varint(data, begin)[0] & 7 == 0:
        end = at + 1
    while at < end:
        value, at = varint(data, at)
        found.append(value - (1 << 64) if value >> 63 else value)
    return found


def text(data: memoryview, at: int, end: int) -> str:
    """UTF-8."""
    return bytes(data[at:end]).decode()


def integer(field: int, value: int) -> bytes:
    """A field of a whole number of 64 bits."""
    return _packed(field << 3) + _packed(value & (1 << 64) - 1)


def block(field: int, payload: bytes) -> bytes:
    """A field of bytes: a text, a message, packed numbers."""
    return _packed(field << 3 | 2) + _packed(len(payload)) + payload


def _packed(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
