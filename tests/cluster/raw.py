"""MQTT 3.1.1 by hand, for thousands of sessions in one process (OASIS MQTT 3.1.1, sections 2 and 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP = 2, 3, 4, 9, 13


def text(value: str) -> bytes:
    """A string with its length before it."""
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw


def packet(kind: int, body: bytes) -> bytes:
    """`kind`: the whole first byte."""
    size, head = len(body), bytearray([kind])
    while True:
        size, digit = divmod(size, 128)
        head.append(digit | 0x80 * bool(size))
        if not size:
            return bytes(head) + body


def connect(name: str, will: tuple[str, bytes] | None, clean: bool = False, keepalive: int = 60) -> bytes:
    """CONNECT; the will is retained, with QoS 1."""
    flags = 0x02 * clean | (0x2C if will else 0)
    body = text("MQTT") + bytes([4, flags]) + keepalive.to_bytes(2, "big") + text(name)
    if will:
        body += text(will[0]) + len(will[1]).to_bytes(2, "big") + will[1]
    return packet(0x10, body)


def publish(topic: str, payload: bytes, number: int, retain: bool = False) -> bytes:
    """PUBLISH with QoS 1."""
    return packet(0x32 | retain, text(topic) + number.to_bytes(2, "big") + payload)


def subscribe(topic: str, number: int) -> bytes:
    """SUBSCRIBE with QoS 1."""
    return packet(0x82, number.to_bytes(2, "big") + text(topic) + b"\1")


def puback(number: int) -> bytes:
    """PUBACK."""
    return packet(0x40, number.to_bytes(2, "big"))


class Peer(asyncio.Protocol):
    """One connection; `came(kind, flags, body)` for each packet, `lost()` at its end."""

    def __init__(self, hello: bytes, came: Callable[[int, int, bytes], None], lost: Callable[[], None]) -> None:
        self._hello, self._came, self._lost = hello, came, lost
        self._rest = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._lost()

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        """At once, as a process that is killed."""
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        data, at = self._rest + data, 0
        while True:
            begin, size, shift = at + 1, 0, 0
            while begin < len(data):
                size |= (data[begin] & 0x7F) << shift
                shift, begin = shift + 7, begin + 1
                if not data[begin - 1] & 0x80:
                    break
            else:
                break
            if begin + size > len(data):
                break
            self._came(data[at] >> 4, data[at] & 15, data[begin : begin + size])
            at = begin + size
        self._rest = data[at:]
