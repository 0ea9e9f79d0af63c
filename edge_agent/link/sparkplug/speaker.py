"""What the node says over one connection: births, data and deaths, in the order and with the numbers of Sparkplug B."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from edge_agent.events import Event
from edge_agent.link.sparkplug.metrics import Table, of_event, of_health, of_state
from edge_agent.link.sparkplug.payload import BOOLEAN, INT64, Metric, Value, encode
from edge_agent.outbox.entries import AGENT

REBIRTH = "Node Control/Rebirth"
SLOW_S = 10.0
"""seconds at least between two of the numbers that change by themselves, such as of samples"""
LONGEST = 128_000
"""bytes of a payload, where the broker says nothing else"""
DOWN = ("starting", "stalled", "hung", "reconnecting", "paused", "ended", "stopped")
"""conditions of a stream in which nothing comes of it: its device is dead then, in Sparkplug's words"""


class Seen(NamedTuple):
    """What there is to say beside the events."""

    health: Mapping[str, Any]
    """of the device, as its JSON"""
    lines: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
    """pipeline -> its state and its counts, as their JSON"""


Publish = Callable[[str, str, bytes], object]
"""(kind of message, device or "", payload)"""


class Speaker:
    """Numbers and encodes what is sent at the moment in which it is sent. Of one thread."""

    def __init__(self, publish: Publish, look: Callable[[], Seen]) -> None:
        """`look`: what there is to say now."""
        self._publish, self._look = publish, look
        self.longest = LONGEST
        """bytes of a payload that the broker takes at most"""
        self._seq = 0
        self._aliases: dict[tuple[str, str], int] = {}
        self._node = Table(self._aliases)
        self._devices: dict[str, Table] = {}
        self._slow_at = 0.0
        """monotonic time from which numbers that change by themselves are said again"""
        self.bdseq = -1
        """of the present connection"""

    def death(self) -> bytes:
        """The payload of the node's death."""
        return encode(_now(), [Metric(self.bdseq, _now(), "bdSeq", None, INT64)], None)

    # ── births and deaths ────────────────────────────────────────────────────────────────────────────────

    def birth(self, latest: Mapping[str, Mapping[str, Event]] | None = None) -> None:
        """Declare the node and all its devices that are alive.

        `latest`: pipeline -> kind -> the newest event, where they are news.
        """
        seen, at = self._look(), _now()
        self._seq = -1
        self._node.born = False
        controls = [Metric(self.bdseq, at, "bdSeq", None, INT64), Metric(False, at, REBIRTH, None, BOOLEAN)]
        self._declare("NBIRTH", "", self._node, of_health(seen.health), at, controls)
        for table in self._devices.values():
            table.born = False
        for name, (state, counts) in seen.lines.items():
            table = self._table(name)
            for event in sorted((latest or {}).get(name, {}).values(), key=_at):
                values = self._short(of_event(event, table.names))
                table.learn(values, _at(event))
                table.data(values, _at(event))
            if state["stream"] not in DOWN:
                self._declare("DBIRTH", name, table, of_state(state, counts, table.names), at)

    def _declare(
        self, kind: str, name: str, table: Table, values: Mapping[str, Value], at: int, more: list[Metric] | None = None
    ) -> None:
        table.learn(values, at)
        self._send(kind, name, [*table.birth(values, at), *(more or [])])

    def _table(self, name: str) -> Table:
        return self._devices.setdefault(name, Table(self._aliases, name))

    # ── data ─────────────────────────────────────────────────────────────────────────────────────────────

    def event(self, event: Event, historical: bool) -> None:
        """Send one event."""
        at = _at(event)
        if event.pipeline == AGENT:
            kind, name, table = "NDATA", "", self._node
        else:
            kind, name, table = "DDATA", event.pipeline, self._table(event.pipeline)
        values = self._short(of_event(event, table.names))
        if table.learn(values, at) or not table.born:
            self._anew(name, table)
        if metrics := table.past(values, at) if historical else table.data(values, at):
            self._send(kind, name, metrics)

    def _short(self, values: dict[str, Value]) -> dict[str, Value]:
        """Without the JSON where that takes more than half of what the broker takes."""
        whole = str(values["event/json"])
        return values if len(whole.encode()) <= self.longest // 2 else values | {"event/json": ""}

    def _anew(self, name: str, table: Table) -> None:
        """Declare the node or a device once more: it has more metrics than were declared, or was dead."""
        if not name:
            self.birth()
            return
        state, counts = self._look().lines.get(name, ({}, {}))
        self._declare("DBIRTH", name, table, of_state(state, counts, table.names), _now())

    def changes(self, quiet: bool) -> None:
        """Send what has changed in the states and the health, and which devices are alive again.

        `quiet`: no event waits, so a pipeline that gives nothing any more is dead.
        """
        seen, at, slow = self._look(), _now(), time.monotonic() >= self._slow_at
        if slow:
            self._slow_at = time.monotonic() + SLOW_S
            self._changed("NDATA", "", self._node, of_health(seen.health), at)
        alive = {name for name, (state, _) in seen.lines.items() if state["stream"] not in DOWN}
        for name, (state, counts) in seen.lines.items():
            table = self._table(name)
            if table.born or name in alive:
                values = of_state(state, counts, table.names)
                self._changed("DDATA", name, table, values if slow or not table.born else _sudden(values), at)
        if quiet:
            self._bury(alive)

    def _bury(self, alive: set[str]) -> None:
        """Say of each device that is declared and not alive that it is dead."""
        for name, table in self._devices.items():
            if table.born and name not in alive:
                table.born = False
                self._send("DDEATH", name, [])

    def _changed(self, kind: str, name: str, table: Table, values: Mapping[str, Value], at: int) -> None:
        if table.learn(values, at) or not table.born:
            self._anew(name, table)
        elif metrics := table.data(values, at):
            self._send(kind, name, metrics)

    def _send(self, kind: str, name: str, metrics: list[Metric]) -> None:
        self._seq = (self._seq + 1) % 256
        self._publish(kind, name, encode(_now(), metrics, self._seq))


def _sudden(values: Mapping[str, Value]) -> dict[str, Value]:
    """Those that do not change by themselves all the time, as the numbers of a state do."""
    return {
        name: value for name, value in values.items() if isinstance(value, bool | str) or not name.startswith("state/")
    }


def _now() -> int:
    return int(time.time() * 1000)


def _at(event: Event) -> int:
    """When its sample was taken, milliseconds since 1970 UTC."""
    return int(datetime.fromisoformat(event.at.replace("Z", "+00:00")).timestamp() * 1000)
