"""The one MQTT connection; the only file that imports paho.

One thread of our own drives the client's socket and is the only one that publishes, so that a published event and
its packet id are remembered without a lock. Events come from the outbox only while connected, at most WINDOW of them
unacknowledged; paho's own queue, which lives in RAM and would survive a reconnect under stale ids, is thrown away
with its client at each reconnect. Callbacks note and return: an exception in one would kill the loop.

MQTT 5 first, 3.1.1 when the broker does not know 5 (MQTT 5.0 section 3.1.2.2; CONNACK reason 0x84, or 1 in 3.1.1).
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.config import Mqtt, parse_broker, secret
from edge_agent.errors import LinkError
from edge_agent.outbox import Outbox, Record

log = logging.getLogger("edge_agent")

WINDOW = 40
"""events sent and not yet acknowledged: 20 to 100 is fastest, and a lost connection repeats no more than these"""
CONNACK_S = 10.0
"""seconds that the broker has to answer a connect"""
BACKOFF = (0.5, 30.0)
"""seconds, first and longest wait between two connects; each is drawn from the upper half of a doubling range"""
HOLD_S = 30.0
"""seconds that sending pauses after the broker denied an event (not authorized, quota): it may be mended there"""
SESSION_S = 3600
"""seconds that the broker keeps our subscriptions' messages while we are away"""

_DENIED = {"Not authorized", "Quota exceeded", "Unspecified error", "Implementation specific error"}
"""v5 reasons that may pass; others (invalid topic, bad payload) will not, and the event is set aside"""

Receiver = Callable[[str, bytes], None]


