"""Whether the primary host application is online, as its STATE messages say."""

from __future__ import annotations

import msgspec

from edge_agent.events import UNREADABLE
from edge_agent.link import topics


class _State(msgspec.Struct, frozen=True):
    online: bool
    timestamp: int
    """milliseconds since 1970 UTC"""


class Host:
    """One host application; without a name it counts as online always. Of one thread."""

    def __init__(self, name: str | None) -> None:
        self.filters: tuple[str, ...] = topics.sparkplug_states(name) if name else ()
        """where it says it: in Sparkplug 3.0 JSON, and before that ONLINE or OFFLINE"""
        self.online = name is None
        self._at = -1
        """timestamp of the newest that was believed; -1: none in the form of 3.0 was"""

    def forget(self) -> None:
        """The connection is gone: it has to say so anew. An older word than the newest counts as little as before."""
        self.online = not self.filters

    def hear(self, topic: str, payload: bytes) -> None:
        """A message under one of `filters`. What is none of these words changes nothing."""
        if topic == self.filters[1]:
            if self._at < 0 and payload in (b"ONLINE", b"OFFLINE"):
                self.online = payload == b"ONLINE"
            return
        try:
            state = msgspec.json.decode(payload, type=_State)
        except UNREADABLE:
            return
        if state.timestamp >= self._at:
            self._at, self.online = state.timestamp, state.online
