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
from typing import Any

from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, MQTTMessage, WebsocketConnectionError, topic_matches_sub
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.config import Mqtt, parse_broker, secret
from edge_agent.errors import ConfigError, LinkError
from edge_agent.files import read_regular

__all__ = [
    "CONNACK_S",
    "FIRST_PAUSE_S",
    "LARGEST",
    "SESSION_S",
    "Asking",
    "Broker",
    "Client",
    "MQTTMessage",
    "PahoClient",
    "ReasonCode",
    "Wake",
    "close",
    "comes_for",
    "gathered",
    "said",
    "subscribe",
    "turn",
    "wait_before",
]

CONNACK_S = 10.0
"""seconds that the broker has to answer a connect"""
HASTE_S = 3.0
"""the same for each of several addresses of a host, doubled each time that none of them answers"""
FIRST_PAUSE_S = 0.4
"""seconds, first wait between two connects; each is drawn from a quarter to all of a doubling range"""
MOST_PEM = 2_000_000
"""bytes of a file of certificates"""
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

_Address = tuple[int, Any]
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
        self.address: _Address | None = None
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
    """Whether a message is meant for who subscribed to a topic filter: of filters that overlap, the broker sends one
    for each, and MQTT 5 alone tells which.
    """
    numbers = getattr(message.properties, "SubscriptionIdentifier", None)
    return (not numbers or _number(topics) in numbers) and topic_matches_sub(topics, message.topic)


def _number(topics: str) -> int:
    """1 to 268,435,455 (MQTT 5.0 section 3.8.2.1.2)."""
    return 1 + zlib.crc32(topics.encode()) % 268_435_455


class Broker:
    """An address and what it takes to be let in; makes one Client for each connection.

    Secrets and certificates are read for each client anew: they may have been renewed.
    """

    def __init__(self, mqtt: Mqtt) -> None:
        """Raises LinkError or ConfigError when the address or a secret file is wrong; does not connect."""
        if mqtt.url is None:
            raise LinkError("no broker: set mqtt.url")
        self.mqtt = mqtt
        self.host, self.port, self.secure, self.path = parse_broker(mqtt.url)
        self._left: list[_Address] = []
        """those of the host's addresses that are to be tried in this round"""
        self._chosen: _Address | None = None
        self._good: _Address | None = None
        self._several = False
        self._rounds = 0
        self._tls_there: bool | None = None
        """whether the port speaks TLS; None: it was not asked since it worked last"""
        self._secrets()

    def _secrets(self) -> tuple[str | None, ssl.SSLContext | None]:
        file = self.mqtt.password_file
        return secret(file, "mqtt.password_file") if file else None, _tls(self.mqtt) if self.secure else None

    def client(self, client_id: str = "", v5: bool = False, kind: type[Client] | None = None) -> Client:
        """A client that has not connected; one with an id keeps its session at the broker. Raises ConfigError."""
        password, tls = self._secrets()
        made = (kind or Client)(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=V5 if v5 else V311,
            clean_session=None if v5 else not client_id,
            transport="tcp" if self.path is None else "websockets",
        )
        if self.path is not None:
            made.ws_set_options(self.path)
        made.connect_timeout = self.patience
        made.address = self._chosen
        if self.mqtt.username:
            made.username_pw_set(self.mqtt.username, password)
        if tls is not None:
            made.tls_set_context(tls)
        return made

    def choose(self) -> None:
        """Go to the next address of the host, the one that worked last first. Raises OSError when it has none."""
        if not self._left:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            self._left = sorted(dict.fromkeys((f, at) for f, _, _, _, at in found), key=lambda at: at != self._good)
            self._several = len(self._left) > 1
            self._rounds += 1
        self._chosen = self._left.pop(0)

    @property
    def patience(self) -> float:
        """Seconds that a connect may take."""
        return min(CONNACK_S, HASTE_S * 2.0 ** (self._rounds - 1)) if self._several else CONNACK_S

    @property
    def more(self) -> bool:
        """Whether the host has addresses that were not tried since one of them worked."""
        return bool(self._left)

    def worked(self) -> None:
        """The chosen address let us in."""
        self._left, self._rounds, self._good, self._tls_there = [], 0, self._chosen, None

    def connect(self, client: Client, kept: bool = True) -> None:
        """Open the socket and send CONNECT; the CONNACK comes with a later `turn`. Raises OSError or LinkError.

        `kept`: the broker keeps the session for a while after the connection has ended.
        """
        v5 = client.protocol == V5
        properties = None
        if v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = LARGEST
            if kept:
                properties.SessionExpiryInterval = SESSION_S
        try:
            client.connect(
                self.host,
                self.port,
                self.mqtt.keepalive,
                clean_start=not kept if v5 else MQTT_CLEAN_START_FIRST_ONLY,
                properties=properties,
            )
        except ssl.SSLError as error:
            raise LinkError(_tls_reason(error, self)) from None
        except ConnectionResetError:
            if self.secure and self._answers_plain():
                raise LinkError(self._plain) from None
            raise
        except WebsocketConnectionError:
            other = f"no MQTT over WebSockets at {self.path}; check the path in mqtt.url"
            raise LinkError(self._answers_tls() or other) from None
        except (IndexError, UnicodeError) as error:  # an answer that is no HTTP
            raise LinkError(f"no WebSockets there ({error}); check mqtt.url") from None

    def why(self, client: Client) -> str | None:
        """Why a connection ended before its CONNACK, as far as that can be told; asks the port which it speaks."""
        if client.trouble is not None:
            return _tls_reason(client.trouble, self)
        return self._answers_tls()

    @property
    def closed(self) -> str:
        """What to say of a connection that ended before its CONNACK for no reason that is known."""
        # TLS 1.3 tells it after the handshake, and that may be lost with the connection
        hint = "; if it requires a client certificate, set mqtt.cert and mqtt.key"
        return "the broker closed the connection before it was made" + hint * (self.secure and not self.mqtt.cert)

    def _answers_tls(self) -> str | None:
        """What to say of a port that speaks TLS to who does not; it is asked once."""
        if self.secure:
            return None
        if self._tls_there is None:
            self._tls_there = False
            with contextlib.suppress(OSError, ValueError), self._socket() as sock:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.wrap_socket(sock, server_hostname=self.host).close()
                self._tls_there = True
        mend = "mqtts" if self.path is None else "wss"
        return f"this is a TLS port: use {mend}://" if self._tls_there else None

    def _socket(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=2)

    @property
    def _plain(self) -> str:
        return f"this port does not speak TLS: use {'mqtt' if self.path is None else 'ws'}://"

    def _answers_plain(self) -> bool:
        """Whether the port answers a CONNECT (of nobody) that is not encrypted."""
        with contextlib.suppress(OSError), self._socket() as sock:
            sock.sendall(b"\x10\x0c\0\4MQTT\4\2\0\x0f\0\0")
            return sock.recv(1) == b"\x20"
        return False