class Link:
    """Keeps a device connected, sends what the outbox holds, and says what is to be retained."""

    def __init__(self, mqtt: Mqtt, device: str, outbox: Outbox, client_id: str | None = None) -> None:
        """Raises LinkError or ConfigError when the broker's address or a secret file is wrong; does not connect."""
        if mqtt.url is None:
            raise LinkError("no broker: set mqtt.url")
        self.host, self.port, self._secure = parse_broker(mqtt.url)
        self.mqtt, self.outbox = mqtt, outbox
        self.base = f"{mqtt.prefix}/{device}"
        self.client_id = client_id or f"edge-agent-{device}"
        self.connected = False
        self.why = "not yet connected"
        """why it is not connected, one line"""
        self.sent = 0
        self._password = secret(mqtt.password_file) if mqtt.password_file else None
        self._tls = _tls(mqtt) if self._secure else None
        self._protocol = MQTTProtocolVersion.MQTTv5
        self._client: paho.Client | None = None
        self._flying: dict[int, Record] = {}
        self._said: dict[str, bytes] = {}
        self._to_say: dict[str, None] = {}
        self._receivers: list[tuple[str, Receiver]] = []
        self._subscribed: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._stop_by = float("inf")
        self._hold_until = 0.0
        self._largest: int | None = None
        self._window = WINDOW
        self._connack: ReasonCode | None = None
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        outbox.on_ready = self.wake
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    # ── from other threads ───────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Connect and go on connecting, in the background."""
        self._thread.start()

    def stop(self, drain: float = 5.0) -> None:
        """Send what is left for up to `drain` seconds (if connected at all), say offline, disconnect."""
        self._stop_by = time.monotonic() + (drain if self.connected else 0)
        self._stop.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(drain + CONNACK_S)

    def wake(self) -> None:
        """There is something to do."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full: it is awake; broken: it has ended
            os.write(self._wake_w, b"\0")

    def say(self, tail: str, payload: bytes) -> None:
        """Retain `payload` under DEVICE/tail; the newest wins, and it is said again after each reconnect."""
        with self._lock:
            self._said[tail] = payload
            self._to_say[tail] = None
        self.wake()

    def subscribe(self, topics: str, receive: Receiver) -> Callable[[], None]:
        """Hand each message under a topic filter to `receive(topic, payload)`, which must return at once.

        Returns what ends it.
        """
        entry = (topics, receive)
        with self._lock:
            self._receivers.append(entry)
        self.wake()

        def end() -> None:
            with self._lock:
                self._receivers.remove(entry)

        return end

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        wait = BACKOFF[0]
        while not self._over():
            began = time.monotonic()
            try:
                self._connect()
                self.connected, self.why = True, ""
                log.info("mqtt: connected to %s:%d", self.host, self.port)
                self._serve()
            except (OSError, LinkError, ValueError) as error:
                why = str(error) or type(error).__name__
                if why != self.why:
                    log.warning("mqtt: %s:%d: %s; events wait on disk", self.host, self.port, why)
                self.why = why
            self.connected = False
            self._forget()
            if self._over():
                break
            wait = BACKOFF[0] if time.monotonic() - began > 60 else min(BACKOFF[1], wait * 2)
            self._stop.wait(wait * random.uniform(0.5, 1.0))
        os.close(self._wake_r)

    def _over(self) -> bool:
        return self._stop.is_set() and (time.monotonic() >= self._stop_by or self.outbox.empty)

    def _forget(self) -> None:
        """The connection is gone: everything in flight is to be sent again."""
        client, self._client = self._client, None
        if client is not None:
            client.on_disconnect = None
            client.disconnect()
            _pump(client)
        self._flying.clear()
        self._subscribed.clear()
        self.outbox.again()

    def _connect(self) -> None:
        """Connect and wait for the CONNACK. Raises LinkError when the broker refuses, OSError when it cannot."""
        self._connack = None
        v5 = self._protocol == MQTTProtocolVersion.MQTTv5
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=self._protocol,
            clean_session=None if v5 else False,
        )
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.max_inflight_messages_set(WINDOW)
        client.connect_timeout = CONNACK_S
        client.will_set(f"{self.base}/status", b"offline", qos=1, retain=True)
        if self.mqtt.username:
            client.username_pw_set(self.mqtt.username, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        properties = None
        if v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_S
        client.connect(
            self.host,
            self.port,
            self.mqtt.keepalive,
            clean_start=paho.MQTT_CLEAN_START_FIRST_ONLY if not v5 else False,
            properties=properties,
        )
        self._client = client
        deadline = time.monotonic() + CONNACK_S
        while self._connack is None:
            if time.monotonic() > deadline:
                raise LinkError("the broker does not answer the connect")
            if not _turn(client, self._wake_r, 0.2) and self._connack is None:
                if v5:
                    self._protocol = MQTTProtocolVersion.MQTTv311
                    raise LinkError("the broker closed the connection on MQTT 5; trying 3.1.1")
                self._protocol = MQTTProtocolVersion.MQTTv5
                raise LinkError("the broker closed the connection")
        if self._connack.is_failure:
            name = self._connack.getName()
            if name == "Unsupported protocol version" and v5:
                self._protocol = MQTTProtocolVersion.MQTTv311
                raise LinkError("the broker does not speak MQTT 5; trying 3.1.1")
            raise LinkError(f"the broker refuses the connection: {name}; check [mqtt] username, password_file, cert")

    def _serve(self) -> None:
        """Publish and listen until the connection ends or we are to stop. Raises LinkError when it broke."""
        client = self._client
        assert client is not None
        client.publish(f"{self.base}/status", b"online", qos=1, retain=True)
        with self._lock:
            self._to_say = dict.fromkeys(self._said)
        while True:
            if self._over() and not self._flying:
                self._farewell(client)
                return
            if self._stop.is_set() and time.monotonic() >= self._stop_by:
                self._farewell(client)
                return
            self._subscribe_new(client)
            self._say_new(client)
            self._send(client)
            if not _turn(client, self._wake_r, 0.5 if not self._stop.is_set() else 0.05):
                raise LinkError("the connection was lost")

    def _send(self, client: paho.Client) -> None:
        room = self._window - len(self._flying)
        if room <= 0 or time.monotonic() < self._hold_until:
            return
        for record in self.outbox.take(room):
            topic = f"{self.base}/{record.pipeline}/events"
            if self._largest is not None and len(record.payload) + len(topic) + 16 > self._largest:
                self.outbox.refuse(record, f"the broker takes no packet above {self._largest} bytes")
                continue
            info = client.publish(topic, record.payload, qos=1)
            self._flying[info.mid] = record

    def _say_new(self, client: paho.Client) -> None:
        with self._lock:
            fresh = [(tail, self._said[tail]) for tail in self._to_say]
            self._to_say.clear()
        for tail, payload in fresh:
            client.publish(f"{self.base}/{tail}", payload, qos=1, retain=True)

    def _subscribe_new(self, client: paho.Client) -> None:
        with self._lock:
            wanted = {topics for topics, _ in self._receivers}
        for topics in wanted - self._subscribed:
            client.subscribe(topics, qos=1)
        for topics in self._subscribed - wanted:
            client.unsubscribe(topics)
        self._subscribed = wanted

    def _farewell(self, client: paho.Client) -> None:
        """Say offline and see it acknowledged before the connection is closed in order."""
        info = client.publish(f"{self.base}/status", b"offline", qos=1, retain=True)
        deadline = time.monotonic() + 2
        while not info.is_published() and time.monotonic() < deadline:
            if not _turn(client, self._wake_r, 0.05):
                return

    # ── callbacks: note and return ───────────────────────────────────────────────────────────────────────

    def _on_connect(self, client: paho.Client, _: Any, __: Any, reason: ReasonCode, properties: Any) -> None:
        self._connack = reason
        self._largest = getattr(properties, "MaximumPacketSize", None)
        self._window = max(1, min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW) - 2))

    def _on_publish(self, client: paho.Client, _: Any, mid: int, reason: ReasonCode, __: Any) -> None:
        record = self._flying.pop(mid, None)
        if record is None:
            return
        if not reason.is_failure:
            self.outbox.done(record)
            self.sent += 1
            return
        name = reason.getName()
        if name in _DENIED:
            self.outbox.again([record])
            self._hold_until = time.monotonic() + HOLD_S
            why = f"the broker denies {self.base}/{record.pipeline}/events: {name}; trying again in {HOLD_S:.0f} s"
            if why != self.why:
                log.error("mqtt: %s", why)
            self.why = why
        else:
            self.outbox.refuse(record, f"the broker refuses it: {name}")

    def _on_message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        with self._lock:
            receivers = list(self._receivers)
        for topics, receive in receivers:
            if paho.topic_matches_sub(topics, message.topic):
                receive(message.topic, bytes(message.payload))


# ── the consumer's side: `edge-agent listen`, the demo and the tests ─────────────────────────────────────


def listen(mqtt: Mqtt, topics: list[str], stop: threading.Event) -> Iterator[tuple[str, bytes, bool] | str]:
    """Yield (topic, payload, retained) of each message, and a str when the connection changes, until `stop`.

    Reconnects for ever with the same back-off. Raises LinkError when the broker refuses the connection.
    """
    if mqtt.url is None:
        raise LinkError("no broker: give --url mqtt://host")
    host, port, secure = parse_broker(mqtt.url)
    password = secret(mqtt.password_file) if mqtt.password_file else None
    tls = _tls(mqtt) if secure else None
    heard: list[tuple[str, bytes, bool] | str] = []
    refused: list[str] = []

    def on_connect(client: paho.Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            refused.append(reason.getName())
        else:
            client.subscribe([(topic, 1) for topic in topics])

    def on_subscribe(client: paho.Client, _: Any, mid: int, reasons: list[ReasonCode], __: Any) -> None:
        denied = [topic for topic, reason in zip(topics, reasons, strict=False) if reason.is_failure]
        if denied:
            refused.append(f"subscription denied: {', '.join(denied)}")
        else:
            heard.append("connected")

    def on_message(client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        heard.append((message.topic, bytes(message.payload), message.retain))

    wait = BACKOFF[0]
    while not stop.is_set():
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
        client.connect_timeout = CONNACK_S
        if mqtt.username:
            client.username_pw_set(mqtt.username, password)
        if tls is not None:
            client.tls_set_context(tls)
        try:
            client.connect(host, port, mqtt.keepalive)
            alive = True
            while alive and not stop.is_set():
                alive = _turn(client, None, 0.1)
                if refused:
                    raise LinkError(f"{mqtt.url}: {refused[0]}; check user, password and the broker's rights")
                if heard:
                    wait = BACKOFF[0]
                while heard:
                    yield heard.pop(0)
            yield "the connection was lost"
        except OSError as error:
            yield f"{host}:{port}: {error.strerror or error}"
        finally:
            client.disconnect()
            _pump(client)
        wait = min(BACKOFF[1], wait * 2)
        stop.wait(wait * random.uniform(0.5, 1.0))


def _turn(client: paho.Client, wake: int | None, timeout: float) -> bool:
    """Wait for the socket (or `wake`) and do what is due; False when the connection is gone."""
    sock = client.socket()
    if sock is None:
        return False
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
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
    if writable and client.loop_write() != ok:
        return False
    if (sock in readable or timeout == 0) and client.loop_read() != ok:
        return False
    return client.loop_misc() == ok and client.socket() is not None


def _pump(client: paho.Client) -> None:
    """Get the DISCONNECT packet out and close the socket."""
    if client.socket() is not None and client.want_write():
        client.loop_write()
    sock = client.socket()
    if sock is not None:
        sock.close()


def _tls(mqtt: Mqtt) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=mqtt.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if mqtt.cert and mqtt.key:
            context.load_cert_chain(mqtt.cert, mqtt.key)
    except (OSError, ssl.SSLError) as error:
        raise LinkError(f"mqtt: ca, cert or key cannot be used: {error}; check the three files") from None
    return context
