"""The one MQTT connection of a device.

One thread of our own drives the client's socket and is the only one that publishes. Events come from the outbox only
while connected, at most WINDOW of them unacknowledged; paho's own queue, which lives in RAM and would survive a
reconnect under stale ids, is thrown away with its client at each reconnect. Callbacks note and return: an exception in
one would kill the loop.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from edge_agent.config import Mqtt
from edge_agent.errors import ConfigError, LinkError
from edge_agent.link import topics
from edge_agent.link.broker import Broker, Pauses, said
from edge_agent.link.budget import Budget
from edge_agent.link.connect import Connector, Will, client_id
from edge_agent.link.delivery import Delivery
from edge_agent.link.flight import WINDOW, Flight
from edge_agent.link.retained import Retained
from edge_agent.link.session import Receive, Receiver, Session
from edge_agent.link.signing import Signers
from edge_agent.link.wire import Client, MQTTMessage, ReasonCode, Wake, close, turn
from edge_agent.outbox.outbox import Outbox

log = logging.getLogger("edge_agent")

SHORT_S = 10.0
"""seconds: a connection that is lost sooner was brief"""
TAKEN = 5
"""brief connections in a row that look like two devices of one name"""
TAKEN_S = 30.0
"""seconds before the next connect then"""
LOOK_S = 0.5
"""seconds between two looks at the clock"""
FAREWELL_S = 2.0
"""seconds at most that it is waited for the broker to take the farewell"""
RELOAD_S = 2.0
"""seconds at most that a reload waits for what is on its way"""

_BY_ITSELF = {"Server shutting down", "Server busy", "Administrative action", "Use another server", "Server moved"}
"""reasons of a DISCONNECT that have nothing to do with what was sent"""
_TAKEN_OVER = "Session taken over"
"""that of a broker where another client has come under the same name"""


class Link:
    """Keeps a device connected, sends what the outbox holds, and says what is to be retained."""

    def __init__(self, mqtt: Mqtt, device: str, outbox: Outbox, budget: Budget | None = None) -> None:
        """`budget`: bytes that may be sent a day; none: as many as there are.

        Raises LinkError or ConfigError when the broker's address or a secret file is wrong; does not connect."""
        self.broker = Broker(mqtt)
        self.base = topics.base_of(mqtt.prefix, device)
        self.budget = budget or Budget()
        self.connected = False
        self.why = "not yet connected"
        """why it is not connected, one line"""
        self._told = set[str]()
        """what was said of that since it was connected"""
        self._signers = Signers(mqtt.signers) if mqtt.signers else None
        self._wake = Wake()
        self.flight = Flight()
        will = Will(f"{self.base}/{topics.STATUS}", b"offline", retain=True)
        self.connector = Connector(self.broker, client_id(mqtt, device), lambda: will, self._wake.watched)
        self.delivery = Delivery(outbox, self.budget, self.flight, self.base, mqtt.ack)
        self.retained = Retained(self.base, outbox.path / "retained.json", self.flight, self.budget)
        self.session = Session(self.base, outbox.path / "subscriptions.json", self.flight)
        self._client: Client | None = None
        self._parting = ""
        """why the broker says that it ends the connection (MQTT 5)"""
        self._brief = 0
        """brief connections in a row"""
        self._reload_at: float | None = None
        """monotonic time at which it was asked to connect anew"""
        self._stop = threading.Event()
        self._stop_by = float("inf")
        outbox.on_ready = self.wake
        if mqtt.ack:
            outbox.on_noted = self.wake
            self.subscribe(f"{self.base}/{topics.ACK}", self._on_ack, retained=False)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    # ── from other threads ───────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Connect and go on connecting, in the background."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False when its thread has died, of a bug: nothing is sent any more."""
        return self._thread.is_alive() or self._thread.ident is None or self._stop.is_set()

    @property
    def speaks(self) -> str:
        """The version of MQTT, "5" or "3.1.1"; empty before the first connection."""
        return self.connector.speaks

    def stop(self, drain: float = 5.0) -> None:
        """Send what is left for up to `drain` seconds (if connected at all), say offline, disconnect."""
        connected = self.connected
        self._stop_by = time.monotonic() + (drain if connected else 0)
        self._stop.set()
        self.wake()
        if self._thread.is_alive():
            # one that is connecting may wait for long, and leaves nothing behind
            self._thread.join(drain + FAREWELL_S + LOOK_S if connected else LOOK_S)

    def reload(self) -> None:
        """Connect anew: secrets and certificates are read at each connect."""
        self._reload_at = time.monotonic()
        self.wake()

    def wake(self) -> None:
        """There is something to do."""
        self._wake()

    def clear_others(self, more: Iterable[str] = (), but: Iterable[str] = ()) -> None:
        """All is said that this device says: what it retained in earlier runs and nobody serves now is cleared.

        `more`: topics that may be retained too, where no earlier run of ours noted what it retained; `but`: tails of
        what will be said later.
        """
        self.retained.clear_others(more, but)
        self.wake()

    def say(self, tail: str, payload: bytes) -> None:
        """Retain `payload` under DEVICE/tail; the newest wins, and it is said again after each reconnect.

        What was said last is not said once more, and nothing once the day's bytes are used.
        """
        if self.retained.say(tail, payload):
            self.wake()

    def announce(self, tail: str, payload: bytes, known: bool = False) -> None:
        """As `say`, but said again only where the broker has lost our session. `known`: an earlier run has said it."""
        self.retained.announce(tail, payload, known)
        self.wake()

    def stands(self, tail: str) -> bool:
        """Whether the broker has what was announced last under a tail."""
        return self.retained.stands(tail)

    def say_again(self) -> None:
        """Say again all that is retained, for a listener that may have missed it, unless the day's bytes are short."""
        self.retained.say_again()
        self.wake()

    def unsay(self, tail: str) -> None:
        """Have the broker forget what is retained under DEVICE/tail."""
        self.retained.unsay(tail)
        self.wake()

    def tell(self, tail: str, payload: bytes) -> None:
        """Send `payload` once under DEVICE/tail, not retained; of more than 100 that wait the oldest go."""
        self.retained.tell(tail, payload)
        self.wake()

    def subscribe(self, filter_: str, receive: Receive, retained: bool = True, own: bool = True) -> Callable[[], None]:
        """Hand each message under a topic filter to `receive(topic, payload)`, which must return at once.

        `retained`: also what the broker kept from before; each once. `own`: also what stands under this device's own
        topics; else only a filter without wildcards gives it. Returns what ends it.
        """
        end = self.session.add(Receiver(filter_, receive, retained, own))
        self.wake()
        return end

    def signed(self, topic: str, payload: bytes, old_s: float) -> bytes:
        """What was signed at most `old_s` seconds ago by a configured key; as it is where no keys are configured.

        Raises Unsigned."""
        return payload if self._signers is None else self._signers.open(topic, payload, old_s)

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        pauses = Pauses(self.broker.mqtt.longest_pause_s)
        while not self._over():
            sent = self.delivery.sent
            blamed = self._stay_connected()
            self._forget()
            if self._over():
                break
            if blamed or (self.delivery.sent > sent and (self._brief < TAKEN or self.flight.careful)):
                pauses.restart()
            if self._taken_over:  # two that take the session from each other in turn help nobody
                pauses.seconds = TAKEN_S
            if not self.broker.more:  # no other address of it is to be tried first
                self._rest(pauses.next())
        self._wake.close()

    def _over(self) -> bool:
        return self._stop.is_set() and (time.monotonic() >= self._stop_by or self.delivery.outbox.empty)

    def _rest(self, seconds: float) -> None:
        """Until the next connect."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stop.wait(min(LOOK_S, max(0.0, until - time.monotonic()))):
            self.delivery.look_at_the_clock()
            if self._reload_at is not None:
                return

    def _stay_connected(self) -> bool:
        """Connect, and serve until that ends; whether what ended it was found, which is not sent again so soon."""
        began, blamed = time.monotonic(), False
        try:
            self._connect()
            began = time.monotonic()
            self.connected, self.why = True, ""
            self._told.clear()
            self.broker.worked()
            log.info("mqtt: connected to %s:%d", self.broker.host, self.broker.port)
            self._serve()
        except (OSError, LinkError, ConfigError, ValueError, MemoryError) as error:
            brief = self.connected and time.monotonic() - began < SHORT_S
            blamed = self.connected and not self._taken_over and self._judge(brief)
            self._brief = self._brief + 1 if brief else 0
            self._broke(said(error))
        self.connected = False
        return blamed

    @property
    def _taken_over(self) -> bool:
        return self._parting == _TAKEN_OVER

    def _broke(self, why: str) -> None:
        """Say why there is no connection, once of each address."""
        blame = self.flight.blame
        # not every broker says that the session was taken over
        if self._taken_over or (self._brief >= TAKEN and not blame.held and not blame.suspects):
            why = f"{why} again and again, soon after it was made; does another device call itself "
            why += f"{self.base.rpartition('/')[2]}?"
        line = f"{self.broker.host}:{self.broker.port}: {why}"
        if line not in self._told:
            log.warning("mqtt: %s; events wait on disk", line)
        self._told.add(line)
        self.why = why

    def _judge(self, brief: bool) -> bool:
        """The connection broke: find out what ends it, on evidence alone; see link/blame.py. Whether that was found."""
        if self._parting in _BY_ITSELF:
            return False
        verdict, topic = self.flight.broke(brief)
        if verdict is None:
            return False
        if verdict.refuse is not None:
            self.delivery.refuse(verdict.refuse, verdict.say)
            return True
        self.retained.cleared(topic)
        if verdict.pipeline:
            self.delivery.hold(verdict.pipeline, verdict.wait)
        log.error("mqtt: %s", verdict.say)
        return True

    def _forget(self) -> None:
        """The connection is gone: everything in flight is to be sent again."""
        client, self._client = self._client, None
        if client is not None:
            close(client)
        self.flight.clear()
        self.session.forget()
        self.retained.forget()
        self.delivery.forget()

    def _connect(self) -> None:
        """Connect. Raises LinkError when the broker refuses, OSError when it cannot be reached."""
        self._reload_at = None
        self._client, limits = self.connector.connect(self._prepare)
        self.flight.begin(limits)

    def _prepare(self, client: Client) -> None:
        """A client is about to connect."""
        self._parting = ""
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_disconnect = self._on_disconnect

    def _serve(self) -> None:
        """Publish and listen until the connection ends or we are to stop. Raises LinkError when it broke."""
        client, greeted = self._client, False
        assert client is not None
        self.retained.begin(self.connector.kept)
        self.delivery.begin()
        while not self._may_leave():
            self.delivery.look_at_the_clock()
            self.flight.look()
            if self._may_reload():
                log.info("mqtt: connecting anew, with the secrets and certificates that are there now")
                return
            if self._reload_at is None and self.flight.may_send():
                greeted = greeted or self._greet(client)
                self._send(client)
            quick = self.flight.careful or self._stop.is_set()
            alive = turn(client, self._wake.watched, 0.05 if quick else 0.5)
            self.delivery.strike()
            if not alive:
                raise LinkError(self._how_lost())
        self._farewell(client)

    def _may_reload(self) -> bool:
        """We are to connect anew, and nothing is in flight, or the time for that is over."""
        since = self._reload_at
        return since is not None and (self.flight.idle or time.monotonic() - since > RELOAD_S)

    def _how_lost(self) -> str:
        """How the connection ended, as far as the broker said."""
        lost = "the connection was lost" + (self._parting and f": the broker says {self._parting}")
        return "the session was taken over" if self._taken_over else lost

    def _may_leave(self) -> bool:
        """We are to stop, and what could be sent is sent, or the time for that is over."""
        late = self._stop.is_set() and time.monotonic() >= self._stop_by
        return late or (self._over() and not self.flight.events)

    def _greet(self, client: Client) -> bool:
        """Say that the device is here; False while the broker ends the connection at that."""
        if not self.flight.free(f"PUBLISH {self.base}/{topics.STATUS}"):
            return False
        self.retained.publish(client, topics.STATUS, b"online", self.flight.limits.retains)
        return True

    def _send(self, client: Client) -> None:
        """Send what waits, as far as the broker takes it; a single thing where the connection is in doubt."""
        careful = self.flight.careful
        for part in (self.session, self.retained, self.delivery):
            if careful and self.flight.others:
                return
            part.send(client, 1 if careful else WINDOW)
        if careful and self.flight.idle and time.monotonic() >= self.delivery.settled_at:
            self.flight.blame.calm()

    def _farewell(self, client: Client) -> None:
        """Say what is left to say, then offline, and see it acknowledged before the connection is closed in order."""
        self.retained.send(client, WINDOW)
        status, retain = f"{self.base}/{topics.STATUS}", self.flight.limits.retains
        info = client.publish(status, b"offline", qos=1, retain=retain)
        deadline = time.monotonic() + FAREWELL_S
        # which raises where it could not even be sent
        with contextlib.suppress(RuntimeError, ValueError):
            while not info.is_published() and time.monotonic() < deadline:
                if not turn(client, self._wake.watched, 0.05):
                    return

    # ── callbacks: note and return ───────────────────────────────────────────────────────────────────────

    def _on_publish(self, client: Any, _: Any, mid: int, reason: ReasonCode, __: Any) -> None:
        self.retained.answered(mid, None if not reason.is_failure else reason.getName())
        record = self.flight.answered(mid)
        denied = self.delivery.answered(record, reason) if record is not None else ""
        if denied and denied != self.why:
            log.error("mqtt: %s", denied)
        self.why = denied or self.why

    def _on_message(self, client: Any, _: Any, message: MQTTMessage) -> None:
        self.session.take(client, message)

    def _on_ack(self, topic: str, payload: bytes) -> None:
        self.delivery.on_ack(topic, payload, self.signed)

    def _on_subscribe(self, client: Any, _: Any, mid: int, reasons: list[ReasonCode], __: Any) -> None:
        """The broker sends what it kept for us before it answers this, so the acknowledgements that wait are here."""
        self.flight.answered(mid)
        if f"{self.base}/{topics.ACK}" in self.session.answered(mid, reasons):
            self.delivery.settled_at = 0.0

    def _on_unsubscribe(self, client: Any, _: Any, mid: int, *__: Any) -> None:
        self.flight.answered(mid)
        self.session.left(mid)

    def _on_disconnect(self, client: Any, _: Any, flags: Any, reason: ReasonCode, ___: Any) -> None:
        name = reason.getName()
        if flags.is_disconnect_packet_from_server or name == _TAKEN_OVER:
            self._parting = name
