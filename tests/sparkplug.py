"""Sparkplug B as a host reads it: payloads decoded by code of their own, and the rules of the specification 3.0.

Each rule is called as the specification calls it (tck-id-…); `RULES` holds those that a record of what an edge node
sent can show, the others have a test of their own in tests/link/test_sparkplug.py.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

REBIRTH = "Node Control/Rebirth"


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
        elif key & 7 == 1:
            yield key >> 3, data[at : at + 8]
            at += 8
        else:
            assert key & 7 == 2
            size, at = _varint(data, at)
            yield key >> 3, data[at : at + size]
            at += size


class Metric(NamedTuple):
    name: str | None
    alias: int | None
    timestamp: int | None
    datatype: int | None
    historical: bool
    null: bool
    value: Any


def metric(data: bytes) -> Metric:
    got = dict(_fields(data))
    value = None
    if 11 in got:
        value = got[11] - (1 << 64) if got[11] >> 63 else got[11]
    elif 13 in got:
        value = struct.unpack("<d", got[13])[0]
    elif 14 in got:
        value = bool(got[14])
    elif 15 in got:
        value = got[15].decode()
    name = got[1].decode() if 1 in got else None
    return Metric(name, got.get(2), got.get(3), got.get(4), bool(got.get(5)), bool(got.get(7)), value)


class Message(NamedTuple):
    topic: str
    qos: int
    retain: bool
    kind: str
    device: str
    timestamp: int | None
    seq: int | None
    metrics: list[Metric]
    raw: bytes

    def named(self, name: str) -> Metric:
        return next(one for one in self.metrics if one.name == name)


def message(topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> Message:
    fields = list(_fields(payload))
    assert {number for number, _ in fields} <= {1, 2, 3}
    got, parts = dict(fields), topic.split("/")
    metrics = [metric(body) for number, body in fields if number == 2]
    return Message(topic, qos, retain, parts[2], "/".join(parts[4:]), got.get(1), got.get(3), metrics, payload)


def request(names: list[str], value: bool = True) -> bytes:
    """A command that sets controls of the node, as a host encodes it."""
    body = b"\x08" + _number(int(time.time() * 1000))
    for name in names:
        one = b"\x0a" + _number(len(name)) + name.encode() + b"\x20\x0b\x70" + bytes([value])
        body += b"\x12" + _number(len(one)) + one
    return body


def _number(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


class Host:
    """Hears all that nodes say, and can say something; QoS as it was published, as the broker hands it on."""

    def __init__(self, port: int, topics: str = "spBv1.0/#") -> None:
        self.heard: list[Message] = []
        self._ready = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe(topics, 1)
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_message = lambda _, __, got: self._hear(got.topic, bytes(got.payload), got.qos, got.retain)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._ready.wait(120)

    def _hear(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if topic.split("/")[2] in ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"):
            self.heard.append(message(topic, payload, qos, retain))

    def of(self, kind: str, device: str = "") -> list[Message]:
        return [one for one in list(self.heard) if one.kind == kind and one.device == device]

    def values(self, name: str, device: str = "") -> list[tuple[Any, bool]]:
        return values(list(self.heard), name, device)

    def say(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self.client.publish(topic, payload, 1, retain).wait_for_publish(120)

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()


# ── the rules, over all that one node said ───────────────────────────────────────────────────────────────────

Record = list[Message]


def values(record: Record, name: str, device: str = "") -> list[tuple[Any, bool]]:
    """Each value that data gave a metric, and whether as history; its alias is what the birth before says."""
    names: dict[int, str] = {}
    found = []
    for one in record:
        for each in one.metrics:
            if one.kind in ("NBIRTH", "DBIRTH") and each.alias is not None:
                names[each.alias] = each.name or ""
            elif one.kind in ("NDATA", "DDATA") and names.get(each.alias or 0) == name and one.device == device:
                found.append((each.value, each.historical))
    return found


Rule = Callable[[Record, str, str], None]
"""(what was heard, in order; group; node): fails where it does not hold, or where nothing shows it"""
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    def keep(check: Rule) -> Rule:
        RULES.update({f"tck-id-{name}": check for name in names})
        return check

    return keep


def of(record: Record, *kinds: str) -> Record:
    found = [one for one in record if one.kind in kinds]
    assert found, f"nothing of {kinds} was heard"
    return found


@rule(
    "topics-nbirth-topic", "topics-ndata-topic", "topics-ndeath-topic", "topics-dbirth-topic", "topics-ddata-topic",
    "topics-ddeath-topic", "topic-structure-namespace-a", "message-flow-edge-node-birth-publish-nbirth-topic",
    "message-flow-device-birth-publish-dbirth-topic", "message-flow-edge-node-birth-publish-will-message-topic",
    "topic-structure-namespace-device-id-associated-message-types",
    "topic-structure-namespace-device-id-non-associated-message-types",
    "message-flow-device-birth-publish-dbirth-match-edge-node-topic",
)  # fmt: skip
def topics(record: Record, group: str, node: str) -> None:
    of(record, "NBIRTH"), of(record, "NDATA"), of(record, "NDEATH")
    of(record, "DBIRTH"), of(record, "DDATA"), of(record, "DDEATH")
    for one in record:
        base = f"spBv1.0/{group}/{one.kind}/{node}"
        if one.kind.startswith("D"):
            assert one.topic == f"{base}/{one.device}" and one.device and not set("+/#") & set(one.device)
        else:
            assert one.topic == base


@rule(
    "topics-nbirth-mqtt", "topics-ndata-mqtt", "topics-dbirth-mqtt", "topics-ddata-mqtt", "topics-ddeath-mqtt",
    "payloads-nbirth-qos", "payloads-nbirth-retain", "payloads-dbirth-qos", "payloads-dbirth-retain",
    "payloads-ndata-qos", "payloads-ndata-retain", "payloads-ddata-qos", "payloads-ddata-retain",
    "message-flow-edge-node-birth-publish-nbirth-qos", "message-flow-edge-node-birth-publish-nbirth-retained",
    "message-flow-device-birth-publish-dbirth-qos", "message-flow-device-birth-publish-dbirth-retained",
)  # fmt: skip
def qos_and_retain(record: Record, group: str, node: str) -> None:
    for one in of(record, "NBIRTH", "NDATA", "DBIRTH", "DDATA", "DDEATH"):
        assert (one.qos, one.retain) == (0, False)


@rule(
    "payloads-ndeath-will-message-qos", "payloads-ndeath-will-message-retain", "payloads-ndeath-seq",
    "topics-ndeath-seq", "topics-ndeath-payload", "message-flow-edge-node-birth-publish-will-message-qos",
    "message-flow-edge-node-birth-publish-will-message-will-retained",
    "message-flow-edge-node-birth-publish-will-message-payload",
)  # fmt: skip
def deaths_of_the_node(record: Record, group: str, node: str) -> None:
    for one in of(record, "NDEATH"):
        assert (one.qos, one.retain, one.seq) == (1, False, None)
        assert [each.name for each in one.metrics] == ["bdSeq"] and one.metrics[0].datatype == 4


@rule(
    "topics-nbirth-seq-num", "topics-ndata-seq-num", "topics-dbirth-seq", "topics-ddata-seq-num",
    "topics-ddeath-seq-num", "payloads-nbirth-seq", "payloads-dbirth-seq", "payloads-dbirth-seq-inc",
    "payloads-ndata-seq", "payloads-ndata-seq-inc", "payloads-ddata-seq", "payloads-ddata-seq-inc",
    "payloads-ddeath-seq", "payloads-ddeath-seq-inc", "payloads-ddeath-seq-number",
    "payloads-sequence-num-always-included", "payloads-sequence-num-zero-nbirth",
    "payloads-sequence-num-incrementing", "message-flow-edge-node-birth-publish-nbirth-payload-seq",
    "message-flow-device-birth-publish-dbirth-payload-seq",
)  # fmt: skip
def sequence(record: Record, group: str, node: str) -> None:
    last = None
    for one in of(record, "NBIRTH", "NDATA", "DBIRTH", "DDATA", "DDEATH"):
        expected = 0 if one.kind == "NBIRTH" or last is None else (last + 1) % 256
        assert one.seq == expected, f"{one.kind} {one.device}"
        last = one.seq


@rule(
    "topics-nbirth-timestamp", "topics-ndata-timestamp", "topics-dbirth-timestamp", "topics-ddata-timestamp",
    "payloads-nbirth-timestamp", "payloads-dbirth-timestamp", "payloads-ndata-timestamp", "payloads-ddata-timestamp",
    "payloads-ddeath-timestamp", "payloads-timestamp-in-UTC", "payloads-name-birth-data-requirement",
    "payloads-metric-timestamp-in-UTC",
)  # fmt: skip
def timestamps(record: Record, group: str, node: str) -> None:
    now = time.time() * 1000
    for one in record:
        assert one.timestamp is not None and abs(now - one.timestamp) < 3_600_000
        for each in one.metrics:
            assert each.timestamp is not None and each.timestamp <= now


@rule(
    "topics-nbirth-metrics", "topics-dbirth-metrics", "payloads-metric-datatype-req",
    "payloads-metric-datatype-value", "payloads-metric-datatype-value-type", "payloads-name-requirement",
    "operational-behavior-data-publish-nbirth-values", "operational-behavior-data-publish-dbirth-values",
)  # fmt: skip
def births(record: Record, group: str, node: str) -> None:
    kinds = {4: int, 10: float, 11: bool, 12: str}
    for one in of(record, "NBIRTH", "DBIRTH"):
        for each in one.metrics:
            assert each.name and each.datatype in kinds
            assert each.null is (each.value is None) and (each.null or type(each.value) is kinds[each.datatype])
    assert not any(each.null for one in of(record, "NBIRTH") for each in one.metrics)


@rule(
    "topics-nbirth-metric-reqs", "topics-dbirth-metric-reqs", "operational-behavior-data-publish-nbirth",
    "operational-behavior-data-publish-dbirth", "payloads-alias-data-cmd-requirement",
    "payloads-metric-datatype-not-req", "topics-ndata-payload", "topics-ddata-payload",
)  # fmt: skip
def data_was_declared(record: Record, group: str, node: str) -> None:
    declared: dict[str, set[int | None]] = {}
    for one in of(record, "NBIRTH", "DBIRTH", "NDATA", "DDATA"):
        if one.kind == "NBIRTH":
            declared = {}
        if one.kind in ("NBIRTH", "DBIRTH"):
            declared[one.device] = {each.alias for each in one.metrics}
            continue
        assert one.metrics
        for each in one.metrics:
            assert each.name is None and each.datatype is None and each.alias in declared[one.device]


@rule("payloads-alias-uniqueness", "payloads-alias-birth-requirement")
def aliases(record: Record, group: str, node: str) -> None:
    of(record, "DBIRTH")
    seen: dict[int, tuple[str, str | None]] = {}
    for one in of(record, "NBIRTH", "DBIRTH"):
        seen = {} if one.kind == "NBIRTH" else seen
        for each in one.metrics:
            if each.alias is None:
                assert each.name in ("bdSeq", REBIRTH)
            else:
                assert seen.setdefault(each.alias, (one.device, each.name)) == (one.device, each.name)


@rule("operational-behavior-data-publish-nbirth-change", "operational-behavior-data-publish-dbirth-change")
def data_is_news(record: Record, group: str, node: str) -> None:
    last: dict[int | None, Any] = {}
    for one in of(record, "NBIRTH", "DBIRTH", "NDATA", "DDATA"):
        for each in one.metrics:
            news = each.historical or one.kind.endswith("BIRTH") or last.get(each.alias, last) != each.value
            assert news, f"{one.kind} {one.device}: {each}"
            if not each.historical:
                last[each.alias] = each.value


@rule("operational-behavior-data-publish-nbirth-order", "operational-behavior-data-publish-dbirth-order")
def in_order_of_time(record: Record, group: str, node: str) -> None:
    for one in of(record, "NBIRTH", "DBIRTH", "NDATA", "DDATA"):
        times = [each.timestamp or 0 for each in one.metrics if not each.historical]
        assert times == sorted(times)


@rule(
    "topics-nbirth-rebirth-metric", "payloads-nbirth-rebirth-req", "operational-behavior-data-commands-rebirth-name",
    "operational-behavior-data-commands-rebirth-datatype", "operational-behavior-data-commands-rebirth-value",
    "operational-behavior-data-commands-rebirth-name-aliases",
)  # fmt: skip
def rebirth_is_offered(record: Record, group: str, node: str) -> None:
    for one in of(record, "NBIRTH"):
        offered = one.named(REBIRTH)
        assert (offered.datatype, offered.value, offered.alias) == (11, False, None)


@rule(
    "topics-nbirth-bdseq-included", "topics-nbirth-bdseq-matching", "topics-nbirth-bdseq-increment",
    "payloads-nbirth-bdseq", "payloads-nbirth-bdseq-repeat", "payloads-ndeath-bdseq",
    "message-flow-edge-node-birth-publish-nbirth-payload-bdSeq",
    "message-flow-edge-node-birth-publish-will-message-payload-bdSeq",
    "operational-behavior-data-commands-rebirth-action-3",
)  # fmt: skip
def birth_and_death(record: Record, group: str, node: str) -> None:
    """The number of a birth is that of the death that ends it, and one more in the next connection."""
    now, ended = None, True
    for one in of(record, "NBIRTH", "NDEATH"):
        number = one.named("bdSeq")
        assert number.datatype == 4 and 0 <= number.value <= 255
        if one.kind == "NDEATH":
            assert number.value == now
            ended = True
            continue
        if now is None:
            assert number.value == 0
        elif ended:
            assert number.value > now or now == 255
        else:
            assert number.value == now, "a rebirth, in the same connection"
        now, ended = number.value, False


@rule(
    "payloads-dbirth-order", "payloads-ndata-order", "payloads-ddata-order",
    "message-flow-device-birth-publish-nbirth-wait", "message-flow-edge-node-birth-publish-connect",
)  # fmt: skip
def births_come_first(record: Record, group: str, node: str) -> None:
    alive = False
    born: set[str] = set()
    for one in of(record, "NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH", "NDEATH"):
        if one.kind in ("NBIRTH", "NDEATH"):
            alive, born = one.kind == "NBIRTH", set()
        assert alive or one.kind == "NDEATH"
        if one.kind == "DBIRTH":
            born.add(one.device)
        elif one.kind in ("DDATA", "DDEATH"):
            assert one.device in born
            if one.kind == "DDEATH":
                born.discard(one.device)
