"""What the consumer has acknowledged, and what is still to be: the link's account of the alerts it sent.

Of one thread, the link's. A name is an event's id, DEVICE/EPOCH/SEQ.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from edge_agent.entries import Record
from edge_agent.outbox import Outbox

ACK_WINDOW = 12
"""alerts sent and not yet acknowledged by the consumer, or not yet noted on disk as that: a kill repeats these"""
PATIENT_S = 15.0
"""seconds that the consumer's acknowledgement keeps further alerts back; it may be away for long"""
AWAITED = 1000
"""alerts that the broker has and the consumer has not acknowledged; then further alerts wait on disk"""
ACK_S = (30.0, 900.0)
"""seconds, first and longest wait for a consumer's acknowledgement before an alert is sent again"""
EARLY = 4096
"""acknowledgements kept of alerts that this process has not sent: they were sent before it was killed"""
MOST = 128 * 1024
"""bytes of an acknowledgement that are looked at"""


class _Ack(msgspec.Struct):
    ids: list[str]


def names(payload: bytes) -> list[str]:
    """The ids in {"ids": ["DEVICE/EPOCH/SEQ", ...]}. Raises one of UNREADABLE (types.py)."""
    return msgspec.json.decode(payload[:MOST], type=_Ack).ids


@dataclass(frozen=True, slots=True)
class _Waiting:
    record: Record
    since: float
    until: float
    """monotonic"""


class Acks:
    """The alerts that the broker has and the consumer has not acknowledged."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._waiting: dict[str, _Waiting] = {}
        self._tries: dict[str, int] = {}
        self._early: dict[str, None] = {}
        self._faster: set[str] = set()
        """heard of before the broker acknowledged them"""

    def sent(self, record: Record) -> None:
        """The broker has it: wait for the consumer, longer with each try, unless that was faster."""
        name = self.outbox.name(record)
        if name in self._faster:
            self._faster.remove(name)
            return
        tries = self._tries[name] = self._tries.get(name, -1) + 1
        now = time.monotonic()
        self._waiting[name] = _Waiting(record, now, now + min(ACK_S[1], ACK_S[0] * 2.0**tries))

    def heard(self, name: str, flying: Iterable[Record]) -> None:
        """The consumer has it: strike it off, or remember that when it was sent before this process was killed.

        `flying`: what the broker has not acknowledged yet; the consumer may be faster.
        """
        waiting = self._waiting.pop(name, None)
        record = waiting.record if waiting else next((r for r in flying if self.outbox.name(r) == name), None)
        if record is not None and waiting is None:
            self._faster.add(name)
        self._tries.pop(name, None)
        if record is not None:
            self.outbox.done(record)
        elif name.startswith(self.outbox.prefix) and name.removeprefix(self.outbox.prefix).isdecimal():
            if int(name.removeprefix(self.outbox.prefix)) <= self.outbox.last:
                self._early[name] = None
            if len(self._early) > EARLY:
                del self._early[next(iter(self._early))]

    def unheard(self, records: list[Record]) -> list[Record]:
        """Those that are to be sent; those that the consumer has already are struck off."""
        if not self._early:
            return records
        had = [record for record in records if self._early.pop(self.outbox.name(record), self) is None]
        for record in had:
            self.outbox.done(record)
        return [record for record in records if record not in had]

    def room(self, flying: int) -> int:
        """How many alerts may be sent without a kill repeating more than ACK_WINDOW, while the consumer answers.

        `flying`: alerts that the broker has not acknowledged.
        """
        if len(self._waiting) >= AWAITED:
            return 0
        begin = time.monotonic() - PATIENT_S
        fresh = sum(waiting.since > begin for waiting in self._waiting.values())
        return max(0, ACK_WINDOW - fresh - flying - self.outbox.unnoted)

    def late(self) -> list[Record]:
        """The alerts that no consumer acknowledged in time; they are to be sent again."""
        now = time.monotonic()
        late = [name for name, waiting in self._waiting.items() if now >= waiting.until]
        return [self._waiting.pop(name).record for name in late]

    def forget(self) -> None:
        """The connection is gone: what waited is to be sent again."""
        self._waiting.clear()
        self._faster.clear()

    def __len__(self) -> int:
        return len(self._waiting)
