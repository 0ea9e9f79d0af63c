"""The node's connection: a second one beside the link's, since a connection has one will and Sparkplug's is its own.

Data of Sparkplug go with QoS 0, which nobody acknowledges. So what waits to be sent has a store of its own, bounded,
and is struck off it once the broker has answered something that was sent behind it: a subscription that it has already.
The events in JSON, with numbers and acknowledgements, are not touched by any of this.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.config import Mqtt, Sparkplug
from edge_agent.errors import ConfigError, LinkError
from edge_agent.events import JSON, UNREADABLE, Encoding, Event
from edge_agent.files import write_private
from edge_agent.link import topics
from edge_agent.link.broker import Broker, Pauses, said
from edge_agent.link.budget import Budget
from edge_agent.link.connect import Connector, Will, client_id
from edge_agent.link.sparkplug.host import Host
from edge_agent.link.sparkplug.payload import asked
from edge_agent.link.sparkplug.speaker import LONGEST, REBIRTH, Seen, Speaker
from edge_agent.link.wire import Client, MQTTMessage, ReasonCode, Wake, close, gathered, subscribe, turn
from edge_agent.outbox.entries import QUEUES, Record
from edge_agent.outbox.outbox import Outbox

log = logging.getLogger("edge_agent")

WINDOW = 200
"""events that are sent until the broker has to answer"""
PROOF_S = 1.0
"""seconds between two times that it is asked to: what was sent since is sent again if the connection is lost"""
LOOK_S = 1.0
"""seconds between two looks at the states"""
REBIRTH_S = 1.0
"""seconds at least between two births that were asked for"""
LASTING_S = 10.0
"""seconds that a connection lasts after which the next one is tried soon"""
FAREWELL_S = 2.0
"""seconds at most that the broker is waited for to take the node's death"""


class _Kept(Event, frozen=True, kw_only=True, tag="kept"):
    """An event as it was kept for JSON: the store gives numbers of its own, which are not to become the event's."""

    body: bytes


_AS_KEPT = Encoding(lambda event: event.body if isinstance(event, _Kept) else JSON.encode(event), JSON.decode)


