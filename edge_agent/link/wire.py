"""The MQTT client library, as we use it; the only file that imports paho.

Whoever holds a Client drives its socket with `turn` on one thread of its own; nothing here starts a thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import zlib
from collections.abc import Iterator
from typing import Any

from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, MQTTMessage, WebsocketConnectionError, topic_matches_sub
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

__all__ = ["MQTTMessage", "PahoClient", "ReasonCode", "WebsocketConnectionError"]
"""what is handed on of paho"""

SILENCE_MS = 10_000
"""milliseconds that sent bytes may go without a TCP acknowledgement: finds a black hole before the keepalive does"""
SESSION_S = 3600
"""seconds that the broker keeps our subscriptions' messages while we are away"""

LARGEST = 1 << 20
"""bytes of a packet that is taken in: by MQTT 5 a broker keeps larger ones to itself, by 3.1.1 their payload is passed
over as it comes"""
AT_ONCE = 64 * 1024
"""bytes read from the socket at once"""

MOST_HEAD = 2 + 65535 + 2
"""bytes of a message's topic and packet id"""

Address = tuple[int, Any]
"""family, and the address as sockets take it"""

V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311


class Client(PahoClient):
    """paho's client with one system call for many packets, where paho takes one a packet to send and three to read.

    It overrides the two methods that all of paho's bytes go through, and the one that connects. Should a later paho
    rename them, everything works as before, takes more calls, and knows but the first of a host's addresses.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read, self._at = b"", 0
        self._unsent = bytearray()
        self.gathering = False
        self.address: Address | None = None
        """where to connect to, of the host's addresses"""
        self.passed_over = 0
        """bytes of the message that comes next, where it was too large to be taken in: it comes without its payload"""
        self._left = 0
        self._head = bytearray()
        """of a packet that is too large: bytes that are to come, and the first of it"""
        self.trouble: ssl.SSLError | None = None
        """what TLS failed on while reading, which paho keeps to itself"""

    @property
    def readable(self) -> bool:
        """Whether bytes are here that paho has not seen; the socket does not tell of them."""
        return self._at < len(self._read)

    def _create_socket_connection(self) -> socket.socket:
        if self.address is None:
            return super()._create_socket_connection()
        family, address = self.address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.connect_timeout)
            sock.connect(address)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)
        except BaseException:
            sock.close()
            raise
        return sock

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho asks for all of a packet that it has not
        return self._bytes(bufsize) if bufsize <= LARGEST else self._without_payload(bufsize)

    def _without_payload(self, size: int) -> bytes:
        """What paho is to take for the `size` bytes of a packet behind its length. BlockingIOError until all came."""
        self._left = self._left or size
        while self._left:
            chunk = self._bytes(min(self._left, AT_ONCE))
            if not chunk:
                return chunk
            self._left -= len(chunk)
            self._head += chunk[: max(0, MOST_HEAD - len(self._head))]
        head, self._head, packet = bytes(self._head), bytearray(), self._in_packet
        if packet["command"] >> 4 != 3:
            raise ConnectionAbortedError(f"a packet of {size} bytes, which is no message")
        named = 2 + int.from_bytes(head[:2], "big") + (2 if packet["command"] & 6 else 0)
        short = head[:named] + (b"\0" if self.protocol == V5 else b"")  # no properties
        packet["remaining_length"] = packet["to_process"] = len(short)
        self.passed_over = size
        return short

    def _bytes(self, bufsize: int) -> bytes:
        if self._at >= len(self._read):
            try:
                self._read, self._at = super()._sock_recv(AT_ONCE), 0
            except ssl.SSLError as error:
                self.trouble = error
                raise
        begin, self._at = self._at, self._at + bufsize
        return self._read[begin : self._at]

    def _sock_send(self, buf: bytes | bytearray) -> int:
        if not self.gathering and not self._unsent:
            return super()._sock_send(buf)
        self._unsent += buf
        return len(buf)

    def want_write(self) -> bool:
        """Whether the socket is to be watched for room to write."""
        return bool(self._unsent) or super().want_write()

    def flush(self) -> None:
        """Send what was gathered, as far as the socket takes it. Raises OSError when the connection broke."""
        with contextlib.suppress(BlockingIOError):
            while self._unsent and self.socket() is not None:
                del self._unsent[: super()._sock_send(self._unsent)]


