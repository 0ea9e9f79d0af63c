"""The MQTT client library, as we use it; the only file that imports paho.

Whoever holds a Client drives its socket with `turn` on one thread of its own; nothing here starts a thread.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import ssl
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, MQTTMessage, topic_matches_sub
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.config import Mqtt, parse_broker, secret
from edge_agent.errors import ConfigError, LinkError

__all__ = [
    "Asking",
    "Broker",
    "Client",
    "MQTTMessage",
    "PahoClient",
    "ReasonCode",
    "close",
    "comes_for",
    "gathered",
    "subscribe",
    "turn",
    "wait_before",
]

CONNACK_S = 10.0
"""seconds that the broker has to answer a connect"""
BACKOFF = (0.4, 30.0)
"""seconds, first and longest wait between two connects; each is drawn from a quarter to all of a doubling range"""
SILENCE_MS = 10_000
"""milliseconds that sent bytes may go without a TCP acknowledgement: finds a black hole before the keepalive does"""
SESSION_S = 3600
"""seconds that the broker keeps our subscriptions' messages while we are away"""

AT_ONCE = 64 * 1024
"""bytes read from the socket at once"""

V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311


class Client(PahoClient):
    """paho's client with one system call for many packets, where paho takes one a packet to send and three to read.

    It overrides the two methods that all of paho's bytes go through. Should a later paho rename them, everything works
    as before and takes more calls.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read, self._at = b"", 0
        self._unsent = bytearray()
        self.gathering = False

    @property
    def readable(self) -> bool:
        """Whether bytes are here that paho has not seen; the socket does not tell of them."""
        return self._at < len(self._read)

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._at >= len(self._read):
            self._read, self._at = super()._sock_recv(AT_ONCE), 0
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
    """Whether a message is meant for who subscribed to a topic filter: of filters that overlap, the broker sends one
    for each, and MQTT 5 alone tells which.
    """
    numbers = getattr(message.properties, "SubscriptionIdentifier", None)
    return (not numbers or _number(topics) in numbers) and topic_matches_sub(topics, message.topic)


def _number(topics: str) -> int:
    """1 to 268,435,455 (MQTT 5.0 section 3.8.2.1.2)."""
    return 1 + zlib.crc32(topics.encode()) % 268_435_455


class Broker:
    """An address and what it takes to be let in; makes one Client for each connection."""

    def __init__(self, mqtt: Mqtt) -> None:
        """Raises LinkError or ConfigError when the address or a secret file is wrong; does not connect."""
        if mqtt.url is None:
            raise LinkError("no broker: set mqtt.url")
        self.mqtt = mqtt
        self.host, self.port, self.secure = parse_broker(mqtt.url)
        self._password = secret(mqtt.password_file, "mqtt.password_file") if mqtt.password_file else None
        self._tls = _tls(mqtt) if self.secure else None

    def client(self, client_id: str = "", v5: bool = False, kind: type[Client] = Client) -> Client:
        """A client that has not connected; one with an id keeps its session at the broker."""
        made = kind(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=V5 if v5 else V311,
            clean_session=None if v5 else not client_id,
        )
        made.connect_timeout = CONNACK_S
        if self.mqtt.username:
            made.username_pw_set(self.mqtt.username, self._password)
        if self._tls is not None:
            made.tls_set_context(self._tls)
        return made

    def connect(self, client: Client, kept: bool = True) -> None:
        """Open the socket and send CONNECT; the CONNACK comes with a later `turn`. Raises OSError.

        `kept`: the broker keeps the session for a while after the connection has ended.
        """
        v5 = client.protocol == V5
        properties = None
        if v5 and kept:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_S
        client.connect(
            self.host,
            self.port,
            self.mqtt.keepalive,
            clean_start=not kept if v5 else MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
        )
        sock: Any = client.socket()
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)


def wait_before(wait: float) -> float:
    """A wait of `wait` seconds with jitter, so that a fleet does not come back in one moment."""
    return wait * random.uniform(0.25, 1.0)


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
    held = client.readable or (isinstance(sock, ssl.SSLSocket) and sock.pending() > 0)
    if held:
        timeout = 0
    readers: list[Any] = [sock] if wake is None else [sock, wake]
    try:
        readable, writable, _ = select.select(readers, [sock] if client.want_write() else [], [], timeout)
    except (OSError, ValueError):
        return False
    if wake in readable:
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)  # type: ignore[arg-type]
    ok = MQTTErrorCode.MQTT_ERR_SUCCESS
    if writable:
        try:
            client.flush()
        except OSError:
            return False
        if client.loop_write() != ok:
            return False
    if (sock in readable or held) and client.loop_read() != ok:
        return False
    return client.loop_misc() == ok and client.socket() is not None


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


def _tls(mqtt: Mqtt) -> ssl.SSLContext:
    """ConfigError, which names the key, for a file that cannot be used."""
    for key in ("ca", "cert", "key"):
        if (name := getattr(mqtt, key)) is not None:
            try:
                Path(name).open("rb").close()
            except OSError as error:
                raise ConfigError(f"mqtt.{key}: {name} cannot be read ({error.strerror})") from None
    try:
        context = ssl.create_default_context(cafile=mqtt.ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"mqtt.ca: {mqtt.ca} is no PEM file of certificates ({error})") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if mqtt.cert and mqtt.key:
        try:
            # where the key wants a passphrase nobody is asked for one
            context.load_cert_chain(mqtt.cert, mqtt.key, password="")
        except (OSError, ssl.SSLError) as error:
            pair = f"{mqtt.cert} and {mqtt.key}"
            raise ConfigError(
                f"mqtt.cert, mqtt.key: {pair} are no PEM of a certificate and its key ({error})"
            ) from None
    return context
