"""What the consumer has acknowledged, and what is still to be: the link's account of the alerts it sent.

Of one thread, the link's. A name is an event's id, DEVICE/EPOCH/SEQ.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from edge_agent.files import write_private
from edge_agent.outbox.entries import Record
from edge_agent.outbox.outbox import Outbox
from edge_agent.outbox.segments import ack_entry, read_acks

ACK_WINDOW = 12
"""alerts sent and not yet acknowledged by the consumer, or not yet noted on disk as that: a kill repeats these"""
PATIENT_S = 15.0
"""seconds that the consumer's acknowledgement keeps further alerts back; it may be away for long"""
AWAITED = 1000
"""alerts that the broker has and the consumer has not acknowledged; then further alerts wait on disk"""
ACK_S = (30.0, 900.0)
"""seconds, first and longest wait for a consumer's acknowledgement before an alert is sent again"""
MOST = 128 * 1024
"""bytes of an acknowledgement that are looked at"""
MOST_SENT = 8192
"""alerts that are remembered as sent and not yet acknowledged; AWAITED and a lost connection's are far fewer"""
SLACK = 1024
"""entries of the file of these that may be of no use any more"""


_NUMBER = re.compile("[0-9]{1,19}")


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


class _Sent:
    """Which alerts were ever sent and are not acknowledged, in a file: only these can have reached a consumer.

    It is written before they are sent, so that a killed process leaves it whole; a power cut may take the last of it,
    which costs duplicates. Its entries are those of an .ack file, the first one of them the store's epoch.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._path, self._epoch = outbox.path / "sent", outbox.epoch
        entries = list(read_acks(self._path))
        self._entries = len(entries)
        self._seqs = set(entries[1:]) if entries[:1] == [self._epoch] else set[int]()
        if not self._seqs:
            self._entries = SLACK * 2  # write it anew

    def __contains__(self, seq: int) -> bool:
        return seq in self._seqs

    def add(self, seqs: Iterable[int]) -> None:
        fresh = [seq for seq in seqs if seq not in self._seqs]
        if not fresh:
            return
        self._seqs.update(fresh)
        while len(self._seqs) > MOST_SENT:
            self._seqs.discard(min(self._seqs))
        with contextlib.suppress(OSError):  # remembered by this process alone
            if self._entries + len(fresh) > len(self._seqs) + SLACK:
                new = self._path.with_suffix(".new")
                write_private(new, b"".join(map(ack_entry, [self._epoch, *sorted(self._seqs)])))
                new.replace(self._path)
                self._entries = 1 + len(self._seqs)
            else:
                write_private(self._path, b"".join(map(ack_entry, fresh)), append=True)
                self._entries += len(fresh)

    def discard(self, seq: int) -> None:
        self._seqs.discard(seq)


class Acks:
    """The alerts that the broker has and the consumer has not acknowledged."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._sent = _Sent(outbox)
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
            self._done(record)
            return
        number = name.startswith(self.outbox.prefix) and _NUMBER.fullmatch(name, len(self.outbox.prefix))
        if number and int(number[0]) in self._sent:  # any other is a stranger's guess
            self._early[name] = None

    def _done(self, record: Record) -> None:
        self._sent.discard(record.seq)
        self.outbox.done(record)

    def sending(self, records: Iterable[Record]) -> None:
        """These are about to be sent."""
        self._sent.add(record.seq for record in records if record.kind == "alert")

    def unheard(self, records: list[Record]) -> list[Record]:
        """Those that are to be sent; those that the consumer has already are struck off."""
        if not self._early:
            return records
        had = [record for record in records if self._early.pop(self.outbox.name(record), self) is None]
        for record in had:
            self._done(record)
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
