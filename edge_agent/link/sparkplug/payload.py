"""Payloads of Sparkplug B as bytes: what we send of them, and what a command says.

The fields and numbers are those of sparkplug_b.proto in the specification 3.0, chapter 6.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from edge_agent.graphs.protobuf import Buffer, block, integer, text

Value: TypeAlias = bool | int | float | str

INT64, DOUBLE, BOOLEAN, STRING = 4, 10, 11, 12
"""data types of a metric"""
_TYPES: dict[type, int] = {bool: BOOLEAN, int: INT64, float: DOUBLE, str: STRING}
_TIMESTAMP, _METRICS, _SEQ = 1, 2, 3
"""fields of a payload"""
_NAME, _ALIAS, _AT, _DATATYPE, _HISTORICAL, _NULL = 1, 2, 3, 4, 5, 7
_LONG, _DOUBLE, _BOOLEAN, _STRING = 11, 13, 14, 15
"""fields of a metric"""
LONGEST = 64
"""characters of a name in a command that are looked at"""


class Metric(NamedTuple):
    """One value, as a birth (with `name` and `datatype`) or as data has it."""

    value: Value | None
    """None: it has none yet"""
    at: int
    """milliseconds since 1970 UTC"""
    name: str = ""
    alias: int | None = None
    datatype: int = 0
    historical: bool = False
    """it is no current value: it waited until it could be sent"""


def datatype_of(value: Value) -> int:
    """The data type that a value is sent as."""
    return _TYPES[type(value)]


def encode(at: int, metrics: Iterable[Metric], seq: int | None) -> bytes:
    """A payload. `at`: when it is sent, milliseconds since 1970 UTC; `seq`: None for a death of the node."""
    body = integer(_TIMESTAMP, at) + b"".join(block(_METRICS, _metric(metric)) for metric in metrics)
    return body if seq is None else body + integer(_SEQ, seq)


def _metric(metric: Metric) -> bytes:
    parts = [text(_NAME, metric.name)] if metric.name else []
    parts += [integer(_ALIAS, metric.alias)] if metric.alias is not None else []
    parts.append(integer(_AT, metric.at))
    parts += [integer(_DATATYPE, metric.datatype)] if metric.datatype else []
    parts += [integer(_HISTORICAL, 1)] if metric.historical else []
    return b"".join(parts) + (integer(_NULL, 1) if metric.value is None else _value(metric.value))


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return integer(_BOOLEAN, value)
    if isinstance(value, int):
        return integer(_LONG, value)
    if isinstance(value, float):
        return bytes([_DOUBLE << 3 | 1]) + struct.pack("<d", value)
    return block(_STRING, value.encode(errors="replace"))


def asked(payload: bytes) -> set[str]:
    """Which controls of the node a command (NCMD) sets to true, by their names. ValueError for what is none."""
    metrics = Buffer(payload).message().messages(_METRICS)
    return {metric.text(_NAME)[:LONGEST] for metric in metrics if metric.number(_BOOLEAN) == 1}
