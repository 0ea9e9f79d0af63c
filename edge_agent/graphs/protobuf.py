"""The protobuf encoding, as far as reading an ONNX file and writing parts of it takes it, without the onnx package.

The bytes are hostile until proven otherwise: each length is checked against the message that it stands in, and the
number of fields is bounded. https://protobuf.dev/programming-guides/encoding; groups, which ONNX does not have, are
refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path

MAX_FIELDS = 2_000_000
"""of all messages that are looked at in one file"""

FIXED = {1: 8, 5: 4}
"""wire type -> bytes"""

Field = tuple[int, int, int, int]
"""number, begin of the field with its tag, begin and end of its payload"""


class Buffer:
    """The bytes of a file, and how many more of its fields may be looked at."""

    def __init__(self, held: bytes | mmap) -> None:
        self.held, self.data, self.left = held, memoryview(held), MAX_FIELDS

    def message(self) -> Message:
        """The message that the file is. ValueError where it is broken."""
        return Message(self, 0, len(self.data))

    def mentions(self, word: bytes) -> bool:
        """Whether these bytes stand anywhere in it."""
        return self.held.find(word) >= 0

    def fields(self, at: int, end: int) -> Iterator[Field]:
        """The fields of the message at `at`..`end`. ValueError where it is broken."""
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise ValueError(f"more than {MAX_FIELDS} fields")
            begin = at
            key, start = self.varint(at, end)
            wire = key & 7
            if wire == 0:
                _, at = self.varint(start, end)
            elif wire == 2:
                size, start = self.varint(start, end)
                at = start + size
            elif wire in FIXED:
                at = start + FIXED[wire]
            else:
                raise ValueError(f"protobuf wire type {wire} at byte {begin}")
            if key < 8:
                raise ValueError(f"a protobuf field of the number 0 at byte {begin}")
            if at > end:
                raise ValueError(f"a protobuf field at byte {begin} ends beyond its message")
            yield key >> 3, begin, start, at

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """The number at `at`, and where the next thing begins. ValueError where it does not stop before `end`."""
        if at < end and self.data[at] < 128:
            return self.data[at], at + 1
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise ValueError(f"cut short at byte {at}")
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (1 << 64) - 1, at
        raise ValueError(f"protobuf integer too long at byte {at}")


class Message:
    """A message of a file: its fields in order. A payload is read only when it is asked for."""

    __slots__ = ("_buffer", "fields")

    def __init__(self, buffer: Buffer, at: int, end: int) -> None:
        self._buffer = buffer
        self.fields: list[Field] = list(buffer.fields(at, end))

    def messages(self, *numbers: int) -> Iterator[Message]:
        """Those in the fields of these numbers, in order."""
        return (Message(self._buffer, at, end) for number, _, at, end in self.fields if number in numbers)

    def texts(self, number: int) -> list[str]:
        """Of a repeated field. ValueError where one is no UTF-8."""
        return [bytes(payload).decode() for payload in self.payloads(number)]

    def text(self, number: int) -> str:
        """Of a field that holds one; the last one counts, as protobuf has it. "" where it is absent."""
        return (self.texts(number) or [""])[-1]

    def numbers(self, number: int, most: int | None = None) -> list[int]:
        """The signed 64-bit numbers of a repeated field, packed or one at a time; no more than the first `most`."""
        return list(islice(self._numbers(number), most))

    def number(self, number: int, default: int = 0) -> int:
        """Of a field that holds one; the last one counts."""
        found = self.numbers(number)
        return found[-1] if found else default

    def payloads(self, number: int) -> list[memoryview]:
        """The bytes of the fields of this number, where they lie."""
        return [self._buffer.data[at:end] for n, _, at, end in self.fields if n == number]

    def has(self, *numbers: int) -> bool:
        """Whether it holds a field of one of these numbers."""
        return any(number in numbers for number, *_ in self.fields)

    def copied(self, field: Field) -> memoryview:
        """A field as it stands in the file, with its tag."""
        return self._buffer.data[field[1] : field[3]]

    def inside(self, field: Field) -> Message:
        """The message in a field."""
        return Message(self._buffer, field[2], field[3])

    def _numbers(self, number: int) -> Iterator[int]:
        for n, _, at, end in self.fields:
            while n == number and at < end:
                value, at = self._buffer.varint(at, end)
                yield value - (1 << 64) if value >> 63 else value


@contextmanager
def mapped(path: Path) -> Iterator[Buffer]:
    """A file that is read from the disk where it is looked at. ValueError where it is empty.

    Nothing that lies in it may be kept afterwards, see `Message.payloads`.
    """
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as pages:
        buffer = Buffer(pages)
        with buffer.data:
            yield buffer


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────


def integer(field: int, value: int) -> bytes:
    """A field of a whole number of 64 bits."""
    return _varint(field << 3) + _varint(value & (1 << 64) - 1)


def block(field: int, payload: bytes) -> bytes:
    """A field of bytes: a text, a message, packed numbers."""
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload


def text(field: int, value: str) -> bytes:
    """A field of text."""
    return block(field, value.encode())


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
