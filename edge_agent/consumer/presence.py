"""Which devices are there? A consumer's rule, as a retained `online` alone does not tell.

The broker says `offline` for a device whose connection breaks. A node of a cluster that dies says nothing for those
that were connected to it, so their `online` stays; and a node that notices late says `offline` of a device that is long
connected elsewhere. So:

- What was said last on DEVICE/status counts, `online` or `offline`.
- Any message of the device that comes live after an `offline` means that it is online.
- `online` is stale once nothing came for STALE times `every_s` of its health (30 s, 3,600 s on a metered link). What
  was retained says when that was by its `at`; where that lies in the future, it counts from when it was heard.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Literal

import msgspec

from edge_agent.events import UNREADABLE
from edge_agent.link import topics

STALE = 3.0
"""times the seconds between two words about its health, after which a silent device is taken to be gone"""
EVERY_S = 30.0
"""these seconds, of a device that does not say"""


class _Health(msgspec.Struct):
    at: str = ""
    every_s: float = EVERY_S


class Device(msgspec.Struct):
    """What is known of one."""

    name: str
    said: str = ""
    """online, offline, or nothing yet"""
    heard: float = 0.0
    """when it gave its last sign of life, seconds since 1970; 0: never"""
    every_s: float = EVERY_S

    def is_(self, now: float) -> Literal["online", "offline", "stale"]:
        """What it is, `now` in seconds since 1970."""
        if self.said == "offline" or not self.heard:
            return "offline"
        return "stale" if now - self.heard > STALE * self.every_s else "online"


class Presence:
    """Hand it each message; ask for the devices at any time."""

    def __init__(self, prefix: str, clock: Callable[[], float] = time.time) -> None:
        self._head, self._clock = f"{prefix}/", clock
        self.devices: dict[str, Device] = {}

    def add(self, topic: str, payload: bytes, retained: bool) -> None:
        """`retained`: said before we listened. What stands under no device's name or is meant for one counts not."""
        name, _, tail = topic.removeprefix(self._head).partition("/")
        if not topic.startswith(self._head) or not _is_said_by(name, tail):
            return
        device = self.devices.setdefault(name, Device(name))
        now = self._clock()
        if tail == topics.STATUS:
            device.said = "online" if payload == b"online" else "offline"
            if device.said == "online" and not retained:
                device.heard = now
            return
        if tail == topics.HEALTH:
            self._health(device, payload, retained, now)
        if not retained:
            device.heard, device.said = now, "online"

    def _health(self, device: Device, payload: bytes, retained: bool, now: float) -> None:
        try:
            health = msgspec.json.decode(payload, type=_Health)
            device.every_s = min(86_400.0, max(1.0, health.every_s))
            at = datetime.fromisoformat(health.at.replace("Z", "+00:00")).timestamp() if retained else now
        except (*UNREADABLE, ValueError):
            at = now
        device.heard = max(device.heard, at if at <= now else now)

    def rows(self) -> list[dict[str, object]]:
        """One a device: its name, what it is, and the seconds since it was heard of; None: never."""
        now = self._clock()
        return [
            {
                "device": one.name,
                "is": one.is_(now),
                "heard_s": round(now - one.heard, 1) if one.heard else None,
                "every_s": one.every_s,
            }
            for one in sorted(self.devices.values(), key=lambda one: one.name)
        ]


def _is_said_by(name: str, tail: str) -> bool:
    """Whether a topic is one of a device that speaks."""
    return bool(tail) and not name.startswith("_") and tail.split("/")[0] not in topics.FOR_DEVICES  # _groups is none
