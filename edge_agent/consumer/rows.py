"""What is kept of an event: a row with the columns that people search by, and the event as it came."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Annotated, Any, NamedTuple

import msgspec

from edge_agent.events import UNREADABLE

Name = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}\Z")]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
NUL, INSTEAD = "\\u0000", "\\ufffd"
"""a character that no database takes in a text, as JSON writes it, and what stands for it"""


class _Event(msgspec.Struct):
    """What every event has."""

    device: Name
    epoch: Number
    seq: Number
    pipeline: Name
    kind: Name
    at: datetime


class Row(NamedTuple):
    """One event. Its key is device, epoch and seq."""

    device: str
    epoch: int
    seq: int
    at: datetime
    """with a time zone, UTC"""
    pipeline: str
    kind: str
    bytes: int
    """of the message"""
    body: str
    """the JSON as it came"""

    @property
    def key(self) -> tuple[str, int, int]:
        """The same for every copy of an event."""
        return self.device, self.epoch, self.seq


class Odd(NamedTuple):
    """A message that is no event of ours, or that the database does not take; it is kept apart."""

    payload: bytes
    why: str


class Message(NamedTuple):
    """What a feed hands over."""

    payload: bytes
    number: int
    """in the stream; 0 where there is none"""
    handle: Any
    """by which the feed acknowledges it"""


def row_of(payload: bytes) -> Row | Odd:
    """A message as a row."""
    try:
        event = msgspec.json.decode(payload, type=_Event)
        at = event.at.replace(tzinfo=event.at.tzinfo or timezone.utc).astimezone(timezone.utc)
        body = payload.decode().replace(NUL, INSTEAD)
        body.encode()
        return Row(event.device, event.epoch, event.seq, at, event.pipeline, event.kind, len(payload), body)
    except (*UNREADABLE, OverflowError) as error:
        return Odd(payload, str(error).splitlines()[0][:200] if str(error) else type(error).__name__)


def sorted_rows(messages: Iterable[Message]) -> tuple[list[Row], list[Odd]]:
    """Each event once, by its key, so that writers that meet wait for each other in one order; and what is none."""
    found = [row_of(message.payload) for message in messages]
    rows = {row.key: row for row in found if isinstance(row, Row)}
    return [rows[key] for key in sorted(rows)], [odd for odd in found if isinstance(odd, Odd)]
