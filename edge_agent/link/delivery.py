"""From the outbox to the broker: which events are sent now, and which of them have arrived."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge_agent.errors import tenfold
from edge_agent.events import UNREADABLE
from edge_agent.link import topics
from edge_agent.link.acks import Acks, names
from edge_agent.link.budget import Budget
from edge_agent.link.clock import Clock
from edge_agent.link.flight import Flight
from edge_agent.link.signing import AHEAD_S, Unsigned
from edge_agent.link.wire import SESSION_S, Client, ReasonCode, gathered
from edge_agent.outbox.entries import AGENT, QUEUES, Record
from edge_agent.outbox.outbox import Outbox

log = logging.getLogger("edge_agent")

HOLD_S = 30.0
"""seconds that a pipeline's events wait after the broker denied one (not authorized, quota): it may be mended there"""
HOLD_MOST_S = 3600.0
"""seconds at most that a gap event waits which the broker does not take"""
SETTLE_S = 2.0
"""seconds at most that alerts wait, after a reconnect, for the acknowledgements that the broker kept meanwhile"""

_DENIED = {"Not authorized", "Quota exceeded", "Unspecified error", "Implementation specific error"}
"""v5 reasons that may pass; others (invalid topic, bad payload) will not, and the event is set aside"""


class Delivery:
    """Takes events from the outbox only while connected, and strikes off what has arrived. Of one thread, the link's.

    An event has arrived when the broker has acknowledged it; where `ack` is set, an alert when the consumer has.
    """

    def __init__(self, outbox: Outbox, budget: Budget, flight: Flight, base: str, ack: bool) -> None:
        self.outbox, self.budget, self.flight, self.base = outbox, budget, flight, base
        self.acks = Acks(outbox) if ack else None
        self.sent = 0
        """events that the broker has acknowledged"""
        self.settled_at = 0.0
        """monotonic time from which alerts are sent: the acknowledgements from before a reconnect are to come first"""
        self.gap_wait = HOLD_S
        """seconds that the next gap event waits which the broker does not take"""
        self.not_acks = 0
        """messages that were to be acknowledgements and are none"""
        self._arrived: list[Record] = []
        """what the broker has acknowledged since the outbox was last told"""
        self._held: dict[str, float] = {}
        """pipeline whose events the broker denies -> monotonic time from which they are tried again"""
        self._clock = Clock(outbox.encoding)

    def begin(self) -> None:
        """A new connection."""
        self.settled_at = time.monotonic() + SETTLE_S

    def forget(self) -> None:
        """The connection is gone: what was on its way and is not known to have arrived is to be sent again."""
        self.strike()
        if self.acks is not None:
            self.acks.forget()
        self.outbox.again(but=[suspect.record for suspect in self.flight.blame.suspects.values()])

    def look_at_the_clock(self) -> None:
        """Notice when it is set."""
        if (jump := self._clock.notice(self.outbox.last)) > 0:
            self.outbox.clock_set(jump)

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, client: Client, most: int) -> None:
        """Send up to `most` events, as far as the broker and the day's bytes take them now."""
        room = min(most, self.flight.room_for_events())
        if room <= 0:
            return
        now = time.monotonic()
        self._held = {pipeline: until for pipeline, until in self._held.items() if until > now}
        records = self._due(room)
        if not records:
            return
        if self.acks is not None:
            self.acks.sending(records)
        with gathered(client):
            for record in records:
                self._publish(client, record)

    def _due(self, room: int) -> list[Record]:
        """What is to be sent now: a suspect whose turn it is, else what the outbox has, else a suspect."""
        suspect = self._suspect()
        records = [suspect] if suspect is not None else self._next(room)
        if not records and self.flight.rested:
            suspect = self._suspect(idle=True)
            records = [suspect] if suspect is not None else []
            self.flight.careful = self.flight.careful or bool(records)
        # it may have been acknowledged meanwhile
        if suspect is not None and self.acks is not None and not self.acks.unheard(records):
            self.flight.blame.suspects.pop(suspect.seq, None)
            return []
        return records

    def _suspect(self, idle: bool = False) -> Record | None:
        return self.flight.blame.due(idle) if self.budget.left > 0 else None

    def _next(self, room: int) -> list[Record]:
        """Up to `room` events out of the outbox, the alerts first."""
        kinds = self.budget.open(QUEUES)
        if self.acks is None:
            return self.outbox.take(room, kinds, self._held)
        self.outbox.again(self.acks.late())
        records = []
        if "alert" in kinds and time.monotonic() >= self.settled_at:
            flying = sum(record.kind == "alert" for record in self.flight.events.values())
            room_for_alerts = min(room, self.acks.room(flying))
            records = self.acks.unheard(self.outbox.take(room_for_alerts, ("alert",), self._held))
        others = tuple(kind for kind in kinds if kind != "alert")
        return records + self.outbox.take(room - len(records), others, self._held)

    def _publish(self, client: Client, record: Record) -> None:
        topic = self._topic(record)
        if self.flight.too_large(topic, record.payload):
            self.refuse(record, self.flight.limit)
            return
        if record.kind not in self.budget.open(QUEUES):  # those before it took the day's last bytes
            self.outbox.again([record])
            return
        payload = record.payload
        if record.seq > self.outbox.before:  # the others' times may be of another boot
            payload = self._clock.right(record.seq, payload)
        self.flight.publish_event(client, topic, payload, record)
        self.budget.spend(len(topic) + len(payload))

    def _topic(self, record: Record) -> str:
        return f"{self.base}/{topics.events(record.pipeline)}"

    # ── back ─────────────────────────────────────────────────────────────────────────────────────────────

    def answered(self, record: Record, reason: ReasonCode) -> str:
        """The broker has answered an event; why it denies it for now, one line, empty where it does not."""
        if not reason.is_failure:
            self._taken(record)
            return ""
        name = reason.getName()
        self.flight.blame.suspects.pop(record.seq, None)
        if name not in _DENIED:
            self.refuse(record, f"the broker refuses it: {name}")
            return ""
        self.outbox.again([record])
        self.hold(record.pipeline, HOLD_S)
        return f"the broker denies {self._topic(record)}: {name}; trying again in {HOLD_S:.0f} s"

    def _taken(self, record: Record) -> None:
        """The broker has it."""
        self.sent += 1
        self.flight.blame.acknowledged(record)
        if record.pipeline == AGENT:
            self.gap_wait = HOLD_S
        if self.acks is not None and record.kind == "alert":
            self.acks.sent(record)
        else:
            self._arrived.append(record)

    def strike(self) -> None:
        """Tell the outbox what has arrived."""
        arrived, self._arrived = self._arrived, []
        if arrived:
            self.outbox.done(*arrived)
        if free := self.flight.blame.freed():
            self.outbox.again(free)

    def hold(self, pipeline: str, seconds: float) -> None:
        """The events of a pipeline wait."""
        self._held[pipeline] = time.monotonic() + seconds

    def refuse(self, record: Record, why: str) -> None:
        """Set an event aside and declare it; a declaration itself waits, for that of its own loss would fare no better.

        The wait begins with HOLD_S and doubles up to HOLD_MOST_S."""
        if record.pipeline != AGENT:
            self.outbox.refuse(record, why)
            return
        self.outbox.again([record])
        if AGENT not in self._held:
            wait, self.gap_wait = self.gap_wait, min(HOLD_MOST_S, 2 * self.gap_wait)
            self.hold(AGENT, wait)
            log.error("mqtt: gap event %d: %s; trying again in %.0f s", record.seq, why, wait)

    def on_ack(self, topic: str, payload: bytes, opened: Callable[[str, bytes, float], bytes]) -> None:
        """A consumer has these: {"ids": ["DEVICE/EPOCH/SEQ", ...]}. `opened`: see Link.signed."""
        assert self.acks is not None
        try:
            heard = names(opened(topic, payload, SESSION_S + AHEAD_S))
        except (*UNREADABLE, Unsigned) as error:
            self.not_acks += 1
            if tenfold(self.not_acks):
                why = f"{error}" if isinstance(error, Unsigned) else "is no acknowledgement"
                log.warning("mqtt: %.200r: %s (%d so far): %.80r", topic, why, self.not_acks, payload)
            return
        for name in heard:
            self.acks.heard(name, self.flight.events.values())