def said(error: Exception) -> str:
    """Why a connection could not be made or ended, one line."""
    if isinstance(error, socket.gaierror):
        return f"the broker's name has no address ({error.strerror})"
    if isinstance(error, TimeoutError):
        return "the broker does not answer"
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error) or type(error).__name__


_OTHER_HOST = "host name does not match: the broker's certificate is not for {host}; write the name of it in mqtt.url"
_UNTRUSTED = {
    9: "the broker's certificate is not valid yet; is the clock of this device right?",
    10: "certificate expired: the broker's is to be renewed, unless the clock of this device is wrong",
    62: _OTHER_HOST,
    64: _OTHER_HOST,
}
"""OpenSSL's X509_V_ERR_* -> what to say"""
_UNKNOWN_CA = {2, 18, 19, 20, 21}
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER", "PACKET_LENGTH", "RECORD_TYPE")
_OURS = {
    "CERTIFICATE_REQUIRED": "the broker requires a client certificate: set mqtt.cert and mqtt.key",
    "CERTIFICATE_EXPIRED": "the broker refuses our certificate, mqtt.cert: certificate expired",
    "CERTIFICATE_REVOKED": "the broker refuses our certificate, mqtt.cert: it was revoked",
    "UNKNOWN_CA": "the broker refuses our certificate, mqtt.cert: it does not know the authority that signed it",
    "BAD_CERTIFICATE": "the broker refuses our certificate, mqtt.cert, as bad",
    "CERTIFICATE_UNKNOWN": "the broker refuses our certificate, mqtt.cert; it does not say why",
    "ALERT_HANDSHAKE_FAILURE": "the broker refuses the TLS handshake; where it requires a client certificate, set "
    "mqtt.cert and mqtt.key",
    "PROTOCOL": "the broker offers no TLS 1.2 or newer",
}
"""a part of OpenSSL's reason -> what to say"""


def _tls_reason(error: ssl.SSLError, broker: Broker) -> str:
    """Why TLS failed, in a person's words, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _UNKNOWN_CA:
            known = f"{broker.mqtt.ca} (mqtt.ca) holds others" if broker.mqtt.ca else "set mqtt.ca to its PEM file"
            return f"unknown CA: the authority that signed the broker's certificate is not known here; {known}"
        other = f"the broker's certificate is refused: {error.verify_message}"
        return _UNTRUSTED.get(error.verify_code, other).format(host=broker.host)
    reason = error.reason or ""
    if any(part in reason for part in _NO_TLS):
        return broker._plain
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        if broker._answers_plain():
            return broker._plain
        return "the broker ends the TLS handshake; does it speak TLS, and does it require a client certificate?"
    told = next((text for part, text in _OURS.items() if part in reason), "")
    return told or f"TLS fails: {reason.lower().replace('_', ' ') or error}"


def wait_before(wait: float) -> float:
    """A wait of `wait` seconds with jitter, so that a fleet does not come back in one moment."""
    return wait * random.uniform(0.25, 1.0)


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
    pending = getattr(sock, "pending", None)  # of TLS, and of paho's WebSockets
    held = client.readable or (pending is not None and pending() > 0)
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
                read_regular(name, MOST_PEM)
            except OSError as error:
                raise ConfigError(f"mqtt.{key}: {name} cannot be read ({error.strerror}); check the path") from None
    try:
        context = ssl.create_default_context(cafile=mqtt.ca)
    except (OSError, ssl.SSLError):
        raise ConfigError(f"mqtt.ca: {mqtt.ca} is no PEM file of certificates; give the authority's") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # from Python 3.13 on authorities that people make themselves would be refused for a missing extension
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if mqtt.cert and mqtt.key:
        try:
            # where the key wants a passphrase nobody is asked for one
            context.load_cert_chain(mqtt.cert, mqtt.key, password="")
        except (OSError, ssl.SSLError):
            pair = f"{mqtt.cert} and {mqtt.key}"
            raise ConfigError(
                f"mqtt.cert, mqtt.key: {pair} are no PEM of a certificate and of the key that belongs to it"
            ) from None
    return context
