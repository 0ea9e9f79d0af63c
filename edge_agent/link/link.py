"""The one MQTT connection of a device.

One thread of our own drives the client's socket and is the only one that publishes, so that a published event and
its packet id are remembered without a lock. Events come from the outbox only while connected, at most WINDOW of them
unacknowledged; paho's own queue, which lives in RAM and would survive a reconnect under stale ids, is thrown away
with its client at each reconnect. Callbacks note and return: an exception in one would kill the loop.

MQTT 5 first at each connect, 3.1.1 when the broker says that it does not know 5 (MQTT 5.0 section 3.1.2.2; CONNACK
reason 0x84, or 1 in 3.1.1): by 3.1.1 it cannot say that it denies a publish, and may acknowledge it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.config import Mqtt
from edge_agent.errors import ConfigError, LinkError, tenfold
from edge_agent.events import KNOWN_TIME, UNREADABLE
from edge_agent.files import write_private
from edge_agent.link import topics
from edge_agent.link.acks import Acks, names
from edge_agent.link.blame import Alone, Blame
from edge_agent.link.budget import Budget
from edge_agent.link.clock import Clock
from edge_agent.link.signing import AHEAD_S, Signers, Unsigned
from edge_agent.link.wire import (
    CONNACK_S,
    FIRST_PAUSE_S,
    LARGEST,
    SESSION_S,
    Broker,
    Client,
    MQTTMessage,
    ReasonCode,
    close,
    comes_for,
    gathered,
    said,
    subscribe,
    turn,
    wait_before,
)
from edge_agent.outbox.entries import AGENT, QUEUES, Record
from edge_agent.outbox.outbox import Outbox

log = logging.getLogger("edge_agent")

WINDOW = 40
"""events sent and not yet acknowledged: 20 to 100 is fastest, and a lost connection repeats no more than these"""
SPARE = 2
"""packets beside the events' window: for what is said and told while it is full"""
HOLD_S = 30.0
"""seconds that a pipeline's events wait after the broker denied one (not authorized, quota): it may be mended there"""
HOLD_MOST_S = 3600.0
"""seconds at most that a gap event waits which the broker does not take"""
SETTLE_S = 2.0
"""seconds at most that alerts wait, after a reconnect, for the acknowledgements that the broker kept meanwhile"""
SHORT_S = 10.0
"""seconds: a connection that is lost sooner was brief"""
MUTE, ANSWERS = 3, 3
"""connects by MQTT 5 in a row that a broker closes without a word until 3.1.1 is tried, and the times that it is to
answer that, closing at 5 in between, until it is believed not to know 5"""
OLD_S = 600.0
"""seconds until MQTT 5 is tried again then; a broker that says that it does not know 5 is asked at each connect"""
TAKEN = 5
"""brief connections in a row that look like two devices of one name"""
LOOK_S = 0.5
"""seconds between two looks at the clock"""
RELOAD_S = 2.0
"""seconds at most that a reload waits for what is on its way"""
TAKEN_S = 30.0
"""seconds before the next connect then"""

_DENIED = {"Not authorized", "Quota exceeded", "Unspecified error", "Implementation specific error"}
"""v5 reasons that may pass; others (invalid topic, bad payload) will not, and the event is set aside"""

_BY_ITSELF = {"Server shutting down", "Server busy", "Administrative action", "Use another server", "Server moved"}
"""reasons of a DISCONNECT that have nothing to do with what was sent"""

REMEMBERED = 10_000
"""topics whose last texts are remembered, to tell retained ones that come again"""

Receiver = Callable[[str, bytes], object]
"""(topic, payload) -> False when it is not taken: the broker is to give it again after the next connect"""


