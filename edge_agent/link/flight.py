"""What is on its way to the broker: sent, and not yet acknowledged."""

from __future__ import annotations

import time
from typing import NamedTuple

from edge_agent.link.blame import Alone, Blame, Verdict
from edge_agent.link.pace import MOST, Pace
from edge_agent.link.wire import Client
from edge_agent.outbox.entries import Record

WINDOW = MOST
"""events sent and not yet acknowledged"""
SPARE = 2
"""packets beside the events' window: for what is said and told while it is full"""


class Limits(NamedTuple):
    """What the broker takes, as it says when it lets us in (MQTT 5.0 section 3.2.2.3)."""

    packets: int = WINDOW + SPARE
    """that are not acknowledged (Receive Maximum)"""
    size: int | None = None
    """bytes of a packet; None: it did not say"""
    retains: bool = True
    """whether it keeps what is to be retained"""
    numbered: bool = True
    """whether a message may name the subscriptions that it comes for"""


class Flight:
    """The packets on their way over the present connection, and which of them is to blame should it end.

    Of one thread, the link's: as it alone publishes, a packet and its id are remembered without a lock.
    """

    def __init__(self) -> None:
        self.limits = Limits()
        self.blame = Blame()
        self.pace = Pace()
        self.events: dict[int, Record] = {}
        """packet id -> the event in it"""
        self.others: dict[int, str] = {}
        """packet id of what is no event -> what it is, e.g. `PUBLISH edge/v1/porch/status`"""
        self.careful = False
        """everything is sent one by one"""
        self._alone: Alone | None = None
        """what is on its way then"""
        self._idle_since = 0.0
        """monotonic time since which nothing is on its way"""

    def begin(self, limits: Limits) -> None:
        """A new connection."""
        self.limits = limits
        self.blame.begin()
        self.pace.begin()
        self._idle_since = time.monotonic()

    def clear(self) -> None:
        """The connection is gone."""
        self.events.clear()
        self.others.clear()
        self._alone = None

    @property
    def idle(self) -> bool:
        """Nothing is on its way."""
        return not self.events and not self.others

    @property
    def rested(self) -> bool:
        """Nothing is on its way, and has not been for long enough that what is sent now is alone."""
        return self.idle and self.blame.ready(self._idle_since)

    def look(self) -> None:
        """Notice whether something is on its way; to be called between two packets."""
        if not self.idle:
            self._idle_since = time.monotonic()

    def may_send(self) -> bool:
        """Whether more may be sent now; where things go one by one, only once nothing is on its way."""
        self.careful = self.blame.careful()
        if self.careful and not self.rested:
            return False
        self._alone = None
        return True

    def room(self, spare: int) -> int:
        """How many more packets the broker takes now, if `spare` of its limit (or all but one) are to stay free."""
        return max(1, self.limits.packets - spare) - len(self.events) - len(self.others)

    def room_for_events(self) -> int:
        """How many more events the broker takes now."""
        return min(self.room(SPARE), self.pace.room())

    def too_large(self, topic: str, payload: bytes) -> bool:
        """Whether the broker would end the connection for it; what stands around both is at most 16 bytes."""
        return self.limits.size is not None and len(topic.encode()) + len(payload) + 16 > self.limits.size

    @property
    def limit(self) -> str:
        """What to say of what is too large."""
        return f"the broker takes no packet above {self.limits.size} bytes"

    def free(self, what: str) -> bool:
        """Whether the broker is not known to end the connection at it."""
        return what not in self.blame.held

    def publish_event(self, client: Client, topic: str, payload: bytes, record: Record) -> None:
        """Send an event."""
        if self.careful:
            self._alone = Alone(f"PUBLISH {topic}", record)
        mid = client.publish(topic, payload, qos=1).mid
        self.events[mid] = record
        self.pace.sent(mid)

    def publish(self, client: Client, topic: str, payload: bytes, retain: bool) -> int:
        """Send what is no event; its packet id."""
        mid = client.publish(topic, payload, qos=1, retain=retain).mid
        self.went(mid, f"PUBLISH {topic}")
        return mid

    def went(self, mid: int, what: str) -> None:
        """A packet was sent that is no event."""
        self.others[mid] = what
        if self.careful:
            self._alone = Alone(what, None)

    def answered(self, mid: int) -> Record | None:
        """The broker has answered a packet; the event in it, where it held one."""
        what = self.others.pop(mid, None)
        if what is not None:
            self.blame.passed(what)
        self.pace.answered(mid)
        return self.events.pop(mid, None)

    def broke(self, brief: bool) -> tuple[Verdict | None, str]:
        """What follows from the end of the connection, and the topic that was on its way alone. `brief`: it was."""
        topic = self._alone.what.removeprefix("PUBLISH ") if self._alone else ""
        return self.blame.broke(self._alone, brief and not self.idle), topic