class Asking(Client):
    """A client that never releases its messages of QoS 2, so that a broker says what it would do with each, and does
    nothing with it. Should a later paho rename the methods, an empty message goes out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answers: dict[int, int] = {}
        """packet id -> reason code of the PUBREC (MQTT 5.0 section 3.5.2.1)"""

    def _handle_pubrec(self) -> MQTTErrorCode:
        packet = bytes(self._in_packet["packet"])
        self.answers[int.from_bytes(packet[:2], "big")] = packet[2] if len(packet) > 2 else 0
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _send_pubrel(self, mid: int) -> MQTTErrorCode:
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def subscribe(client: Client, topics: str, numbered: bool = True) -> int:
    """Subscribe with QoS 1; the packet's id.

    By MQTT 5 what the broker retains comes for a new subscription only, and, if `numbered`, each message names those
    that it comes for (see `comes_for`): they stay in the session, so their number is made of the filter.
    """
    if client.protocol != V5:
        return client.subscribe(topics, qos=1)[1] or 0
    options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
    properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
    if numbered:
        properties.SubscriptionIdentifier = _number(topics)
    return client.subscribe(topics, options=options, properties=properties)[1] or 0


def comes_for(topics: str, message: MQTTMessage) -> bool:
    """Whether a message belongs to a subscription to a topic filter: of filters that overlap, the broker sends one
    for each, and MQTT 5 alone tells which.
    """
    numbers = getattr(message.properties, "SubscriptionIdentifier", None)
    return (not numbers or _number(topics) in numbers) and topic_matches_sub(topics, message.topic)


def _number(topics: str) -> int:
    """1 to 268,435,455 (MQTT 5.0 section 3.8.2.1.2)."""
    return 1 + zlib.crc32(topics.encode()) % 268_435_455


def make_client(kind: type[Client], client_id: str, v5: bool, path: str | None, kept: bool = True) -> Client:
    """A client that has not connected; one with an id has its session `kept` at the broker. `path`: over WebSockets."""
    made = kind(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=V5 if v5 else V311,
        clean_session=None if v5 else not (client_id and kept),
        transport="tcp" if path is None else "websockets",
    )
    if path is not None:
        made.ws_set_options(path)
    return made


def open_connection(
    client: Client, host: str, port: int, keepalive: int, kept: bool, session_s: int = SESSION_S
) -> None:
    """Open the socket and send CONNECT. Raises what can go wrong with either; `kept`: see Broker.connect."""
    v5 = client.protocol == V5
    properties = None
    if v5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = LARGEST
        if kept:
            properties.SessionExpiryInterval = session_s
    clean_start = not kept if v5 else MQTT_CLEAN_START_FIRST_ONLY  # by 3.1.1 the client was made with it
    client.connect(host, port, keepalive, clean_start=clean_start, properties=properties)


class Wake:
    """Ends the wait of a thread in `turn`, from any other one."""

    def __init__(self) -> None:
        self.watched, self._end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        """what `turn` is to watch"""

    def __call__(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full: it is awake; broken: it has ended
            os.write(self._end, b"\0")

    def close(self) -> None:
        """The thread has ended."""
        os.close(self.watched)


@contextlib.contextmanager
def gathered(client: Client) -> Iterator[None]:
    """What is published within goes out together at the end. Raises OSError when the connection broke."""
    client.gathering = True
    try:
        yield
    finally:
        client.gathering = False
    client.flush()


def turn(client: Client, wake: int | None, timeout: float) -> bool:
    """Wait for the socket (or `wake`) and do what is due; False when the connection is gone."""
    sock = client.socket()
    if sock is None:
        return False
    held = _holds(client, sock)
    try:
        readable, writable = _waited(client, sock, wake, 0 if held else timeout)
    except (OSError, ValueError):
        return False
    if writable and not _written(client):
        return False
    if (readable or held) and client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
        return False
    return client.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS and client.socket() is not None


def _waited(client: Client, sock: Any, wake: int | None, timeout: float) -> tuple[bool, bool]:
    """Whether the socket can be read, and written, after a wait for it or `wake`. Raises OSError, ValueError."""
    readers, writers = [sock] if wake is None else [sock, wake], [sock] if client.want_write() else []
    readable, writable, _ = select.select(readers, writers, [], timeout)
    if wake in readable:
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)  # type: ignore[arg-type]
    return sock in readable, bool(writable)


def _holds(client: Client, sock: Any) -> bool:
    """Whether the client or its socket, of TLS or of paho's WebSockets, has bytes of which `select` does not know."""
    pending = getattr(sock, "pending", None)
    return client.readable or (pending is not None and pending() > 0)


def _written(client: Client) -> bool:
    """Write what waits, as far as the socket takes it; False when the connection broke."""
    try:
        client.flush()
    except OSError:
        return False
    return client.loop_write() == MQTTErrorCode.MQTT_ERR_SUCCESS


def close(client: Client) -> None:
    """Send DISCONNECT if that is possible, and close the socket."""
    client.on_disconnect = None
    with contextlib.suppress(OSError):
        client.flush()
    client.disconnect()
    if client.socket() is not None and client.want_write():
        client.loop_write()
    sock = client.socket()
    if sock is not None:
        sock.close()
