"""Events are kept, then those who wait for them are told: each event of the agent goes this one way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from edge_agent.events import Event, RuleEvent
from edge_agent.outbox.outbox import Outbox

log = logging.getLogger("edge_agent")

Listener: TypeAlias = Callable[[Event], None]
"""Is told of an event once it is kept, on the thread that kept it: it returns at once, and leaves work to a thread of
its own."""


Filler: TypeAlias = Callable[[Event, str], Event]
"""Is given an event that is about to be kept, and its class, on the thread that keeps it; gives it back, perhaps with
the names of its pictures."""


class Keep:
    """The way of events into the outbox and past the listeners. May be called from any thread."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.fillers: list[Filler] = []
        """in their order; filled before the pipelines start"""
        self.listeners: list[Listener] = []
        """in the order in which they are told; filled before the pipelines start"""
        self.alerts: Callable[[str], bool] = lambda pipeline: True
        """whether the events of a pipeline may be alerts now; those of one whose may not are telemetry"""

    def put(self, event: Event, kind: str = "alert", mark: int | None = None) -> Event:
        """`Outbox.put`, then each listener is told of the event as it will be sent.

        A listener that fails is a bug, which is logged; the event is kept all the same. StoreError after the outbox
        was closed.
        """
        if kind == "alert" and not isinstance(event, RuleEvent) and not self.alerts(event.pipeline):
            kind = "telemetry"
        for fill in tuple(self.fillers):
            try:
                event = fill(event, kind)
            except Exception:
                log.exception("%s: a filler failed on an event, which is kept without", event.pipeline)
        kept = self.outbox.put(event, kind, mark)
        for listener in tuple(self.listeners):
            try:
                listener(kept)
            except Exception:
                log.exception("%s: a listener failed on this event, which is kept", kept.id)
        return kept