class Node:
    """Keeps the node connected, and says what becomes of it and its devices."""

    def __init__(
        self, spark: Sparkplug, mqtt: Mqtt, device: str, store: Path, look: Callable[[], Seen], budget: Budget
    ) -> None:
        """`store`: a folder; `look`: what is to be said beside the events; `budget`: bytes that may be sent a day.

        Raises an EdgeAgentError where the broker's address, a secret file or the folder is wrong; does not connect.
        """
        self._group, self._device, self._file = spark.group, device, store / "bdseq"
        self._budget = budget
        self._broker = Broker(mqtt)
        self._host = Host(spark.primary_host)
        self._commands = topics.sparkplug(spark.group, "NCMD", device)
        self.outbox = Outbox(store, device, spark.max_bytes, encoding=_AS_KEPT)
        """what waits to be sent this way"""
        self._latest: dict[str, dict[str, Event]] = {}
        """pipeline -> kind -> the newest event"""
        self._current: dict[str, int] = {}
        """pipeline -> the store's number of its newest event"""
        self._old: dict[str, int] = {}
        """the same when the present connection was made: up to there events are history"""
        self._wake, self._stop, self._stop_by = Wake(), threading.Event(), 0.0
        self._speaker = Speaker(self._publish, look)
        self._speaker.bdseq = self._last_bdseq()
        name = f"{client_id(mqtt, device)}-sparkplug"
        self._connector = Connector(self._broker, name, self._will, self._wake.watched, kept=False)
        self._client: Client | None = None
        self._numbered = True
        """whether the broker tells which subscriptions a message comes for"""
        self._forget()
        self.why = "not yet connected"
        """why it is not connected, one line; empty while it is"""
        self.outbox.on_ready = self._wake
        self._thread = threading.Thread(target=self._run, name="sparkplug", daemon=True)

    def _forget(self) -> None:
        """The connection is gone."""
        client, self._client = self._client, None
        if client is not None:
            close(client)
        self._born, self._rebirth, self._born_at = False, False, 0.0
        self._open: set[int] = set()
        """packet ids of the subscriptions that the broker has not answered"""
        self._sent: list[Record] = []
        self._proof: tuple[int, list[Record]] | None = None
        """packet id of what the broker is to answer, and the events that have arrived then"""
        self._proof_at = self._look_at = 0.0
        """monotonic times of the next ones"""
        self._host.forget()
        self.outbox.again()

    # ── from other threads ───────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Connect and go on connecting, in the background."""
        self._thread.start()

    def keep(self, event: Event) -> None:
        """An event is to be sent; it is on disk within a second."""
        kept = self.outbox.put(_Kept(pipeline=event.pipeline, at=event.at, body=JSON.encode(event)), "telemetry")
        self._latest.setdefault(event.pipeline, {})[str(event.__struct_config__.tag)] = event
        self._current[event.pipeline] = kept.seq

    def stop(self, drain: float = 1.0) -> None:
        """Begin to end: send what is left for up to `drain` seconds, where it is connected, then say the death."""
        self._stop_by = time.monotonic() + drain
        self._stop.set()
        self._wake()

    def close(self) -> None:
        """After `stop`: wait for the end, and close the store."""
        if self._thread.is_alive():
            # one that is connecting may wait for long, and leaves nothing behind
            self._thread.join(self._stop_by - time.monotonic() + FAREWELL_S if self._born else 0.5)
        self.outbox.close()

    # ── one connection after the other ───────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        pauses = Pauses(self._broker.mqtt.longest_pause_s)
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._session()
            except (OSError, LinkError, ConfigError, ValueError, MemoryError) as error:
                if (why := said(error)) != self.why:
                    where = f"{self._broker.host}:{self._broker.port}"
                    log.warning("sparkplug: %s: %s; what is to be said waits", where, why)
                self.why = why
            except Exception:  # a bug: it must not end what the events in JSON need
                log.exception("sparkplug: it failed, and connects anew")
            if time.monotonic() > began + LASTING_S:
                pauses.restart()
            self._forget()
            if not self._broker.more:
                self._stop.wait(pauses.next())
        self._wake.close()

    def _last_bdseq(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._file.read_bytes())
        return -1

    def _will(self) -> Will:
        """The node's death, with the number of the connect that it is given with."""
        self._speaker.bdseq = (self._speaker.bdseq + 1) % 256
        with contextlib.suppress(OSError):  # the disk refuses: it goes on in memory
            write_private(self._file, b"%d" % self._speaker.bdseq)
        return Will(topics.sparkplug(self._group, "NDEATH", self._device), self._speaker.death(), retain=False)

    def _session(self) -> None:
        """Connect, and say what there is until the connection ends, the host goes, or we are to stop."""
        self._client, limits = self._connector.connect(self._prepare)
        client, self.why = self._client, ""
        self._broker.worked()
        self._numbered, self._speaker.longest = limits.numbered, min(LONGEST, limits.size or LONGEST)
        for filter_ in (self._commands, *self._host.filters):
            self._open.add(subscribe(client, filter_, limits.numbered))
        log.info("sparkplug: connected to %s:%d as %s", self._broker.host, self._broker.port, self._group)
        while not self._over():
            if self._born and not self._host.online:
                log.warning("sparkplug: the primary host is offline; what is to be said waits")
                break
            with gathered(client):
                self._say(client)
            if not turn(client, self._wake.watched, 0.05 if self._stop.is_set() else 0.5):
                raise LinkError("the connection was lost")
        self._farewell(client)

    def _prepare(self, client: Client) -> None:
        client.on_message, client.on_subscribe = self._on_message, self._on_subscribe

    def _over(self) -> bool:
        late = time.monotonic() >= self._stop_by
        return self._stop.is_set() and (late or not self._born or self.outbox.empty)

    def _farewell(self, client: Client) -> None:
        """Say the node's death, and see it acknowledged before the connection is closed in order."""
        if not self._born:
            return
        death = topics.sparkplug(self._group, "NDEATH", self._device)
        info = client.publish(death, self._speaker.death(), qos=1)
        deadline = time.monotonic() + FAREWELL_S
        with contextlib.suppress(RuntimeError, ValueError):  # where it could not even be sent
            while not info.is_published() and time.monotonic() < deadline:
                if not turn(client, self._wake.watched, 0.05):
                    return

    # ── what is said ─────────────────────────────────────────────────────────────────────────────────────

    def _say(self, client: Client) -> None:
        """Say what is due, as far as the broker, the host and the day's bytes let us."""
        if self._open or not self._host.online or self._budget.left <= 0 or client.want_write():
            return
        now = time.monotonic()
        if not self._declared(now):
            return
        quiet = self._send_events() == 0
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            if not self._budget.saving:
                self._speaker.changes(quiet)
        if self._proof is None and self._sent:
            self._prove(client, now)

    def _prove(self, client: Client, now: float) -> None:
        """Have the broker answer, if it is time: what was sent before has arrived then."""
        if now >= self._proof_at or self._stop.is_set() or not self._room:
            self._proof = subscribe(client, self._commands, self._numbered), self._sent
            self._sent, self._proof_at = [], now + PROOF_S

    def _declared(self, now: float) -> bool:
        """See that the births are said, also those that were asked for; False while no data may be said."""
        if not self._born:
            self._old = dict(self._current)
            self._speaker.birth({name: dict(kinds) for name, kinds in self._latest.items()})
            self._born, self._born_at, self._look_at = True, now, now + LOOK_S
        elif self._rebirth:
            if now < self._born_at + REBIRTH_S:
                return False
            self._rebirth, self._born_at = False, now
            self._speaker.birth()
        return True

    @property
    def _room(self) -> int:
        return WINDOW - len(self._sent) - len(self._proof[1] if self._proof else ())

    def _send_events(self) -> int:
        """Send what waits, the oldest first; how many."""
        records = self.outbox.take(max(0, self._room), self._budget.open(QUEUES))
        for at, record in enumerate(records):
            if record.kind not in self._budget.open(QUEUES):  # those before it took the day's last bytes
                self.outbox.again(records[at:])
                break
            try:
                event = JSON.decode(record.payload)
                self._speaker.event(event, record.seq <= self._old.get(record.pipeline, self.outbox.before))
            except UNREADABLE as error:  # of another version
                log.warning("sparkplug: an event of %s cannot be said: %s", record.pipeline, error)
                self.outbox.done(record)
                continue
            self._sent.append(record)
        return len(records)

    def _publish(self, kind: str, device: str, payload: bytes) -> None:
        """The speaker's way out: with QoS 0, not retained."""
        assert self._client is not None
        topic = topics.sparkplug(self._group, kind, self._device, device)
        self._client.publish(topic, payload, qos=0)
        self._budget.spend(len(topic) + len(payload))

    # ── callbacks: note and return ───────────────────────────────────────────────────────────────────────

    def _on_message(self, client: Any, _: Any, message: MQTTMessage) -> None:
        whole, client.passed_over = not client.passed_over, 0
        if whole and message.topic in self._host.filters:
            self._host.hear(message.topic, bytes(message.payload))
        elif whole and message.topic == self._commands and not message.retain:
            with contextlib.suppress(ValueError):  # no payload of Sparkplug
                self._rebirth = self._rebirth or REBIRTH in asked(bytes(message.payload))
        client.ack(message.mid, message.qos)

    def _on_subscribe(self, client: Any, _: Any, mid: int, reasons: list[ReasonCode], __: Any) -> None:
        self._open.discard(mid)
        if any(reason.is_failure for reason in reasons):
            log.error("sparkplug: the broker denies a subscription: %s; give this user the right", reasons[0].getName())
        if self._proof is not None and mid == self._proof[0]:
            arrived, self._proof = self._proof[1], None
            self.outbox.done(*arrived)