class Link:
    """Keeps a device connected, sends what the outbox holds, and says what is to be retained."""

    def __init__(self, mqtt: Mqtt, device: str, outbox: Outbox, budget: Budget | None = None) -> None:
        """`budget`: bytes that may be sent a day; none: as many as there are.

        Raises LinkError or ConfigError when the broker's address or a secret file is wrong; does not connect."""
        self.broker = Broker(mqtt)
        self.mqtt, self.outbox = mqtt, outbox
        self.base = topics.base_of(mqtt.prefix, device)
        self.client_id = f"edge-agent-{device}"
        if mqtt.prefix != Mqtt().prefix:  # the same device name of another site on the same broker
            self.client_id += f"-{zlib.crc32(mqtt.prefix.encode()):08x}"
        self.budget = budget or Budget()
        self.connected = False
        self.why = "not yet connected"
        """why it is not connected, one line"""
        self.sent = 0
        self._signers = Signers(mqtt.signers) if mqtt.signers else None
        self._not_acks = 0
        self.passed_over = 0
        """messages that were too large to be taken in"""
        self.speaks = ""
        """the version of MQTT, "5" or "3.1.1"; empty before the first connection"""
        self._old_until = 0.0
        """monotonic time until which 3.1.1 is spoken without asking for 5 first"""
        self._mute = self._answers = 0
        """connects by MQTT 5 in a row that were closed without a word, and those by 3.1.1 between them that were not"""
        self._retain = True
        """whether the broker keeps what is to be retained"""
        self._client: Client | None = None
        self._flying: dict[int, Record] = {}
        self._arrived: list[Record] = []
        """what the broker has acknowledged since the outbox was last told"""
        self._acks = Acks(outbox)
        self._settled_at = 0.0
        """monotonic time from which alerts are sent: the acknowledgements from before a reconnect are to come first"""
        self._clock = Clock()
        self._to_tell: deque[tuple[str, bytes]] = deque(maxlen=100)
        self._said: dict[str, bytes] = {}
        self._to_say: dict[str, None] = {}
        self._receivers: list[tuple[str, Receiver, bool, bool]] = []
        self._given: dict[tuple[Receiver, str], tuple[int | None, int | None]] = {}
        """receiver and topic -> hashes of the last texts, one that was retained and one that was not"""
        self._numbered = True
        self._subscribed: dict[str, int] = {}
        """topic filter -> packet id of its subscription"""
        self._leaving: dict[int, str] = {}
        """packet id of an unsubscription -> its topic filter"""
        self._session_file = outbox.path / "subscriptions.json"
        self._session = _read(self._session_file)
        """what this device may be subscribed to at the broker, which remembers it across our restarts"""
        self._lock = threading.Lock()
        self._kept_file = outbox.path / "retained.json"
        self._kept = _read(self._kept_file) if self._kept_file.exists() else None
        """topics that the broker retains for this device; None: no run has noted them"""
        self._ghosts: list[str] = []
        """those that are to be cleared"""
        self._clearing: dict[int, str] = {}
        """packet id -> which of them"""
        self._reload, self._reload_at = threading.Event(), 0.0
        self._stop = threading.Event()
        self._stop_by = float("inf")
        self._gap_wait = HOLD_S
        self._held: dict[str, float] = {}
        """pipeline whose events the broker denies -> monotonic time from which they are tried again"""
        self._largest: int | None = None
        self._unsaid: set[str] = set()
        """what was too large to be said, and is said to be so once"""
        self._blame = Blame()
        self._careful = False
        """everything is sent one by one"""
        self._alone: Alone | None = None
        """what is on its way then"""
        self._idle_since = 0.0
        """monotonic time since which nothing is on its way"""
        self._most = WINDOW + SPARE
        """packets that the broker takes unacknowledged (MQTT 5.0 section 3.2.2.3.3, Receive Maximum)"""
        self._others: dict[int, str] = {}
        """packet id of what is no event and not yet acknowledged -> what it is"""
        self._connack: ReasonCode | None = None
        self._kicked = False
        self._parting = ""
        """why the broker says that it ends the connection (MQTT 5)"""
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
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

    def stop(self, drain: float = 5.0) -> None:
        """Send what is left for up to `drain` seconds (if connected at all), say offline, disconnect."""
        self._stop_by = time.monotonic() + (drain if self.connected else 0)
        self._stop.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(drain + CONNACK_S)

    def reload(self) -> None:
        """Connect anew: secrets and certificates are read at each connect."""
        self._reload_at = time.monotonic()
        self._reload.set()
        self.wake()

    def clear_others(self, more: Iterable[str] = ()) -> None:
        """All is said that this device says: what it retained in earlier runs and nobody serves now is cleared.

        `more`: topics that may be retained too, where no earlier run of ours noted what it retained.
        """
        with self._lock:
            served = {f"{self.base}/{tail}" for tail in (*self._said, topics.STATUS)}
            self._ghosts = sorted((self._kept if self._kept is not None else set(more)) - served)
        self.wake()

    def wake(self) -> None:
        """There is something to do."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full: it is awake; broken: it has ended
            os.write(self._wake_w, b"\0")

    def say(self, tail: str, payload: bytes) -> None:
        """Retain `payload` under DEVICE/tail; the newest wins, and it is said again after each reconnect.

        What was said last is not said once more, and nothing once the day's bytes are used.
        """
        with self._lock:
            if self._said.get(tail) == payload:
                return
            self._said[tail] = payload
            self._to_say[tail] = None
        self.wake()

    def tell(self, tail: str, payload: bytes) -> None:
        """Send `payload` once under DEVICE/tail, not retained; of more than 100 that wait the oldest go."""
        with self._lock:
            self._to_tell.append((tail, payload))
        self.wake()

    def subscribe(self, pattern: str, receive: Receiver, retained: bool = True, own: bool = True) -> Callable[[], None]:
        """Hand each message under a topic filter to `receive(topic, payload)`, which must return at once.

        `retained`: also what the broker kept from before; each once. `own`: also what stands under this device's own
        topics; else only a filter without wildcards gives it. Returns what ends it.
        """
        entry = (pattern, receive, retained, own)
        with self._lock:
            self._receivers.append(entry)
        self.wake()

        def end() -> None:
            with self._lock:
                self._receivers.remove(entry)

        return end

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        wait, short = FIRST_PAUSE_S, 0
        while not self._over():
            began, sent = time.monotonic(), self.sent
            try:
                self._connect()
                began = time.monotonic()
                self.connected, self.why = True, ""
                self.broker.worked()
                log.info("mqtt: connected to %s:%d", self.broker.host, self.broker.port)
                self._serve()
            except (OSError, LinkError, ConfigError, ValueError, MemoryError) as error:
                why = said(error)
                brief = self.connected and time.monotonic() - began < SHORT_S
                if self.connected and not self._kicked and self._judge(brief):
                    wait = FIRST_PAUSE_S  # what ended it is not sent again so soon
                short = short + 1 if brief else 0
                # not every broker says that the session was taken over
                if self._kicked or (short >= TAKEN and not self._blame.held and not self._blame.suspects):
                    why = f"{why} again and again, soon after it was made; does another device call itself "
                    why += f"{self.base.rpartition('/')[2]}?"
                if why != self.why:
                    log.warning("mqtt: %s:%d: %s; events wait on disk", self.broker.host, self.broker.port, why)
                self.why = why
            self.connected = False
            self._forget()
            if self._over():
                break
            if self.sent > sent and (short < TAKEN or self._careful):
                wait = FIRST_PAUSE_S
            if self._kicked:  # two that take the session from each other in turn help nobody
                wait = TAKEN_S
            if self.broker.more:  # addresses of the same broker
                continue
            until = time.monotonic() + wait_before(min(wait, self.mqtt.longest_pause_s))
            while time.monotonic() < until and not self._stop.wait(min(LOOK_S, max(0.0, until - time.monotonic()))):
                self._look_at_the_clock()
                if self._reload.is_set():
                    break
            wait = min(self.mqtt.longest_pause_s, wait * 2)
        os.close(self._wake_r)

    def _look_at_the_clock(self) -> None:
        if (jump := self._clock.notice(self.outbox.last)) > 0:
            self.outbox.clock_set(jump)

    def _over(self) -> bool:
        return self._stop.is_set() and (time.monotonic() >= self._stop_by or self.outbox.empty)

    def _judge(self, brief: bool) -> bool:
        """The connection broke: find out what ends it, on evidence alone; see link/blame.py. Whether that was found."""
        if self._parting in _BY_ITSELF:
            return False
        verdict = self._blame.broke(self._alone, brief and bool(self._flying or self._others))
        if verdict is None:
            return False
        if verdict.refuse is not None:
            self._refuse(verdict.refuse, verdict.say)
            return True
        topic = self._alone.what.removeprefix("PUBLISH ") if self._alone else ""
        if topic in self._ghosts:
            self._cleared(topic)
        if verdict.pipeline:
            self._held[verdict.pipeline] = time.monotonic() + verdict.wait
        log.error("mqtt: %s", verdict.say)
        return True

    def _forget(self) -> None:
        """The connection is gone: everything in flight is to be sent again."""
        client, self._client = self._client, None
        if client is not None:
            close(client)
        self._strike()
        self._flying.clear()
        self._others.clear()
        self._acks.forget()
        self._subscribed.clear()
        self._leaving.clear()
        self._clearing.clear()
        self._alone = None
        self.outbox.again(but=[suspect.record for suspect in self._blame.suspects.values()])

    def _connect(self) -> None:
        """Connect and wait for the CONNACK. Raises LinkError when the broker refuses, OSError when it cannot."""
        if self.broker.secure and time.time() < KNOWN_TIME:
            raise LinkError("the clock is not set yet, so no certificate can be checked; waiting for the time")
        self.broker.choose()
        self._reload.clear()
        self._attempt(v5=time.monotonic() >= self._old_until)

    def _attempt(self, v5: bool) -> None:
        """Connect by MQTT 5 or 3.1.1 to the address that was chosen; as `_connect`."""
        self._connack, self._kicked, self._parting = None, False, ""
        client = self.broker.client(self.client_id, v5)
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_disconnect = self._on_disconnect
        client.manual_ack_set(True)  # what a source does not take any more is for the next process
        client.max_inflight_messages_set(WINDOW + SPARE)
        client.will_set(f"{self.base}/{topics.STATUS}", b"offline", qos=1, retain=self._retain)
        deadline = time.monotonic() + self.broker.patience
        self.broker.connect(client)
        self._client = client
        while self._connack is None:
            if time.monotonic() > deadline:
                raise LinkError("the broker does not answer the connect")
            if not turn(client, self._wake_r, 0.2) and self._connack is None:
                why = self.broker.why(client)
                close(client)
                if why is None and v5:
                    self._mute += 1
                    if self._mute >= MUTE:
                        self._ask_in_3_1_1()
                        return
                raise LinkError(why or self.broker.closed)
        if self._connack.is_failure:
            name = self._connack.getName()
            if name == "Unsupported protocol version" and v5:
                close(client)
                self._attempt(v5=False)
                return
            if name == "Retain not supported" and self._retain:
                self._retain_nothing()
                close(client)
                self._attempt(v5)
                return
            if name == "QoS not supported":
                raise LinkError("the broker takes messages of QoS 0 only, which may be lost; allow QoS 1 there")
            raise LinkError(f"the broker refuses the connection: {name}; check [mqtt] username, password_file, cert")
        if v5:
            self._mute = self._answers = 0
        if not v5 and self.speaks != "3.1.1":
            where = f"{self.broker.host}:{self.broker.port}"
            log.warning("mqtt: %s does not speak MQTT 5; by 3.1.1 it may acknowledge what it denies", where)
        self.speaks = "5" if v5 else "3.1.1"

    def _ask_in_3_1_1(self) -> None:
        """Some old brokers close at MQTT 5 without a word, but so does a proxy without a broker behind it. The broker
        is believed to be old when it answers 3.1.1 ANSWERS times while it closes at 5 each time between them.
        """
        speaks = self.speaks
        try:
            self.speaks = "3.1.1"  # it is said once it is believed
            self._attempt(v5=False)
        except (LinkError, OSError):
            self._answers = 0
            raise
        finally:
            self.speaks = speaks
        self._answers += 1
        if self._answers < ANSWERS:
            raise LinkError("the broker closes at MQTT 5 and answers 3.1.1; asking again")
        log.warning("mqtt: it closes at each connect by MQTT 5 and answers 3.1.1, which is spoken for 10 minutes")
        self._old_until = time.monotonic() + OLD_S
        self._mute, self._answers = MUTE - 1, ANSWERS - 1
        self.speaks = "3.1.1"

    def _retain_nothing(self) -> None:
        """Such a broker would end the connection for each retained message; who comes later hears the next one."""
        if self._retain:
            where = f"{self.broker.host}:{self.broker.port}"
            log.warning("mqtt: %s retains nothing: status and states reach only who listens already", where)
        self._retain = False

    def _serve(self) -> None:
        """Publish and listen until the connection ends or we are to stop. Raises LinkError when it broke."""
        client = self._client
        assert client is not None
        self._blame.begin()
        self._idle_since, greeted = time.monotonic(), False
        if not self.budget.saving:
            with self._lock:
                self._to_say = dict.fromkeys(self._said)
        self._settled_at = time.monotonic() + SETTLE_S
        while True:
            if self._over() and not self._flying:
                self._farewell(client)
                return
            if self._stop.is_set() and time.monotonic() >= self._stop_by:
                self._farewell(client)
                return
            self._look_at_the_clock()
            if not self._idle:
                self._idle_since = time.monotonic()
            if self._reload.is_set() and (self._idle or time.monotonic() - self._reload_at > RELOAD_S):
                log.info("mqtt: connecting anew, with the secrets and certificates that are there now")
                return
            careful = self._careful = self._blame.careful()
            if not self._reload.is_set() and (not careful or (self._idle and self._blame.ready(self._idle_since))):
                self._alone = None
                if not greeted and self._free(f"{self.base}/{topics.STATUS}"):
                    self._publish_other(client, topics.STATUS, b"online", self._retain)
                    greeted = True
                if not (careful and self._others):
                    self._subscribe_new(client, 1 if careful else WINDOW)
                if not (careful and self._others):
                    self._say_new(client, 1 if careful else WINDOW)
                if not (careful and self._others):
                    self._send(client, 1 if careful else WINDOW)
                if careful and self._idle and time.monotonic() >= self._settled_at:
                    self._blame.calm()
            alive = turn(client, self._wake_r, 0.5 if not careful and not self._stop.is_set() else 0.05)
            self._strike()
            if not alive:
                if self._kicked:
                    raise LinkError("the session was taken over")
                raise LinkError("the connection was lost" + (self._parting and f": the broker says {self._parting}"))

    @property
    def _idle(self) -> bool:
        """Nothing is on its way."""
        return not self._flying and not self._others

    def _free(self, topic: str) -> bool:
        """Whether the broker is not known to end the connection at a publish on it."""
        return f"PUBLISH {topic}" not in self._blame.held

    def _publish_other(self, client: Client, tail: str, payload: bytes, retain: bool) -> int:
        """Publish what is no event; its packet id."""
        topic = f"{self.base}/{tail}"
        if retain:
            self._keep(self._noted | {topic})
        mid = client.publish(topic, payload, qos=1, retain=retain).mid
        self._on_its_way(mid, f"PUBLISH {topic}")
        return mid

    def _on_its_way(self, mid: int, what: str) -> None:
        self._others[mid] = what
        if self._careful:
            self._alone = Alone(what, None)

    def _arrived_other(self, mid: int) -> None:
        """The broker has acknowledged what is no event."""
        what = self._others.pop(mid, None)
        if mid in self._clearing:
            self._cleared(self._clearing.pop(mid))
        if what is not None:
            self._blame.passed(what)

    def _strike(self) -> None:
        """Tell the outbox what has arrived."""
        arrived, self._arrived = self._arrived, []
        if arrived:
            self.outbox.done(*arrived)
        if free := self._blame.freed():
            self.outbox.again(free)

    def _send(self, client: Client, most: int) -> None:
        room = min(most, self._room(SPARE))
        if room <= 0:
            return
        now = time.monotonic()
        self._held = {pipeline: until for pipeline, until in self._held.items() if until > now}
        suspect = self._blame.due()
        records = [suspect] if suspect is not None and self.budget.left > 0 else self._next(room)
        if not records and self._idle and self._blame.ready(self._idle_since):
            suspect = self._blame.due(idle=True)
            records = [suspect] if suspect is not None and self.budget.left > 0 else []
            self._careful = self._careful or bool(records)
        if suspect is not None and self.mqtt.ack:  # it may have been acknowledged meanwhile
            records = self._acks.unheard(records)
            if suspect not in records:
                self._blame.suspects.pop(suspect.seq, None)
        if records and self.mqtt.ack:
            self._acks.sending(records)
        if records:
            with gathered(client):
                for record in records:
                    self._publish(client, record)

    def _room(self, spare: int) -> int:
        """How many more packets the broker takes now, if `spare` of its limit (or all but one) are to stay free."""
        return max(1, self._most - spare) - len(self._flying) - len(self._others)

    def _next(self, room: int) -> list[Record]:
        """What is to be sent now."""
        kinds = self.budget.open(QUEUES)
        if not self.mqtt.ack:
            return self.outbox.take(room, kinds, self._held)
        self.outbox.again(self._acks.late())
        records = []
        if "alert" in kinds and time.monotonic() >= self._settled_at:
            flying = sum(record.kind == "alert" for record in self._flying.values())
            room_for_alerts = min(room, self._acks.room(flying))
            records = self._acks.unheard(self.outbox.take(room_for_alerts, ("alert",), self._held))
        others = tuple(kind for kind in kinds if kind != "alert")
        return records + self.outbox.take(room - len(records), others, self._held)

    def _publish(self, client: Client, record: Record) -> None:
        topic = f"{self.base}/{topics.events(record.pipeline)}"
        if self._too_large(topic, record.payload):
            self._refuse(record, self._limit)
            return
        if record.kind not in self.budget.open(QUEUES):  # those before it took the day's last bytes
            self.outbox.again([record])
            return
        payload = record.payload
        if record.seq > self.outbox.before:  # the others' times may be of another boot
            payload = self._clock.right(record.seq, payload)
        if self._careful:
            self._alone = Alone(f"PUBLISH {topic}", record)
        info = client.publish(topic, payload, qos=1)
        self._flying[info.mid] = record
        self.budget.spend(len(topic) + len(payload))

    def _say_new(self, client: Client, most: int = WINDOW) -> None:
        """Say and tell up to `most` of what waits, as far as the broker and the day's bytes take it now."""
        while most > 0 and self._room(1) > 0 and self.budget.left > 0:
            with self._lock:
                tail = next((tail for tail in self._to_say if self._free(f"{self.base}/{tail}")), "")
                if tail:
                    del self._to_say[tail]
                    payload, retain = self._said[tail], self._retain
                elif self._to_tell:
                    tail, payload = self._to_tell.popleft()
                    retain = False
                else:
                    self._clear(client, most)
                    return
            topic = f"{self.base}/{tail}"
            if self._too_large(topic, payload):
                if tail not in self._unsaid:
                    log.warning("mqtt: %s: %d bytes; %s", topic, len(payload), self._limit)
                self._unsaid.add(tail)
                continue
            self._publish_other(client, tail, payload, retain)
            self.budget.spend(len(topic) + len(payload))
            most -= 1

    def _clear(self, client: Client, most: int) -> None:
        """Clear up to `most` of what was retained for what nobody serves any more."""
        for topic in [topic for topic in self._ghosts if topic not in self._clearing.values()][:most]:
            if not self._retain or self._room(1) <= 0:
                return
            mid = client.publish(topic, b"", qos=1, retain=True).mid
            self._clearing[mid] = topic
            self._on_its_way(mid, f"PUBLISH {topic}")
            self.budget.spend(len(topic))

    def _cleared(self, topic: str) -> None:
        """It is, or the broker does not let us."""
        self._ghosts.remove(topic)
        self._keep(self._noted - {topic})

    @property
    def _noted(self) -> set[str]:
        return self._kept or set()

    def _keep(self, pattern: set[str]) -> None:
        """Note which topics are retained, before they are."""
        if pattern == self._kept:
            return
        self._kept = pattern
        with contextlib.suppress(OSError):  # a topic that is not noted may be retained in vain
            write_private(self._kept_file, msgspec.json.encode(sorted(pattern)))

    def _too_large(self, topic: str, payload: bytes) -> bool:
        """Whether the broker would end the connection for it; what stands around both is at most 16 bytes."""
        return self._largest is not None and len(topic.encode()) + len(payload) + 16 > self._largest

    @property
    def _limit(self) -> str:
        return f"the broker takes no packet above {self._largest} bytes"

    def _subscribe_new(self, client: Client, most: int) -> None:
        with self._lock:
            wanted = {pattern for pattern, *_ in self._receivers}
        self._note_session(self._session | wanted)
        fresh = [pattern for pattern in sorted(wanted - self._subscribed.keys()) if self._free_to_hear(pattern)]
        for pattern in fresh[:most]:
            self._subscribed[pattern] = mid = subscribe(client, pattern, self._numbered)
            self._on_its_way(mid, f"SUBSCRIBE {pattern}")
        gone = [] if fresh[most - 1 :] else sorted(self._session - wanted - set(self._leaving.values()))
        for pattern in [pattern for pattern in gone if self._free_to_hear(pattern, "UNSUBSCRIBE")][:most]:
            mid = client.unsubscribe(pattern)[1] or 0
            self._leaving[mid] = pattern
            self._on_its_way(mid, f"UNSUBSCRIBE {pattern}")
            self._subscribed.pop(pattern, None)

    def _free_to_hear(self, pattern: str, packet: str = "SUBSCRIBE") -> bool:
        """Whether the broker is not known to end the connection at it."""
        return f"{packet} {pattern}" not in self._blame.held

    def _note_session(self, session: set[str]) -> None:
        if session == self._session:
            return
        self._session = session
        # a filter that is not noted and not wanted any more is heard in vain, as long as the broker remembers it
        with contextlib.suppress(OSError):
            write_private(self._session_file, msgspec.json.encode(sorted(session)))

    def _farewell(self, client: Client) -> None:
        """Say what is left to say, then offline, and see it acknowledged before the connection is closed in order."""
        self._say_new(client)
        info = client.publish(f"{self.base}/{topics.STATUS}", b"offline", qos=1, retain=self._retain)
        deadline = time.monotonic() + 2
        # which raises where it could not even be sent
        with contextlib.suppress(RuntimeError, ValueError):
            while not info.is_published() and time.monotonic() < deadline:
                if not turn(client, self._wake_r, 0.05):
                    return

    # ── callbacks: note and return ───────────────────────────────────────────────────────────────────────

    def _on_connect(self, client: Any, _: Any, __: Any, reason: ReasonCode, properties: Any) -> None:
        self._connack = reason
        self._largest = getattr(properties, "MaximumPacketSize", None)
        self._numbered = bool(getattr(properties, "SubscriptionIdentifierAvailable", True))
        if not getattr(properties, "RetainAvailable", 1):
            self._retain_nothing()
        self._most = min(WINDOW + SPARE, getattr(properties, "ReceiveMaximum", WINDOW + SPARE))

    def _on_publish(self, client: Any, _: Any, mid: int, reason: ReasonCode, __: Any) -> None:
        self._arrived_other(mid)
        record = self._flying.pop(mid, None)
        if record is None:
            return
        if not reason.is_failure:
            self.sent += 1
            self._blame.acknowledged(record)
            if record.pipeline == AGENT:
                self._gap_wait = HOLD_S
            if self.mqtt.ack and record.kind == "alert":
                self._acks.sent(record)
            else:
                self._arrived.append(record)
            return
        name = reason.getName()
        self._blame.suspects.pop(record.seq, None)
        if name in _DENIED:
            self.outbox.again([record])
            self._held[record.pipeline] = time.monotonic() + HOLD_S
            topic = f"{self.base}/{topics.events(record.pipeline)}"
            why = f"the broker denies {topic}: {name}; trying again in {HOLD_S:.0f} s"
            if why != self.why:
                log.error("mqtt: %s", why)
            self.why = why
        else:
            self._refuse(record, f"the broker refuses it: {name}")

    def _refuse(self, record: Record, why: str) -> None:
        """Set an event aside and declare it; a declaration itself waits, for that of its own loss would fare no better.

        The wait begins with HOLD_S and doubles up to HOLD_MOST_S."""
        if record.pipeline != AGENT:
            self.outbox.refuse(record, why)
            return
        self.outbox.again([record])
        if AGENT not in self._held:
            wait, self._gap_wait = self._gap_wait, min(HOLD_MOST_S, 2 * self._gap_wait)
            self._held[AGENT] = time.monotonic() + wait
            log.error("mqtt: gap event %d: %s; trying again in %.0f s", record.seq, why, wait)

    def _on_message(self, client: Any, _: Any, message: MQTTMessage) -> None:
        if size := client.passed_over:
            client.passed_over = 0
            self.passed_over += 1
            if tenfold(self.passed_over):
                what = f"a message of {size} bytes was passed over ({self.passed_over} so far)"
                log.warning("mqtt: %.200r: %s; at most %d are taken in", message.topic, what, LARGEST)
            client.ack(message.mid, message.qos)
            return
        with self._lock:
            receivers = list(self._receivers)
        ours = message.topic.startswith(f"{self.base}/")
        taken = True
        for pattern, receive, retained, own in receivers:
            if not comes_for(pattern, message) or (ours and not own and pattern != message.topic):
                continue
            if message.retain and not retained:
                continue
            if retained and self._again(receive, message):
                continue
            try:
                taken = receive(message.topic, bytes(message.payload)) is not False and taken
            except Exception:  # a bug: it must not end the thread that all messages go through
                log.exception("mqtt: %s: %d bytes passed over", message.topic, len(message.payload))
        if taken:
            client.ack(message.mid, message.qos)

    def _again(self, receive: Receiver, message: MQTTMessage) -> bool:
        """Whether this is a retained text that was given before; 3.1.1 has them come with each subscription."""
        key, text = (receive, message.topic), hash(message.payload)
        retained, passing = self._given.pop(key, (None, None))
        self._given[key] = (text, passing) if message.retain else (retained, text)
        if len(self._given) > REMEMBERED:
            del self._given[next(iter(self._given))]
        return message.retain and text in (retained, passing)

    def signed(self, topic: str, payload: bytes, old_s: float) -> bytes:
        """What somebody signed at most `old_s` seconds ago who may; as it is where no keys are configured.

        Raises Unsigned."""
        return payload if self._signers is None else self._signers.open(topic, payload, old_s)

    def _on_ack(self, topic: str, payload: bytes) -> None:
        """A consumer has these: {"ids": ["DEVICE/EPOCH/SEQ", ...]}."""
        try:
            heard = names(self.signed(topic, payload, SESSION_S + AHEAD_S))
        except (*UNREADABLE, Unsigned) as error:
            self._not_acks += 1
            if tenfold(self._not_acks):
                why = f"{error}" if isinstance(error, Unsigned) else "is no acknowledgement"
                log.warning("mqtt: %.200r: %s (%d so far): %.80r", topic, why, self._not_acks, payload)
            return
        for name in heard:
            self._acks.heard(name, self._flying.values())

    def _on_subscribe(self, client: Any, _: Any, mid: int, reasons: list[ReasonCode], __: Any) -> None:
        """The broker sends what it kept for us before it answers this, so the acknowledgements that wait are here."""
        self._arrived_other(mid)
        for pattern in [pattern for pattern, sent in self._subscribed.items() if sent == mid]:
            if any(reason.is_failure for reason in reasons):
                log.error("mqtt: the broker denies the subscription of %s: %s", pattern, reasons[0].getName())
            if pattern == f"{self.base}/{topics.ACK}":
                self._settled_at = 0.0

    def _on_unsubscribe(self, client: Any, _: Any, mid: int, *__: Any) -> None:
        self._arrived_other(mid)
        pattern = self._leaving.pop(mid, None)
        if pattern is not None and pattern not in self._subscribed:  # nobody wanted it once more meanwhile
            self._note_session(self._session - {pattern})

    def _on_disconnect(self, client: Any, _: Any, flags: Any, reason: ReasonCode, ___: Any) -> None:
        self._kicked = self._kicked or reason.getName() == "Session taken over"
        if flags.is_disconnect_packet_from_server:
            self._parting = reason.getName()


def _read(file: Path) -> set[str]:
    """The topic filters in a file; none where it cannot be read."""
    with contextlib.suppress(OSError, *UNREADABLE):
        return set(msgspec.json.decode(file.read_bytes(), type=list[str]))
    return set()
