"""Which events of the archive are meant, and how they come out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Wanted(msgspec.Struct, frozen=True):
    """Which events are meant; what is left open does not matter."""

    since: float | None = None
    """seconds since 1970 UTC of the capture, from"""
    until: float | None = None
    """up to, without it"""
    pipelines: Sequence[str] = ()
    kinds: Sequence[str] = ()
    labels: Sequence[str] = ()
    """one of them is its label, or that of something in it; rules by name, too"""
    zones: Sequence[str] = ()
    """one of these zones or lines is named in it"""
    reviewed: bool | None = None


ALL = Wanted()


class Kept(msgspec.Struct, frozen=True):
    """An event in the archive."""

    number: int
    """grows with each event that is archived; never used again"""
    at: float
    """capture, seconds since 1970 UTC"""
    reviewed: bool
    text: str
    """its words, as they are searched"""
    event: msgspec.Raw
    """its JSON"""

    def body(self) -> dict[str, Any]:
        """The event as its JSON says it."""
        found: dict[str, Any] = msgspec.json.decode(self.event)
        return found


def where_of(wanted: Wanted) -> tuple[str, list[object]]:
    """The condition of a SELECT from `events`, and its values."""
    where, values = ["1"], list[object]()
    for column, sign, value in (
        ("at", ">=", wanted.since),
        ("at", "<", wanted.until),
        ("reviewed", "=", wanted.reviewed),
    ):
        if value is not None:
            where.append(f"events.{column} {sign} ?")
            values.append(value)
    for column, some in (("pipeline", wanted.pipelines), ("kind", wanted.kinds)):
        if some:
            where.append(f"{column} IN ({','.join('?' * len(some))})")
            values += some
    for what, some in (("label", wanted.labels), ("zone", wanted.zones)):
        if some:
            tagged = f"SELECT n FROM tags WHERE what = ? AND value IN ({','.join('?' * len(some))})"
            where.append(f"events.n IN ({tagged})")
            values += [what, *some]
    return " AND ".join(where), values
